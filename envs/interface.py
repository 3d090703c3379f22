"""Translation between a Gymnasium environment and networks: observations in, actions out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from afterwit.envs.arrays import Array
from afterwit.envs.checks import MAX_SIZE
from afterwit.envs.images import View, view_of


@dataclass(frozen=True)
class Interface:
    """How networks see and act in one environment.

    Networks count actions from 0. The environment counts them from `first_action`.
    """

    view: View
    num_actions: int
    first_action: int = 0
    wrapping: str = ""  #: the wrappers that training applies, as text; empty: none

    def to_environment(self, chosen: Array) -> Array:
        """The networks' actions as the environment counts them."""
        return chosen + self.first_action if self.first_action else chosen

    def from_environment(self, actions: Array) -> Array:
        """The environment's actions as networks count them, int64.

        Raises:
          ValueError: The actions are not integers, or are out of range.
        """
        rule = f"must be integers {self.first_action}..{self.first_action + self.num_actions - 1}"
        if not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"actions ({actions.dtype}) {rule}")
        least, most = (int(end) for end in (actions.min(), actions.max()))
        if not (least >= self.first_action and most < self.first_action + self.num_actions):
            raise ValueError(f"actions ({actions.dtype}) {rule}, not {least}..{most}")
        return actions.astype(np.int64) - self.first_action


def interface_of(name: str, observation: Any, action: Any, wrapping: str = "") -> Interface:
    """The interface to an environment with these spaces.

    Args:
      name: The environment's name, for messages.
      observation: Its observation space.
      action: Its action space.
      wrapping: The wrappers that training applies, as text.

    Raises:
      ValueError: Networks cannot read these observations or choose these actions.
    """
    if not isinstance(observation, Box):
        raise ValueError(
            f"{name} has observation space {one_line(observation)}; wrap it so that it is a Box of"
            " numbers, as gymnasium.wrappers.FlattenObservation does"
        )
    if not isinstance(action, Discrete):
        raise ValueError(
            f"{name} has action space {one_line(action)}; wrap it so that it is Discrete"
        )
    if not observation.shape or 0 in observation.shape:
        raise ValueError(
            f"{name} has observation space {observation}, which is neither a vector nor an image;"
            " reshape it"
        )
    if action.n > MAX_SIZE:
        raise ValueError(
            f"{name} has action space {action}; at most {MAX_SIZE:,} actions are supported"
        )
    return Interface(view_of(observation), int(action.n), int(action.start), wrapping)


def one_line(space: Any) -> str:
    return " ".join(str(space).split())
