"""From raw error to a bonus: normalise by a running deviation, pay only what lies above the running mean.

BYOL-Explore (Guo et al., 2022, section 3). State lies in buffers, so it is part of every checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterwit.world_models.trajectory import masked_mean


class RewardNormaliser(nn.Module):
    """EMAs of the batch means of r, r^2 and n = r / sigma, all corrected for their start at zero."""

    mean: Tensor
    square: Tensor
    normalised_mean: Tensor
    weight: Tensor

    def __init__(self, prioritise: bool, decay: float):
        super().__init__()
        self.prioritise, self.decay = prioritise, decay
        for name in ("mean", "square", "normalised_mean", "weight"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def update(self, reward: Tensor, real: Tensor) -> None:
        """Take raw rewards [T, B] into the statistics; only the `real` steps [T, B] count."""
        rate = (1 - self.decay) * real.any()  # a batch of resets alone changes nothing
        self.weight.lerp_(torch.ones_like(self.weight), rate)
        self.mean.lerp_(masked_mean(reward, real), rate)
        self.square.lerp_(masked_mean(reward.square(), real), rate)
        self.normalised_mean.lerp_(masked_mean(reward / self.deviation, real), rate)

    @property
    def deviation(self) -> Tensor:
        weight = self.weight.clamp(min=1e-8)
        return ((self.square / weight - (self.mean / weight).square()).clamp(min=0) + 1e-8).sqrt()

    @torch.no_grad()
    def forward(self, reward: Tensor, real: Tensor) -> Tensor:
        """The bonus [T, B]: r / sigma, prioritised if configured; 0 on steps that are not real."""
        bonus = reward / self.deviation
        if self.prioritise:
            bonus = (bonus - self.normalised_mean / self.weight.clamp(min=1e-8)).clamp(min=0)
        return torch.where(real, bonus, 0.0)
