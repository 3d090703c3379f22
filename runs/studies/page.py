"""A study's report: one self-contained page, its figures as PNG, its numbers as CSV and JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

from afterwit.runs.configs.run_config import to_dict
from afterwit.runs.output.figure_style import STYLE, Picture, save
from afterwit.runs.output.files import check_ours
from afterwit.runs.output.html import image, table, write_html
from afterwit.runs.output.provenance import provenance
from afterwit.runs.output.text import quoted
from afterwit.runs.reports.room_maps import ROOMS_NOTE, rooms_figure, seen_by
from afterwit.runs.studies.claims import claims, targets
from afterwit.runs.studies.cost_tables import cost_table, difference_table
from afterwit.runs.studies.coverage_figure import coverage_figure, method_figure
from afterwit.runs.studies.differences import study_costs
from afterwit.runs.studies.figures import MANY, curves_figure, measure_words, scores_figure
from afterwit.runs.studies.ledger_study import ledger_study
from afterwit.runs.studies.number_files import HEADS, WRITTEN, write_numbers
from afterwit.runs.studies.results import StudyLog, read_study
from afterwit.runs.studies.standings import Standings, standings, standings_table, standings_words
from afterwit.runs.studies.standings_figure import standings_figure
from afterwit.runs.studies.tables import (
    claim_table,
    control_table,
    effort_table,
    human_table,
    instrument_table,
    number,
    score_tables,
    target_table,
    variant_table,
)
from afterwit.runs.studies.variants_figure import variants_figure
from afterwit.runs.studies.verdicts import EXPLORE, HINDSIGHT, Claim, Target, trapped_words


def write_study_report(
    home: Path,
    ledger: Path | None = None,
    worlds: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> Path:
    """Write HOME/report.html with its figures, and its numbers as `write_numbers` does.

    It also works for an unfinished study, and then says so. With a ledger it reads no run folder.
    It is of the worlds, methods and seeds that are named, or of all.

    Returns:
      The path of report.html.

    Raises:
      ValueError: there is no study, no run has logged anything, or rliable is missing; or HOME has
        a page or numbers of another origin, or the ledger itself under a name of theirs.
    """
    if ledger is not None and ledger.resolve() in {(home / name).resolve() for name in WRITTEN}:
        raise ValueError(
            f"the report would replace the ledger {quoted(ledger)}; choose another --out, or rename"
            " the ledger"
        )
    study = read_study(home) if ledger is None else ledger_study(ledger, home)
    study = study.narrowed(worlds, methods, seeds)
    check_ours(home, HEADS)
    home.mkdir(parents=True, exist_ok=True)
    found_targets, found_claims = targets(study), claims(study)
    costs, order = study_costs(study), standings(study)
    write_numbers(study, costs, order, found_targets, found_claims)
    lead, *notes = words(study, found_targets, found_claims)
    if order is not None and len(study.methods) > MANY:
        lead, notes = standings_words(order), [lead, *notes]
    body = [
        "<h1>Afterwit: " + escape(f"study {study.manifest.study}") + "</h1>",
        f'<p class="lead">{escape(lead)}</p>',
    ]
    body.append(f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>')
    with matplotlib.rc_context(STYLE):
        body += pictures(study, order)
    body += [
        score_tables(study),
        human_table(study),
        difference_table(costs),
        cost_table(costs),
        target_table(found_targets),
        claim_table(found_claims),
        variant_table(study),
    ]
    body += [instrument_table(study), control_table(study), effort_table(study), origin(study)]
    return write_html(
        f"Afterwit study {study.manifest.study}", [part for part in body if part], home
    )


def words(
    study: StudyLog, found_targets: Sequence[Target], found_claims: Sequence[Claim]
) -> list[str]:
    """Return what the study shows, in sentences, the main one first."""
    measure = study.measures[0] if study.measures else ""
    world = next(name for name in ("brownian", *study.worlds) if name in study.worlds)
    deepest = f"{study.measures[-1]}_last" if measure == "score" else f"{measure}_all"
    what = f"reaches {study.measures[-1]} in " if measure == "score" else ""
    opening = f"In {world}, " if measure == "score" else f"{measure_words(measure)} in {world}: "
    order = sorted(
        study.methods,
        key=lambda name: (
            -(value if math.isfinite(value := study.get(world, name, deepest).mean) else -math.inf)
        ),
    )
    figures = [
        f"{name} {what if not index else ''}{number(study, world, name, deepest)}"
        for index, name in enumerate(order[:4])
    ]
    tail = " of the episodes of the last tenth of training" if measure == "score" else ""
    lead = opening + "; ".join(filter(None, (figures[0] + tail, ", ".join(figures[1:])))) + "."
    result = [lead if measure else f"In {world}, no episode has ended yet."]
    if study.knobs and measure:
        base, main = study.knobs[0].base, f"{measure}_all"
        best = max(
            (
                name
                for name in study.methods
                if study.get(world, name, main).runs >= max(1, study.get(world, base, main).runs)
            ),
            key=lambda name: study.get(world, name, main).mean,
        )
        result = [
            f"In {world}, the default's {measure} over all of training is"
            f" {number(study, world, base, main)}"
        ]
        result[0] += (
            f"; the highest of {len(study.methods)} is {best}, {number(study, world, best, main)}."
            if best != base
            else "; no variant's is better."
        )
    result += (
        [sentence for method in (EXPLORE, HINDSIGHT) for sentence in trapped_words(study, method)]
        if found_claims
        else []
    )
    if found_targets:
        result.append(
            f"{sum(target.passed is True for target in found_targets)} of {len(found_targets)}"
            " targets are met."
        )
    if found_claims:
        counts = Counter(claim.verdict for claim in found_claims)
        result.append(
            "Published claims: "
            + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
            + "."
        )
    if study.waiting or study.unfinished:
        done = len(study.rows) - len(study.unfinished)
        result.append(
            f"The study is not finished: of {len(study.manifest.cells)} runs, {done} are finished,"
            f" {len(study.unfinished)} are unfinished and {len(study.waiting)} have logged"
            " nothing yet. Lines end where the slowest run of a cell is."
        )
    if study.ledger is not None:
        result.append("Made from the ledger: curves have a point per tenth, and there are no maps.")
    runs = [run for group in study.groups.values() for run in group.runs]
    lengths = sorted({run.config.total_steps for run in runs})
    if len(lengths) > 1:
        result.append(
            f"Runs are of different lengths, {lengths[0]:,} to {lengths[-1]:,} agent steps: means"
            " over them, and comparisons between them, say little."
        )
    seeds = sorted({len(group.runs) for group in study.groups.values()})
    several = f" to {seeds[-1]}" if len(seeds) > 1 else ""
    result.append(
        f"{seeds[0]}{several} run{'s' if seeds[-1] > 1 else ''} a cell. Numbers:"
        " mean over runs and, in brackets, its 95% interval of Student's t."
    )
    return result


def pictures(study: StudyLog, order: Standings | None) -> list[str]:
    """Return the page's figures as HTML. They are also written beside the page."""

    def put(figure: Any, name: str, alt: str) -> str:
        picture: Picture = save(figure, study.home, name, alt)
        return f'<div class="wide">{image(picture)}</div>'

    parts = []
    if order is not None and not study.knobs:
        picture = standings_figure(study, order)
        parts.append(put(picture, "study-standings", "Mean score of each method in each world"))
        parts.append(standings_table(order))
    if study.measures and len(study.methods) <= MANY:
        parts.append(
            put(
                curves_figure(study),
                "study-curves",
                "How far each method gets in each world, over agent steps",
            )
        )
        parts.append(
            "<h2>Scores</h2>"
            + put(
                scores_figure(study),
                "study-scores",
                "Scores of each method in each world, with intervals",
            )
        )
    for world in study.worlds if study.knobs else ():
        title = "What one field changes" + (f": {escape(world)}" if len(study.worlds) > 1 else "")
        parts.append(
            f"<h2>{title}</h2>"
            + put(
                variants_figure(study, world),
                f"study-variants-{world}",
                f"Scores by variant in {world}",
            )
        )
    coverage = coverage_figure(study)
    if coverage is not None:
        note = (
            "<p class='note'>The last tenth of training, all runs of a cell together; circles are"
            " the trackers.</p>"
        )
        parts.append(
            f"<h2>Where they were</h2>{note}"
            + put(coverage, "study-coverage", "Where the agents were, by world and method")
        )
    if study.ledger is None:
        for (world, method), group in study.groups.items():
            rooms = rooms_figure(group, seen_by(group))
            if rooms is not None:
                title = f"{world}: the rooms that {method} has seen"
                drawn = put(rooms, f"study-rooms-{world}-{method}", title)
                parts.append(folded(title, f"<p class='note'>{ROOMS_NOTE}</p>{drawn}"))
    for method in study.methods:
        figure = method_figure(study, method)
        if figure is not None:
            alt = f"Where {method} was and where it was paid, by world"
            drawn = put(figure, f"study-maps-{method}", alt)
            parts.append(folded(f"{method}: where it was, and where it was paid", drawn))
    return parts


def folded(title: str, html: str) -> str:
    """Return HTML that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def origin(study: StudyLog) -> str:
    """Return the study's definition, sessions, one complete config and the command, as HTML."""
    manifest = study.manifest
    definition = {
        "preset": manifest.preset,
        "overrides": manifest.overrides,
        "worlds": manifest.worlds,
        "methods": manifest.methods,
    }
    session_fields = ("date", "commit", "processor", "cores", "gpu", "jobs", "command")
    sessions = [
        ("", [str(session.get(name) or "–") for name in session_fields])
        for session in manifest.sessions
    ]
    facts, first = provenance(), next(iter(study.groups.values())).runs[0]
    parts = ["<h2>Where this comes from</h2>"]
    parts.append(
        table(["session", "commit", "processor", "cores", "gpu", "jobs", "command"], sessions)
    )
    for title, value in (
        ("Definition of the study", definition),
        (f"Full config of {study.relative(first)}", to_dict(first.config)),
    ):
        parts.append(folded(title, f"<pre>{escape(json.dumps(value, indent=2))}</pre>"))
    command = f"afterwit study {quoted(manifest.study)} --out {quoted(study.home)} --report-only"
    if study.ledger is not None:
        command = f"afterwit report {quoted(study.ledger)} --out {quoted(study.home)}"
    made = (
        f"{facts['date']}, commit {facts['commit'] or 'unknown (installed package)'},"
        f" {facts['processor']}"
    )
    parts.append(
        f"<p class='note'>This page: <code>{escape(command)}</code><br>{escape(made)}. All numbers:"
        f" {', '.join(name for name in WRITTEN if (study.home / name).is_file())}.</p>"
    )
    return "".join(parts)
