"""The bonus in a plain loop: no library but Gymnasium and Afterwit.

python examples/bonus_in_a_loop.py
python examples/bonus_in_a_loop.py --small
"""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import torch

from afterwit.world_models import IntrinsicReward

torch.set_num_threads(1)  # a second thread slows such small networks down
NUM_ENVS, STEPS = 8, 20  # B environments, T steps of each between two updates
BATCHES = 10 if "--small" in sys.argv else 400

envs = gymnasium.make_vec(
    "afterwit.envs:afterwit/NoisyMaze-v0", num_envs=NUM_ENVS, noise="brownian"
)
curiosity = IntrinsicReward(
    "byol-hindsight", envs.single_observation_space, envs.single_action_space, seed=0
)
state = curiosity.initial_state(NUM_ENVS)  # the memory of each environment
observation, infos = envs.reset(seed=0)
envs.action_space.seed(0)
for batch in range(BATCHES):
    observations, actions, dones = [observation], [], []
    for _ in range(STEPS):
        action = envs.action_space.sample()  # your agent acts here
        observation, reward, terminated, truncated, infos = envs.step(action)
        observations.append(observation)
        actions.append(action)
        dones.append(terminated | truncated)
    # obs [T+1, B, ...], actions [T, B], dones [T, B]
    steps = np.stack(observations), np.stack(actions), np.stack(dones)
    # float32 [T, B]: add it to the reward. Pay first, then learn from the same steps.
    bonus, next_state = curiosity.reward(*steps, state=state)
    metrics = curiosity.update(*steps, state=state)
    state = next_state
    if batch % max(1, BATCHES // 10) == 0:
        mean, error = bonus.mean(), metrics["reconstruction"]
        print(f"batch {batch:3}: mean bonus {mean:.3f}, error {error:.3f}")
