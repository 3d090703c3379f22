"""From the raw error to a bonus: normalise it, and pay only what is above the running mean.

BYOL-Explore (Guo et al., 2022, section 3):

    n     = r / sigma              sigma: the running deviation of the raw reward r
    bonus = max(n - mean(n), 0)    with prioritisation; else n

This has two consequences. First, the bonus has no unit. When all errors have become small, the
remaining ones are paid as the large ones were, so curiosity does not end by itself. Second, max(n -
mean, 0) is convex. Of two kinds of transition with the same mean error, the one with the more
variable error is paid more.

Two options of ours change that (off by default as published; see ModelConfig): `absolute_zero`
bounds sigma from below in units of what a model that knows nothing would be paid, and
`expected_error` makes r what is more than usual (expected_error.py).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from afterwit.world_models.running_scale import RunningMean, RunningScale


class RewardNormaliser(nn.Module):
    """Statistics of the raw reward r and of n = r / sigma, from running means over batches.

    Args:
      prioritise: Pay only what is above the running mean of n.
      decay: Share of the statistics that is kept at each update.
      absolute_zero: Smallest sigma, as a share of the ignorance (WorldModelOutput.ignorance). Once
          all errors are small, pay then goes to zero with them.
    """

    least: Tensor

    def __init__(self, prioritise: bool, decay: float, absolute_zero: float = 0.0):
        super().__init__()
        self.prioritise, self.absolute_zero = prioritise, absolute_zero
        self.raw, self.normalised = RunningScale(decay), RunningMean(decay)
        if absolute_zero:
            self.register_buffer("least", torch.zeros(()))

    @torch.no_grad()
    def update(self, reward: Tensor, paid: Tensor, ignorance: Tensor | float = 1.0) -> None:
        """Update the statistics with raw rewards [T, B]. Only steps that are `paid` [T, B] count.

        Args:
          reward: float [T, B].
          paid: bool [T, B]: transitions that have a raw reward.
          ignorance: The raw reward of a model that knows nothing, [].
        """
        if self.absolute_zero:
            self.least.fill_(self.absolute_zero * ignorance)
        self.raw.update(reward, paid)
        self.normalised.update(reward / self.deviation, paid)

    @property
    def deviation(self) -> Tensor:
        """sigma, the running deviation of the raw reward, at least `absolute_zero`."""
        deviation = self.raw.deviation
        return torch.maximum(deviation, self.least) if self.absolute_zero else deviation

    @property
    def has_statistics(self) -> bool:
        """Whether an update has set the statistics, and so the unit of the bonus."""
        return bool(self.raw.first.weight > 0)

    def with_statistics(
        self, reward: Tensor, paid: Tensor, ignorance: Tensor | float = 1.0
    ) -> RewardNormaliser:
        """This normaliser, or before its first update one with the statistics of these rewards.

        Without statistics the bonus would be the raw error, in a unit of its own.

        Args:
          reward: float [T, B].
          paid: bool [T, B]: transitions that have a raw reward.
          ignorance: The raw reward of a model that knows nothing, [].
        """
        if self.has_statistics:
            return self
        fresh = deepcopy(self)
        fresh.update(reward, paid, ignorance)
        return fresh

    @torch.no_grad()
    def forward(self, reward: Tensor, paid: Tensor) -> Tensor:
        """The bonus of raw rewards.

        Args:
          reward: float [T, B].
          paid: bool [T, B]: transitions that have a raw reward.

        Returns:
          float [T, B]. It is 0 for steps that are not paid.
        """
        bonus = reward / self.deviation
        if self.prioritise:
            bonus = (bonus - self.normalised.mean).clamp(min=0)
        return torch.where(paid, bonus, 0.0)
