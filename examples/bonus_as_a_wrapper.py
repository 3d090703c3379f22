"""The bonus as a wrapper of Gymnasium's vector environments: two lines in any agent that has one.

python examples/bonus_as_a_wrapper.py
python examples/bonus_as_a_wrapper.py --small
"""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from afterwit.world_models import IntrinsicBonus

torch.set_num_threads(1)  # a second thread slows such small networks down
STEPS = 200 if "--small" in sys.argv else 20_000

envs = gymnasium.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
envs = RecordEpisodeStatistics(envs)  # inside: it records the environments' own returns
envs = IntrinsicBonus(envs, "byol-hindsight", weight=0.1, update_every=32, seed=0)

observations, infos = envs.reset(seed=0)
envs.action_space.seed(0)
returns: list[float] = []
for step in range(STEPS):
    actions = envs.action_space.sample()  # your agent acts here
    observations, rewards, terminated, truncated, infos = envs.step(actions)
    # rewards = infos["extrinsic_reward"] + 0.1 * infos["intrinsic_reward"]
    if "episode" in infos:
        returns += infos["episode"]["r"][infos["_episode"]].tolist()
    if (step + 1) % (STEPS // 10) == 0:
        bonus, error = infos["intrinsic_reward"].mean(), envs.metrics.get("reconstruction", np.nan)
        print(f"step {step + 1:5}: bonus {bonus:.2f}, prediction error {error:.2f}")
print(f"{len(returns)} episodes, mean return {np.mean(returns):.1f}")
