"""PopArt (van Hasselt et al., 2016): value outputs on a scale that follows the targets, outputs
preserved.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterwit.world_models.running_scale import RunningScale


class PopArt(nn.Module):
    """A linear value output whose raw scale is normalised by the running scale of its targets."""

    def __init__(self, inputs: int, step: float):
        super().__init__()
        self.linear = nn.Linear(inputs, 1)
        self.scale = RunningScale(1 - step)

    def forward(self, features: Tensor) -> Tensor:
        """Normalised values [...] of features [..., H]."""
        return self.linear(features).squeeze(-1)

    def denormalise(self, value: Tensor) -> Tensor:
        return value * self.scale.deviation + self.scale.mean

    def normalise(self, target: Tensor) -> Tensor:
        return (target - self.scale.mean) / self.scale.deviation

    @torch.no_grad()
    def update(self, targets: Tensor, mask: Tensor) -> None:
        """Follow the targets [T, B] where `mask`; rescale the last layer so that denormalised
        outputs stay the same.
        """
        mean, deviation = self.scale.mean, self.scale.deviation
        self.scale.update(targets, mask)
        new_mean, new_deviation = self.scale.mean, self.scale.deviation
        self.linear.weight.mul_(deviation / new_deviation)
        self.linear.bias.mul_(deviation).add_(mean - new_mean).div_(new_deviation)
