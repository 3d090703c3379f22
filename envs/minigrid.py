"""MiniGrid's worlds as a VectorEnv; by default the noisy-TV room (`envs/minigrid_tv.py`), which
Gymnasium knows as afterwit/NoisyTV-v0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec

import gymnasium

from afterwit.envs.checks import is_reading
from afterwit.envs.gym import Gym
from afterwit.envs.gym_config import GymConfig
from afterwit.envs.noise import TVS

ID = "afterwit/NoisyTV-v0"
# a random policy enters rooms 1..4 of the noisy-TV room in about 58%, 12%, 2% and 0.3% of such
# episodes
EPISODE_STEPS = 1000
ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")


def register() -> None:
    """Make the noisy-TV room known to Gymnasium, without importing MiniGrid. Calling it again
    changes nothing.
    """
    if ID not in gymnasium.registry:
        gymnasium.register(
            ID, entry_point="afterwit.envs.minigrid_tv:NoisyTVEnv", max_episode_steps=EPISODE_STEPS
        )


@dataclass(frozen=True)
class MiniGridConfig(GymConfig):
    """A batch of MiniGrid worlds, seen as one-hot channels. Needs the package minigrid: pip install
    'afterwit[minigrid]'.
    """

    id: str = ID
    """Gymnasium's name: the noisy-TV room, or one of MiniGrid's own
    (minigrid:MiniGrid-MultiRoom-N6-v0).
    """
    num_envs: int = 16
    """Worlds stepped together, one after the other in this process."""
    tv: str = "on-demand"
    """The television in the noisy-TV room's first room. off: its picture stays; always: a new one
    every step; on-demand: a new one whenever the agent takes the action done. Other worlds have
    none."""

    def __post_init__(self) -> None:
        if find_spec("minigrid") is None and not is_reading():
            raise ValueError(
                f"{self.id} needs the package minigrid: pip install 'afterwit[minigrid]'"
            )
        if self.tv not in TVS:
            raise ValueError(f"unknown tv {self.tv!r}; choose from {', '.join(TVS)}")
        register()
        super().__post_init__()

    @property
    def has_tv(self) -> bool:
        return self.id.rpartition(":")[2] == ID


class MiniGrid(Gym):
    """B MiniGrid worlds. Observations are uint8 [B, 19, 7, 7] (`OneHot`), actions MiniGrid's seven.

    `info` of the noisy-TV room per environment: `noise_on`, `room` and `trackers` (see NoisyTVEnv).
    """

    def __init__(self, config: MiniGridConfig, seed: int):
        # imports minigrid, which the other worlds can do without
        from afterwit.envs.minigrid_tv import OneHot

        wrapping = "afterwit.envs.minigrid_tv.OneHot(env)"
        super().__init__(
            config, seed, (OneHot,), wrapping, **({"tv": config.tv} if config.has_tv else {})
        )
        semantics = {**self.spec.semantics, "minigrid_version": version("minigrid")}
        if config.has_tv:
            semantics["tv"] = config.tv
            if config.tv == "on-demand" and semantics["noise_action"] is None:
                semantics["noise_action"] = ACTIONS.index("done")
        self.spec = replace(self.spec, action_names=ACTIONS, semantics=semantics)
