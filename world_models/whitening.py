"""Observations in units of their running deviation about their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel
from afterwit.world_models.trajectory import Trajectory, masked_mean


class Whitening(nn.Module):
    """A part of a world model: the moments of all observations so far, and what they are for."""

    mean: Tensor
    square: Tensor
    count: Tensor

    def add_moments(self, shape: tuple[int, ...]) -> None:
        """Add the buffers, for observations of this shape."""
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("square", torch.zeros(shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, obs: Tensor, real: Tensor) -> None:
        """Add the observations of the real steps to the running moments."""
        seen = data_parallel.num_learners() * data_parallel.average(real.sum())
        self.count += seen
        rate = (seen / self.count.clamp(min=1)).float()
        self.mean.lerp_(data_parallel.average(masked_mean(obs, real)), rate)
        self.square.lerp_(data_parallel.average(masked_mean(obs.square(), real)), rate)

    def whiten(self, obs: Tensor) -> Tensor:
        """Observations in units of their running deviation about their mean, clipped to +-5."""
        deviation = (self.square - self.mean.square()).clamp(min=0).sqrt()
        return ((obs - self.mean) / deviation.clamp(min=1e-2)).clamp(-5, 5)

    def whitened(self, trajectory: Trajectory) -> Tensor:
        """All observations [T+1, B, ...], whitened. In training the moments follow first."""
        obs = trajectory.obs
        obs = obs.float() / 255 if obs.dtype == torch.uint8 else obs
        if self.training:
            self.observe(obs[1:], trajectory.real)
        return self.whiten(obs)
