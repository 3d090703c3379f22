"""Which Boxes hold images, where their channels are, and how they become channels first.

Three axes are an image. Four axes are a stack of images, oldest first. The channels are last in two
cases:

- The last axis has at most 4 entries and the first has more.
- Height and width are at least 16, and the last axis has less than half of either.

In all other cases they are first. So (84, 84, 3) and (210, 160, 1) are channels last; (4, 84, 84),
(3, 3, 3), (4, 64, 4) and (19, 7, 7) are channels first.

Two axes are an image of one plane if they hold bytes, or if both have at least 16 entries and the
bounds are finite. All other tables, and all Boxes of one axis or of more than four, are vectors.

Bytes are read as uint8. So are images of other integers from 0 to 255. Everything else is read as
float32, also uint8 numbers of at most 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from afterwit.envs.arrays import Array

MIN_IMAGE_SIZE = 16  # smallest height and width of a table that is read as an image
MAX_CHANNELS = 4  # red, green, blue and one more
MOST_RAW = 16  # uint8 numbers up to here are nearer to order 1 as they are than divided by 255


@dataclass(frozen=True)
class View:
    """How the observations of a Box become what networks read: channels first, uint8 or float32."""

    raw: tuple[int, ...]  #: the Box's shape
    dtype: str  #: what networks read: uint8 or float32
    image: bool
    channels_last: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that networks read: [channels, height, width] for an image.

        The channels of a stack follow each other.
        """
        if not self.image:
            return self.raw
        *lead, height, width = self._channels_first(np.empty(self.raw, bool)).shape
        return prod(lead), height, width

    def to_planes(self, observations: Array) -> Array:
        """Observations [..., *raw] as [..., *shape], with the same numbers."""
        lead = observations.shape[: observations.ndim - len(self.raw)]
        return self._channels_first(observations).reshape(*lead, *self.shape)

    def from_planes(self, planes: Array) -> Array:
        """The inverse of `to_planes` for one observation: [*shape] as [*raw]."""
        if not self.channels_last:
            return planes.reshape(self.raw)
        *frames, height, width, channels = self.raw
        return np.ascontiguousarray(
            np.moveaxis(planes.reshape(*frames, channels, height, width), -3, -1)
        )

    @np.errstate(all="ignore")  # overrides the caller's error state
    def __call__(self, observations: Any) -> Array:
        """A copy of the observations as networks read them.

        Args:
          observations: [..., *raw].

        Returns:
          [..., *shape] of `dtype`. Numbers too large for float32 become infinite.

        Raises:
          ValueError: The observations have another dtype, or bytes are out of range.
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
        return np.array(self.to_planes(observations), self.dtype, order="C")

    def _channels_first(self, observations: Array) -> Array:
        return np.moveaxis(observations, -1, -3) if self.channels_last else observations

    def __str__(self) -> str:
        if not self.image:
            return (
                f"vectors of {self.raw[0]} numbers"
                if len(self.raw) == 1
                else f"tables of {'x'.join(map(str, self.raw))} numbers"
            )
        *lead, height, width = self._channels_first(np.empty(self.raw, bool)).shape
        count = f"stacks of {lead[0]} images" if len(lead) == 2 else "images"
        channels = f"with {lead[-1]} channel{'s' * (lead[-1] > 1)}" if lead else "of one plane"
        order = (
            "" if not lead else " last, turned channels first" if self.channels_last else " first"
        )
        return f"{count} {height}x{width} {channels}{order}"


def view_of(space: Box) -> View:
    """How observations of `space` become what networks read.

    Bytes are divided by 255 there; numbers of uint8 that are at most 16 are read as they are.

    >>> from gymnasium.spaces import Box
    >>> view = view_of(Box(0, 255, (84, 84, 3), np.uint8))
    >>> view.shape, view.dtype
    ((3, 84, 84), 'uint8')
    """
    holds_bytes = bool((space.low == 0).all() and (space.high == 255).all()) and np.issubdtype(
        space.dtype, np.integer
    )
    shape = space.shape
    image = len(shape) in (3, 4)
    if len(shape) == 2:
        bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
        image = space.dtype == np.uint8 or holds_bytes or (bounded and min(shape) >= MIN_IMAGE_SIZE)
    # small integers, such as 0 and 1, would all be black as the bytes of an image
    small = bool((space.high <= MOST_RAW).all())
    as_bytes = (space.dtype == np.uint8 and not small) or (image and holds_bytes)
    return View(
        shape,
        "uint8" if as_bytes else "float32",
        image,
        image and len(shape) > 2 and has_channels_last(shape[-3:]),
    )


def has_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image with these three axes has its channels last."""
    one, two, last = shape
    large = min(one, two) >= MIN_IMAGE_SIZE
    return last <= MAX_CHANNELS < one or (large and 2 * last < min(one, two))
