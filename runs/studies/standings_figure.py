"""The figure of a study's standings: methods by worlds, the darker the better."""

from __future__ import annotations

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from afterwit.runs.output.figure_style import GREY, INK
from afterwit.runs.studies.figures import world_words
from afterwit.runs.studies.results import StudyLog
from afterwit.runs.studies.standings import Standings

DARK = 0.6  # scores above it are written in white
WIDE, HIGH, NAMES, TOP = 0.98, 0.36, 1.45, 0.64  # inches; NAMES at least


def standings_figure(study: StudyLog, found: Standings) -> Figure:
    """Return a table in colours: each method's mean score in each world, and its worst run to best.

    The methods are in the order of their means, which are on the left.
    """
    columns, rows = 1 + len(found.worlds), len(found.methods)
    names = max(NAMES, 0.15 + max(width_of(each.method) for each in found.methods))
    width, height = names + columns * WIDE + 0.1, TOP + rows * HIGH + 0.3
    figure = Figure(figsize=(width, height), dpi=200)
    ax = figure.add_axes(
        (names / width, 0.3 / height, columns * WIDE / width, rows * HIGH / height)
    )
    means = np.full((rows, columns), np.nan)
    for row, each in enumerate(found.methods):
        means[row, 0] = each.overall.value
        for column, world in enumerate(found.worlds, 1):
            runs = each.scores.get(world, np.empty(0))
            if len(runs):
                means[row, column] = runs.mean()
                ends = f"{runs.min():.2f} to {runs.max():.2f}" if len(runs) > 1 else "one run"
                ink = "white" if runs.mean() > DARK else INK
                ax.text(column, row + 0.24, ends, ha="center", va="center", size=6, color=ink)
    ax.imshow(means, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            ink, single = "white" if mean > DARK else INK, column == 0
            weight, at = ("bold", row) if single else ("normal", row - 0.14)
            ax.text(
                column, at, f"{mean:.2f}", ha="center", va="center", color=ink, fontweight=weight
            )
    ax.set_xticks([])
    ax.set_yticks(range(rows), [each.method for each in found.methods], fontweight="bold")
    ax.tick_params(length=0, labelcolor=INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    for line in range(rows + 1):
        ax.axhline(line - 0.5, color="white", linewidth=1.5)
    ax.axvline(0.5, color="white", linewidth=6)
    for column in range(1, columns):
        ax.axvline(column + 0.5, color="white", linewidth=1.5)
    titles = [("mean", "of all worlds" if found.common == found.worlds else "of full columns")]
    for world in found.worlds:
        name = world.replace("-", "-\n", 1) if len(world) > 12 else world
        titles.append((name, world_words(study.members(world)[0][1].runs[0].config)))
    for column, (name, words) in enumerate(titles):
        if not (column or found.common):
            continue
        left = (names + (column + 0.5) * WIDE) / width
        figure.text(left, 1 - 0.06 / height, name, fontweight="bold", ha="center", va="top")
        lines = 0.14 * name.count("\n")
        below = 1 - (0.24 + lines) / height
        figure.text(left, below, words, size=6.5, color=GREY, ha="center", va="top")
    note = "score over all of training, mean over runs; small: lowest and highest run"
    figure.text(0.06 / width, 0.08 / height, note, color=GREY, size=7)
    return figure


def width_of(name: str) -> float:
    """Return the width of a method's name in inches."""
    path = TextPath((0, 0), name, size=rcParams["font.size"], prop=FontProperties(weight="bold"))
    return float(path.get_extents().width) / 72
