"""The figures of where a study's agents were, and where they were paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from afterwit.runs.output.figure_style import GREY, INK, method_colours
from afterwit.runs.reports.groups import Group
from afterwit.runs.reports.maze_maps import draw_maze, map_of
from afterwit.runs.studies.figures import LABEL, MANY
from afterwit.runs.studies.results import Key, StudyLog

ABREAST = 3  # worlds beside each other in the figure of one method
LEFT = LABEL - 0.3  # inches
GAP, WORDS, TOP = 0.1, 0.32, 0.36  # inches: between maps, for what stands under one, above all


class Cell(NamedTuple):
    """A map of the figure. `words` stand under it."""

    group: Group
    name: str  # visits or pay
    colour: str
    words: str


def coverage_figure(study: StudyLog) -> Figure | None:
    """Return a figure of where the agents were in the last tenth, by world and method.

    All runs of a cell are summed. Many methods are rows, few are columns. None if no run has maps.
    """
    drawn = mapped(study.groups)
    if not drawn:
        return None
    ink = method_colours(study.methods)
    worlds = [world for world in study.worlds if any(key[0] == world for key in drawn)]
    methods = [method for method in study.methods if any(key[1] == method for key in drawn)]
    places = {
        (worlds.index(world), methods.index(method)): Cell(
            group, "visits", ink[method], reached_words(study, (world, method))
        )
        for (world, method), group in drawn.items()
    }
    heads = [(world, INK) for world in worlds], [(method, ink[method]) for method in methods]
    if len(methods) > MANY:
        return grid(heads[1], heads[0], {(row, line): cell for (line, row), cell in places.items()})
    return grid(*heads, places)


def method_figure(study: StudyLog, method: str) -> Figure | None:
    """Return a figure of where one method was in the last tenth and where it was paid, by world.

    All runs of a cell are summed. None if no run has maps.
    """
    drawn = mapped({key: group for key, group in study.groups.items() if key[1] == method})
    if not drawn:
        return None
    ink, rows, cells = method_colours(study.methods)[method], [], dict[tuple[int, int], Cell]()
    for index, ((world, _), group) in enumerate(drawn.items()):
        line, column = divmod(index, ABREAST)
        for name, what in (("visits", "its time"), ("pay", "its pay")):
            if not column:
                rows.append((what, INK if name == "visits" else GREY))
            words = f"\n{reached_words(study, (world, method))}" if name == "visits" else ""
            cells[2 * line + (name == "pay"), column] = Cell(group, name, ink, world + words)
    return grid(rows, [("", INK)] * min(ABREAST, len(drawn)), cells)


def grid(
    rows: Sequence[tuple[str, str]],
    columns: Sequence[tuple[str, str]],
    cells: Mapping[tuple[int, int], Cell],
) -> Figure:
    """Return a figure of maps with heads: words and their colour."""
    wide = max(2.05, 5.0 / len(columns))
    shapes = [map_of(cell.group).walls.shape for cell in cells.values()]
    high = wide * max(rows / columns for rows, columns in shapes) * 1.25
    width, height = LEFT + len(columns) * (wide + GAP), TOP + 0.02 + len(rows) * (high + WORDS)
    figure = Figure(figsize=(width, height), dpi=200)
    head: Any = {"fontsize": 9.5, "fontweight": "bold"}
    for row, (words, colour) in enumerate(rows):
        middle = TOP + row * (high + WORDS) + high / 2
        at = 0.06 / width, 1 - middle / height
        figure.text(*at, words, color=colour, va="center", **head)
    for column, (words, colour) in enumerate(columns):
        at = (LEFT + column * (wide + GAP)) / width, 1 - 0.06 / height
        figure.text(*at, words, color=colour, va="top", **head)
    for (row, column), cell in cells.items():
        left = (LEFT + column * (wide + GAP)) / width
        bottom = 1 - (TOP + row * (high + WORDS) + high) / height
        ax = figure.add_axes((left, bottom, wide / width, high / height))
        values = cell.group.maps(cell.name)
        draw_maze(ax, map_of(cell.group), values, cell.colour, marks=False)
        figure.text(left, bottom - 0.02 / height, cell.words, fontsize=6.5, color=GREY, va="top")
    return figure


def mapped(groups: Mapping[Key, Group]) -> dict[Key, Group]:
    """Return the cells whose runs have maps."""
    return {key: group for key, group in groups.items() if group.maps("visits") is not None}


def reached_words(study: StudyLog, key: Key) -> str:
    """Return the share of the last tenth's episodes that reached each tracker."""
    shares = [study.get(*key, f"{name}_last").mean for name in study.measures if name != "score"]
    return "  ".join(
        f"R{index + 1} {share:.0%}" for index, share in enumerate(shares) if np.isfinite(share)
    )
