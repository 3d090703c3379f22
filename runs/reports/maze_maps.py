"""Maze maps of where agents were and were paid, and the overview at the top of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afterwit.envs.arrays import Array
from afterwit.envs.maze import MazeConfig
from afterwit.envs.maze_map import MazeMap, build_map, draw_map
from afterwit.runs.output.figure_style import GREY, INK, count_words
from afterwit.runs.reports.curves import colour, curves, draw_lines, label_ends
from afterwit.runs.reports.groups import Group, noise_of
from afterwit.runs.reports.sentences import noise_words, percent
from afterwit.runs.training.episode_statistics import NUM_WINDOWS

MOST_MAP = 8.7, 2.4  # inches, width and height of a map in the overview
LABEL_ABOVE = 3  # rows from the middle of a chamber to the wall above it, where a label fits
LEAST, MOST = 2e-4, 5e-2  # ends of the logarithmic scale: share of time or pay in one cell


def log_share(values: Array | None) -> Array | None:
    """Return shares of the sum on a logarithmic scale, 0..1 between LEAST and MOST.

    None if the sum is 0.
    """
    if values is None or not values.clip(0).sum() > 0:
        return None
    share = values.clip(0) / values.clip(0).sum()
    with np.errstate(divide="ignore"):
        scaled: Array = np.clip(np.log(share / LEAST) / math.log(MOST / LEAST), 0, 1)
    return scaled


def map_of(group: Group) -> MazeMap:
    """Return the map of a group's maze."""
    env = group.runs[0].config.env
    return build_map(env.layout if isinstance(env, MazeConfig) else MazeConfig.layout)


def map_size(maze: MazeMap, wide: float, high: float) -> tuple[float, float]:
    """Return the largest width and height of a picture of the maze within `wide` x `high`."""
    wide = min(wide, high * maze.width / maze.height)
    return wide, wide * maze.height / maze.width


def draw_maze(ax: Axes, maze: MazeMap, values: Array | None, ink: str, marks: bool) -> None:
    """Draw the maze with `values` [H * W] on it.

    With `marks`, trackers and the columns of blocks are labelled.
    """
    base = draw_map(maze) / 255
    base[tuple(maze.trackers.T)] = 1
    scaled = log_share(values)
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
            ax.text(
                column,
                row - LABEL_ABOVE,
                f"R{index + 1}",
                color="white" if maze.walls[row - LABEL_ABOVE, column] else INK,
                ha="center",
                va="center",
                fontsize=7,
                fontweight="bold",
            )
    for column, top, _ in maze.drawing.blocks if marks else ():
        ax.text(column, top - 1, "↕", color="#f4a6a6", ha="center", va="center", fontsize=7)
    if scaled is None:
        ax.text(
            0.5,
            0.5,
            "nothing here yet",
            transform=ax.transAxes,
            ha="center",
            va="center",
            color=GREY,
            fontstyle="italic",
        )


def overview(worlds: Sequence[Sequence[Group]]) -> Figure:
    """Return the overview: a block per world.

    A block shows where each group was and was paid in the last tenth, and how far it got over time.
    """
    width, curve_height = 9.0, 1.25
    height = 0.1
    for groups in worlds:
        drawn = [
            2 * map_size(map_of(group), *MOST_MAP)[1] + 0.72
            for group in groups
            if group.maps("visits") is not None
        ]
        height += 0.42 + sum(drawn) + (0.3 if drawn else 0) + (curve_height + 1.1)
    height -= 0.3  # no gap after the last
    figure, y = Figure(figsize=(width, height), dpi=200), height - 0.1

    def axes(left: float, top: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, (top - high) / height, wide / width, high / height))

    def text(left: float, top: float, words: str, **style: Any) -> float:
        """Write, and return how far right it reaches, in inches."""
        return float(
            figure.text(left / width, top / height, words, va="top", **style).get_window_extent().x1
            / figure.dpi
        )

    for groups in worlds:
        title = groups[0].world
        text(0.15, y, title[:1].upper() + title[1:], fontsize=12, fontweight="bold")
        text(width - 0.15, y - 0.05, seeds_words(groups), ha="right", color=GREY)
        y -= 0.42
        mapped = [group for group in groups if group.maps("visits") is not None]
        for group in mapped:
            maze = map_of(group)
            wide, high = map_size(maze, *MOST_MAP)
            end = text(0.15, y, group.label, color=colour(group), fontsize=10, fontweight="bold")
            for name, what, result in (
                ("visits", "where it was", reached_words(group)),
                ("pay", "where it was paid", paid_words(group)),
            ):
                text(
                    0.15 if name == "pay" else end + 0.12, y - 0.02, what, color=GREY, fontsize=8.5
                )
                text(width - 0.15, y - 0.02, result, ha="right", fontsize=8.5)
                draw_maze(
                    axes(0.15, y - 0.21, wide, high),
                    maze,
                    group.maps(name),
                    colour(group),
                    marks=True,
                )
                y -= high + 0.29
            y -= 0.14
        if mapped:
            text(
                0.15,
                y,
                "last tenth of training;  ↕ column of a moving block",
                color=GREY,
                fontsize=7.5,
            )
            strip = axes(6.45, y - 0.01, 1.3, 0.1)
            strip.imshow(
                np.linspace(0, 1, 60)[None],
                cmap=matplotlib.colors.LinearSegmentedColormap.from_list(
                    "", ["#f8f9fa", "#555555"]
                ),
                aspect="auto",
            )
            strip.axis("off")
            text(6.4, y, f"share of time or pay: {LEAST:.2%}", ha="right", color=GREY, fontsize=7.5)
            text(7.8, y, f"{MOST:.0%} in one cell", color=GREY, fontsize=7.5)
            y -= 0.3
        drawn_curves = [
            curve for curve in curves(groups) if curve.name.startswith(("reached/", "episode/"))
        ][:4]
        trackers = all(curve.name.startswith("reached/") for curve in drawn_curves)
        heading = (
            "Share of episodes that reached each tracker, over agent steps"
            if trackers
            else "Per episode, over agent steps"
        )
        text(
            0.15,
            y,
            heading if drawn_curves else "No episode has ended yet",
            color=GREY,
            fontsize=8.5,
        )
        y -= 0.45
        wide = (width - 0.55 - 1.25) / max(len(drawn_curves), 1)
        for index, curve in enumerate(drawn_curves):
            ax = axes(0.55 + index * wide, y, wide - 0.28 if trackers else wide - 0.5, curve_height)
            ends = draw_lines(ax, groups, curve)
            ax.set_title(
                curve.name.split("/")[1] if trackers else curve.title,
                fontsize=9,
                fontweight="bold",
                loc="left",
                pad=4,
            )
            if trackers and index:
                ax.set_yticklabels([])
            if index == len(drawn_curves) - 1:
                label_ends(ax, ends)
        y -= curve_height + 0.65
    return figure


def seeds_words(groups: Sequence[Group]) -> str:
    steps = sorted({group.runs[0].config.total_steps for group in groups})
    seeds = sorted({len(group.runs) for group in groups})
    runs = (
        f"{seeds[0]} seed{'s' * (seeds[0] > 1)} each"
        if len(seeds) == 1
        else f"{seeds[0]} to {seeds[-1]} seeds each"
    )
    return f"{' or '.join(f'{number:,}' for number in steps)} agent steps, {runs}"


def reached_words(group: Group) -> str:
    names = [name for name in group.names("reached/") if math.isfinite(group.last(name))]
    return (
        "reached "
        + ", ".join(f"{name.split('/')[1]} {percent(group.last(name))}" for name in names)
        if names
        else "no episode ended yet"
    )


def paid_words(group: Group) -> str:
    noise = noise_of(group)
    shares = (
        [group.last(f"share_of_{unit}/{noise[0]}") for unit in ("time", "pay")]
        if noise
        else [math.nan]
    )
    if not all(map(math.isfinite, shares)):
        return ""
    return f"{percent(shares[0])} of time and {percent(shares[1])} of pay {noise_words(group)}"


def tenths(group: Group) -> Figure:
    """Return a figure of the visits in all ten tenths, from first to last."""
    maze = map_of(group)
    high = 4.8 * 0.84 * maze.height / maze.width  # of one map, in inches
    figure = Figure(figsize=(4.8, max(5.4, high * NUM_WINDOWS / 0.86)), dpi=180)
    figure.text(
        0.02, 0.985, group.label, va="top", fontsize=10, fontweight="bold", color=colour(group)
    )
    total = group.runs[0].config.total_steps
    for window in range(NUM_WINDOWS):
        ax = figure.add_axes((0.15, 0.95 - (window + 1) * 0.094, 0.84, 0.086))
        draw_maze(ax, maze, group.maps("visits", window), colour(group), marks=False)
        edge = count_words(total * (window + 1) / NUM_WINDOWS)
        ax.text(
            -0.015,
            0.5,
            f"to {edge}",
            transform=ax.transAxes,
            ha="right",
            va="center",
            color=GREY,
            fontsize=7.5,
        )
    return figure
