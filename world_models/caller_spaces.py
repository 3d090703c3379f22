"""Spaces that networks do not read themselves, turned into a Box, and a Discrete or numbers.

Observations: Discrete and MultiDiscrete become one number for each value, 1 where it is taken.
MultiBinary becomes its bits. Dict and Tuple become their parts, flattened and joined, bytes as 0 to
1; if one part is an image, it alone is read. Parts without numbers (MiniGrid's mission) are left
out. The logger "afterwit" says what is left out.

Actions: MultiDiscrete and MultiBinary become one Discrete that counts all combinations. Those of a
Box stay numbers, scaled to -1 to 1 where they are bounded on both sides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from afterwit.envs.arrays import Array
from afterwit.envs.images import MIN_IMAGE_SIZE, view_of
from afterwit.world_models.callers import as_array

MOST = 4096  # values of an observation, and combinations of an action, that are told apart
MOST_NUMBERS = 64  # of a continuous action
MAX_ACTION = 1e6  # of a number of an action without bounds; larger bounds are none
Read = Callable[[Any, str], Array]  # a caller's value and its name, to an array [T, B, ...]


@dataclass(frozen=True)
class Reading:
    """How a caller's observations become one array, and the space of its entries."""

    given: gymnasium.Space[Any]  #: the caller's
    space: Box
    read: Read
    #: of an observation, what is read of it
    trim: Callable[[Any], Any] = lambda value: value

    def __reduce__(self) -> Any:
        """Functions made here cannot be pickled, so the copy makes its own."""
        return observations_of, (self.given,)


@dataclass(frozen=True)
class ActionReading:
    """How a caller's actions become integers [T, B] or numbers [T, B, A], and their space."""

    given: gymnasium.Space[Any]  #: the caller's
    space: Discrete | Box
    read: Read

    def __reduce__(self) -> Any:
        return actions_of, (self.given,)


class NoNumbers(ValueError):
    """A space holds nothing that networks read."""


def as_numbers(value: Any, name: str) -> Array:
    """A caller's value as an array.

    Raises:
      ValueError: It is no array of numbers.
    """
    array = as_array(name, value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}; it must hold numbers")
    return array


def observations_of(space: gymnasium.Space[Any]) -> Reading:
    """How observations of `space`, in time-major batches, are read.

    Raises:
      ValueError: Nothing in the space is a number, or it holds several images.
    """
    if isinstance(space, Box):
        return Reading(space, space, as_numbers)
    if isinstance(space, Dict | Tuple):
        return joined(space)
    if isinstance(space, Discrete | MultiDiscrete):
        return one_hot(space)
    if isinstance(space, MultiBinary):
        size = prod(space.shape)
        return Reading(
            space,
            Box(0, 1, (size,)),
            lambda value, name: flat(as_numbers(value, name), space.shape, name),
        )
    raise NoNumbers(
        f"observation_space is {space}; Box, Discrete, MultiDiscrete, MultiBinary, and Dict or"
        " Tuple of these are supported"
    )


def one_hot(space: Discrete | MultiDiscrete) -> Reading:
    """One number for each value of each of the space's integers."""
    shape: tuple[int, ...] = ()
    if isinstance(space, Discrete):
        counts, start = np.array([space.n]), np.array([space.start])
    else:
        shape, counts, start = space.shape, space.nvec.ravel(), space.start.ravel()
    size, ends = int(counts.sum()), np.cumsum(counts)
    if size > MOST:
        raise ValueError(f"observation_space is {space}; at most {MOST:,} values are supported")

    def read(value: Any, name: str) -> Array:
        array = as_numbers(value, name)
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} has dtype {array.dtype}; {space} holds integers")
        numbers = flat(array, shape, name, np.int64) - start
        if not ((numbers >= 0) & (numbers < counts)).all():
            raise ValueError(f"{name} spans {array.min()}..{array.max()}, outside of {space}")
        result = np.zeros((*numbers.shape[:-1], size), np.float32)
        np.put_along_axis(result, numbers + ends - counts, 1, -1)
        return result

    return Reading(space, Box(0, 1, (size,)), read)


def joined(space: Dict | Tuple) -> Reading:
    """The parts of a Dict or Tuple, flattened and joined; or its only image."""
    named = dict(space.items()) if isinstance(space, Dict) else dict(enumerate(space))
    readings: dict[Any, Reading] = {}
    refused: list[str] = []
    for name, part in named.items():
        try:
            readings[name] = observations_of(part)
        except NoNumbers:
            continue
        except ValueError as error:
            refused.append(f"{name!r} of the observation space: {error}")
    if not readings and not refused:
        raise NoNumbers(f"observation_space is {space}; none of its parts holds numbers")
    images = [name for name, reading in readings.items() if is_image(reading.space)]
    if len(images) > 1:
        raise ValueError(
            f"observation_space has several images ({', '.join(map(str, images))}); choose one of"
            " them in a wrapper"
        )
    if refused and not images:
        raise ValueError(refused[0])
    kept = images or list(readings)
    dropped = [str(name) for name in named if name not in kept]
    if dropped:
        logging.getLogger("afterwit").info("left out of observations: %s", ", ".join(dropped))

    def part_of(value: Any, name: str, key: Any) -> Array:
        there = isinstance(value, Mapping | tuple | list)
        try:
            found = value[key] if there else None
        except (KeyError, IndexError, TypeError):
            found = None
        if found is None:
            kind = "dict" if isinstance(space, Dict) else "tuple"
            raise ValueError(f"{name} is no {kind} with {key!r}; give {space}")
        return readings[key].read(found, f"{name}[{key!r}]")

    def trim(value: Any) -> Any:
        try:
            return {key: readings[key].trim(value[key]) for key in kept}
        except (KeyError, IndexError, TypeError):
            return value  # reading it will say what is wrong

    if images:
        only = images[0]
        return Reading(space, readings[only].space, lambda v, name: part_of(v, name, only), trim)

    def read(value: Any, name: str) -> Array:
        parts = [
            flat(part_of(value, name, key), readings[key].space.shape, f"{name}[{key!r}]")
            / (255 if view_of(readings[key].space).dtype == "uint8" else 1)
            for key in kept
        ]
        if len({part.shape[:2] for part in parts}) > 1:
            raise ValueError(
                f"the parts of {name} have lengths {[part.shape[:2] for part in parts]}; all must"
                " have the same"
            )
        return np.concatenate(parts, -1)

    size = sum(prod(readings[key].space.shape) for key in kept)
    return Reading(space, Box(-np.inf, np.inf, (size,)), read, trim)


def is_image(space: Box) -> bool:
    """Whether a part of a Dict is an image: height and width are at least 16."""
    view = view_of(space)
    return view.image and min(view.shape[-2:]) >= MIN_IMAGE_SIZE


def flat(
    array: Array, shape: tuple[int, ...], name: str, dtype: Any = np.float32, length: str = "T + 1"
) -> Array:
    """Values [T, B, *shape] as [T, B, n].

    Raises:
      ValueError: They have another shape.
    """
    if array.ndim != 2 + len(shape) or array.shape[2:] != shape:
        wanted = ", ".join([length, "B", *map(str, shape)])
        raise ValueError(f"{name} has shape {array.shape}; it must be [{wanted}]")
    return array.reshape(*array.shape[:2], -1).astype(dtype)


def actions_of(space: gymnasium.Space[Any]) -> ActionReading:
    """How actions of `space`, in time-major batches, are read.

    Raises:
      ValueError: There are too many combinations or numbers, or the space is of another kind.
    """
    if isinstance(space, Discrete):
        return ActionReading(space, space, as_numbers)
    if isinstance(space, Box):
        return numbers_of(space)
    if not isinstance(space, MultiDiscrete | MultiBinary):
        raise ValueError(
            f"action_space is {space}; Discrete, MultiDiscrete, MultiBinary and Box are supported"
        )
    shape = space.shape
    if isinstance(space, MultiBinary):
        counts, start = np.full(prod(shape), 2), np.zeros(prod(shape), np.int64)
    else:
        counts, start = space.nvec.ravel(), space.start.ravel()
    combinations = prod(int(count) for count in counts)
    if combinations > MOST:
        raise ValueError(
            f"action_space is {space}, with {combinations:,} combinations; at most {MOST:,} are"
            " supported"
        )

    def read(value: Any, name: str) -> Array:
        array = as_numbers(value, name)
        if array.dtype.kind not in "biu" or array.shape[2:] != shape:
            wanted = ", ".join(["T", "B", *map(str, shape)])
            raise ValueError(
                f"{name} ({array.dtype}) has shape {array.shape}; it must be integers [{wanted}]"
            )
        numbers = array.reshape(*array.shape[:2], -1).astype(np.int64) - start
        if not ((numbers >= 0) & (numbers < counts)).all():
            raise ValueError(f"{name} spans {array.min()}..{array.max()}, outside of {space}")
        return np.ravel_multi_index(tuple(np.moveaxis(numbers, -1, 0)), tuple(counts))

    return ActionReading(space, Discrete(combinations), read)


def numbers_of(space: Box) -> ActionReading:
    """The numbers of continuous actions.

    A number that is bounded on both sides is scaled to -1 to 1. What lies outside by no more than
    rounding is clipped. Other numbers are read as they are. Bounds above MAX_ACTION are none.

    Raises:
      ValueError: There are no numbers, or too many.
    """
    size = prod(space.shape)
    if not 1 <= size <= MOST_NUMBERS:
        raise ValueError(
            f"action_space is a Box of {size:,} numbers; 1 to {MOST_NUMBERS} are supported"
        )
    low, high = (np.asarray(end, np.float64).ravel() for end in (space.low, space.high))
    low = np.where(low < -MAX_ACTION, -np.inf, low)
    high = np.where(high > MAX_ACTION, np.inf, high)
    bounded = np.isfinite(low) & np.isfinite(high)
    least, most = (np.where(bounded, end, 0) for end in (low, high))
    centre = (least + most) / 2
    half = np.where(most > least, (most - least) / 2, 1)
    rounding = 1e-4 * half + 1e-6 * abs(centre)

    def read(value: Any, name: str) -> Array:
        numbers = flat(as_numbers(value, name), space.shape, name, np.float64, "T")
        bad = ~(abs(numbers) <= MAX_ACTION)  # also if NaN
        if bad.any():
            raise ValueError(
                f"{name} has {numbers[bad][0]:g}; actions must be finite and of order 1 (at most"
                f" {MAX_ACTION:g}). Nothing was changed"
            )
        bad = (numbers < low - rounding) | (numbers > high + rounding)
        if bad.any():
            which = int(bad.nonzero()[-1][0])
            raise ValueError(
                f"{name} has {numbers[bad][0]:g}, but number {which} of an action lies in"
                f" {low[which]:g}..{high[which]:g}; clip actions as the environment does"
            )
        scaled = (numbers - centre) / half
        return np.where(bounded, scaled.clip(-1, 1), numbers).astype(np.float32)

    return ActionReading(space, Box(-1, 1, (size,)), read)


def stack(values: Sequence[Any]) -> Any:
    """Observations of T steps as one time-major batch: arrays, or dicts and tuples of arrays."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: stack([value[key] for value in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(stack(parts) for parts in zip(*values, strict=True))
    return np.stack(values)


def row_of(values: Any, b: int) -> Any:
    """The observation of environment b, of observations [B, ...] in arrays, dicts and tuples."""
    if isinstance(values, Mapping):
        return {key: row_of(value, b) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(row_of(value, b) for value in values)
    return values[b]


def choose_rows(mask: Array, one: Any, other: Any) -> Any:
    """Observations [B, ...]: those of `one` where `mask`, bool [B], and else of `other`."""
    if isinstance(one, Mapping):
        return {key: choose_rows(mask, value, other[key]) for key, value in one.items()}
    if isinstance(one, tuple):
        return tuple(choose_rows(mask, *pair) for pair in zip(one, other, strict=True))
    one = np.asarray(one)
    return np.where(mask.reshape(-1, *[1] * (one.ndim - 1)), one, other)
