"""PopArt (van Hasselt et al., 2016): value outputs on a scale that follows the targets, outputs preserved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterwit.world_models.trajectory import masked_mean


class RunningScale(nn.Module):
    """EMAs of batch means of x and x^2, corrected for their start at zero: `mean` and `deviation` of x."""

    first_moment: Tensor
    second_moment: Tensor
    weight: Tensor

    def __init__(self, step: float):
        super().__init__()
        self.step = step
        for name in ("first_moment", "second_moment", "weight"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def update(self, values: Tensor, mask: Tensor) -> None:
        """Take the values [T, B] where `mask` [T, B] into the moments."""
        rate = self.step * mask.any()
        self.weight.lerp_(torch.ones_like(self.weight), rate)
        self.first_moment.lerp_(masked_mean(values, mask), rate)
        self.second_moment.lerp_(masked_mean(values.square(), mask), rate)

    @property
    def mean(self) -> Tensor:
        return self.first_moment / self.weight.clamp(min=1e-8)

    @property
    def deviation(self) -> Tensor:
        """Standard deviation, at least 1e-4; 1 before the first update."""
        variance = self.second_moment / self.weight.clamp(min=1e-8) - self.mean.square()
        return torch.where(self.weight > 0, variance.clamp(min=1e-8).sqrt(), 1.0)


class PopArt(nn.Module):
    """A linear value output whose raw scale is normalised by the running scale of its targets."""

    def __init__(self, inputs: int, step: float):
        super().__init__()
        self.linear = nn.Linear(inputs, 1)
        self.scale = RunningScale(step)

    def forward(self, features: Tensor) -> Tensor:
        """Normalised values [...] of features [..., H]."""
        return self.linear(features).squeeze(-1)

    def denormalise(self, value: Tensor) -> Tensor:
        return value * self.scale.deviation + self.scale.mean

    def normalise(self, target: Tensor) -> Tensor:
        return (target - self.scale.mean) / self.scale.deviation

    @torch.no_grad()
    def update(self, targets: Tensor, mask: Tensor) -> None:
        """Follow the targets [T, B] where `mask`; rescale the last layer so that denormalised outputs stay the same."""
        mean, deviation = self.scale.mean, self.scale.deviation
        self.scale.update(targets, mask)
        new_mean, new_deviation = self.scale.mean, self.scale.deviation
        self.linear.weight.mul_(deviation / new_deviation)
        self.linear.bias.mul_(deviation).add_(mean - new_mean).div_(new_deviation)
