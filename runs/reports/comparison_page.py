"""The report on several runs: a self-contained page, its figures as PNG, and summary.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

from afterwit.runs.configs.comparison import flat
from afterwit.runs.configs.run_config import to_dict
from afterwit.runs.evaluation.evaluation_result import HUMAN
from afterwit.runs.output.figure_style import MAX_VIDEO, STYLE, save
from afterwit.runs.output.files import PAGE, SUMMARY, check_ours, checked_outputs, write_json
from afterwit.runs.output.html import as_text, film, image, table, write_html
from afterwit.runs.output.provenance import provenance
from afterwit.runs.output.text import quoted
from afterwit.runs.reports.curves import curves, panel
from afterwit.runs.reports.groups import Group, make_groups, noise_of, result_names
from afterwit.runs.reports.maze_maps import overview, tenths
from afterwit.runs.reports.report_summary import summarise
from afterwit.runs.reports.room_maps import ROOMS_NOTE, rooms_figure, seen_by
from afterwit.runs.reports.run_results import RunLog, read_run
from afterwit.runs.reports.sentences import headline


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write OUT/report.html, its figures as PNG, and OUT/summary.json.

    Args:
      folders: run folders.
      out: the folder OUT.

    Returns:
      The path of report.html.

    Raises:
      ValueError: there are no folders, one is given twice or is not a run, or a run has logged
        nothing; or OUT has a page or numbers of another origin.
    """
    if not folders:
        raise ValueError("no run folder given; name at least one: afterwit report RUN [RUN ...]")
    resolved = [Path(folder).resolve() for folder in folders]
    twice = next(
        (
            folder
            for folder, path in zip(folders, resolved, strict=True)
            if resolved.count(path) > 1
        ),
        None,
    )
    if twice is not None:
        raise ValueError(f"run folder {twice} is given twice; name each run once")
    groups = make_groups([read_run(Path(folder)) for folder in folders])
    check_ours(out)
    with checked_outputs(out / SUMMARY, out / PAGE):
        write_json(out / SUMMARY, summarise(groups), allow_nan=False)
        return write_page(groups, out)


def write_page(groups: Sequence[Group], out: Path) -> Path:
    """Draw all figures into `out`, write report.html, and return its path."""
    worlds = [
        [group for group in groups if group.world == world]
        for world in dict.fromkeys(group.world for group in groups)
    ]
    runs = [run for group in groups for run in group.runs]
    body = ["<h1>Afterwit: what the runs did</h1>"]
    for lead, *notes in headline(groups):
        body.append(f'<p class="lead">{escape(lead)}</p>')
        body.append(
            f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'
            if notes
            else ""
        )
    with matplotlib.rc_context(STYLE):
        picture = save(
            overview(worlds),
            out,
            "overview",
            "Where each agent was and was paid in the last tenth, and how far it got over time",
        )
        body.append(f'<div class="wide">{image(picture)}</div>')
        for number, members in enumerate(worlds):
            body.append(world_section(members, out, f"{number + 1}" if len(worlds) > 1 else ""))
    body += [
        "<h2>Numbers</h2>",
        *(results_table(members) for members in worlds),
        effort_table(groups),
        *map(evaluation, runs),
        origin(runs, out),
    ]
    return write_html("Afterwit report", body, out)


def world_section(groups: Sequence[Group], out: Path, number: str) -> str:
    name = groups[0].world
    curve_pictures = [
        save(
            panel(groups, curve),
            out,
            f"curve{number}-{curve.name}",
            f"{curve.title}, over agent steps",
        )
        for curve in curves(groups)
    ]
    mapped = [group for group in groups if group.maps("visits") is not None]
    many = any(len(group.runs) > 1 for group in groups)
    lines = "Bold: the mean over seeds; thin: each seed." if many else "One seed each."
    lines += " Each point is the mean over a stretch of the run."
    html = f"<h2>Over time{': ' + escape(name) if number else ''}</h2><p class='note'>{lines}</p>"
    html += f'<div class="grid">{"".join(map(image, curve_pictures))}</div>'
    if mapped:
        drawn = [
            save(
                tenths(group),
                out,
                f"tenths{number}-{group.label}",
                f"Visits of {group.label} by tenth",
            )
            for group in mapped
        ]
        html += (
            "<h3>Where it was, from the first tenth to the last</h3><p class='note'>Same scale as"
            " above; circles are the trackers.</p>"
        )
        html += f'<div class="grid maps">{"".join(map(image, drawn))}</div>'
    rooms = [
        (group, figure)
        for group in groups
        if (figure := rooms_figure(group, seen_by(group))) is not None
    ]
    if rooms:
        html += f"<h3>Rooms that were seen</h3><p class='note'>{ROOMS_NOTE}</p>"
    for group, figure in rooms:
        alt = f"Rooms that {group.label} has seen"
        picture = save(figure, out, f"rooms{number}-{group.label}", alt)
        html += f'<h4>{escape(group.label)}</h4><div class="wide">{image(picture)}</div>'
    return html


def results_table(groups: Sequence[Group]) -> str:
    names = list(dict.fromkeys(name for group in groups for name in result_names(group)))
    best = [name for name in names if name.startswith(("reached/", "episode/"))]
    words = {
        "share_of_time": "time with noise",
        "share_of_pay": "pay with noise",
        "ratio": "pay / time",
        "explored": "cells so far",
    }
    head = ["", "episodes"]
    columns: list[tuple[str, str]] = []
    for name in names:
        section, short = name.split("/", 1)
        columns.append((name, "last_tenth"))
        head.append(words.get(section, short))
        if name in best:
            columns.append((name, "best_tenth"))
            head.append(f"{short} best")
    rows = []
    for group, row in zip(groups, summarise(groups)["groups"], strict=True):
        members = (
            [
                (
                    row["label"]
                    + (f" (mean of {len(row['runs'])})" if len(row["runs"]) > 1 else ""),
                    "mean",
                    row,
                )
            ]
            if len(row["runs"]) > 1
            else []
        )
        members += [
            (
                run["folder"] if not members else f"seed {run['seed']}",
                "run" if members else "mean",
                run,
            )
            for run in row["runs"]
        ]
        for title, kind, values in members:
            title = group.label if kind == "mean" and len(row["runs"]) == 1 else title
            ended = (
                sum(run["episodes_last_tenth"] for run in row["runs"])
                if "runs" in values
                else values["episodes_last_tenth"]
            )
            rows.append(
                (
                    kind,
                    [
                        title,
                        f"{ended:,}",
                        *(as_text(name, values[tenth].get(name)) for name, tenth in columns),
                    ],
                )
            )
    note = (
        "The last tenth of training, weighted by episodes; best: the highest of the ten tenths."
        " Means are over seeds."
    )
    noise = noise_of(groups[0])
    note += f" Noise: time {noise[1]}." if noise else ""
    return (
        f"<h3>{escape(groups[0].world[:1].upper() + groups[0].world[1:])}</h3><p"
        f' class="note">{escape(note)}</p>{table(head, rows)}'
    )


def effort_table(groups: Sequence[Group]) -> str:
    head = [
        "run",
        "method",
        "seed",
        "agent steps",
        "of",
        "frames",
        "episodes",
        "wall time [s]",
        "agent steps/s",
    ]
    rows = []
    for row in summarise(groups)["groups"]:
        for run in row["runs"]:
            counts = [
                f"{run[name]:,}" if run[name] is not None else "–"
                for name in ("agent_steps", "total_steps", "frames", "episodes")
            ]
            times = [
                f"{run[name]:,.0f}" if run[name] is not None else "–"
                for name in ("seconds", "agent_steps_per_second")
            ]
            rows.append(
                ("run", [Path(run["folder"]).name, row["label"], str(run["seed"]), *counts, *times])
            )
    return f"<h3>Effort</h3>{table(head, rows)}"


def evaluation(run: RunLog) -> str:
    """Return the run's evaluation and video as HTML, as far as they exist."""
    html = ""
    if run.evaluation is not None:
        result = run.evaluation
        columns = ("mean", "low", "high", "median", "min", "max")
        rows = [
            ("run", [name, *(as_text("", value.get(column)) for column in columns)])
            for name, value in result["results"].items()
        ]
        facts: dict[str, Any] = {
            name: result[name]
            for name in ("episodes", "policy", "seed", "trained_agent_steps")
            if name in result
        }
        if HUMAN in result:
            facts[HUMAN] = as_text("", result[HUMAN].get("mean"))
        listed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
        rest = {name: value for name, value in result.items() if name != "results"}
        html += (
            f"<p class='note'>{escape(listed)}; low to high: 95% interval over"
            f" episodes</p>{table(['', *columns], rows)}"
        )
        html += (
            "<details><summary>Rules and provenance of this"
            f" evaluation</summary><pre>{escape(json.dumps(rest, indent=2))}</pre></details>"
        )
    if run.video is not None:
        size = run.video.stat().st_size
        if size < MAX_VIDEO:
            html += film(run.video.read_bytes())
        else:
            html += (
                f"<p class='note'>Video ({size / 1e6:.1f} MB, too large to embed):"
                f" <code>{escape(str(run.video))}</code></p>"
            )
    return f"<h3>Evaluation of {escape(run.folder.name)}</h3>{html}" if html else ""


def origin(runs: Sequence[RunLog], out: Path) -> str:
    """Return where the page comes from, as HTML.

    It has what the configs share of the world, where they differ, all complete configs, and the
    command.
    """
    configs = [flat(to_dict(run.config)) for run in runs]
    names = list(dict.fromkeys(name for config in configs for name in config))
    shown_fields = [
        name
        for name in names
        if name.startswith("env.")
        or len({json.dumps(config.get(name, "–")) for config in configs}) > 1
    ]
    always = [
        name
        for name in ("preset", "seed", "total_steps", "unroll_length", "learner.learning_rate")
        if name not in shown_fields
    ]
    rows = [
        (
            "run",
            [
                name,
                *(
                    json.dumps(config[name]).strip('"') if name in config else "–"
                    for config in configs
                ),
            ],
        )
        for name in [*always, *shown_fields]
    ]
    whole = ""
    for run in runs:
        config = escape(json.dumps(to_dict(run.config), indent=2))
        whole += (
            f"<details><summary>{escape(str(run.folder))}: full"
            f" config</summary><pre>{config}</pre></details>"
        )
    command = " ".join(
        ["afterwit report", *(quoted(run.folder) for run in runs), "--out", quoted(out)]
    )
    facts = provenance()
    made = (
        f"{facts['date']}, commit {facts['commit'] or 'unknown (installed package)'},"
        f" {facts['processor']}"
    )
    return (
        "<h2>Where this comes from</h2><p class='note'>The world, and every setting that differs"
        f" between these runs.</p>{table(['', *(run.folder.name for run in runs)], rows)}{whole}<p"
        f" class='note'>This page: <code>{escape(command)}</code><br>{escape(made)}</p>"
    )
