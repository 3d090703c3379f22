"""From raw error to a bonus: normalise by a running deviation, pay only what lies above the running
mean.

BYOL-Explore (Guo et al., 2022, section 3). Two consequences are worth knowing. The bonus has no
unit: when all errors have become small, the rest is paid as the large ones were, so curiosity does
not end by itself. And max(n - mean, 0) is convex: of two kinds of transition with the same mean
error, the one whose error varies more is paid more.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from afterwit.world_models.running_scale import RunningMean, RunningScale


class RewardNormaliser(nn.Module):
    """Statistics of the raw reward r and of n = r / sigma, from EMAs of batch means."""

    def __init__(self, prioritise: bool, decay: float):
        super().__init__()
        self.prioritise = prioritise
        self.raw, self.normalised = RunningScale(decay), RunningMean(decay)

    @torch.no_grad()
    def update(self, reward: Tensor, real: Tensor) -> None:
        """Take raw rewards [T, B] into the statistics; only the `real` steps [T, B] count."""
        self.raw.update(reward, real)
        self.normalised.update(reward / self.deviation, real)

    @property
    def deviation(self) -> Tensor:
        return self.raw.deviation

    def known_or_from(self, reward: Tensor, real: Tensor) -> RewardNormaliser:
        """This normaliser; before its first update, one that knows these rewards [T, B] alone.

        Without statistics a bonus would be the raw error, in a unit of its own.
        """
        if bool(self.raw.first.weight > 0):
            return self
        fresh = deepcopy(self)
        fresh.update(reward, real)
        return fresh

    @torch.no_grad()
    def forward(self, reward: Tensor, real: Tensor) -> Tensor:
        """The bonus [T, B]: r / sigma, prioritised if configured; 0 on steps that are not real."""
        bonus = reward / self.deviation
        if self.prioritise:
            bonus = (bonus - self.normalised.mean).clamp(min=0)
        return torch.where(real, bonus, 0.0)
