"""Worlds: what can be stepped. Importing this registers the noisy maze with Gymnasium as afterwit/NoisyMaze-v0."""

from afterwit.envs.gym_maze import register
from afterwit.envs.make import ENVS, EnvConfig, make_env
from afterwit.envs.specs import EnvSpec, TimeStep, VectorEnv

__all__ = ["ENVS", "EnvConfig", "EnvSpec", "TimeStep", "VectorEnv", "make_env"]

register()
