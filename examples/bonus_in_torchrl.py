"""The bonus in TorchRL: a step between the collector and the loss.

    pip install 'afterwit[examples]'
    python examples/bonus_in_torchrl.py
    python examples/bonus_in_torchrl.py --small

TorchRL's own RND transform pays each observation by itself. Afterwit's models read sequences and
leave out what crosses an episode's end, so they need whole steps in order: time comes first here,
and each environment's memory is carried from batch to batch.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import TransformObservation
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, SerialEnv

from afterwit.world_models import IntrinsicReward

torch.set_num_threads(1)  # a second thread slows such small networks down
NUM_ENVS, STEPS = 8, 32
BATCHES = 4 if "--small" in sys.argv else 200
WEIGHT = 1.0


def make() -> GymWrapper:
    env = gymnasium.make("afterwit.envs:afterwit/NoisyMaze-v0", noise="brownian")
    space = gymnasium.spaces.Box(0, 1, env.observation_space.shape, np.float32)
    scaled = TransformObservation(env, lambda o: o.astype(np.float32) / 255, space)
    return GymWrapper(scaled, categorical_action_encoding=True)


class Curious:
    """Adds the bonus to ("next", "reward") of the batches of one collector, in their order."""

    def __init__(self, env: gymnasium.Env[Any, Any], model: str, num_envs: int):
        # After an ending TorchRL's next step begins with the next episode's first observation.
        spaces = env.observation_space, env.action_space
        self.bonus = IntrinsicReward(model, *spaces, seed=0, autoreset="same-step")
        self.state = self.bonus.initial_state(num_envs)

    def __call__(self, batch: TensorDict) -> dict[str, float]:
        """`batch` is [B, T]. Returns the model's metrics."""
        last = batch["next", "observation"][:, -1:]
        obs = torch.cat([batch["observation"], last], 1).transpose(0, 1)  # [T+1, B, ...]
        actions, dones = batch["action"].T, batch["next", "done"].squeeze(-1).T
        final = batch["next", "observation"].transpose(0, 1)  # read where an episode ended
        steps = {"state": self.state, "final_observations": final}
        bonus, next_state = self.bonus.reward(obs, actions, dones, **steps)
        metrics = self.bonus.update(obs, actions, dones, **steps)
        self.state = next_state
        batch["next", "extrinsic_reward"] = batch["next", "reward"]
        paid = torch.from_numpy(bonus).T.unsqueeze(-1)  # [B, T, 1]
        batch["next", "reward"] = batch["next", "reward"] + WEIGHT * paid
        return metrics


def main() -> None:
    torch.manual_seed(0)
    curious = Curious(make()._env, "byol-hindsight", NUM_ENVS)
    collector = Collector(
        SerialEnv(NUM_ENVS, make),
        None,  # your policy; None acts at random
        frames_per_batch=NUM_ENVS * STEPS,
        total_frames=NUM_ENVS * STEPS * BATCHES,
    )
    for number, batch in enumerate(collector):
        metrics = curious(batch)
        # Now advantages, losses and your optimiser, as always.
        if number % max(1, BATCHES // 10) == 0:
            reward, error = batch["next", "reward"].mean(), metrics["reconstruction"]
            print(f"batch {number:3}: mean reward {reward:.3f}, prediction error {error:.3f}")
    collector.shutdown()


if __name__ == "__main__":
    main()
