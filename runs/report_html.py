"""The report's pictures and its page: small multiples with direct labels, one colour a world model, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from PIL import Image

from afterwit.envs.maze import HEIGHT, PASSAGE, build_map, draw_map
from afterwit.envs.specs import Array
from afterwit.runs.config import to_dict
from afterwit.runs.provenance import provenance
from afterwit.runs.report import Group, RunLog, flat, headline, noise_of, noise_words, percent, result_names, summarise
from afterwit.runs.statistics import NUM_WINDOWS

COLOURS = {"byol-explore": "#cc3311", "byol-hindsight": "#0077bb", "rnd": "#009988", "icm": "#ee7733"}  # Tol's vibrant: colour-blind safe
OTHER, INK, GREY, PALE = "#555555", "#222222", "#6b6b6b", "#d0d0d0"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))  # groups of one world model in one world
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 8, "text.color": INK, "axes.edgecolor": "#999999", "axes.labelcolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
}  # fmt: skip
MAX_PNG, MAX_VIDEO = 300_000, 4_000_000  # bytes
LEAST, MOST = 2e-4, 5e-2  # share of time or pay in one cell: ends of the maps' logarithmic scale


@dataclass(frozen=True)
class Curve:
    """A number over agent steps."""

    name: str  # as RunLog.mean takes it
    title: str
    share: bool = False
    log: bool = False
    reference: float | None = None


@dataclass(frozen=True)
class Picture:
    file: str
    alt: str
    png: bytes


# --- pictures


def colour(group: Group) -> str:
    return COLOURS.get(group.model, OTHER)


def curves(groups: Sequence[Group]) -> list[Curve]:
    """What the groups of one world logged, in the order of the page."""
    reached = sorted({name for group in groups for name in group.names("reached/")})
    chosen = [Curve(name, f"{name.split('/')[1]}: share of episodes that reached it", share=True) for name in reached]
    chosen += [Curve("episode/return", "Return per episode"), Curve("episode/rooms", "Rooms seen per episode")]
    noise = noise_of(groups[0])
    if noise:
        name, words = noise
        chosen += [
            Curve(f"share_of_time/{name}", f"Share of time {words}", share=True),
            Curve(f"share_of_pay/{name}", "Share of pay on those steps", share=True),
            Curve(f"ratio/{name}", "Their pay (1 = like any other step)", reference=1.0),
        ]
    parts = sorted({name for group in groups for name in group.names("learner/intrinsic_")} - {"learner/intrinsic_scale"})
    parts.sort(key=lambda name: name != "learner/intrinsic_reconstruction")
    chosen += [Curve(name, f"Intrinsic reward: {name.split('_', 1)[1]}", log=name.endswith("reconstruction")) for name in parts]
    chosen += [
        Curve("share_of_time/noop", "Share of no-ops", share=True), Curve("learner/entropy", "Entropy of the policy [nats]"),
        Curve("learner/kl", "KL, old to new policy [nats]"), Curve("learner/embedding_rank", "Effective rank of the embedding"),
        Curve("learner/model_latent_rank", "Effective rank of z"), Curve("learner/gradient_norm", "Gradient norm", log=True),
        Curve("agent_steps_per_second", "Agent steps per second"),
    ]  # fmt: skip
    return [curve for curve in chosen if _worth(curve, groups)]


def _worth(curve: Curve, groups: Sequence[Group]) -> bool:
    logged = [values for group in groups for run in group.runs if np.isfinite(values := run.column(curve.name)).any()]
    if curve.name == "episode/return":  # all zero where the world pays nothing and has trackers to show
        return any(np.nan_to_num(values).any() for values in logged) or bool(logged and not any(g.names("reached/") for g in groups))
    return bool(logged) or curve.name.startswith("ratio/")


def binned(run: RunLog, curve: Curve) -> tuple[Array, Array]:
    """Agent steps and means of at most 40 equal stretches of the run; NaN where a stretch has no entry."""
    total = run.config.total_steps
    count = int(np.clip(total // (2 * run.config.log_interval), 5, 40))
    index = np.minimum(count - 1, (run.steps - 1) * count // total)
    return (np.arange(count) + 0.5) * total / count, np.array([run.mean(curve.name, index == bin) for bin in range(count)])


def draw_lines(ax: Axes, groups: Sequence[Group], curve: Curve) -> list[tuple[float, Group]]:
    """Thin lines for runs, a bold one for each group's mean; returns where the bold lines end."""
    ends = []
    for group in groups:
        lines = [binned(run, curve) for run in group.runs]
        if len({len(values) for _, values in lines}) > 1:  # other log intervals: no common stretches to average over
            lines = [(lines[0][0], np.interp(lines[0][0], *_finite(steps, values), right=np.nan)) for steps, values in lines]
        steps, values = lines[0][0], np.mean([values for _, values in lines], axis=0)
        if len(group.runs) > 1:
            for _, thin in lines:
                ax.plot(*_finite(steps, thin), color=colour(group), alpha=0.35, linewidth=0.7)
        x, y = _finite(steps, values)
        if len(x):
            bold: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) == 1 else {}
            ax.plot(x, y, color=colour(group), linewidth=1.8, linestyle=DASHES[group.index % len(DASHES)], **bold)
            ends.append((float(y[-1]), group))
    if curve.reference is not None:
        ax.axhline(curve.reference, color=GREY, linewidth=0.6, zorder=0)
    total = max(run.config.total_steps for group in groups for run in group.runs)
    ax.set_xlim(0, total)
    ax.set_xticks([0, total / 2, total])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_words(value)))
    if curve.share:
        ax.set_ylim(-0.02, 1.02)
        ax.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    elif curve.log and all(end > 0 for end, _ in ends):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count_words(value) if abs(value) >= 1000 else f"{value:g}"))
        low, high = ax.get_ylim()
        if low >= 0 or high <= 0 or curve.reference is not None:
            ax.set_ylim(min(0.0, low), max(0.0, high))
    return ends


def _finite(steps: Array, values: Array) -> tuple[Array, Array]:
    there = np.isfinite(values)
    return steps[there], values[there]


def count_words(value: float) -> str:
    """1500000 as 1.5M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


def label_ends(ax: Axes, ends: Sequence[tuple[float, Group]]) -> None:
    """Names at the right of a panel, each at the height of its line, moved apart where they would touch."""
    height = ax.get_window_extent().height / ax.figure.dpi * 72  # points
    transform = ax.transData + ax.transAxes.inverted()
    texts = sorted(((float(transform.transform((1, end))[1]), group.label.replace(", ", "\n"), colour(group)) for end, group in ends))
    gaps = [10.5 / height * (text.count("\n") + 1) for _, text, _ in texts]
    places = [place for place, _, _ in texts]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + (gaps[index] + gaps[index - 1]) / 2)
    if places:
        centre = float(np.mean(places)) - float(np.mean([place for place, _, _ in texts]))
        shift = max(centre, places[-1] - 1)  # back to where the lines are, and not above the panel
        places = [place - shift for place in places]
    for place, (_, text, ink) in zip(places, texts, strict=True):
        ax.text(1.03, place, text, transform=ax.transAxes, color=ink, va="center", fontsize=7.5, linespacing=1.1)


def heat(values: Array | None) -> Array | None:
    """Shares of the sum as 0..1, logarithmic between LEAST and MOST; None where there is nothing to share."""
    if values is None or not values.clip(0).sum() > 0:
        return None
    share = values.clip(0) / values.clip(0).sum()
    with np.errstate(divide="ignore"):
        scaled: Array = np.clip(np.log(share / LEAST) / math.log(MOST / LEAST), 0, 1)
    return scaled


def draw_maze(ax: Axes, values: Array | None, ink: str, marks: bool) -> None:
    """The map under a heat of `values` [H * W]; with `marks`, trackers and the columns of blocks are named."""
    maze = build_map()
    base = draw_map(maze) / 255
    base[tuple(maze.trackers.T)] = 1
    scaled = heat(values)
    if scaled is not None:
        alpha = scaled.reshape(*maze.walls.shape, 1)
        base = base * (1 - alpha) + np.array(matplotlib.colors.to_rgb(ink)) * alpha
    ax.imshow(base, interpolation="nearest", aspect="auto")
    ax.axis("off")
    for index, (row, column) in enumerate(maze.trackers):
        ax.plot(
            column,
            row,
            "o",
            markersize=5 if marks else 2.5,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=0.8 if marks else 0.5,
        )
        if marks:
            ax.text(column, 0, f"R{index + 1}", color="white", ha="center", va="center", fontsize=7, fontweight="bold")
    for column in maze.block_columns if marks else ():
        ax.text(column, PASSAGE.start - 1, "↕", color="#f4a6a6", ha="center", va="center", fontsize=7)
    if scaled is None:
        ax.text(0.5, 0.5, "nothing here yet", transform=ax.transAxes, ha="center", va="center", color=GREY, fontstyle="italic")


def overview(worlds: Sequence[Sequence[Group]]) -> Figure:
    """Where each group was and was paid in the last tenth, and how far it got over time: one block a world."""
    width, curve_height = 9.0, 1.25
    map_height = (width - 0.3) * HEIGHT / build_map().width
    height = 0.1
    for groups in worlds:
        drawn = sum(group.maps("visits") is not None for group in groups)
        height += 0.42 + drawn * (2 * map_height + 0.72) + (0.3 if drawn else 0) + (curve_height + 1.1)
    height -= 0.3  # no gap after the last
    figure, y = Figure(figsize=(width, height), dpi=200), height - 0.1

    def axes(left: float, top: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, (top - high) / height, wide / width, high / height))

    def text(left: float, top: float, words: str, **style: Any) -> float:
        """Write, and return how far right it reaches, in inches."""
        return float(figure.text(left / width, top / height, words, va="top", **style).get_window_extent().x1 / figure.dpi)

    for groups in worlds:
        title = groups[0].world
        text(0.15, y, title[:1].upper() + title[1:], fontsize=12, fontweight="bold")
        text(width - 0.15, y - 0.05, seeds_words(groups), ha="right", color=GREY)
        y -= 0.42
        mapped = [group for group in groups if group.maps("visits") is not None]
        for group in mapped:
            end = text(0.15, y, group.label, color=colour(group), fontsize=10, fontweight="bold")
            for name, what, result in (("visits", "where it was", reached_words(group)), ("pay", "where it was paid", paid_words(group))):
                text(0.15 if name == "pay" else end + 0.12, y - 0.02, what, color=GREY, fontsize=8.5)
                text(width - 0.15, y - 0.02, result, ha="right", fontsize=8.5)
                draw_maze(axes(0.15, y - 0.21, 8.7, map_height), group.maps(name), colour(group), marks=True)
                y -= map_height + 0.29
            y -= 0.14
        if mapped:
            text(0.15, y, "last tenth of training;  ↕ column of a moving block", color=GREY, fontsize=7.5)
            strip = axes(6.45, y - 0.01, 1.3, 0.1)
            strip.imshow(
                np.linspace(0, 1, 60)[None],
                cmap=matplotlib.colors.LinearSegmentedColormap.from_list("", ["#f8f9fa", "#555555"]),
                aspect="auto",
            )
            strip.axis("off")
            text(6.4, y, f"share of time or pay: {LEAST:.2%}", ha="right", color=GREY, fontsize=7.5)
            text(7.8, y, f"{MOST:.0%} in one cell", color=GREY, fontsize=7.5)
            y -= 0.3
        shown = [curve for curve in curves(groups) if curve.name.startswith(("reached/", "episode/"))][:4]
        trackers = all(curve.name.startswith("reached/") for curve in shown)
        heading = "Share of episodes that reached each tracker, over agent steps" if trackers else "Per episode, over agent steps"
        text(0.15, y, heading if shown else "No episode has ended yet", color=GREY, fontsize=8.5)
        y -= 0.45
        wide = (width - 0.55 - 1.25) / max(len(shown), 1)
        for index, curve in enumerate(shown):
            ax = axes(0.55 + index * wide, y, wide - 0.28 if trackers else wide - 0.5, curve_height)
            ends = draw_lines(ax, groups, curve)
            ax.set_title(curve.name.split("/")[1] if trackers else curve.title, fontsize=9, fontweight="bold", loc="left", pad=4)
            if trackers and index:
                ax.set_yticklabels([])
            if index == len(shown) - 1:
                label_ends(ax, ends)
        y -= curve_height + 0.65
    return figure


def seeds_words(groups: Sequence[Group]) -> str:
    steps = sorted({group.runs[0].config.total_steps for group in groups})
    seeds = sorted({len(group.runs) for group in groups})
    runs = f"{seeds[0]} seed{'s' * (seeds[0] > 1)} each" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds each"
    return f"{' or '.join(f'{number:,}' for number in steps)} agent steps, {runs}"


def reached_words(group: Group) -> str:
    names = [name for name in group.names("reached/") if math.isfinite(group.last(name))]
    return (
        "reached " + ", ".join(f"{name.split('/')[1]} {percent(group.last(name))}" for name in names) if names else "no episode ended yet"
    )


def paid_words(group: Group) -> str:
    noise = noise_of(group)
    shares = [group.last(f"share_of_{unit}/{noise[0]}") for unit in ("time", "pay")] if noise else [math.nan]
    if not all(map(math.isfinite, shares)):
        return ""
    return f"{percent(shares[0])} of time and {percent(shares[1])} of pay {noise_words(group)}"


def panel(groups: Sequence[Group], curve: Curve) -> Figure:
    figure = Figure(figsize=(3.3, 1.95), dpi=200)
    ax = figure.add_axes((0.135, 0.2, 0.555, 0.62))
    ends = draw_lines(ax, groups, curve)
    figure.text(0.02, 0.975, curve.title, va="top", fontsize=8.5, fontweight="bold")
    ax.set_xlabel("agent steps", fontsize=7.5, labelpad=1)
    label_ends(ax, ends)
    return figure


def tenths(group: Group) -> Figure:
    """Visits in all ten tenths, from first to last."""
    figure = Figure(figsize=(4.8, 5.4), dpi=180)
    figure.text(0.02, 0.985, group.label, va="top", fontsize=10, fontweight="bold", color=colour(group))
    total = group.runs[0].config.total_steps
    for window in range(NUM_WINDOWS):
        ax = figure.add_axes((0.15, 0.95 - (window + 1) * 0.094, 0.84, 0.086))
        draw_maze(ax, group.maps("visits", window), colour(group), marks=False)
        edge = count_words(total * (window + 1) / NUM_WINDOWS)
        ax.text(-0.015, 0.5, f"to {edge}", transform=ax.transAxes, ha="right", va="center", color=GREY, fontsize=7.5)
    return figure


def save(figure: Figure, out: Path, name: str, alt: str) -> Picture:
    """Write out/name.png (names become plain ASCII), with a palette where it would be larger than MAX_PNG."""
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    drawn.save(buffer, format="png", optimize=True)
    if buffer.tell() > MAX_PNG:
        buffer = io.BytesIO()
        drawn.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    file = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".png"
    (out / file).write_bytes(buffer.getvalue())
    return Picture(file, alt, buffer.getvalue())


# --- page

CSS = """
:root{color-scheme:light} *{box-sizing:border-box}
body{margin:0 auto;max-width:1060px;padding:1.5rem 1rem 4rem;
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#222;background:#fff}
h1{font-size:1.05rem;color:#6b6b6b;font-weight:600;margin:0 0 .5rem}
h2{font-size:1.3rem;margin:2.8rem 0 .6rem} h3{font-size:1rem;margin:1.8rem 0 .4rem}
.lead{font-size:1.45rem;line-height:1.35;margin:.3rem 0 .6rem;max-width:46rem}
ul.notes{margin:.3rem 0 1.4rem;padding-left:1.1rem;color:#444;max-width:46rem}
.note{color:#6b6b6b;font-size:.9rem;max-width:46rem} img,video{max-width:100%;height:auto;display:block}
video{width:560px;image-rendering:pixelated;margin:.6rem 0}
.wide{overflow-x:auto;margin:.8rem 0} .wide img{min-width:640px;width:100%}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));gap:.6rem 1rem}
.maps{grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))} .grid img{width:100%}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
td,th{padding:.22rem .7rem .22rem 0;text-align:right;white-space:nowrap}
th{font-weight:600;color:#6b6b6b;border-bottom:1px solid #bbb;vertical-align:bottom;white-space:normal}
td:first-child,th:first-child{text-align:left}
tr.mean td{font-weight:600;border-top:1px solid #e4e4e4} tr.run td:first-child{padding-left:1rem}
pre{overflow-x:auto;font-size:.8rem;background:#f6f6f6;padding:.8rem}
summary{cursor:pointer;padding:.2rem 0} code{font-size:.88em;overflow-wrap:anywhere}
"""


def write_page(groups: Sequence[Group], out: Path) -> Path:
    """Draw everything into `out` and write report.html there; returns its path."""
    worlds = [[group for group in groups if group.world == world] for world in dict.fromkeys(group.world for group in groups)]
    runs = [run for group in groups for run in group.runs]
    body = ["<h1>Afterwit: what the runs did</h1>"]
    for lead, *notes in headline(groups):
        body.append(f'<p class="lead">{escape(lead)}</p>')
        body.append(f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>' if notes else "")
    with matplotlib.rc_context(STYLE):
        picture = save(
            overview(worlds), out, "overview", "Where each agent was and was paid in the last tenth, and how far it got over time"
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
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Afterwit report</title>'
    page = f'<!doctype html>\n<html lang="en"><head>{head}<style>{CSS}</style></head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def image(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    return f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'


def world_section(groups: Sequence[Group], out: Path, number: str) -> str:
    name = groups[0].world
    shown = [save(panel(groups, curve), out, f"curve{number}-{curve.name}", f"{curve.title}, over agent steps") for curve in curves(groups)]
    mapped = [group for group in groups if group.maps("visits") is not None]
    many = any(len(group.runs) > 1 for group in groups)
    lines = "Bold: the mean over seeds; thin: each seed." if many else "One seed each."
    lines += " Each point is the mean over a stretch of the run."
    html = f"<h2>Over time{': ' + escape(name) if number else ''}</h2><p class='note'>{lines}</p>"
    html += f'<div class="grid">{"".join(map(image, shown))}</div>'
    if mapped:
        drawn = [save(tenths(group), out, f"tenths{number}-{group.label}", f"Visits of {group.label} by tenth") for group in mapped]
        html += "<h3>Where it was, from the first tenth to the last</h3><p class='note'>Same scale as above; circles are the trackers.</p>"
        html += f'<div class="grid maps">{"".join(map(image, drawn))}</div>'
    return html


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Rows are (class, cells); everything is escaped."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>' for kind, cells in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def number(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1%}" if name.startswith(("reached/", "share_")) else f"{value:,.2f}"


def results_table(groups: Sequence[Group]) -> str:
    names = list(dict.fromkeys(name for group in groups for name in result_names(group)))
    best = [name for name in names if name.startswith(("reached/", "episode/"))]
    words = {"share_of_time": "time with noise", "share_of_pay": "pay with noise", "ratio": "pay / time"}
    head = ["", "episodes"]
    columns: list[tuple[str, str]] = []
    for name in names:
        section, short = name.split("/")
        columns.append((name, "last_tenth"))
        head.append(words.get(section, short))
        if name in best:
            columns.append((name, "best_tenth"))
            head.append(f"{short} best")
    rows = []
    for group, row in zip(groups, summarise(groups)["groups"], strict=True):
        members = (
            [(row["label"] + (f" (mean of {len(row['runs'])})" if len(row["runs"]) > 1 else ""), "mean", row)]
            if len(row["runs"]) > 1
            else []
        )
        members += [(run["folder"] if not members else f"seed {run['seed']}", "run" if members else "mean", run) for run in row["runs"]]
        for title, kind, values in members:
            title = group.label if kind == "mean" and len(row["runs"]) == 1 else title
            ended = sum(run["episodes_last_tenth"] for run in row["runs"]) if "runs" in values else values["episodes_last_tenth"]
            rows.append((kind, [title, f"{ended:,}", *(number(name, values[tenth].get(name)) for name, tenth in columns)]))
    note = "The last tenth of training, weighted by episodes; best: the highest of the ten tenths. Means are over seeds."
    noise = noise_of(groups[0])
    note += f" Noise: time {noise[1]}." if noise else ""
    return f'<h3>{escape(groups[0].world[:1].upper() + groups[0].world[1:])}</h3><p class="note">{escape(note)}</p>{table(head, rows)}'


def effort_table(groups: Sequence[Group]) -> str:
    head = ["run", "world model", "seed", "agent steps", "of", "frames", "episodes", "wall time [s]", "agent steps/s"]
    rows = []
    for row in summarise(groups)["groups"]:
        for run in row["runs"]:
            counts = [f"{run[name]:,}" if run[name] is not None else "–" for name in ("agent_steps", "total_steps", "frames", "episodes")]
            times = [f"{run[name]:,.0f}" if run[name] is not None else "–" for name in ("seconds", "agent_steps_per_second")]
            rows.append(("run", [Path(run["folder"]).name, row["label"], str(run["seed"]), *counts, *times]))
    return f"<h3>Effort</h3>{table(head, rows)}"


def evaluation(run: RunLog) -> str:
    """The run's evaluation and its video, where they exist."""
    html = ""
    if run.evaluation is not None:
        told = run.evaluation
        results: dict[str, Any] = told["results"] if isinstance(told.get("results"), dict) else {}
        columns = ("mean", "low", "high", "median", "min", "max")
        rows = [
            ("run", [name, *(number("", value.get(column)) for column in columns)])
            for name, value in results.items()
            if isinstance(value, dict)
        ]
        facts = ", ".join(
            f"{name.replace('_', ' ')} {told[name]}"
            for name in ("episodes", "policy", "seed", "trained_agent_steps", "human_normalised")
            if name in told
        )
        rest = {name: value for name, value in told.items() if name != "results"}
        html += f"<p class='note'>{escape(facts)}; low to high: 95% interval over episodes</p>{table(['', *columns], rows)}"
        html += (
            f"<details><summary>Rules and provenance of this evaluation</summary><pre>{escape(json.dumps(rest, indent=2))}</pre></details>"
        )
    if run.video is not None:
        size = run.video.stat().st_size
        if size < MAX_VIDEO:
            data = base64.b64encode(run.video.read_bytes()).decode()
            html += f'<video autoplay loop muted controls playsinline src="data:video/mp4;base64,{data}"></video>'
        else:
            html += f"<p class='note'>Video ({size / 1e6:.1f} MB, too large to embed): <code>{escape(str(run.video))}</code></p>"
    return f"<h3>Evaluation of {escape(run.folder.name)}</h3>{html}" if html else ""


def origin(runs: Sequence[RunLog], out: Path) -> str:
    """What the runs' configs share of the world and where they differ, all configs whole, and how this page was made."""
    configs = [flat(to_dict(run.config)) for run in runs]
    names = list(dict.fromkeys(name for config in configs for name in config))
    told = [name for name in names if name.startswith("env.") or len({json.dumps(config.get(name, "–")) for config in configs}) > 1]
    always = [name for name in ("preset", "seed", "total_steps", "unroll_length", "learner.learning_rate") if name not in told]
    rows = [
        ("run", [name, *(json.dumps(config[name]).strip('"') if name in config else "–" for config in configs)])
        for name in [*always, *told]
    ]
    whole = ""
    for run in runs:
        config = escape(json.dumps(to_dict(run.config), indent=2))
        whole += f"<details><summary>{escape(str(run.folder))}: full config</summary><pre>{config}</pre></details>"
    command = shlex.join(["afterwit", "report", *(str(run.folder) for run in runs), "--out", str(out)])
    facts = provenance()
    made = f"{facts['date']}, commit {facts['commit'] or 'unknown (installed package)'}, {facts['processor']}"
    return (
        f"<h2>Where this comes from</h2><p class='note'>The world, and every setting that differs between these runs.</p>"
        f"{table(['', *(run.folder.name for run in runs)], rows)}{whole}"
        f"<p class='note'>This page: <code>{escape(command)}</code><br>{escape(made)}</p>"
    )
