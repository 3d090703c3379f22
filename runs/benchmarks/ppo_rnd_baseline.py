"""A plain, synchronous PPO with RND in one file, to compare the speed with.

It acts T steps in B environments, then learns for four epochs of four minibatches. The environments
and the size of the encoder are those of the compared run; a layer of the same width replaces the
GRU. Hyperparameters are those of Burda et al. (2018), "Exploration by Random Network Distillation",
in the form of common single-file implementations.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from afterwit.envs.arrays import Array
from afterwit.envs.make import make_env
from afterwit.envs.specs import EnvSpec
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.training.closing import with_safe_close
from afterwit.world_models.torso import Encoder, mlp

EPOCHS, MINIBATCHES = 4, 4
DISCOUNT, INTRINSIC_DISCOUNT, GAE = 0.999, 0.99, 0.95
CLIP, ENTROPY, MAX_NORM, RATE = 0.1, 0.001, 0.5, 1e-4
PREDICTED_SHARE = 0.25  # of the samples; the predictor is trained on these
EXTRINSIC_WEIGHT, INTRINSIC_WEIGHT = 2.0, 1.0


class Running:
    """Running mean and variance of all values so far."""

    def __init__(self, shape: tuple[int, ...] = ()):
        self.mean, self.variance, self.count = np.zeros(shape), np.ones(shape), 1e-4

    def update(self, x: Array) -> None:
        total = self.count + len(x)
        delta = x.mean(0) - self.mean
        self.variance = (
            self.variance * self.count + x.var(0) * len(x) + delta**2 * self.count * len(x) / total
        ) / total
        self.mean = self.mean + delta * len(x) / total
        self.count = total


class Network(nn.Module):
    """An encoder with a policy and two values."""

    def __init__(self, config: RunConfig, spec: EnvSpec):
        super().__init__()
        torso, hidden = config.learner.torso, config.learner.policy.hidden
        self.body = nn.Sequential(
            Encoder(torso, spec.observation_shape),
            nn.ReLU(),
            nn.Linear(torso.embedding, torso.belief),
            nn.ReLU(),
        )
        self.policy = mlp(torso.belief, hidden, spec.num_actions, 1)
        self.extrinsic = mlp(torso.belief, hidden, 1, 1)
        self.intrinsic = mlp(torso.belief, hidden, 1, 1)

    def forward(self, obs: Tensor) -> tuple[torch.distributions.Categorical, Tensor, Tensor]:
        x = self.body(obs)
        return (
            torch.distributions.Categorical(logits=self.policy(x)),
            self.extrinsic(x).squeeze(-1),
            self.intrinsic(x).squeeze(-1),
        )


class PPORND:
    """PPO with RND: environments, networks, statistics and one round of training."""

    def __init__(self, config: RunConfig):
        self.device, self.length = config.torch_device(), config.unroll_length
        torch.set_num_threads(config.threads)
        self.env = with_safe_close(make_env(config.env, config.seed))
        spec = self.env.spec
        self.network = Network(config, spec).to(self.device)
        self.predictor = Encoder(config.learner.torso, spec.observation_shape).to(self.device)
        self.fixed = (
            Encoder(config.learner.torso, spec.observation_shape)
            .to(self.device)
            .requires_grad_(False)
        )
        self.optimiser = torch.optim.Adam(
            [*self.network.parameters(), *self.predictor.parameters()], RATE, eps=1e-5
        )
        self.seen, self.returns = Running(spec.observation_shape), Running()
        # the running discounted sum of the bonus, in each environment
        self.filter = np.zeros(spec.num_envs)
        self.step = self.env.reset()

    def whiten(self, obs: Tensor) -> Tensor:
        """Return observations with zero mean and unit variance, clipped at 5."""
        mean, deviation = (
            torch.as_tensor(x, dtype=torch.float32, device=self.device)
            for x in (self.seen.mean, self.seen.variance**0.5)
        )
        return ((obs.float() - mean) / deviation.clamp(min=1e-8)).clamp(-5, 5)

    def tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def iterate(self) -> int:
        """Act and learn once. Returns how many agent steps that took."""
        shape = (self.length, self.env.spec.num_envs)
        obs, rewards, bonuses = [], np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        first, over = np.zeros((self.length + 1, shape[1]), bool), np.zeros(shape, bool)
        actions: list[Tensor] = []
        log_probs: list[Tensor] = []
        values: list[Tensor] = []
        curious: list[Tensor] = []  # the intrinsic values
        reached = []
        for t in range(self.length):
            first[t] = self.step.first
            obs.append(self.tensor(self.step.observation))
            with torch.no_grad():
                choice, value, intrinsic = self.network(obs[-1])
                action = choice.sample()
            for kept, new in (
                (actions, action),
                (log_probs, choice.log_prob(action)),
                (values, value),
                (curious, intrinsic),
            ):
                kept.append(new)
            self.step = self.env.step(action.cpu().numpy())
            rewards[t] = np.sign(self.step.reward)
            over[t] = self.step.terminal | self.step.truncated
            reached.append(self.step.observation)
            with torch.no_grad():
                seen = self.whiten(self.tensor(self.step.observation))
                bonuses[t] = (
                    ((self.predictor(seen) - self.fixed(seen)).square().sum(-1) / 2).cpu().numpy()
                )
        first[self.length] = self.step.first
        with torch.no_grad():
            _, value, intrinsic = self.network(self.tensor(self.step.observation))
        values.append(value)
        curious.append(intrinsic)

        sums = []
        for bonus in bonuses:
            self.filter = self.filter * INTRINSIC_DISCOUNT + bonus
            sums.append(self.filter)
        self.returns.update(np.concatenate(sums))
        bonuses /= np.float32(self.returns.variance**0.5)
        self.seen.update(np.concatenate(reached))

        real = self.tensor(~first[1:])
        value, intrinsic = torch.stack(values), torch.stack(curious)
        extrinsic_gain = self.gains(self.tensor(rewards), value, self.tensor(over), DISCOUNT)
        intrinsic_gain = self.gains(
            self.tensor(bonuses), intrinsic, torch.zeros_like(real), INTRINSIC_DISCOUNT
        )
        advantage = EXTRINSIC_WEIGHT * extrinsic_gain + INTRINSIC_WEIGHT * intrinsic_gain
        batch = [
            torch.stack(obs),
            torch.stack(actions),
            torch.stack(log_probs),
            advantage,
            extrinsic_gain + value[:-1],
            intrinsic_gain + intrinsic[:-1],
            self.tensor(np.stack(reached)),
        ]
        self.learn([x[real] for x in batch])
        return rewards.size

    @torch.no_grad()
    def gains(self, reward: Tensor, value: Tensor, over: Tensor, discount: float) -> Tensor:
        """Return generalised advantages [T, B]."""
        gain, gains = torch.zeros_like(value[0]), torch.zeros_like(reward)
        for t in reversed(range(len(reward))):
            goes_on = (~over[t]).float()
            gain = (
                reward[t]
                + discount * goes_on * value[t + 1]
                - value[t]
                + discount * GAE * goes_on * gain
            )
            gains[t] = gain
        return gains

    def learn(self, batch: list[Tensor]) -> None:
        for _ in range(EPOCHS):
            for index in torch.randperm(len(batch[0]), device=self.device).chunk(MINIBATCHES):
                obs, action, before, advantage, extrinsic_goal, intrinsic_goal, reached = (
                    x[index] for x in batch
                )
                choice, value, intrinsic = self.network(obs)
                ratio = (choice.log_prob(action) - before).exp()
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                policy_loss = torch.max(
                    -advantage * ratio, -advantage * ratio.clamp(1 - CLIP, 1 + CLIP)
                ).mean()
                value_loss = (
                    0.5 * (value - extrinsic_goal).square().mean()
                    + 0.5 * (intrinsic - intrinsic_goal).square().mean()
                )
                seen = self.whiten(reached)
                error = (self.predictor(seen) - self.fixed(seen)).square().mean(-1)
                chosen = (torch.rand_like(error) < PREDICTED_SHARE).float()
                prediction_loss = (error * chosen).sum() / chosen.sum().clamp(min=1)
                loss = (
                    policy_loss
                    + 0.5 * value_loss
                    - ENTROPY * choice.entropy().mean()
                    + prediction_loss
                )
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), MAX_NORM)
                self.optimiser.step()

    def close(self) -> None:
        self.env.close()
