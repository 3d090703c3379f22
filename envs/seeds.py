"""One seed, many independent streams: every random source takes its own, so that no two draw the
same numbers.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def read_seed(seed: Any) -> int:
    """A seed as an int of at least 0; for None one that the operating system draws."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(
            f"seed is {seed!r}; it must be an integer of 0 or more, or None for a new one each time"
        )
    return int(seed)


def stream(seed: int, *names: str | int) -> int:
    """A seed below 2^63 that belongs to `seed` and to the names of a source, such as ("actor",
    0).
    """
    words = [seed, *(int.from_bytes(str(name).encode()) for name in names)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def seed_global(seed: int) -> None:
    """Seed what a person's environment may draw from: Python's `random`, NumPy's and, where it is
    imported, torch's global state.

    Nothing of ours draws from it. Where several environments are stepped by threads of one process,
    the order in which they draw is not fixed.
    """
    random.seed(stream(seed, "random"))
    np.random.seed(stream(seed, "numpy") % 2**32)  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(stream(seed, "torch"))


@contextmanager
def global_draws_of(seed: int) -> Iterator[None]:
    """Draws from the global state are those of `seed` here, and afterwards as if there had been
    none."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    torch_before = None if torch is None else torch.default_generator.get_state()
    seed_global(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002
        if torch is not None:
            torch.default_generator.set_state(torch_before)
