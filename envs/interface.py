"""Between a person's environment and networks: what it shows becomes what they read, what they
choose becomes what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from afterwit.envs.arrays import Array
from afterwit.envs.checks import SIZE
from afterwit.envs.images import View, view_of


@dataclass(frozen=True)
class Interface:
    """Of one environment's spaces. Networks count actions from 0; the environment counts them from
    `first_action`."""

    view: View
    num_actions: int
    first_action: int = 0
    wrapping: str = ""  # what training wraps the environment in; empty: nothing

    def taken(self, chosen: Array) -> Array:
        """Actions as the environment counts them."""
        return chosen + self.first_action if self.first_action else chosen

    def counted(self, actions: Array) -> Array:
        """The environment's own actions as networks count them, int64. Raises a ValueError that
        names what is none of them."""
        known = f"must be integers {self.first_action}..{self.first_action + self.num_actions - 1}"
        if not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"actions ({actions.dtype}) {known}")
        least, most = (int(end) for end in (actions.min(), actions.max()))
        if not (least >= self.first_action and most < self.first_action + self.num_actions):
            raise ValueError(f"actions ({actions.dtype}) {known}, not {least}..{most}")
        return actions.astype(np.int64) - self.first_action


def interface_of(name: str, observation: Any, action: Any, wrapping: str = "") -> Interface:
    """Of the spaces of `name`. Raises a ValueError that names the space, where networks cannot read
    what it shows or choose what it takes."""
    if not isinstance(observation, Box):
        raise ValueError(
            f"{name} has observation space {in_line(observation)}; wrap it so that it is a Box of"
            " numbers"
        )
    if not isinstance(action, Discrete):
        raise ValueError(
            f"{name} has action space {in_line(action)}; wrap it so that it is Discrete"
        )
    if not observation.shape or 0 in observation.shape:
        raise ValueError(
            f"{name} has observation space {observation}, which holds no vector and no image;"
            " reshape it"
        )
    if action.n > SIZE:
        raise ValueError(
            f"{name} has action space {action}; at most {SIZE:,} actions can be told apart"
        )
    return Interface(view_of(observation), int(action.n), int(action.start), wrapping)


def in_line(space: Any) -> str:
    return " ".join(str(space).split())
