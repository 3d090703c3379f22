"""Features of observations that world models predict."""

from __future__ import annotations

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


@torch.no_grad()
def spread(target: Tensor, real: Tensor) -> Tensor:
    """The mean square error [] of the best constant prediction of targets [T, B, N]."""
    mean = data_parallel.average(masked_mean(target, real))
    error = masked_mean((target - mean).square().mean(-1), real)
    return data_parallel.average(error).clamp(min=1e-8)
