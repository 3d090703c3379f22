"""The environments by name, and how to make one from its config."""

from __future__ import annotations

from typing import Any

from afterwit.envs.atari import Atari
from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.gym import Gym
from afterwit.envs.gym_config import GymConfig
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.envs.minigrid import MiniGrid, MiniGridConfig
from afterwit.envs.specs import VectorEnv

EnvConfig = MazeConfig | AtariConfig | MiniGridConfig | GymConfig
ENVS: dict[str, tuple[type[Any], type[Any]]] = {
    "maze": (MazeConfig, Maze),
    "atari": (AtariConfig, Atari),
    "gym": (GymConfig, Gym),
    "minigrid": (MiniGridConfig, MiniGrid),
}


def make_env(config: EnvConfig, seed: int) -> VectorEnv:
    """Make the environments that a config describes.

    Args:
      config: A MazeConfig, AtariConfig, MiniGridConfig or GymConfig.
      seed: Seed of the environments and their noise.

    Returns:
      `config.num_envs` environments as a VectorEnv.

    Raises:
      TypeError: The config is not of a registered environment.

    >>> from afterwit.envs.maze import MazeConfig
    >>> env = make_env(MazeConfig(num_envs=2), seed=0)
    >>> env.reset().observation.shape
    (2, 8, 5, 5)
    """
    for config_type, env_type in ENVS.values():
        if type(config) is config_type:
            env: VectorEnv = env_type(config, seed)
            return env
    known = ", ".join(config_type.__name__ for config_type, _ in ENVS.values())
    raise TypeError(
        f"no environment has a config of type {type(config).__name__}; give one of {known}"
    )
