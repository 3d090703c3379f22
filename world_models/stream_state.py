"""What is carried from one call of IntrinsicReward to the next."""

from __future__ import annotations

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
    action: Tensor  #: int64 [B] or float32 [B, A]: the last action as networks read it
    opens: Tensor  #: bool [B]: the next obs[0] opens an episode
    ended: Tensor  #: bool [B]: the last step ended an episode
    autoreset: str  #: next-step or same-step
    #: [B, ...] by name: what the model remembers of the open episodes
    memory: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0  #: steps of each environment so far

    def fits(self, blank: StreamState, num_actions: int) -> bool:
        """Whether the state belongs to the environments, model and torso of a blank one.

        Args:
          blank: A state before the first step.
          num_actions: The number of actions, if they are discrete.
        """
        own, others = ((*each.tensors, *each.memory.values()) for each in (self, blank))
        kinds_fit = [(each.shape, each.dtype) for each in own] == [
            (each.shape, each.dtype) for each in others
        ]
        actions_fit = self.action.is_floating_point() or bool((self.action < num_actions).all())
        return (
            kinds_fit
            and actions_fit
            and list(self.memory) == list(blank.memory)
            and self.autoreset == blank.autoreset
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All but the memory."""
        return self.core, self.action, self.opens, self.ended

    def opened(self, mask: Array) -> StreamState:
        """This state, where the next obs[0] opens an episode too where `mask`, bool [B]."""
        return replace(self, opens=self.opens | torch.from_numpy(mask))

    def after(self, dones: Array) -> StreamState:
        """This state, where the last step ended an episode where `dones`, bool [B], says."""
        return replace(self, ended=torch.from_numpy(dones))

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
