"""Runs compared: the pictures. Small multiples with direct labels, one colour a world model."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
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
from afterwit.runs.report_data import (
    Group,
    RunLog,
    noise_of,
)
from afterwit.runs.report_words import noise_words, percent
from afterwit.runs.statistics import NUM_WINDOWS
from afterwit.world_models.instruments import ALARM

COLOURS = {"byol-explore": "#cc3311", "byol-hindsight": "#0077bb", "rnd": "#009988", "icm": "#ee7733"}  # Tol's vibrant: colour-blind safe
OTHER, INK, GREY, PALE = "#555555", "#222222", "#6b6b6b", "#d0d0d0"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))  # groups of one world model in one world
STYLE: Any = {
    "text.parse_math": False,  # names may hold a $
    "font.family": "DejaVu Sans", "font.size": 8, "text.color": INK, "axes.edgecolor": "#999999", "axes.labelcolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
}  # fmt: skip
MAX_PNG, MAX_VIDEO = 300_000, 4_000_000  # bytes
LONGEST = 100  # characters of a picture's name; file systems take 255 bytes
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


def colour(group: Group) -> str:
    return COLOURS.get(group.model, OTHER)


def curves(groups: Sequence[Group]) -> list[Curve]:
    """What the groups of one world logged, in the order of the page."""
    reached = sorted({name for group in groups for name in group.names("reached/")})
    chosen = [Curve(name, f"{name.split('/')[1]}: share of episodes that reached it", share=True) for name in reached]
    chosen += [Curve("episode/return", "Return per episode"), Curve("episode/rooms", "Rooms seen per episode")]
    if not reached:
        chosen += [Curve("episode/cells", "Cells seen per episode"), Curve("explored/cells", "Cells seen in all episodes so far")]
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
        Curve("learner/kl", "KL, old to new policy [nats]"), Curve("noise/seeking", "Seeks noise (1 = does not care)", reference=1.0),
        Curve("rank/embedding", "Effective rank of the embedding"), Curve("rank/belief", "Effective rank of the belief"),
        Curve("rank/latent", "Effective rank of z"), Curve("spread/target", "Error of the best constant guess"),
        Curve("leak/critic", "Leak: critic's estimate / log n", reference=0.0),
        Curve("leak/place_from_latent", "Leak: place told from z", reference=0.0),
        Curve("leak/action_from_latent", "Leak: action told from z", reference=0.0),
        Curve("use/latent", "Error with the z of others / own", reference=1.0), Curve(ALARM, "Collapse alarm"),
        Curve("learner/gradient_norm", "Gradient norm", log=True),
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
    """Write out/name.png (names become plain, short ASCII), with a palette where it would be larger than MAX_PNG."""
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    drawn.save(buffer, format="png", optimize=True)
    if buffer.tell() > MAX_PNG:
        buffer = io.BytesIO()
        drawn.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    file = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST] + ".png"
    (out / file).write_bytes(buffer.getvalue())
    return Picture(file, alt, buffer.getvalue())
