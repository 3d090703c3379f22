"""What is carried from one call of IntrinsicReward to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor


@dataclass(frozen=True)
class StreamState:
    """Where a stream of steps of B environments was cut: what the next call has to know of the
    steps before it.
    """

    core: Tensor  # float32 [B, M]: the memory before the next obs[0]
    action: Tensor  # int64 [B]: the last action, counted from 0
    opens: Tensor  # bool [B]: the next obs[0] opens an episode
    ended: Tensor  # bool [B]: the last step ended one
    autoreset: str  # next-step or same-step: what `opens` and `ended` follow from

    def fits(self, batch: int, belief: int, num_actions: int, autoreset: str) -> bool:
        """Can it belong to `batch` environments with `num_actions` actions, seen by a torso with
        beliefs of `belief` numbers?
        """
        flags = all(
            flag.dtype == torch.bool and flag.shape == (batch,) for flag in (self.opens, self.ended)
        )
        known = self.action.shape == (batch,) and bool((self.action < num_actions).all())
        return (
            flags and known and self.core.shape == (batch, belief) and self.autoreset == autoreset
        )

    def __repr__(self) -> str:
        return f"the state of {len(self.opens)} environments"


def read_autoreset(mode: Any) -> str:
    """next-step or same-step, from either name however it is written, or from Gymnasium's
    AutoresetMode."""
    written = mode.value if isinstance(mode, AutoresetMode) else mode
    spelled = (
        "".join(letter for letter in written.lower() if letter.isalpha())
        if isinstance(written, str)
        else None
    )
    if spelled == "disabled":
        raise ValueError(
            "autoreset is disabled, so that you reset yourself; choose same-step if obs[t+1] after"
            " a done opens the next episode, next-step if it is the last observation of the old one"
            " and a step that only resets follows"
        )
    names = {"nextstep": "next-step", "samestep": "same-step"}
    if spelled not in names:
        raise ValueError(f"unknown autoreset {mode!r}; choose next-step or same-step")
    return names[spelled]
