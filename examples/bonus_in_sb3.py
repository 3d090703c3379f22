"""The bonus in Stable-Baselines3: a wrapper around its vector environments, here under PPO.

    pip install 'afterwit[examples]'
    python examples/bonus_in_sb3.py            # three seeds with and without the bonus: 7 min
    python examples/bonus_in_sb3.py --small

The wrapper adds the bonus in `step`, before PPO computes returns. A callback would be too late:
when `on_rollout_end` is called, returns and advantages are computed already.
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

assert afterwit.envs is not None
torch.set_num_threads(1)  # a second thread slows such small networks down
SMALL = "--small" in sys.argv
SEEDS, TOTAL_STEPS = (range(1), 1_024) if SMALL else (range(3), 60_000)
NUM_ENVS, ROLLOUT = 8, 64


class CuriousVecEnv(VecEnvWrapper):
    """Adds `weight` times the bonus to every reward.

    infos[b]["extrinsic_reward"] keeps the environment's own reward.
    """

    def __init__(
        self, venv: VecEnv, model: str, weight: float, update_every: int = 32, seed: int = 0
    ):
        super().__init__(venv)
        # SB3 resets in the step that ends an episode: obs is then the first of the next episode.
        # What the last step led to is infos[b]["terminal_observation"].
        self.curiosity = IntrinsicReward(
            model, venv.observation_space, venv.action_space, seed, autoreset="same-step"
        )
        self.weight, self.update_every = weight, update_every
        self.metrics: dict[str, float] = {}  # what the last update returned

    def reset(self) -> Any:
        self.state = self.update_state = self.curiosity.initial_state(self.num_envs)
        self.observations: list[Any] = [self.venv.reset()]
        self.actions: list[Any] = []
        self.dones: list[Any] = []
        self.final: list[Any] = []
        return self.observations[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions.append(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        self.observations.append(obs)
        self.dones.append(dones)
        self.final.append(np.full(self.num_envs, None, object))
        for b in np.flatnonzero(dones):
            self.final[-1][b] = infos[b]["terminal_observation"]
        last = np.stack(self.observations[-2:]), self.actions[-1][None], dones[None]
        bonus, self.state = self.curiosity.reward(
            *last, state=self.state, final_observations=self.final[-1][None]
        )  # [1, B]
        # Before the first update the bonus has no unit.
        weight = self.weight if self.metrics else 0.0
        for info, reward in zip(infos, rewards, strict=True):
            info["extrinsic_reward"] = float(reward)
        if len(self.dones) == self.update_every:
            self.update()
        return obs, rewards + weight * bonus[0], dones, infos

    def update(self) -> None:
        """Learn from the last `update_every` steps of each environment, which have been paid."""
        steps = np.stack(self.observations), np.stack(self.actions), np.stack(self.dones)
        self.metrics = self.curiosity.update(
            *steps, state=self.update_state, final_observations=np.stack(self.final)
        )
        self.observations, self.actions, self.dones = self.observations[-1:], [], []
        self.final, self.update_state = [], self.state


class CountCells(gymnasium.Wrapper):
    """Remembers in `visited` every cell of the maze that any environment has entered."""

    visited: ClassVar[set[int]] = set()

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.visited.add(int(result[4]["cell"]))
        return result


def flat(env: gymnasium.Env) -> gymnasium.Env:
    """The maze's view, bytes [8, 5, 5], as 200 numbers from 0 to 1 for a plain network."""
    space = Box(0, 1, (200,), np.float32)
    view = TransformObservation(env, lambda o: o.reshape(-1).astype(np.float32) / 255, space)
    return CountCells(view)


def train(weight: float, seed: int) -> int:
    """How many of the maze's 263 cells PPO has seen. The maze pays no reward of its own."""
    CountCells.visited = set()
    make: dict[str, Any] = {"wrapper_class": flat, "env_kwargs": {"noise": "sticky"}}
    venv = make_vec_env("afterwit/NoisyMaze-v0", NUM_ENVS, seed=seed, **make)
    if weight:
        venv = CuriousVecEnv(venv, "byol-hindsight", weight, seed=seed)
    ppo = PPO("MlpPolicy", venv, n_steps=ROLLOUT, ent_coef=0.01, seed=seed, device="cpu")
    ppo.learn(TOTAL_STEPS)
    return len(CountCells.visited)


if __name__ == "__main__":
    for weight in (1.0, 0.0):
        for seed in SEEDS:
            cells = train(weight, seed)
            print(f"bonus times {weight:.0f}, seed {seed}: {cells} cells in {TOTAL_STEPS:,} steps")
