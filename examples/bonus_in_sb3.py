"""The bonus in Stable-Baselines3: a wrapper around its vectors of environments, here under PPO.

    pip install 'afterwit[examples]'
    python examples/bonus_in_sb3.py            # with the bonus, then without it: ten minutes
    python examples/bonus_in_sb3.py --small

The wrapper pays in `step`, before PPO computes returns. A callback would come too late: when
`on_rollout_end` is called, returns are computed already.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import TransformObservation
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

import afterwit.envs  # registers afterwit/NoisyMaze-v0
from afterwit.world_models import IntrinsicReward

torch.set_num_threads(1)  # such small networks only lose time to a second thread
SMALL = "--small" in sys.argv
NUM_ENVS, STEPS = 8, 64
TOTAL = 1_024 if SMALL else 150_000


class CuriousVecEnv(VecEnvWrapper):
    """Adds `weight` times the bonus to every reward; the own reward is in info["own_reward"]."""

    def __init__(self, venv: VecEnv, model: str, weight: float, steps: int = 32, seed: int = 0):
        super().__init__(venv)
        # These vectors reset in the step that ends an episode: obs is then the next one's first.
        self.curiosity = IntrinsicReward(
            model, venv.observation_space, venv.action_space, seed, autoreset="same-step"
        )
        self.weight, self.steps = weight, steps

    def reset(self) -> Any:
        self.observations, self.actions, self.dones = [self.venv.reset()], [], []
        self.state = self.first_state = self.curiosity.initial_state(self.num_envs)
        return self.observations[0]

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        self.actions.append(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        self.observations.append(obs)
        self.dones.append(dones)
        step = np.stack(self.observations[-2:]), self.actions[-1][None], dones[None]
        bonus, self.state = self.curiosity.reward(*step, state=self.state)  # [1, B]
        if len(self.dones) == self.steps:
            self.learn()
        for info, own in zip(infos, rewards, strict=True):
            info["own_reward"] = float(own)
        return obs, rewards + self.weight * bonus[0], dones, infos

    def learn(self) -> None:
        """Learn from the last `steps` steps of each environment, which have been paid."""
        batch = np.stack(self.observations), np.stack(self.actions), np.stack(self.dones)
        self.curiosity.update(*batch, state=self.first_state)
        self.observations, self.actions, self.dones = [self.observations[-1]], [], []
        self.first_state = self.state


class CountCells(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Remembers in `visited` every cell of the maze that any environment has entered."""

    visited: ClassVar[set[int]] = set()

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.visited.add(int(result[4]["cell"]))
        return result


def flat(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The maze's view, bytes [8, 5, 5], as 200 numbers from 0 to 1 for a plain network."""
    space = Box(0, 1, (200,), np.float32)
    view = TransformObservation(env, lambda o: o.reshape(-1).astype(np.float32) / 255, space)
    return CountCells(view)


def train(weight: float) -> int:
    """Cells of the maze that PPO has seen when training ends. The maze itself pays nothing."""
    CountCells.visited = set()
    make = {"noise": "brownian"}
    venv = make_vec_env(
        "afterwit/NoisyMaze-v0", NUM_ENVS, seed=0, wrapper_class=flat, env_kwargs=make
    )
    venv = CuriousVecEnv(venv, "byol-hindsight", weight)
    PPO("MlpPolicy", venv, n_steps=STEPS, ent_coef=0.01, seed=0, device="cpu").learn(TOTAL)
    return len(CountCells.visited)


if __name__ == "__main__":
    assert afterwit.envs is not None
    for weight in (1.0, 0.0):
        print(f"bonus times {weight:.0f}: {train(weight)} cells seen in {TOTAL:,} steps")
