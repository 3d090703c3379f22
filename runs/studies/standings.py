"""Standings: the methods of a study in the order of their mean score over its worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.runs.output.html import table
from afterwit.runs.studies.differences import NO_CONTRAST, Contrast, contrast, finished_scores
from afterwit.runs.studies.results import StudyLog

HEAD = ("method", "mean", "95% interval")


@dataclass(frozen=True)
class Standing:
    """A method's scores over all of training. Finished runs only."""

    method: str
    scores: dict[str, Array]
    """World -> score [runs], in the order of the seeds. A world without runs is left out."""
    overall: Contrast
    """The mean of its means in the common worlds. NaN if there are none."""


@dataclass(frozen=True)
class Standings:
    """The methods of a study that have finished runs, the best first."""

    worlds: tuple[str, ...]
    common: tuple[str, ...]
    """The worlds in which every method has a finished run. They make the order."""
    methods: tuple[Standing, ...]
    """In the order of their means; in the study's order if there is no common world."""


def standings(study: StudyLog) -> Standings | None:
    """Return the standings. None unless several methods have finished runs with a score."""
    scores: dict[str, dict[str, Array]] = {}
    for (world, method), found in finished_scores(study).items():
        if found:
            by_seed = [score for _, score in sorted(found.items())]
            scores.setdefault(method, {})[world] = np.array(by_seed)
    if len(scores) < 2:
        return None
    worlds = [world for world in study.worlds if any(world in found for found in scores.values())]
    common = tuple(world for world in worlds if all(world in found for found in scores.values()))
    rows = [
        Standing(method, scores[method], mean_over(scores[method], common))
        for method in study.methods
        if method in scores
    ]
    if common:
        rows.sort(key=lambda row: -row.overall.value)
    return Standings(tuple(worlds), common, tuple(rows))


def mean_over(scores: Mapping[str, Array], worlds: Sequence[str]) -> Contrast:
    """Return the mean of the means in `worlds`, over independent runs."""
    if not worlds:
        return NO_CONTRAST
    return contrast([scores[world] for world in worlds], [1 / len(worlds)] * len(worlds))


def cells(found: Standings) -> list[list[str]]:
    """Return text per method: its name, its mean with interval, and in each world every run."""
    rows = []
    for each in found.methods:
        mean, low, high, _ = each.overall
        between = f"{low:.2f} to {high:.2f}" if np.isfinite(low) else ""
        rows.append([each.method, f"{mean:.2f}" if np.isfinite(mean) else "", between])
        for world in found.worlds:
            runs = each.scores.get(world, np.empty(0))
            single = " ".join(f"{score:.2f}" for score in runs)
            rows[-1].append(f"{runs.mean():.2f} ({single})" if len(runs) else "")
    return rows


def standings_words(found: Standings) -> str:
    """Return the first methods in a sentence."""
    if not found.common:
        return "No world has been run with all methods yet."
    *first, last = [f"{each.method} {each.overall.value:.2f}" for each in found.methods]
    count = len(found.common)
    where = f"Mean score over {count} worlds" if count > 1 else f"Score in {found.common[0]}"
    return f"{where}: {', '.join(first[:4])}; the last is {last}."


def standings_markdown(found: Standings) -> str:
    """Return the standings as a table in Markdown, as docs/results/leaderboard.md has it."""
    rows = [[*HEAD, *found.worlds], ["---"] * (len(HEAD) + len(found.worlds))]
    rows += [[f"`{row[0]}`", *row[1:]] for row in cells(found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def standings_table(found: Standings) -> str:
    """Return the standings as HTML."""
    common = ", ".join(found.common)
    mean = f"the mean over {common}, which all methods have, then " if common else ""
    note = (
        f"Score over all of training: {mean}each world's mean, with every run in the order of its"
        " seed. The interval is that of Welch and Satterthwaite over independent runs. It says how"
        " other seeds would do in these worlds, not how the methods do in others. Finished runs"
        " only."
    )
    rows = [("", row) for row in cells(found)]
    return (
        f"<h2>Standings</h2><p class='note'>{escape(note)}</p>{table([*HEAD, *found.worlds], rows)}"
    )
