"""A study's tables of what noise costs, and whether it costs one method more than another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from afterwit.runs.output.html import table
from afterwit.runs.studies.differences import LEVEL, Contrast, NoiseCost
from afterwit.runs.studies.tables import prose_table


def format_contrast(value: Contrast) -> str:
    """Return `+0.08 [-0.10, +0.25]`, without brackets if there is no interval."""
    if not math.isfinite(value.value):
        return "–"
    centre, low, high = (f"{round(float(number), 2) + 0.0:+.2f}" for number in value[:3])
    return f"{centre} [{low}, {high}]" if math.isfinite(value.low) else centre


def cost_table(costs: Sequence[NoiseCost]) -> str:
    """Return what each noise costs each method, in score, against itself without noise."""
    if not costs:
        return ""
    note = (
        "Mean score over all of training without noise, minus the same in the noise: 1 is all"
        " trackers in every episode. Brackets: 95% Welch intervals, one by one. Finished runs only."
        " A method that explores little without noise cannot lose much."
    )
    cells = grid(costs, lambda each: format_contrast(each.cost))
    return f"<h2>What each noise costs</h2><p class='note'>{note}</p>{cells}"


def grid(costs: Sequence[NoiseCost], text: Callable[[NoiseCost], str]) -> str:
    """Return a table with a row per noise and a column per method."""
    methods = list(dict.fromkeys(each.method for each in costs))
    found = {(each.world, each.method): text(each) for each in costs}
    worlds = dict.fromkeys(each.world for each in costs)
    return table(
        ["", *methods], [("", [w, *(found[w, method] for method in methods)]) for w in worlds]
    )


def difference_table(costs: Sequence[NoiseCost]) -> str:
    """Return by how much more each noise costs each method than it costs the reference."""
    others = [each for each in costs if each.method != each.reference]
    if not others:
        return ""
    reference, rows, before = others[0].reference, [], ""
    for each in others:
        first = each.world != before
        before = each.world
        p = each.corrected_p
        rows.append(
            (
                "first" if first else "",
                [
                    each.world if first else "",
                    each.method,
                    f"{each.runs} and {each.quiet_runs}",
                    format_contrast(each.more),
                    "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
                    each.words,
                    format_contrast(each.paired),
                ],
            )
        )
    count = sum(math.isfinite(each.corrected_p) for each in others)
    note = (
        f"The method's cost minus {reference}'s cost, in score. A lead that is as large without"
        " noise is 0 here. Brackets: the 95% Welch-Satterthwaite interval of this comparison alone,"
        f" four cells of independent runs. p: of the same t, with Holm's correction for all {count}"
        f" comparisons. The words follow the corrected p, below {LEVEL:g}; 'not shown' does not"
        " mean that there is no difference. Score over all of training, finished runs only. Runs of"
        " one seed may be alike: the last column pairs them, uncorrected, and decides nothing."
    )
    head = [
        "world",
        "method",
        "runs, with and without noise",
        "costs it more by",
        "p",
        "shown",
        "paired by seed",
    ]
    title = f"Does noise cost a method more than {reference}?"
    return f"<h2>{escape(title)}</h2><p class='note'>{escape(note)}</p>{prose_table(head, rows)}"
