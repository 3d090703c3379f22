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
from typing import Any

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel
from afterwit.world_models.running_scale import RunningMean, RunningScale

# Errors that must have been seen before any is paid. A single one has no deviation: in units of
# what rounding leaves of it, the next would be paid billions. Our default; not published.
FEWEST = 8


class RewardNormaliser(nn.Module):
    """Statistics of the raw reward r and of n = r / sigma, from running means over batches.

    Args:
      prioritise: Pay only what is above the running mean of n.
      decay: Share of the statistics that is kept at each update.
      absolute_zero: Smallest sigma, as a share of the ignorance (WorldModelOutput.ignorance). Once
          all errors are small, pay then goes to zero with them.
    """

    least: Tensor
    seen: Tensor  # errors, up to FEWEST

    def __init__(self, prioritise: bool, decay: float, absolute_zero: float = 0.0):
        super().__init__()
        self.prioritise, self.absolute_zero = prioritise, absolute_zero
        self.raw, self.normalised = RunningScale(decay), RunningMean(decay)
        self.register_buffer("seen", torch.zeros(()))
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
            moved = data_parallel.any_true(paid)
            self.least.copy_(torch.where(moved, self.absolute_zero * ignorance, self.least))
        count = data_parallel.average(paid.sum().to(self.seen)) * data_parallel.num_learners()
        self.seen.add_(count).clamp_(max=FEWEST)
        self.raw.update(reward, paid)
        self.normalised.update(reward / self.deviation, paid & (self.seen >= FEWEST))

    @property
    def deviation(self) -> Tensor:
        """sigma, the running deviation of the raw reward, at least `absolute_zero`."""
        deviation = self.raw.deviation
        return torch.maximum(deviation, self.least) if self.absolute_zero else deviation

    @property
    def has_statistics(self) -> bool:
        """Whether enough errors have been seen for a unit of the bonus."""
        return bool(self.seen >= FEWEST)

    def with_statistics(
        self, reward: Tensor, paid: Tensor, ignorance: Tensor | float = 1.0
    ) -> RewardNormaliser:
        """This normaliser, or before it has statistics one that has those of these rewards, too.

        Without statistics nothing is paid.

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
          float [T, B]. It is 0 for steps that are not paid, and until FEWEST errors were seen.
        """
        bonus = reward / self.deviation
        if self.prioritise:
            bonus = (bonus - self.normalised.mean).clamp(min=0)
        return torch.where(paid & (self.seen >= FEWEST), bonus, 0.0)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load a state; one from before November 29, 2026 has statistics and no count."""
        if prefix + "raw.first.weight" in state:
            known = state[prefix + "raw.first.weight"] > 0
            state.setdefault(prefix + "seen", FEWEST * known.to(self.seen))
        super()._load_from_state_dict(state, prefix, *rest)
