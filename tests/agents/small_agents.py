"""A small actor with its learner."""

from __future__ import annotations

import torch

from afterwit.agents import Actor, Learner, LearnerConfig, PolicyConfig
from afterwit.agents.vmpo import VMPOConfig
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from tests.helpers import tiny_torso_config

B, UNROLL, CPU = 3, 10, torch.device("cpu")


SMALL = LearnerConfig(
    torso=tiny_torso_config(),
    policy=PolicyConfig(hidden=12),
    world_model=BYOLHindsightConfig(horizon=2, hidden=16, noise=4, latent=4),
    vmpo=VMPOConfig(target_period=3),
    extrinsic_weight=0.5,
)


def pair(
    config: LearnerConfig = SMALL, seed: int = 0, greedy: bool = False
) -> tuple[Actor, Learner]:
    maze = Maze(MazeConfig(num_envs=B, episode_steps=7), seed)
    learner = Learner(config, maze.spec, seed, CPU)
    return Actor(maze, learner.policy, UNROLL, seed, CPU, greedy), learner
