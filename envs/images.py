"""One rule for images: which Boxes hold them, where their channels stand, and what makes them
channels first.

Three axes are an image, and four a stack of images, oldest first. Channels are last where the last
axis has at most 4 entries and the first has more, or where height and width have at least 16 and
the last axis has less than half of either; else they are first. So (84, 84, 3) and (210, 160, 1)
are channels last; (4, 84, 84), (3, 3, 3), (4, 64, 4) and (19, 7, 7) are channels first.

Two axes are one plane where they hold bytes, or where both have at least 16 entries, and finite
bounds. What is left, other tables and all Boxes of one axis or of more than four, is a vector.

Bytes are read as bytes, and so are images of other integers from 0 to 255; all else as float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from afterwit.envs.arrays import Array

PICTURE = 16  # height and width of a table that is a picture, of an image worth a convolution
FEW = 4  # channels: gray, red green blue, and one more


@dataclass(frozen=True)
class View:
    """How the observations of a Box become what networks read: channels first, uint8 or float32."""

    raw: tuple[int, ...]  # the Box's shape
    dtype: str  # what networks read: uint8 or float32
    image: bool
    channels_last: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """What networks read: [channels, height, width] of an image, all channels of a stack after
        each other."""
        if not self.image:
            return self.raw
        *lead, height, width = self._first(np.empty(self.raw, bool)).shape
        return prod(lead), height, width

    def planes(self, observations: Array) -> Array:
        """Observations [..., *raw] as [..., *shape], of the same numbers."""
        lead = observations.shape[: observations.ndim - len(self.raw)]
        return self._first(observations).reshape(*lead, *self.shape)

    def restored(self, planes: Array) -> Array:
        """What `planes` made, [*shape], as the Box has it, [*raw]."""
        if not self.channels_last:
            return planes.reshape(self.raw)
        *frames, height, width, channels = self.raw
        return np.ascontiguousarray(
            np.moveaxis(planes.reshape(*frames, channels, height, width), -3, -1)
        )

    @np.errstate(all="ignore")  # whatever the caller has set
    def __call__(self, observations: Any) -> Array:
        """A copy of observations [..., *raw] as networks read it: [..., *shape] of `dtype`. What
        float32 cannot hold is infinite.

        Raises a ValueError that names type or values of what is no such number.
        """
        observations = np.asarray(observations)
        kind = observations.dtype.kind
        if kind not in "biuf" or (self.dtype == "uint8" and kind not in "iu"):
            wanted = "bytes, integers from 0 to 255" if self.dtype == "uint8" else "numbers"
            raise ValueError(f"observations have dtype {observations.dtype}; they must be {wanted}")
        if (
            self.dtype == "uint8"
            and observations.dtype != np.uint8
            and not ((observations >= 0) & (observations <= 255)).all()
        ):
            raise ValueError(
                f"observations span {observations.min()}..{observations.max()}; bytes are 0..255"
            )
        return np.array(self.planes(observations), self.dtype, order="C")

    def _first(self, observations: Array) -> Array:
        return np.moveaxis(observations, -1, -3) if self.channels_last else observations

    def __str__(self) -> str:
        if not self.image:
            return (
                f"vectors of {self.raw[0]} numbers"
                if len(self.raw) == 1
                else f"tables of {'x'.join(map(str, self.raw))} numbers"
            )
        *lead, height, width = self._first(np.empty(self.raw, bool)).shape
        count = f"stacks of {lead[0]} images" if len(lead) == 2 else "images"
        channels = f"with {lead[-1]} channel{'s' * (lead[-1] > 1)}" if lead else "of one plane"
        order = (
            "" if not lead else " last, turned channels first" if self.channels_last else " first"
        )
        return f"{count} {height}x{width} {channels}{order}"


def view_of(space: Box) -> View:
    """How observations of `space` become what networks read."""
    whole = bool((space.low == 0).all() and (space.high == 255).all()) and np.issubdtype(
        space.dtype, np.integer
    )
    shape = space.shape
    image = len(shape) in (3, 4)
    if len(shape) == 2:
        bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
        image = space.dtype == np.uint8 or whole or (bounded and min(shape) >= PICTURE)
    bytes_ = space.dtype == np.uint8 or (image and whole)
    return View(
        shape,
        "uint8" if bytes_ else "float32",
        image,
        image and len(shape) > 2 and has_channels_last(shape[-3:]),
    )


def has_channels_last(shape: tuple[int, ...]) -> bool:
    """Of an image of three axes."""
    one, two, last = shape
    return last <= FEW < one or (min(one, two) >= PICTURE and 2 * last < min(one, two))
