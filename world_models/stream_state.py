"""What is carried from one call of IntrinsicReward to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from afterwit.envs.arrays import Array


@dataclass(frozen=True)
class StreamState:
    """What a call of IntrinsicReward must know of the steps before its first one.

    Create it with `IntrinsicReward.initial_state`.
    """

    core: Tensor  #: float32 [B, M]: the memory before the next obs[0]
    action: Tensor  #: int64 [B]: the last action, counted from 0
    opens: Tensor  #: bool [B]: the next obs[0] opens an episode
    ended: Tensor  #: bool [B]: the last step ended an episode
    autoreset: str  #: next-step or same-step
    #: [B, ...] by name: what the model remembers of the open episodes
    memory: dict[str, Tensor] = field(default_factory=dict)

    def fits(
        self,
        batch: int,
        belief: int,
        num_actions: int,
        autoreset: str,
        memory: Mapping[str, Tensor],
    ) -> bool:
        """Whether the state belongs to `batch` environments of this kind, and to this torso.

        Args:
          batch: B.
          belief: M, size of the torso's belief.
          num_actions: Number of actions.
          autoreset: next-step or same-step.
          memory: The model's blank rows [B, ...] by name.
        """
        rows_fit = {name: row.shape for name, row in self.memory.items()} == {
            name: row.shape for name, row in memory.items()
        }
        flags_fit = all(
            flag.dtype == torch.bool and flag.shape == (batch,) for flag in (self.opens, self.ended)
        )
        actions_fit = self.action.shape == (batch,) and bool((self.action < num_actions).all())
        core_fits = self.core.shape == (batch, belief)
        return flags_fit and actions_fit and core_fits and rows_fit and self.autoreset == autoreset

    def opened(self, mask: Array) -> StreamState:
        """This state, where the next obs[0] opens an episode too where `mask`, bool [B]."""
        return replace(self, opens=self.opens | torch.from_numpy(mask))

    def __repr__(self) -> str:
        return f"the state of {len(self.opens)} environments"


def read_autoreset(mode: Any) -> str:
    """Read an autoreset mode.

    Args:
      mode: A name in any spelling, or Gymnasium's AutoresetMode.

    Returns:
      next-step or same-step.

    Raises:
      ValueError: The mode is unknown or not supported.

    >>> read_autoreset("NEXT_STEP")
    'next-step'
    """
    name = autoreset_name(mode)
    if name == "disabled":
        raise ValueError(
            "autoreset is disabled, so that you reset yourself; choose same-step if obs[t+1] after"
            " a done opens the next episode (final_observations are then what the dones led to),"
            " next-step if it is the last observation of the old one and a step that only resets"
            " follows"
        )
    return name


def autoreset_name(mode: Any) -> str:
    """next-step, same-step or disabled, from a name in any spelling or an AutoresetMode.

    Raises:
      ValueError: The mode is unknown.
    """
    written = mode.value if isinstance(mode, AutoresetMode) else mode
    letters = (
        "".join(letter for letter in written.lower() if letter.isalpha())
        if isinstance(written, str)
        else None
    )
    names = {"nextstep": "next-step", "samestep": "same-step", "disabled": "disabled"}
    if letters not in names:
        raise ValueError(f"unknown autoreset {mode!r}; choose next-step or same-step")
    return names[letters]
