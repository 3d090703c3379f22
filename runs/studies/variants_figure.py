"""The figure of a study's variants: what one config field changes."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afterwit.runs.output.figure_style import COLOURS, GREY, INK, OTHER, PALE
from afterwit.runs.studies.figures import LABEL
from afterwit.runs.studies.results import Knob, StudyLog


def variants_figure(study: StudyLog, world: str) -> Figure:
    """Return a figure with a column per field.

    It shows the main measure over all of training, and the deepest tracker at the end.
    """
    chosen = [(f"{study.measures[0]}_all", f"{study.measures[0]},\nall of training")]
    if study.measures[0] == "score":
        chosen.append((f"{study.measures[-1]}_last", f"{study.measures[-1]},\nlast tenth"))
    weights = [len(knob.settings) + 0.8 for knob in study.knobs]
    unit, high = 0.42, 1.25
    width, height = LABEL + unit * sum(weights), 0.5 + len(chosen) * (high + 0.16) + 0.36
    figure, left = Figure(figsize=(width, height), dpi=200), LABEL
    for weight, knob in zip(weights, study.knobs, strict=True):
        for row, (name, words) in enumerate(chosen):
            top = 0.5 + row * (high + 0.16)
            wide = unit * (weight - 0.8)
            ax = figure.add_axes(
                (left / width, 1 - (top + high) / height, wide / width, high / height)
            )
            draw_knob(ax, study, world, knob, name)
            ax.set_xticks(
                range(len(knob.settings)),
                (
                    [plain_value(value) for value, _ in knob.settings]
                    if row == len(chosen) - 1
                    else []
                ),
            )
            if not row:
                title = "\n".join(textwrap.wrap(knob.path.split(".")[-1].replace("_", " "), 14))
                ax.set_title(title, fontsize=8.5, fontweight="bold", loc="left", pad=5)
            if knob is study.knobs[0]:
                figure.text(
                    0.06 / width,
                    1 - (top + high / 2) / height,
                    words,
                    color=INK,
                    fontsize=8,
                    va="center",
                )
            elif study.measures[0] == "score":
                ax.set_yticklabels([])
        left += unit * weight
    note = "large: mean; small: each run; blue: the default"
    figure.text(LABEL / width, 0.06 / height, note, color=GREY, fontsize=7.5, va="bottom")
    return figure


def draw_knob(ax: Axes, study: StudyLog, world: str, knob: Knob, name: str) -> None:
    for x, (_, method) in enumerate(knob.settings):
        colour = COLOURS["byol-hindsight"] if method == knob.base else OTHER
        each = [
            row[name]
            for row in study.rows
            if (row["world"], row["method"]) == (world, method) and name in row
        ]
        ax.plot(
            [x] * len(each), each, "o", color=colour, markersize=3, alpha=0.45, markeredgewidth=0
        )
        ax.plot(x, study.get(world, method, name).mean, "o", color=colour, markersize=6)
    ax.set_xlim(-0.5, len(knob.settings) - 0.5)
    if study.measures[0] == "score":
        ax.set_ylim(-0.04, 1.04)
        ax.set_yticks([0, 0.5, 1], ["0", "50%", "100%"])
    ax.grid(axis="y", color=PALE, linewidth=0.5)
    ax.set_axisbelow(True)


def plain_value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
