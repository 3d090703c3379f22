"""Numbers in configs, checked where a config is made: what is no number, or absurd, is named before
anything starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from typing import Any

import numpy as np

# the most of anything that memory is taken for: environments, units, layers, steps of an unroll
SIZE = 2**20
COUNT = 10**12  # the most of anything that is only counted: agent steps of a run, of an episode
THREADS = 1024  # more end the process on many machines
NUMBER = 1e9  # the largest float: the squares of much larger ones leave float32

_READING: ContextVar[bool] = ContextVar("reading", default=False)


@contextmanager
def reading_only() -> Iterator[None]:
    """Within, configs of environments are made to be read, not played: the packages of their
    environments may be missing.
    """
    token = _READING.set(True)
    try:
        yield
    finally:
        _READING.reset(token)


def is_reading() -> bool:
    return _READING.get()


def is_number(value: Any) -> bool:
    """Of Python's kinds or NumPy's; a bool is none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_counts(least: int = 1, **counts: Any) -> None:
    """Raise a ValueError that names the first that is no integer, of Python's kind or NumPy's, from
    `least` to COUNT."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name} is {value!r}; it must be an integer")
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def check_numbers(
    config: Any, where: str = "", counts: Sequence[str] = (), others: Sequence[str] = ()
) -> None:
    """Raise a ValueError that names the first field of a dataclass with a float that is NaN,
    infinite or beyond NUMBER, or an int beyond SIZE (beyond COUNT, for the fields `counts`). The
    fields `others` are left alone. `where` stands before the field's name.
    """
    for name in (field.name for field in fields(config) if field.name not in others):
        value, most = getattr(config, name), COUNT if name in counts else SIZE
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not abs(number) <= NUMBER:
                raise ValueError(
                    f"{where}{name} is {value}; it must be a finite number, and at most {NUMBER:g}"
                    " above or below 0"
                )
            if isinstance(number, int) and number > most:
                raise ValueError(f"{where}{name} is {value}; it must be at most {most:,}")
