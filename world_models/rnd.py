"""RND (Burda et al., 2018): how badly a trained network predicts a fixed random one on the observation reached."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afterwit.envs.checks import check_numbers
from afterwit.envs.specs import EnvSpec
from afterwit.world_models import shares
from afterwit.world_models.base import WorldModel, WorldModelOutput
from afterwit.world_models.torso import Encoder, Torso
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class RNDConfig:
    """Random network distillation."""

    normalise_observations: bool = True
    """Whiten each input by its running mean and deviation and clip to +-5, as Burda et al. do."""
    loss_scale: float = 1.0
    """Weight of the world model's loss in the total."""
    prioritise: bool = False
    """Pay only what lies above the running mean. The BYOL-Explore paper pays RND in full."""

    def __post_init__(self) -> None:
        check_numbers(self, "world_model.")


class RND(WorldModel):
    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, config: RNDConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.normalise = config.normalise_observations
        self.fixed = Encoder(torso.config, spec.observation_shape).requires_grad_(False)
        self.predictor = Encoder(torso.config, spec.observation_shape)
        self.register_buffer("mean", torch.zeros(spec.observation_shape))
        self.register_buffer("square", torch.zeros(spec.observation_shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor) -> WorldModelOutput:
        obs = trajectory.obs[1:]
        obs = obs.float() / 255 if obs.dtype == torch.uint8 else obs
        if self.normalise:
            if self.training:
                self.observe(obs, trajectory.real)
            obs = self.whiten(obs)
        with torch.no_grad():
            target = self.fixed(obs)
        error = (self.predictor(obs) - target).square().mean(-1)  # [T, B]
        reward = torch.where(trajectory.real, error, 0.0).detach()
        loss = masked_mean(error, trajectory.real)
        return WorldModelOutput(loss, reward, {"reconstruction": reward}, {"reconstruction": loss.detach()})

    @torch.no_grad()
    def observe(self, obs: Tensor, real: Tensor) -> None:
        """Add the observations of the real steps to the running moments."""
        seen = shares.learners() * shares.average(real.sum())
        self.count += seen
        rate = (seen / self.count.clamp(min=1)).float()
        self.mean.lerp_(shares.average(masked_mean(obs, real)), rate)
        self.square.lerp_(shares.average(masked_mean(obs.square(), real)), rate)

    def whiten(self, obs: Tensor) -> Tensor:
        deviation = (self.square - self.mean.square()).clamp(min=0).sqrt()
        return ((obs - self.mean) / deviation.clamp(min=1e-2)).clamp(-5, 5)
