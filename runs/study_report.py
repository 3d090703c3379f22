"""A study's report: one self-contained page with its pictures as PNG, a row a run in runs.csv, all numbers in summary.json."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

from afterwit.runs.checkpoint import replacing
from afterwit.runs.config import to_dict
from afterwit.runs.provenance import provenance
from afterwit.runs.report import image, table, write_html
from afterwit.runs.report_figures import STYLE, Picture, save
from afterwit.runs.study_claims import REPRODUCED, UNKNOWN, Claim, Target, claims, cost, shown, targets, trapped_words
from afterwit.runs.study_data import WHEN, StudyLog, noise_key, read_study
from afterwit.runs.study_figures import MANY, coverage_figure, curves_figure, plain_value, scores_figure, variants_figure

RUNS, CELLS, SUMMARY = "runs.csv", "cells.csv", "summary.json"
WORDS = {"score": "score", "rooms": "rooms", "return": "return", "all": "all of training", "best": "best tenth", "last": "last tenth"}


def write_study_report(home: Path) -> Path:
    """Write HOME/report.html, its PNGs, runs.csv, cells.csv and summary.json; returns the page's path.

    Works while the study is unfinished, and says so. Raises ValueError where there is no study, where none of its runs
    has logged anything, and where rliable is missing.
    """
    study = read_study(home)
    met, told = targets(study), claims(study)
    write_numbers(study, met, told)
    lead, *notes = words(study, met, told)
    body = ["<h1>Afterwit: " + escape(f"study {study.manifest.study}") + "</h1>", f'<p class="lead">{escape(lead)}</p>']
    body.append(f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>')
    with matplotlib.rc_context(STYLE):
        body += pictures(study)
    body += [score_tables(study), target_table(met), claim_table(told), cost_table(study), variant_table(study)]
    body += [instrument_table(study), control_table(study), effort_table(study), origin(study)]
    return write_html(f"Afterwit study {study.manifest.study}", [part for part in body if part], home)


def words(study: StudyLog, met: Sequence[Target], told: Sequence[Claim]) -> list[str]:
    """What the study says, in sentences, the main one first."""
    measure = study.measures[0] if study.measures else ""
    world = next((name for name in ("brownian", *study.worlds) if name in study.worlds))
    deepest = f"{study.measures[-1]}_last" if measure == "score" else f"{measure}_all"
    what = f"reaches {study.measures[-1]} in" if measure == "score" else f"{measure} per episode"
    order = sorted(study.methods, key=lambda name: -(value if math.isfinite(value := study.get(world, name, deepest).iqm) else -math.inf))
    figures = [f"{name} {what + ' ' if not index else ''}{number(study, world, name, deepest)}" for index, name in enumerate(order[:4])]
    tail = " of the episodes of the last tenth of training" if measure == "score" else ""
    lead = f"In {world}, {figures[0]}{tail}; {', '.join(figures[1:])}." if len(figures) > 1 else f"In {world}, {figures[0]}{tail}."
    result = [lead if measure else f"In {world}, no episode has ended yet."]
    result += [sentence for method in study.methods for sentence in trapped_words(study, method)] if told else []
    if met:
        result.append(f"{sum(target.passed is True for target in met)} of {len(met)} targets are met.")
    if told:
        counts = {verdict: sum(claim.verdict == verdict for claim in told) for verdict in dict.fromkeys(claim.verdict for claim in told)}
        result.append("Published claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + ".")
    if study.waiting or study.unfinished:
        done = len(study.rows) - len(study.unfinished)
        result.append(
            f"The study is not finished: of {len(study.manifest.cells)} runs {done} are, {len(study.unfinished)} are on their way and "
            f"{len(study.waiting)} have logged nothing yet. Lines end where the slowest run of a cell is."
        )
    seeds = sorted({len(group.runs) for group in study.groups.values()})
    result.append(
        f"{seeds[0]}{f' to {seeds[-1]}' if len(seeds) > 1 else ''} runs a cell. Numbers: interquartile mean over runs (of five runs, the mean "
        "of the middle three; of fewer than four, of all) and, in brackets, its 95% stratified-bootstrap interval (rliable)."
    )
    return result


def number(study: StudyLog, world: str, method: str, name: str) -> str:
    """An estimate as text: a share as percent, else with its unit unsaid."""
    value = study.get(world, method, name)
    if name.split("_")[0] not in ("rooms", "return"):
        return shown(value)
    if not value.runs:
        return "–"
    return f"{value.iqm:,.1f}" + (f" [{value.low:,.1f}, {value.high:,.1f}]" if math.isfinite(value.low) else "")


def pictures(study: StudyLog) -> list[str]:
    """The page's pictures, written beside it too."""

    def put(figure: Any, name: str, alt: str) -> str:
        picture: Picture = save(figure, study.home, name, alt)
        return f'<div class="wide">{image(picture)}</div>'

    parts = []
    if study.measures and len(study.methods) <= MANY:
        parts.append(put(curves_figure(study), "study-curves", "How far each method gets in each world, over agent steps"))
        parts.append("<h2>Scores</h2>" + put(scores_figure(study), "study-scores", "Scores of each method in each world, with intervals"))
    for world in study.worlds if study.knobs else ():
        title = "What one field changes" + (f": {escape(world)}" if len(study.worlds) > 1 else "")
        parts.append(f"<h2>{title}</h2>" + put(variants_figure(study, world), f"study-variants-{world}", f"Scores by variant in {world}"))
    coverage = coverage_figure(study) if len(study.methods) <= MANY else None
    if coverage is not None:
        note = "<p class='note'>The last tenth of training, all runs of a cell together; circles are the trackers.</p>"
        parts.append(f"<h2>Where they were</h2>{note}" + put(coverage, "study-coverage", "Where the agents were, by world and method"))
    return parts


def score_tables(study: StudyLog) -> str:
    """The main measure over three stretches of training, and the deepest tracker at the end."""
    if not study.measures:
        return ""
    main, deepest = study.measures[0], study.measures[-1]
    names = [f"{main}_{when}" for when in WHEN] + ([f"{deepest}_last"] if main == "score" else [])
    head = [
        "world",
        "method",
        "runs",
        *(f"{WORDS.get(name.split('_')[0], name.split('_')[0])}, {WORDS[name.split('_')[1]]}" for name in names),
    ]
    rows = []
    for world in study.worlds:
        for index, (method, group) in enumerate(study.members(world)):
            cells = [world if not index else "", method, str(len(group.runs)), *(number(study, world, method, name) for name in names)]
            rows.append(("first" if not index else "", cells))
    explained = "Score: trackers reached per episode over their number. " if main == "score" else ""
    note = f"{explained}Best tenth: the highest of the ten means of a run; curiosity rightly fades when nothing is left to learn."
    return f"<h2>Table of scores</h2><p class='note'>{note}</p>{table(head, rows)}"


def target_table(met: Sequence[Target]) -> str:
    if not met:
        return ""
    kinds = {True: ("good", "met"), False: ("bad", "missed"), None: ("open", "open")}
    rows = [(kinds[target.passed][0], [kinds[target.passed][1], target.text, target.figures]) for target in met]
    return f'<h2>Targets</h2><div class="prose">{table(["", "target", "figures"], rows)}</div>'


def claim_table(told: Sequence[Claim]) -> str:
    if not told:
        return ""
    kinds = {REPRODUCED: "good", UNKNOWN: "open", "not": "open", "differs": "bad"}
    rows = [(kinds[c.verdict], [c.verdict, f"{c.setting}: {c.text}", c.figures, c.source]) for c in told]
    note = "reproduced: the intervals show it in this maze; differs: they show the reverse; not: they show neither. The paper's map is not "
    note += "public and its words leave thresholds open; the ones used here stand in brackets."
    head = ["", "claim", "figures", "source"]
    return f"<h2>Published claims</h2><p class='note'>{note}</p><div class=\"prose\">{table(head, rows)}</div>"


def cost_table(study: StudyLog) -> str:
    """What each noise costs each method, of its own score without noise."""
    noises = [world for world in study.worlds if world != "none"]
    if "none" not in study.worlds or not noises or "score" not in study.measures:
        return ""
    rows = []
    for world in noises:
        row = [world]
        for method in study.methods:
            here, quiet = study.get(world, method, "score_all"), study.get("none", method, "score_all")
            share = f"{here.iqm / quiet.iqm:.2f} x, " if here.runs and quiet.iqm > 0 else ""
            row.append(f"{share}{cost(study, world, method)[0]}")
        rows.append(("", row))
    rows.insert(0, ("mean", ["score without noise", *(shown(study.get("none", method, "score_all")) for method in study.methods)]))
    note = (
        "Score over all of training, of the method's own score without noise. trapped: its interval lies below 0.85 x; holds: above; open: "
    )
    note += "neither. A method that explores little without noise cannot lose much."
    return f"<h2>What each noise costs</h2><p class='note'>{note}</p>{table(['', *study.methods], rows)}"


def variant_table(study: StudyLog) -> str:
    """Each field that the methods differ in, with all its settings."""
    if not study.knobs or not study.measures:
        return ""
    main, deepest = study.measures[0], study.measures[-1]
    names = [f"{main}_{when}" for when in WHEN] + ([f"{deepest}_last"] if main == "score" else [])
    instruments = [name for name in ("leak/critic", "leak/place_from_latent", "use/latent", "noise/share") if name in study.instruments]
    head = [
        "world",
        "field",
        "value",
        "runs",
        *(f"{name.split('_')[0]}, {WORDS[name.split('_')[1]]}" for name in names),
        *instruments,
        "alarms",
    ]
    rows = []
    for world in study.worlds:
        for knob in study.knobs:
            for index, (value, method) in enumerate(knob.settings):
                told = plain_value(value) + (" (default)" if method == knob.base else "")
                runs = study.groups[world, method].runs if (world, method) in study.groups else ()
                cells = [world, knob.path.split(".")[-1].replace("_", " ")] if not index else ["", ""]
                cells += [told, str(len(runs)), *(number(study, world, method, name) for name in names)]
                cells += [instrument(study, world, method, name) for name in instruments] + [alarms(study, world, method)]
                rows.append(("first" if not index else "", cells))
    return f"<h2>Variants</h2>{table(head, rows)}"


def instrument(study: StudyLog, world: str, method: str, name: str) -> str:
    return shown(study.get(world, method, name), ratio=True) if study.get(world, method, name).runs else "–"


def alarms(study: StudyLog, world: str, method: str) -> str:
    """In how many of the runs the collapse alarm ever went off."""
    watched = [row["alarm"] for row in study.rows if (row["world"], row["method"]) == (world, method) and "alarm" in row]
    return f"{sum(watched)} of {len(watched)} runs" if watched else "–"


def instrument_table(study: StudyLog) -> str:
    """What the instruments read in the last tenth."""
    if not study.instruments:
        return ""
    head = ["world", "method", "alarms", *study.instruments]
    rows = []
    for world in study.worlds:
        for index, (method, _) in enumerate(study.members(world)):
            values = [f"{v.iqm:.2f}" if (v := study.get(world, method, name)).runs else "–" for name in study.instruments]
            rows.append(("first" if not index else "", [world if not index else "", method, alarms(study, world, method), *values]))
    note = (
        "Last tenth, interquartile means; intervals are in cells.csv. noise/share: pay of steps with noise, 1 is like any other step. "
        "noise/seeking: how often the agent makes the noise, over an indifferent policy. leak/critic: the critic's estimate over its ceiling. "
        "leak/…_from_…: variance that a linear probe explains. use/latent: reconstruction with z shuffled over that with its own. rank: "
        "effective rank. spread: 1 - |mean unit vector|². alarms: runs in which the collapse alarm ever went off."
    )
    return f"<h2>Instruments</h2><p class='note'>{note}</p>{table(head, rows)}"


def control_table(study: StudyLog) -> str:
    """How often each method does what makes the noise, beside the same method where that makes none."""
    rows = []
    for world in study.worlds:
        for index, (method, group) in enumerate(study.members(world)):
            name = noise_key(group)
            if name and world != "none" and study.get(world, method, name).runs:
                doing = {"share_of_time/noop": "no-op", "share_of_time/block_in_view": "a block in view"}[name]
                values = [number(study, where, method, name) for where in (world, "none")]
                rows.append(("first" if not index else "", [world if not index else "", method, doing, *values]))
    if not rows:
        return ""
    note = "Share of time in the last tenth. The same method without noise is the control: there the same action, or place, makes no noise."
    return f"<h3>Does it seek the noise?</h3><p class='note'>{note}</p>{table(['world', 'method', 'time with', 'here', 'without noise'], rows)}"


def effort_table(study: StudyLog) -> str:
    rows = []
    for world in study.worlds:
        for index, (method, group) in enumerate(study.members(world)):
            steps, seconds = sum(int(run.steps[-1]) for run in group.runs), sum(run.entries[-1].get("seconds", 0.0) for run in group.runs)
            done = sum(run.finished for run in group.runs)
            cells = [world if not index else "", method, f"{done} of {len(group.runs)}", f"{steps:,}", f"{seconds / 60:,.0f}"]
            rows.append(("first" if not index else "", [*cells, f"{steps / seconds:,.0f}" if seconds else "–"]))
    head = ["world", "method", "runs finished", "agent steps, all runs", "minutes, all runs", "agent steps/s of a run"]
    return f"<h2>Effort</h2>{table(head, rows)}"


def origin(study: StudyLog) -> str:
    """The study's definition, its sessions, one whole config, and how this page was made."""
    told = study.manifest
    definition = {"preset": told.preset, "overrides": told.overrides, "worlds": told.worlds, "methods": told.methods}
    sessions = [
        (
            "",
            [*(str(session.get(name) or "–") for name in ("date", "commit", "processor", "cores", "gpu", "jobs")), str(session["command"])],
        )
        for session in told.sessions
    ]
    facts, first = provenance(), next(iter(study.groups.values())).runs[0]
    parts = ["<h2>Where this comes from</h2>"]
    parts.append(table(["session", "commit", "processor", "cores", "gpu", "jobs", "command"], sessions))
    for title, value in (("Definition of the study", definition), (f"Full config of {study.relative(first)}", to_dict(first.config))):
        parts.append(f"<details><summary>{escape(title)}</summary><pre>{escape(json.dumps(value, indent=2))}</pre></details>")
    command = f"afterwit study {told.study} --out {study.home} --report-only"
    made = f"{facts['date']}, commit {facts['commit'] or 'unknown (installed package)'}, {facts['processor']}"
    parts.append(
        f"<p class='note'>This page: <code>{escape(command)}</code><br>{escape(made)}. All numbers: {RUNS}, {CELLS}, {SUMMARY}.</p>"
    )
    return "".join(parts)


def write_numbers(study: StudyLog, met: Sequence[Target], told: Sequence[Claim]) -> None:
    """runs.csv: a row a run. cells.csv: a row a world and method with interquartile mean, low and high. summary.json: both, and verdicts."""
    cells = []
    for (world, method), found in study.estimates.items():
        row: dict[str, Any] = {"world": world, "method": method, "runs": len(study.groups[world, method].runs)}
        for name, value in found.items():
            row |= {name: value.iqm, f"{name}_low": value.low, f"{name}_high": value.high}
        cells.append(row)
    write_csv(study.rows, study.home / RUNS)
    write_csv(cells, study.home / CELLS)
    summary = {
        "study": study.manifest.study, "finished": not study.unfinished and not study.waiting, "runs_waiting": list(study.waiting),
        "runs": study.rows, "cells": cells, "targets": [asdict(target) for target in met], "claims": [asdict(claim) for claim in told],
        "provenance": provenance(),
    }  # fmt: skip
    with replacing(study.home / SUMMARY) as file:
        file.write((json.dumps(finite(summary), indent=1, allow_nan=False) + "\n").encode())


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """All columns that any row has; what is not there, or is no number, is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(finite(list(rows)))
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def finite(value: Any) -> Any:
    """`value` with None for every number that is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
