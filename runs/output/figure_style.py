"""The style of figures: a colour per method, fonts, and PNG files of at most 300 KB."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from afterwit.envs.arrays import Array
from afterwit.runs.output.files import atomic_write
from afterwit.world_models.registry import ALL_MODELS

# Tol's vibrant, colour-blind safe: the world models in the order of their registry. Grey is for the
# random policy, the control.
VIBRANT = ("#cc3311", "#0077bb", "#009988", "#ee7733", "#33bbee", "#ee3377")
COLOURS = dict(zip(ALL_MODELS, cycle(VIBRANT), strict=False)) | {"random": "#999999"}
# for methods that have no colour of their own; those of the first four models come last
FREE = (*VIBRANT[4:], "#bbbbbb", "#000000", *VIBRANT[:4])
OTHER, INK, GREY, PALE = "#555555", "#222222", "#6b6b6b", "#d0d0d0"
STYLE: Any = {
    "text.parse_math": False,  # names may hold a $
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}
MAX_PNG, MAX_VIDEO = 300_000, 4_000_000  # bytes
LONGEST = 100  # characters of a picture's name; file systems take 255 bytes


@dataclass(frozen=True)
class Picture:
    """A figure's file name, description and PNG data."""

    file: str
    alt: str
    png: bytes


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """Return a colour for each method of a figure.

    One without a colour of its own gets the first that no other method of the figure has.
    """
    names = list(methods)
    own = {name: COLOURS[name] for name in names if name in COLOURS}
    free = iter([colour for colour in FREE if colour not in own.values()])
    return {name: own.get(name) or next(free, OTHER) for name in names}


def known(steps: Array, values: Array) -> tuple[Array, Array]:
    """Return the points that have a value."""
    there = np.isfinite(values)
    return steps[there], values[there]


def count_words(value: float) -> str:
    """Return a number as short text: 1500000 as 1.5M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


def save(figure: Figure, out: Path, name: str, alt: str) -> Picture:
    """Write OUT/name.png. The name becomes short, plain ASCII.

    A file that would be larger than MAX_PNG gets a palette of 256 colours.
    """
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    drawn.save(buffer, format="png", optimize=True)
    if buffer.tell() > MAX_PNG:
        buffer = io.BytesIO()
        drawn.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    file = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST] + ".png"
    with atomic_write(out / file) as written:
        written.write(buffer.getvalue())
    return Picture(file, alt, buffer.getvalue())
