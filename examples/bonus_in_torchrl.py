"""The bonus in TorchRL's PPO: a step between the collector and GAE.

    pip install 'afterwit[examples]'
    python examples/bonus_in_torchrl.py            # a minute
    python examples/bonus_in_torchrl.py --small

TorchRL's own RND transform pays each observation by itself. Afterwit's models read sequences and
leave out what crosses an episode's end, so they need whole steps in order: time comes first here,
and each environment's memory is carried from batch to batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import RescaleObservation, TransformReward
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, SerialEnv
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from afterwit.world_models import IntrinsicReward

torch.set_num_threads(1)  # a second thread slows such small networks down
SMALL = "--small" in sys.argv
NUM_ENVS, STEPS, EPOCHS, MINIBATCHES = 16, 64, 4, 4


def make() -> gymnasium.Env:
    """MountainCar: -0.1 a step until the car is on the hill, at most 200 steps."""
    env = gymnasium.make("MountainCar-v0")
    scaled = RescaleObservation(env, np.float32(-1), np.float32(1))
    return TransformReward(scaled, lambda reward: 0.1 * float(reward))


class Curious:
    """Adds the bonus to ("next", "reward") of the batches of one collector, in their order."""

    def __init__(
        self, env: gymnasium.Env[Any, Any], model: str, weight: float, num_envs: int, seed: int = 0
    ):
        # After an ending TorchRL's next step begins with the next episode's first observation.
        spaces = env.observation_space, env.action_space
        self.bonus = IntrinsicReward(model, *spaces, seed=seed, autoreset="same-step")
        self.state, self.weight = self.bonus.initial_state(num_envs), weight

    def __call__(self, batch: TensorDict) -> dict[str, float]:
        """`batch` is [B, T]. Returns the model's metrics."""
        last = batch["next", "observation"][:, -1:]
        obs = torch.cat([batch["observation"], last], 1).transpose(0, 1)  # [T+1, B, ...]
        actions, dones = batch["action"].transpose(0, 1), batch["next", "done"].squeeze(-1).T
        final = batch["next", "observation"].transpose(0, 1)  # read where an episode ended
        steps = {"state": self.state, "final_observations": final}
        bonus, next_state = self.bonus.reward(obs, actions, dones, **steps)
        metrics = self.bonus.update(obs, actions, dones, **steps)
        self.state = next_state
        batch["next", "extrinsic_reward"] = batch["next", "reward"]
        paid = torch.from_numpy(bonus).T.unsqueeze(-1)  # [B, T, 1]
        batch["next", "reward"] = batch["next", "reward"] + self.weight * paid
        return metrics


def network(outputs: int) -> nn.Sequential:
    hidden = nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()
    return nn.Sequential(*hidden, nn.Linear(64, outputs))


def train(
    make: Callable[[], gymnasium.Env] = make,
    model: str = "rnd",
    weight: float = 0.1,
    seed: int = 0,
    total_steps: int = 100_000,
    rate: float = 1e-3,
    entropy: float = 0.01,
) -> list[bool]:
    """PPO, with the bonus unless weight is 0. Whether each episode reached the goal."""
    torch.manual_seed(seed)
    envs = SerialEnv(NUM_ENVS, lambda: GymWrapper(make(), categorical_action_encoding=True))
    envs.set_seed(seed)
    actor = ProbabilisticActor(
        TensorDictModule(network(3), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(network(1), in_keys=["observation"])
    advantage = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    ppo = ClipPPOLoss(
        actor, critic, entropy_coeff=entropy, critic_coeff=0.5, normalize_advantage=True
    )
    optimiser = torch.optim.Adam(ppo.parameters(), lr=rate, eps=1e-5)
    curious = Curious(make(), model, weight, NUM_ENVS, seed) if weight else None
    frames = NUM_ENVS * STEPS
    total = total_steps // frames * frames
    reached: list[bool] = []
    collector = Collector(
        envs,
        actor,
        frames_per_batch=frames,
        total_frames=total,
        auto_register_policy_transforms=False,  # the policy has no memory that a reset clears
    )
    for batch in collector:  # [B, T]
        ends = batch["next", "done"]
        reached += batch["next", "terminated"].transpose(0, 1)[ends.transpose(0, 1)].tolist()
        if curious is not None:
            curious(batch)  # before the advantages
        advantage(batch)
        steps = batch.reshape(-1)
        for _ in range(EPOCHS):
            for rows in torch.randperm(frames).chunk(MINIBATCHES):
                losses = ppo(steps[rows])
                loss = sum(losses[f"loss_{part}"] for part in ("objective", "critic", "entropy"))
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(ppo.parameters(), 0.5)
                optimiser.step()
    collector.shutdown()
    return reached


if __name__ == "__main__":
    last = train(total_steps=2_048 if SMALL else 100_000)[-100:]
    print(f"goal reached in {sum(last)} of the last {len(last)} episodes")
