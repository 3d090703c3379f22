"""One seed, many independent streams: every random source takes its own, so that no two draw the same numbers."""

from __future__ import annotations

import numpy as np


def stream(seed: int, *names: str | int) -> int:
    """A seed below 2^63 that belongs to `seed` and to the names of a source, such as ("actor", 0)."""
    words = [seed, *(int.from_bytes(str(name).encode()) for name in names)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
