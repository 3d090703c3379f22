"""One seed, many independent random streams.

Each random source has its own stream, so that no two draw the same numbers.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def read_seed(seed: Any) -> int:
    """A seed as an int of at least 0. None: a new one from the operating system.

    Raises:
      ValueError: The seed is not None and not an integer of at least 0.
    """
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(
            f"seed is {seed!r}; it must be an integer of 0 or more, or None for a new one each time"
        )
    return int(seed)


def stream(seed: int, *names: str | int) -> int:
    """The seed of one random source, below 2^63.

    Args:
      seed: The run's seed.
      *names: The names of the source, such as ("actor", 0).
    """
    words = [seed, *(int.from_bytes(str(name).encode()) for name in names)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def seed_global(seed: int) -> None:
    """Seed the global random state of Python, NumPy and torch (if it is imported).

    Environments may draw from this state. Afterwit itself does not. If threads of one process step
    several environments, the order of their draws is not fixed.
    """
    random.seed(stream(seed, "random"))
    np.random.seed(stream(seed, "numpy") % 2**32)  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(stream(seed, "torch"))


@contextmanager
def global_draws_of(seed: int) -> Iterator[None]:
    """Inside this context, draws from the global random state follow `seed`.

    Afterwards the state is as it was before.
    """
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
