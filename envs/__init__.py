"""Environments.

Importing this package registers afterwit/NoisyMaze-v0 and afterwit/NoisyTV-v0 with Gymnasium.
"""

from afterwit.envs import gym_maze, minigrid
from afterwit.envs.gym_noise import Noise
from afterwit.envs.make import ENVS, EnvConfig, make_env
from afterwit.envs.specs import EnvironmentFault, EnvSpec, TimeStep, VectorEnv

__all__ = [
    "ENVS",
    "EnvConfig",
    "EnvSpec",
    "EnvironmentFault",
    "Noise",
    "TimeStep",
    "VectorEnv",
    "make_env",
]

gym_maze.register()
minigrid.register()
