"""The picture of `afterwit objectives`: F1 of every encoder, a panel for each world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from afterwit.runs.output.figure_style import GREY, INK, PALE, STYLE, VIBRANT, Picture, save

TITLE = 24  # characters of a panel's title that go in a line


def draw_objectives(rows: Sequence[Mapping[str, Any]], out: Path) -> Picture:
    """Write the picture beside the table: OUT without its ending, with .png.

    A dot is an encoder. The grey line is what random weights know, the pale one the majority guess.
    """
    worlds = list(dict.fromkeys(row["environment"] for row in rows))
    names = list(dict.fromkeys(row["objective"] for row in rows))
    with matplotlib.rc_context(STYLE):
        size = (1.4 + 1.9 * len(worlds), 0.7 + 0.2 * len(names))
        figure = Figure(figsize=size, layout="constrained", dpi=150)
        panels = figure.subplots(1, len(worlds), sharey=True, squeeze=False)[0]
        for axes, world in zip(panels, worlds, strict=True):
            here = [row for row in rows if row["environment"] == world]
            lines = {
                PALE: [float(row["majority"]) for row in here],
                GREY: [float(row["mean"]) for row in here if row["objective"] == "random"],
            }
            for colour, values in lines.items():
                if values:
                    axes.axvline(sum(values) / len(values), color=colour, linewidth=1, zorder=0)
            for row in here:
                colour = GREY if row["objective"] == "random" else VIBRANT[1]
                place = names.index(row["objective"])
                axes.plot(float(row["mean"]), place, "o", color=colour, markersize=4)
            axes.set_title(fill(world, TITLE), loc="left", color=INK)
            axes.set_xlabel("weighted F1")
            axes.set_xlim(0, 1)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
        alt = f"Weighted F1 of encoders trained by {', '.join(names)} in {', '.join(worlds)}."
        return save(figure, out.parent, out.stem, alt)
