"""A study's tables: scores, targets, claims, variants, instruments, effort."""

from __future__ import annotations

import math
from collections.abc import Sequence

from afterwit.runs.output.html import table
from afterwit.runs.reports.groups import MEASURES
from afterwit.runs.reports.sentences import percent
from afterwit.runs.studies.figures import WHEN_WORDS
from afterwit.runs.studies.results import StudyLog
from afterwit.runs.studies.run_numbers import noise_key
from afterwit.runs.studies.variants_figure import plain_value
from afterwit.runs.studies.verdicts import REPRODUCED, UNKNOWN, Claim, Target, format_estimate

HUMAN = "human"  # numbers in units of a human's score


def number(study: StudyLog, world: str, method: str, name: str) -> str:
    """Return an estimate as text: shares as percent, other numbers without a unit."""
    value, kind = study.get(world, method, name), name.split("_")[0]
    if kind not in (*MEASURES, HUMAN):
        return format_estimate(value)
    if not value.runs:
        return "–"
    form = ",.3f" if kind == HUMAN else ",.1f"
    return f"{value.mean:{form}}" + (
        f" [{value.low:{form}}, {value.high:{form}}]" if math.isfinite(value.low) else ""
    )


def score_tables(study: StudyLog) -> str:
    """Return the main measure over stretches of training, and the deepest tracker at the end."""
    if not study.measures or study.knobs:  # variants have a table of their own
        return ""
    columns = score_columns(study)
    main = study.measures[0]
    each = f"{main} of each run, {WHEN_WORDS['all']}"
    head = ["world", "method", "runs", *columns.values(), each]
    rows = []
    for world in study.worlds:
        for index, (method, group) in enumerate(study.members(world)):
            cells = [
                world if not index else "",
                method,
                str(len(group.runs)),
                *(number(study, world, method, name) for name in columns),
                every_run(study, world, method, f"{main}_all"),
            ]
            rows.append(("first" if not index else "", cells))
    explained = (
        "Score: trackers reached per episode over their number. "
        if study.measures[0] == "score"
        else ""
    )
    note = (
        f"{explained}Best tenth: the highest of the ten means of a run; curiosity rightly fades"
        " when nothing is left to learn. Single runs are in the order of their seeds."
    )
    return f"<h2>Table of scores</h2><p class='note'>{note}</p>{prose_table(head, rows)}"


def human_table(study: StudyLog) -> str:
    """Return the human-normalised scores of all methods, a column per game; empty without games."""
    worlds = [
        world
        for world in study.worlds
        if any(study.get(world, method, f"{HUMAN}_last").runs for method in study.methods)
    ]
    if not worlds:
        return ""
    rows = [
        ("run", [method, *(number(study, world, method, f"{HUMAN}_last") for world in worlds)])
        for method in study.methods
    ]
    note = (
        f"Return per episode, {WHEN_WORDS['last']}: 0 is what a random policy has in the"
        " literature, 1 a human (Badia et al., 2020)."
    )
    return f"<h2>Human-normalised scores</h2><p class='note'>{note}</p>{table(['', *worlds], rows)}"


def every_run(study: StudyLog, world: str, method: str, name: str) -> str:
    """Return a number of each run of a cell as text, in the order of the seeds."""
    values = [
        row.get(name, math.nan)
        for row in study.rows
        if (row["world"], row["method"]) == (world, method)
    ]
    word = (lambda v: f"{v:,.1f}") if name.split("_")[0] in MEASURES else percent
    return " ".join(word(value) if math.isfinite(value) else "–" for value in values)


def prose_table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table whose first two columns are words."""
    return f'<div class="names">{table(head, rows)}</div>'


def score_columns(study: StudyLog) -> dict[str, str]:
    """The numbers that every table of scores has, and their headings."""
    main, deepest = study.measures[0], study.measures[-1]
    result = {f"{main}_{when}": f"{main}, {words}" for when, words in WHEN_WORDS.items()}
    if main == "score" or deepest != main:  # in worlds without trackers: the return
        result[f"{deepest}_last"] = f"{deepest}, {WHEN_WORDS['last']}"
    return result


def target_table(met: Sequence[Target]) -> str:
    if not met:
        return ""
    kinds = {True: ("good", "met"), False: ("bad", "missed"), None: ("open", "open")}
    rows = [
        (kinds[target.passed][0], [kinds[target.passed][1], target.text, target.figures])
        for target in met
    ]
    return f'<h2>Targets</h2><div class="prose">{table(["", "target", "figures"], rows)}</div>'


def claim_table(claims: Sequence[Claim]) -> str:
    if not claims:
        return ""
    kinds = {REPRODUCED: "good", UNKNOWN: "open", "not": "open", "differs": "bad"}
    rows = [
        (kinds[c.verdict], [c.verdict, f"{c.setting}: {c.text}", c.figures, c.source])
        for c in claims
    ]
    note = (
        "reproduced: the intervals show it in this maze; differs: they show the reverse; not: they"
        " show neither. The map of Jarrett et al. (2023) is not "
    )
    note += "public and its words leave thresholds open; the ones used here are in brackets."
    head = ["", "claim", "figures", "source"]
    return (
        f"<h2>Published claims</h2><p class='note'>{note}</p><div"
        f' class="prose">{table(head, rows)}</div>'
    )


def variant_table(study: StudyLog) -> str:
    """Return each field in which the methods differ, with all its settings."""
    if not study.knobs or not study.measures:
        return ""
    columns = score_columns(study)
    instruments = [
        name
        for name in ("leak/critic", "leak/place_from_latent", "use/latent", "noise/share")
        if name in study.instruments
    ]
    head = ["world", "field", "value", "runs", *columns.values(), *instruments, "alarms"]
    rows = []
    for world in study.worlds:
        for knob in study.knobs:
            for index, (value, method) in enumerate(knob.settings):
                setting = plain_value(value) + (" (default)" if method == knob.base else "")
                runs = study.groups[world, method].runs if (world, method) in study.groups else ()
                cells = (
                    [world, knob.path.split(".")[-1].replace("_", " ")] if not index else ["", ""]
                )
                cells += [
                    setting,
                    str(len(runs)),
                    *(number(study, world, method, name) for name in columns),
                ]
                cells += [instrument(study, world, method, name) for name in instruments] + [
                    alarms(study, world, method)
                ]
                rows.append(("first" if not index else "", cells))
    return f"<h2>Variants</h2>{prose_table(head, rows)}"


def instrument(study: StudyLog, world: str, method: str, name: str) -> str:
    return (
        format_estimate(study.get(world, method, name), ratio=True)
        if study.get(world, method, name).runs
        else "–"
    )


def alarms(study: StudyLog, world: str, method: str) -> str:
    """Return in how many runs the collapse alarm went off."""
    watched = [
        row["alarm"]
        for row in study.rows
        if (row["world"], row["method"]) == (world, method) and "alarm" in row
    ]
    return f"{sum(watched)} of {len(watched)} runs" if watched else "–"


def instrument_table(study: StudyLog) -> str:
    """Return the instruments' readings in the last tenth."""
    if not study.instruments:
        return ""
    head = ["world", "method", "alarms", *study.instruments]
    rows = []
    for world in study.worlds:
        for index, (method, _) in enumerate(study.members(world)):
            values = [
                f"{v.mean:.2f}" if (v := study.get(world, method, name)).runs else "–"
                for name in study.instruments
            ]
            rows.append(
                (
                    "first" if not index else "",
                    [world if not index else "", method, alarms(study, world, method), *values],
                )
            )
    note = (
        "Last tenth, means; intervals are in cells.csv. noise/share: pay of steps"
        " with noise, 1 is like any other step. noise/seeking: how often the agent makes the noise,"
        " over an indifferent policy. leak/critic: the critic's estimate over its ceiling."
        " leak/…_from_…: variance that a linear probe explains. use/latent: reconstruction with z"
        " shuffled over that with its own. rank: effective rank. spread: the error of the best"
        " constant guess. alarms: runs in which the collapse alarm ever went off."
        " share_of_…/room_change: of steps and of pay, what goes to steps that change the room."
    )
    return f"<h2>Instruments</h2><p class='note'>{note}</p>{prose_table(head, rows)}"


def control_table(study: StudyLog) -> str:
    """Return how often each method does what makes the noise.

    Beside it is the same method in the world without noise.
    """
    rows = []
    for world in study.worlds:
        for index, (method, group) in enumerate(study.members(world)):
            name = noise_key(group)
            if name and world in study.quiet and study.get(world, method, name).runs:
                doing = {
                    "share_of_time/noop": "no-op",
                    "share_of_time/block_in_view": "a block in view",
                }[name]
                where = world, study.quiet[world]
                values = [number(study, each, method, name) for each in where]
                rows.append(
                    (
                        "first" if not index else "",
                        [world if not index else "", method, doing, *values],
                    )
                )
    if not rows:
        return ""
    head = ["world", "method", "time with", "here", "without noise"]
    note = (
        "Share of time in the last tenth. The same method without noise is the control: there the"
        " same action, or place, makes no noise."
    )
    return f"<h3>Does it seek the noise?</h3><p class='note'>{note}</p>{prose_table(head, rows)}"


def effort_table(study: StudyLog) -> str:
    rows = []
    for world in study.worlds:
        for index, (method, group) in enumerate(study.members(world)):
            steps = sum(int(run.steps[-1]) for run in group.runs)
            seconds = sum(run.entries[-1].get("seconds", 0.0) for run in group.runs)
            done = sum(run.finished for run in group.runs)
            cells = [
                world if not index else "",
                method,
                f"{done} of {len(group.runs)}",
                f"{steps:,}",
                f"{seconds / 60:,.0f}",
            ]
            rows.append(
                (
                    "first" if not index else "",
                    [*cells, f"{steps / seconds:,.0f}" if seconds else "–"],
                )
            )
    head = [
        "world",
        "method",
        "runs finished",
        "agent steps, all runs",
        "minutes, all runs",
        "agent steps/s of a run",
    ]
    return f"<h2>Effort</h2>{prose_table(head, rows)}"
