"""Runs compared: one self-contained page, its pictures as PNG, and summary.json."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

from afterwit.runs.config import to_dict
from afterwit.runs.files import replacing, results, write_json
from afterwit.runs.provenance import provenance
from afterwit.runs.reading import quoted
from afterwit.runs.report_data import (
    HUMAN,
    Group,
    RunLog,
    flat,
    make_groups,
    noise_of,
    read_run,
    result_names,
)
from afterwit.runs.report_figures import MAX_VIDEO, STYLE, Picture, curves, panel, save
from afterwit.runs.report_maps import overview, tenths
from afterwit.runs.report_words import headline

PAGE, SUMMARY = "report.html", "summary.json"
CSS = """
:root{color-scheme:light} *{box-sizing:border-box}
body{margin:0 auto;max-width:1060px;padding:1.5rem 1rem 4rem;
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#222;background:#fff}
h1{font-size:1.05rem;color:#6b6b6b;font-weight:600;margin:0 0 .5rem}
h2{font-size:1.3rem;margin:2.8rem 0 .6rem} h3{font-size:1rem;margin:1.8rem 0 .4rem}
.lead{font-size:1.45rem;line-height:1.35;margin:.3rem 0 .6rem;max-width:46rem}
ul.notes{margin:.3rem 0 1.4rem;padding-left:1.1rem;color:#444;max-width:46rem}
.note{color:#6b6b6b;font-size:.9rem;max-width:46rem}
img,video{max-width:100%;height:auto;display:block}
video{width:560px;image-rendering:pixelated;margin:.6rem 0}
.wide{overflow-x:auto;margin:.8rem 0} .wide img{min-width:640px;width:100%}
.grid{display:grid;gap:.6rem 1rem;
  grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr))}
.maps{grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))} .grid img{width:100%}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
td,th{padding:.22rem .7rem .22rem 0;text-align:right;white-space:nowrap}
th{font-weight:600;color:#6b6b6b;border-bottom:1px solid #bbb;vertical-align:bottom;
  white-space:normal}
td:first-child,th:first-child{text-align:left}
tr.mean td{font-weight:600;border-top:1px solid #e4e4e4} tr.run td:first-child{padding-left:1rem}
pre{overflow-x:auto;font-size:.8rem;background:#f6f6f6;padding:.8rem}
.prose td{white-space:normal;text-align:left;vertical-align:top} .prose th{text-align:left}
.prose td:first-child{white-space:nowrap} .prose td:nth-child(3){color:#555;font-size:.95em}
.names td:nth-child(2),.names th:nth-child(2){text-align:left}
tr.good td:first-child{color:#1a7f37;font-weight:600}
tr.bad td:first-child{color:#b42318;font-weight:600}
tr.open td:first-child{color:#6b6b6b;font-weight:600} tr.first td{border-top:1px solid #e4e4e4}
summary{cursor:pointer;padding:.2rem 0} code{font-size:.88em;overflow-wrap:anywhere}
"""


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write out/report.html (self-contained), its pictures as PNG and summary.json; returns the
    page's path.

    Raises ValueError for no folders, a folder given twice, one that is no run, and a run that has
    logged nothing.
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
    with results(out / SUMMARY, out / PAGE):
        write_json(out / SUMMARY, summarise(groups), allow_nan=False)
        return write_page(groups, out)


def summarise(groups: Sequence[Group]) -> dict[str, Any]:
    """The report as plain values: headline, groups and their runs. Numbers that are not there are
    null.
    """
    rows = []
    for group in groups:
        names = result_names(group)
        runs = [_row(run.last, run.best, names) | _effort(run) for run in group.runs]
        row = {
            "label": group.label,
            "method": group.method,
            "world": group.world,
            "seeds": [run.config.seed for run in group.runs],
        }
        rows.append(row | _row(group.last, group.best, names) | {"runs": runs})
    return {"headline": headline(groups), "groups": rows}


def _row(
    last: Callable[[str], float], best: Callable[[str], float], names: Sequence[str]
) -> dict[str, Any]:
    def table(value: Callable[[str], float], chosen: Iterable[str]) -> dict[str, float | None]:
        return {name: found if math.isfinite(found := value(name)) else None for name in chosen}

    return {
        "last_tenth": table(last, names),
        "best_tenth": table(best, [n for n in names if n.startswith(("reached/", "episode/"))]),
    }


def _effort(run: RunLog) -> dict[str, Any]:
    end = run.entries[-1]
    seconds = end.get("seconds")
    return {
        "folder": str(run.folder),
        "seed": run.config.seed,
        "agent_steps": int(run.steps[-1]),
        "total_steps": run.config.total_steps,
        "frames": end.get("frames"),
        "seconds": seconds,
        "agent_steps_per_second": int(run.steps[-1]) / seconds if seconds else None,
        "episodes": int(run.episodes.sum()),
        "episodes_last_tenth": int(run.episodes[run.tenth == run.last_tenth].sum()),
    }


def write_page(groups: Sequence[Group], out: Path) -> Path:
    """Draw everything into `out` and write report.html there; returns its path."""
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


def write_html(title: str, body: Sequence[str], out: Path) -> Path:
    """Write out/report.html with the parts of `body`; returns its path."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,'
        f' initial-scale=1"><title>{escape(title)}</title>'
    )
    page = (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{CSS}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    path = out / PAGE
    with replacing(path) as file:
        file.write(page.encode(errors="backslashreplace"))  # a folder's name need not be Unicode
    return path


def image(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    return f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'


def world_section(groups: Sequence[Group], out: Path, number: str) -> str:
    name = groups[0].world
    shown = [
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
    html += f'<div class="grid">{"".join(map(image, shown))}</div>'
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
    return html


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Rows are (class, cells); everything is escaped."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for kind, cells in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def as_text(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1%}" if name.startswith(("reached/", "share_")) else f"{value:,.2f}"


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
    """The run's evaluation and its video, where they exist."""
    html = ""
    if run.evaluation is not None:
        told = run.evaluation
        columns = ("mean", "low", "high", "median", "min", "max")
        rows = [
            ("run", [name, *(as_text("", value.get(column)) for column in columns)])
            for name, value in told["results"].items()
        ]
        shown: dict[str, Any] = {
            name: told[name]
            for name in ("episodes", "policy", "seed", "trained_agent_steps")
            if name in told
        }
        if HUMAN in told:
            shown[HUMAN] = as_text("", told[HUMAN].get("mean"))
        facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())
        rest = {name: value for name, value in told.items() if name != "results"}
        html += (
            f"<p class='note'>{escape(facts)}; low to high: 95% interval over"
            f" episodes</p>{table(['', *columns], rows)}"
        )
        html += (
            "<details><summary>Rules and provenance of this"
            f" evaluation</summary><pre>{escape(json.dumps(rest, indent=2))}</pre></details>"
        )
    if run.video is not None:
        size = run.video.stat().st_size
        if size < MAX_VIDEO:
            data = base64.b64encode(run.video.read_bytes()).decode()
            html += (
                "<video autoplay loop muted controls playsinline"
                f' src="data:video/mp4;base64,{data}"></video>'
            )
        else:
            html += (
                f"<p class='note'>Video ({size / 1e6:.1f} MB, too large to embed):"
                f" <code>{escape(str(run.video))}</code></p>"
            )
    return f"<h3>Evaluation of {escape(run.folder.name)}</h3>{html}" if html else ""


def origin(runs: Sequence[RunLog], out: Path) -> str:
    """What the runs' configs share of the world and where they differ, all configs whole, and how
    this page was made.
    """
    configs = [flat(to_dict(run.config)) for run in runs]
    names = list(dict.fromkeys(name for config in configs for name in config))
    told = [
        name
        for name in names
        if name.startswith("env.")
        or len({json.dumps(config.get(name, "–")) for config in configs}) > 1
    ]
    always = [
        name
        for name in ("preset", "seed", "total_steps", "unroll_length", "learner.learning_rate")
        if name not in told
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
        for name in [*always, *told]
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
