"""The bonus in Stable-Baselines3: a wrapper around its vector environments, for PPO, A2C and DQN.

    pip install 'afterwit[examples]'
    python examples/bonus_in_sb3.py            # PPO with and without the bonus: a minute
    python examples/bonus_in_sb3.py a2c
    python examples/bonus_in_sb3.py dqn
    python examples/bonus_in_sb3.py --small

The wrapper adds the bonus in `step`, before returns are computed or a step goes into the replay
buffer. A callback would be too late: when `on_rollout_end` is called, returns and advantages are
computed already.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import RescaleObservation, TransformReward
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from afterwit.world_models import IntrinsicReward

torch.set_num_threads(1)  # a second thread slows such small networks down
SMALL = "--small" in sys.argv


class CuriousVecEnv(VecEnvWrapper):
    """Adds `weight` times the bonus to every reward.

    infos[b]["extrinsic_reward"] keeps the environment's own reward. infos[b]["intrinsic_reward"]
    has the bonus before it is weighted.
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
        self.observations: list[Any] = [np.array(self.venv.reset())]
        self.actions: list[Any] = []
        self.dones: list[Any] = []
        self.final: list[Any] = []
        return self.observations[0].copy()

    def step_async(self, actions: np.ndarray) -> None:
        self.actions.append(np.array(actions))
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        self.observations.append(np.array(obs))  # some environments fill the same arrays anew
        self.dones.append(np.array(dones))
        self.final.append(np.full(self.num_envs, None, object))
        for b in np.flatnonzero(dones):
            self.final[-1][b] = np.array(infos[b]["terminal_observation"])
        last = np.stack(self.observations[-2:]), self.actions[-1][None], dones[None]
        bonus, self.state = self.curiosity.reward(
            *last, state=self.state, final_observations=self.final[-1][None]
        )  # [1, B]
        if not self.curiosity.normaliser.has_statistics:
            bonus = np.zeros_like(bonus)  # before the first update it has no unit
        for info, own, paid in zip(infos, rewards, bonus[0], strict=True):
            info["extrinsic_reward"], info["intrinsic_reward"] = float(own), float(paid)
        if len(self.dones) == self.update_every:
            self.update()
        return obs, rewards + self.weight * bonus[0], dones, infos

    def update(self) -> None:
        """Learn from the last `update_every` steps of each environment, which have been paid."""
        steps = np.stack(self.observations), np.stack(self.actions), np.stack(self.dones)
        self.metrics = self.curiosity.update(
            *steps, state=self.update_state, final_observations=np.stack(self.final)
        )
        self.observations, self.actions, self.dones = self.observations[-1:], [], []
        self.final, self.update_state = [], self.state


def make() -> gymnasium.Env:
    """MountainCar: -0.1 a step until the car is on the hill, at most 200 steps."""
    env = gymnasium.make("MountainCar-v0")
    scaled = RescaleObservation(env, np.float32(-1), np.float32(1))
    return TransformReward(scaled, lambda reward: 0.1 * float(reward))


# The same with and without the bonus. PPO's and A2C's n_steps are of each of 16 environments.
ON_POLICY = {"learning_rate": 1e-3, "ent_coef": 0.01}
PPO_ONLY = {"n_steps": 64, "batch_size": 256, "n_epochs": 4}
DQN_ONLY = {"learning_rate": 1e-3, "batch_size": 128, "exploration_fraction": 0.2}
DQN_RATES = {"learning_starts": 1_000, "train_freq": 2, "gradient_steps": 8}
# class, environments, agent steps of all of them, settings
ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], int, int, dict[str, Any]]] = {
    "ppo": (PPO, 16, 100_000, ON_POLICY | PPO_ONLY),
    "a2c": (A2C, 16, 100_000, ON_POLICY | {"n_steps": 8}),
    "dqn": (DQN, 8, 50_000, DQN_ONLY | DQN_RATES | {"target_update_interval": 600}),
}


def train(
    name: str,
    make: Any = make,
    model: str = "rnd",
    weight: float = 0.1,
    seed: int = 0,
    total_steps: int | None = None,
    **settings: Any,
) -> BaseAlgorithm:
    """Train the algorithm of this name. `settings` go to it; weight 0 is without the bonus."""
    algorithm, num_envs, steps, own = ALGORITHMS[name]
    venv: VecEnv = make_vec_env(make, num_envs, seed=seed)
    if weight:
        venv = CuriousVecEnv(venv, model, weight, seed=seed)
    agent = algorithm("MlpPolicy", venv, seed=seed, device="cpu", **own | settings)
    return agent.learn(total_steps or steps)


if __name__ == "__main__":
    name = next((argument for argument in sys.argv[1:] if argument in ALGORITHMS), "ppo")
    for weight in (0.1, 0.0):
        agent = train(name, weight=weight, total_steps=4_096 if SMALL else None)
        lengths = [episode["l"] for episode in agent.ep_info_buffer or ()]
        reached = sum(length < 200 for length in lengths)
        print(
            f"{name}, bonus times {weight}: goal in {reached} of the last {len(lengths)} episodes"
        )
