"""The figures of a study: progress over time, and scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from afterwit.envs.arrays import Array
from afterwit.envs.atari import AtariConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.evaluation.intervals import intervals
from afterwit.runs.output.figure_style import GREY, count_words, known, method_colours
from afterwit.runs.reports.curves import Curve, binned
from afterwit.runs.reports.groups import MEASURES, Group
from afterwit.runs.studies.results import StudyLog

MANY = 6  # methods; more lines would be unreadable
LABEL = 1.5  # inches for the names of the worlds
WHEN_WORDS = {"all": "all of training", "best": "best tenth", "last": "last tenth"}


def measure_words(name: str) -> str:
    return MEASURES[name][1] if name in MEASURES else name


def world_words(config: RunConfig) -> str:
    """Return what is special about a world, in a few words."""
    env = config.env
    if isinstance(env, AtariConfig):
        return f"{env.game},\nsticky {env.sticky:g}" + (
            "" if env.noise == "none" else f",\n{env.noise} noise"
        )
    if not isinstance(env, MazeConfig):
        return ""
    dose = env.resolved_dose
    return {
        "none": "blocks bounce:\nno noise",
        "brownian": "blocks walk\nat random",
        "pixel": f"random pixels on\n{dose:.0%} of frames",
        "on-demand": "random pixels\nafter a no-op",
        "sticky": f"{dose:.0%} of actions\nare repeats",
        "frozen": f"fixed pixels on\n{dose:.0%} of frames",
    }.get(env.noise, "")


def curves_figure(study: StudyLog) -> Figure:
    """Return a figure of worlds (rows) and trackers, or cells, rooms and return (columns).

    Lines are means, bands their 95% intervals.
    """
    names = [name for name in study.measures if name != "score"]
    trackers = "score" in study.measures
    ink, worlds = method_colours(study.methods), study.worlds
    # panels without shares need room for their own numbers
    wide, high, gap, between = 1.72, 0.92, 0.17, 0.17 if trackers else 0.5
    width = LABEL + len(names) * (wide + between) + 0.12
    height = 0.78 + len(worlds) * (high + gap) + 0.27
    figure = Figure(figsize=(width, height), dpi=200)
    legend(figure, ink, LABEL, 0.1, width, height)
    total = max(run.config.total_steps for group in study.groups.values() for run in group.runs)
    ends = dict.fromkeys(names, (0.0, 0.0))  # lowest and highest of all worlds
    panels: dict[str, list[Axes]] = {name: [] for name in names}
    for row, world in enumerate(worlds):
        top = 0.78 + row * (high + gap)
        label_world(figure, study, world, top, width, height)
        for column, name in enumerate(names):
            ax = figure.add_axes(
                (
                    (LABEL + column * (wide + between)) / width,
                    1 - (top + high) / height,
                    wide / width,
                    high / height,
                )
            )
            panels[name].append(ax)
            if not row:
                ax.set_title(
                    measure_words(name),
                    loc="left",
                    fontsize=10 if trackers else 8,
                    fontweight="bold",
                    pad=5,
                )
            for method, group in study.members(world):
                x, (centre, low, upper) = series(group, name)
                ax.fill_between(x, low, upper, color=ink[method], alpha=0.18, linewidth=0)
                ax.plot(x, centre, color=ink[method], linewidth=1.6, solid_capstyle="round")
                drawn = [*low, *centre, *upper, *ends[name]]
                ends[name] = float(np.nanmin(drawn)), float(np.nanmax(drawn))
            style(ax, total, last=row == len(worlds) - 1, first=column == 0 or not trackers)
    for name, axes in panels.items():
        for ax in axes:
            lowest, highest = (0.0, 1.0) if trackers else ends[name]
            margin = 0.03 if trackers else 0.05 * ((highest - lowest) or 1)
            ax.set_ylim(lowest - margin if lowest < 0 or trackers else 0, highest + margin)
            if trackers:
                ax.set_yticks(
                    [0, 0.5, 1], ["0", "50%", "100%"] if ax in panels[names[0]] else ["", "", ""]
                )
    what = "share of episodes that reach each tracker;  " if trackers else ""
    what += "line: mean over seeds, band: its 95% interval"
    figure.text(LABEL / width, 1 - 0.36 / height, what, color=GREY, va="top")
    figure.text(
        (LABEL + (width - LABEL) / 2) / width,
        0.06 / height,
        "agent steps",
        color=GREY,
        ha="center",
        va="bottom",
    )
    return figure


def series(group: Group, name: str) -> tuple[Array, tuple[Array, Array, Array]]:
    """Return agent steps, and mean, low and high [points] of a group.

    They end with the slowest run. Between stretches with ended episodes, which may be far apart, a
    run's line is interpolated.
    """
    lines = [
        binned(run, Curve(MEASURES[name][0] if name in MEASURES else f"reached/{name}", ""))
        for run in group.runs
    ]
    x = min((steps for steps, _ in lines), key=len)
    points = [known(*line) for line in lines]
    values = np.array(
        [
            np.interp(x, *each, np.nan, np.nan) if len(each[0]) else np.full(len(x), np.nan)
            for each in points
        ]
    )
    there = np.isfinite(values).all(0)
    return x[there], intervals(values[:, there])


def legend(
    figure: Figure, ink: Mapping[str, str], left: float, top: float, width: float, height: float
) -> None:
    """Draw the methods in a row, each in its colour."""
    for method, colour in ink.items():
        text = figure.text(
            left / width,
            1 - top / height,
            method,
            color=colour,
            fontsize=10.5,
            fontweight="bold",
            va="top",
        )
        left = float(text.get_window_extent().x1) / figure.dpi + 0.28


def label_world(
    figure: Figure, study: StudyLog, world: str, top: float, width: float, height: float
) -> None:
    config = study.members(world)[0][1].runs[0].config
    figure.text(
        0.08 / width, 1 - (top + 0.02) / height, world, fontsize=10.5, fontweight="bold", va="top"
    )
    figure.text(
        0.08 / width,
        1 - (top + 0.24) / height,
        world_words(config),
        fontsize=7.5,
        color=GREY,
        va="top",
        linespacing=1.25,
    )


def style(ax: Axes, total: int, last: bool, first: bool) -> None:
    ax.set_xlim(0, total)
    ax.set_xticks([0, total / 2, total])
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: count_words(value))
        if last
        else FuncFormatter(lambda value, _: "")
    )
    ax.tick_params(length=2, labelleft=first)
    ax.grid(axis="y", color="#ececec", linewidth=0.6)
    ax.set_axisbelow(True)
    left, _, right = ax.get_xticklabels()
    left.set_horizontalalignment("left")  # the ends of neighbours do not touch
    right.set_horizontalalignment("right")


def scores_figure(study: StudyLog) -> Figure:
    """Return a figure of the main measure, a dot with its 95% interval per method.

    It shows all of training, the best tenth and the last tenth.
    """
    ink, worlds, measure = method_colours(study.methods), study.worlds, study.measures[0]
    step = 0.17
    block = step * len(ink) + 0.16
    width, height = 8.6, 0.52 + block * len(worlds) + 0.42
    wide = (width - LABEL - 0.3) / 3
    figure = Figure(figsize=(width, height), dpi=200)
    legend(figure, ink, LABEL, 0.08, width, height)
    highest = max(
        (
            e.high if np.isfinite(e.high) else e.mean
            for key in study.groups
            for when in WHEN_WORDS
            if np.isfinite((e := study.get(*key, f"{measure}_{when}")).mean)
        ),
        default=1.0,
    )
    for column, (when, words) in enumerate(WHEN_WORDS.items()):
        ax = figure.add_axes(
            (
                (LABEL + column * wide) / width,
                0.4 / height,
                (wide - 0.22) / width,
                block * len(worlds) / height,
            )
        )
        for row, world in enumerate(worlds):
            if row:
                ax.axhline(row * block - 0.01, color="#e4e4e4", linewidth=0.6)
            for index, method in enumerate(ink):
                found = study.get(world, method, f"{measure}_{when}")
                y = row * block + 0.1 + (index + 0.5) * step
                ax.plot(
                    [found.low, found.high],
                    [y, y],
                    color=ink[method],
                    linewidth=2.2,
                    alpha=0.45,
                    solid_capstyle="round",
                )
                ax.plot(found.mean, y, "o", color=ink[method], markersize=4.6)
            if not column:
                label_world(
                    figure,
                    study,
                    world,
                    height - 0.4 - block * (len(worlds) - row) + 0.04,
                    width,
                    height,
                )
        ax.set_ylim(block * len(worlds), 0)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_title(words, loc="left", fontsize=9, pad=4)
        share = measure == "score"
        ax.set_xlim(*((-0.02, 1.02) if share else (0, highest * 1.05)))
        if share:
            ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "50%", "", "100%"])
        ax.grid(axis="x", color="#ececec", linewidth=0.6)
        ax.set_axisbelow(True)
    title = (
        "exploration score: trackers reached per episode, over their number"
        if measure == "score"
        else measure_words(measure)
    )
    figure.text(LABEL / width, 0.04 / height, title, color=GREY, va="bottom")
    return figure
