"""The figure of `afterwit scores`: aggregates with intervals, and performance profiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from afterwit.runs.evaluation.intervals import AGGREGATES
from afterwit.runs.evaluation.scores_text import run_count
from afterwit.runs.output.figure_style import GREY, STYLE, method_colours
from afterwit.runs.output.files import atomic_write


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the PNG.

    It has a panel per aggregate, with a dot and a bar per method, and a panel with the profiles.
    """
    methods = list(result["scores"])
    colours = method_colours(methods)
    name = result["measure"].replace("_", "-") + " score"
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.5 + 0.3 * len(methods)), dpi=200, layout="constrained")
        axes = figure.subplots(1, len(AGGREGATES) + 1, width_ratios=[1] * len(AGGREGATES) + [1.6])
        for ax, aggregate in zip(axes, AGGREGATES, strict=False):
            for row, method in enumerate(reversed(methods)):
                entry = result["aggregates"][method][aggregate]
                colour = colours[method]
                ax.plot(
                    [entry["low"], entry["high"]],
                    [row, row],
                    color=colour,
                    linewidth=4,
                    alpha=0.35,
                    solid_capstyle="butt",
                )
                ax.plot(entry["value"], row, "o", color=colour, markersize=5)
            ax.set_title(f"{aggregate} of the {name}", fontsize=8)
            ax.set_ylim(-0.6, len(methods) - 0.4)
            ax.set_yticks(
                range(len(methods)),
                list(reversed(methods)) if ax is axes[0] else [""] * len(methods),
            )
        profiles = result["profiles"]
        for method in methods:
            curve, colour = profiles["methods"][method], colours[method]
            axes[-1].plot(
                profiles["thresholds"], curve["share"], color=colour, drawstyle="steps-pre"
            )
            axes[-1].fill_between(
                profiles["thresholds"],
                curve["low"],
                curve["high"],
                color=colour,
                alpha=0.2,
                linewidth=0,
                step="pre",
            )
        axes[-1].set_title("share of runs above a score", fontsize=8)
        axes[-1].set_xlabel(name)
        axes[-1].set_ylim(0, 1.02)
        caption = (
            f"{run_count(result)} a task and method; bars and bands: 95% stratified-bootstrap"
            " intervals (rliable)"
        )
        figure.supxlabel(caption, fontsize=7, color=GREY)
        with atomic_write(path) as file:
            figure.savefig(file, format="png")
