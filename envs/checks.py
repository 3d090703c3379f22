"""Checks of the numbers in a config, made when the config is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import numpy as np

from afterwit.envs.arrays import Array

MAX_SIZE = 2**20  # limit of everything that takes memory: environments, units, layers, steps
MAX_COUNT = 10**12  # limit of everything that is only counted: agent steps of a run or an episode
THREADS = 1024  # limit of threads: more of them end the process on many machines
MAX_NUMBER = 1e9  # limit of floats: the squares of much larger ones overflow float32

_READING: ContextVar[bool] = ContextVar("reading", default=False)


@contextmanager
def reading_only() -> Iterator[None]:
    """Make configs of environments only to read them, not to play.

    Inside this context the packages that an environment needs may be missing.
    """
    token = _READING.set(True)
    try:
        yield
    finally:
        _READING.reset(token)


def is_reading() -> bool:
    """Whether `reading_only` is active."""
    return _READING.get()


def is_number(value: Any) -> bool:
    """Whether `value` is an int or a float of Python or NumPy. A bool is not a number."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


@np.errstate(all="ignore")  # overrides the caller's error state
def within_limit(numbers: Array) -> Array:
    """Where numbers are finite and at most MAX_NUMBER in magnitude: bools of their shape.

    It is the limit of everything that networks read: observations and rewards.
    """
    return np.abs(numbers, dtype=np.float64) <= MAX_NUMBER  # NaN is not


def check_counts(least: int = 1, **counts: Any) -> None:
    """Check that each value is an integer of at least `least`.

    Args:
      least: The smallest allowed value.
      **counts: The values by name.

    Raises:
      ValueError: A value is not an integer, or is too small. The message names it.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name} is {value!r}; it must be an integer")
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


@cache
def kinds_of(config: Any) -> dict[str, frozenset[Any]]:
    """The types that the fields of a dataclass may have, by name."""
    hints = get_type_hints(config)
    return {
        name: frozenset(get_args(hint) if isinstance(hint, UnionType) else (hint,))
        for name, hint in hints.items()
    }


def fits(value: Any, kinds: frozenset[Any]) -> bool:
    """Whether a value is of one of these kinds, of int, float and None. An int is a float, too."""
    if value is None or isinstance(value, bool | np.bool_):
        return value is None and NoneType in kinds
    whole = isinstance(value, int | np.integer)
    return whole or (float in kinds and isinstance(value, float | np.floating))


def check_numbers(
    config: Any, where: str = "", counts: Sequence[str] = (), others: Sequence[str] = ()
) -> None:
    """Check the kind and the size of all numbers in a config.

    Args:
      config: A dataclass.
      where: Text before the field's name in messages, such as "learner.".
      counts: Fields whose integers may be as large as MAX_COUNT. The limit of other integers is
          MAX_SIZE.
      others: Fields that are not checked.

    Raises:
      ValueError: A field of numbers has another kind of value, a float is NaN, infinite or beyond
        MAX_NUMBER, or an integer is above its limit.
    """
    kinds_by_name = kinds_of(config.__class__)
    for name in (field.name for field in fields(config) if field.name not in others):
        value, most = getattr(config, name), MAX_COUNT if name in counts else MAX_SIZE
        kinds = kinds_by_name[name]
        if kinds <= {int, float, NoneType} and not fits(value, kinds):
            kind = "a number" if float in kinds else "an integer"
            raise ValueError(f"{where}{name} is {value!r}; it must be {kind}")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not abs(number) <= MAX_NUMBER:
                raise ValueError(
                    f"{where}{name} is {value}; it must be a finite number, and at most"
                    f" {MAX_NUMBER:g} above or below 0"
                )
            if isinstance(number, int) and number > most:
                raise ValueError(f"{where}{name} is {value}; it must be at most {most:,}")
