"""MiniGrid environments as a VectorEnv.

The default is the noisy-TV room (`envs/minigrid_tv.py`), which Gymnasium knows as
afterwit/NoisyTV-v0.
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
# In episodes of this length, a random policy enters rooms 1..4 of the noisy-TV room in about 58%,
# 12%, 2% and 0.3% of the episodes.
EPISODE_STEPS = 1000
FAMILIES = ("MiniGrid-", "BabyAI-")  # first parts of the names of MiniGrid's environments
ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")


def register() -> None:
    """Register the noisy-TV room with Gymnasium, without importing MiniGrid.

    Calling it again changes nothing.
    """
    if ID not in gymnasium.registry:
        gymnasium.register(
            ID, entry_point="afterwit.envs.minigrid_tv:NoisyTVEnv", max_episode_steps=EPISODE_STEPS
        )


@dataclass(frozen=True)
class MiniGridConfig(GymConfig):
    """A batch of MiniGrid environments, observed as one-hot channels.

    Needs the package minigrid: pip install 'afterwit[minigrid]'.
    """

    id: str = ID
    """Gymnasium's name: the noisy-TV room, or an environment of MiniGrid
    (MiniGrid-MultiRoom-N6-v0)."""
    num_envs: int = 16
    """Number of environments, stepped one after the other in this process."""
    tv: str = "on-demand"
    """When the television of the noisy-TV room shows a new picture: off (never), always (each
    step), or on-demand (when the agent takes the action done). Other environments have no
    television."""
    labels: bool = False
    """`info` also tells the agent's place and direction, what it carries, and the doors. Training
    does not read them, and they take time. `afterwit state-probe` turns this on."""

    def __post_init__(self) -> None:
        if find_spec("minigrid") is None and not is_reading():
            raise ValueError(
                f"{self.id} needs the package minigrid: pip install 'afterwit[minigrid]'"
            )
        if self.tv not in TVS:
            raise ValueError(f"unknown tv {self.tv!r}; choose from {', '.join(TVS)}")
        if self.id.startswith(FAMILIES):  # named as MiniGrid does, which registers it
            object.__setattr__(self, "id", f"minigrid:{self.id}")
        register()
        super().__post_init__()

    @property
    def has_tv(self) -> bool:
        """Whether this is the noisy-TV room."""
        return self.id.rpartition(":")[2] == ID


class MiniGrid(Gym):
    """B MiniGrid environments. Observations are uint8 [B, 19, 7, 7] (see `OneHot`).

    The actions are MiniGrid's seven. With `config.labels` there is also what
    envs/minigrid_labels.py tells. In the noisy-TV room `info` has `noise_on`, `room` and
    `trackers` per environment (see NoisyTVEnv).

    Args:
      config: Which environments, and their noise.
      seed: Seed of the environments and of the noise.
    """

    def __init__(self, config: MiniGridConfig, seed: int):
        # late import: it needs the package minigrid
        from afterwit.envs.minigrid_labels import Labels
        from afterwit.envs.minigrid_tv import OneHot

        wrappers = (Labels, OneHot) if config.labels else (OneHot,)
        wrapping = "afterwit.envs.minigrid_tv.OneHot(env)"
        super().__init__(
            config, seed, wrappers, wrapping, **({"tv": config.tv} if config.has_tv else {})
        )
        semantics = {**self.spec.semantics, "minigrid_version": version("minigrid")}
        if config.has_tv:
            semantics["tv"] = config.tv
            if config.tv == "on-demand" and semantics["noise_action"] is None:
                semantics["noise_action"] = ACTIONS.index("done")
        self.spec = replace(self.spec, action_names=ACTIONS, semantics=semantics)
