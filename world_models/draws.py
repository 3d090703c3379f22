"""Random draws that follow a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from afterwit.envs.seeds import stream


@contextmanager
def draws_of(seed: int, *names: str | int) -> Iterator[None]:
    """Inside this context, draws on the CPU follow the stream of `seed` and `names`.

    Initial weights are made in it. Afterwards the global random state is as it was before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream(seed, *names))
        yield


class SavedDraws(nn.Module):
    """A generator whose state is saved and loaded with the module that has this one.

    For modules that draw by some settings only: by the others, no state is asked for.
    """

    def __init__(self, random: torch.Generator):
        super().__init__()
        self.random = random

    def get_extra_state(self) -> dict[str, Tensor]:
        return {"random": self.random.get_state()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.random.set_state(state["random"].cpu())
