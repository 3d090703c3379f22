"""Features of observations that world models predict."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel
from afterwit.world_models.running_scale import RunningScale
from afterwit.world_models.torso import Encoder, TorsoConfig
from afterwit.world_models.trajectory import masked_mean


class FixedFeatures(nn.Module):
    """A frozen random encoder, in units of the running root mean square of its outputs.

    Args:
      config: Its sizes.
      shape: Shape of an observation.
      decay: Share of the running size that is kept at each learner step.
    """

    def __init__(self, config: TorsoConfig, shape: tuple[int, ...], decay: float = 0.99):
        super().__init__()
        self.encoder = Encoder(config, shape).requires_grad_(False)
        self.scale = RunningScale(decay)

    @torch.no_grad()
    def forward(self, obs: Tensor, real: Tensor) -> Tensor:
        """Features [T+1, B, N] of whitened observations [T+1, B, ...]; `real` is bool [T, B]."""
        features = self.encoder(obs)
        if self.training:
            self.scale.update(features[1:].square().mean(-1).sqrt(), real)
        return features / self.scale.size


class Outcome(nn.Module):
    """What is predicted of an observation: itself if an mlp reads it, else fixed random features.

    Args:
      config: Sizes of the features.
      shape: Shape of an observation.
    """

    def __init__(self, config: TorsoConfig, shape: tuple[int, ...]):
        super().__init__()
        self.features = None if config.encoder == "mlp" else FixedFeatures(config, shape)
        self.size = prod(shape) if self.features is None else config.embedding

    def forward(self, obs: Tensor, real: Tensor) -> Tensor:
        """Targets [T, B, N] of whitened observations [T+1, B, ...]; `real` is bool [T, B]."""
        return (obs.flatten(2) if self.features is None else self.features(obs, real))[1:]


@torch.no_grad()
def spread(target: Tensor, real: Tensor) -> Tensor:
    """The mean square error [] of the best constant prediction of targets [T, B, N]."""
    mean = data_parallel.average(masked_mean(target, real))
    error = masked_mean((target - mean).square().mean(-1), real)
    return data_parallel.average(error).clamp(min=1e-8)
