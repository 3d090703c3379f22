"""The figure of where a study's agents were."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from afterwit.runs.output.figure_style import GREY
from afterwit.runs.reports.maze_maps import draw_maze, map_of
from afterwit.runs.studies.figures import LABEL, colours
from afterwit.runs.studies.results import StudyLog


def coverage_figure(study: StudyLog) -> Figure | None:
    """Return a figure of where the agents were in the last tenth, by world and method.

    All runs of a cell are summed. None if no run has maps.
    """
    drawn = {key: group for key, group in study.groups.items() if group.maps("visits") is not None}
    if not drawn:
        return None
    ink = colours(study)
    worlds = [world for world in study.worlds if any(key[0] == world for key in drawn)]
    methods = [method for method in study.methods if any(key[1] == method for key in drawn)]
    wide = max(2.05, 5.0 / len(methods))
    shapes = [map_of(group).walls.shape for group in drawn.values()]
    high, gap = wide * max(rows / columns for rows, columns in shapes) * 1.25, 0.1
    width, height = LABEL - 0.3 + len(methods) * (wide + gap), 0.38 + len(worlds) * (high + 0.32)
    figure = Figure(figsize=(width, height), dpi=200)
    for row, world in enumerate(worlds):
        top = 0.36 + row * (high + 0.32)
        figure.text(
            0.06 / width,
            1 - (top + high / 2) / height,
            world,
            fontsize=9.5,
            fontweight="bold",
            va="center",
        )
        for column, method in enumerate(methods):
            left = LABEL - 0.3 + column * (wide + gap)
            if not row:
                figure.text(
                    left / width,
                    1 - 0.06 / height,
                    method,
                    color=ink[method],
                    fontsize=9.5,
                    fontweight="bold",
                    va="top",
                )
            if (world, method) in drawn:
                ax = figure.add_axes(
                    (left / width, 1 - (top + high) / height, wide / width, high / height)
                )
                group = drawn[world, method]
                draw_maze(ax, map_of(group), group.maps("visits"), ink[method], marks=False)
                reached = [
                    study.get(world, method, f"{name}_last").mean
                    for name in study.measures
                    if name != "score"
                ]
                words = "   ".join(
                    f"R{index + 1} {share:.0%}"
                    for index, share in enumerate(reached)
                    if np.isfinite(share)
                )
                figure.text(
                    left / width,
                    1 - (top + high + 0.02) / height,
                    words,
                    fontsize=6.5,
                    color=GREY,
                    va="top",
                )
    return figure
