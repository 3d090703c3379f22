"""Draws from torch's global random state that follow a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from afterwit.envs.seeds import stream


@contextmanager
def draws_of(seed: int, *names: str | int) -> Iterator[None]:
    """Inside this context, draws on the CPU follow the stream of `seed` and `names`.

    Initial weights are made in it. Afterwards the global random state is as it was before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream(seed, *names))
        yield
