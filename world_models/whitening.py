"""Observations in units of their running deviation about their mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel
from afterwit.world_models.torso import as_floats
from afterwit.world_models.trajectory import Trajectory, masked_mean


class Whitening(nn.Module):
    """A part of a world model: the moments of all observations so far, and what they are for."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def add_moments(self, shape: tuple[int, ...]) -> None:
        """Add the buffers, for observations of this shape."""
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.zeros(shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, obs: Tensor, real: Tensor) -> None:
        """Add the observations of the real steps to the running moments.

        Moments are about the mean (Chan, Golub and LeVeque, 1979), so that float32 suffices where
        observations vary little about a large mean.
        """
        mean, variance = moments(obs, real)
        seen = data_parallel.num_learners() * data_parallel.average(real.sum())
        self.count += seen
        rate = (seen / self.count.clamp(min=1)).float()
        apart = (mean - self.mean).square()
        self.variance.lerp_(variance, rate).add_(rate * (1 - rate) * apart)
        self.mean.lerp_(mean, rate)

    def whiten(self, obs: Tensor, real: Tensor) -> Tensor:
        """Observations [T+1, B, ...] in units of their deviation about their mean, within +-5.

        Until any were added to the moments, these are those of the real steps [T, B] of `obs`.
        """
        mean, variance = self.mean, self.variance
        if not self.training:
            own = moments(obs[1:], real)
            mean = torch.where(self.count > 0, mean, own[0])
            variance = torch.where(self.count > 0, variance, own[1])
        return ((obs - mean) / variance.sqrt().clamp(min=1e-2)).clamp(-5, 5)

    def whitened(self, trajectory: Trajectory) -> Tensor:
        """All observations [T+1, B, ...], whitened. In training the moments follow first."""
        obs = as_floats(trajectory.obs)
        if self.training:
            self.observe(obs[1:], trajectory.real)
        return self.whiten(obs, trajectory.real)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load a state; until November 29, 2026 it had the mean square."""
        square = state.pop(prefix + "square", None)
        if square is not None:
            mean = state[prefix + "mean"]
            state[prefix + "variance"] = (square - mean.square()).clamp(min=0)
        super()._load_from_state_dict(state, prefix, *rest)


@torch.no_grad()
def moments(obs: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [...] of observations [T, B, ...] where `real` [T, B]."""
    mean = data_parallel.average(masked_mean(obs, real))
    return mean, data_parallel.average(masked_mean((obs - mean).square(), real))
