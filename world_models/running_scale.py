"""Running mean and deviation of a stream of batches. One copy of the idea: rewards, value targets
and bonuses use it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel
from afterwit.world_models.trajectory import masked_mean


class RunningMean(nn.Module):
    """EMA of batch means, corrected for its start at zero. State lies in buffers, so it is part of
    every checkpoint.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, decay: float, shape: tuple[int, ...] = ()):
        super().__init__()
        self.decay = decay
        self.register_buffer("total", torch.zeros(shape))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def update(self, values: Tensor, mask: Tensor) -> None:
        """Take in the values [T, B, *shape] where `mask` [T, B]; a batch with nothing in it changes
        nothing.
        """
        rate = (1 - self.decay) * data_parallel.anywhere(mask)
        self.total.lerp_(data_parallel.average(masked_mean(values, mask)), rate)
        self.weight.lerp_(torch.ones_like(self.weight), rate)

    @property
    def mean(self) -> Tensor:
        """The mean; 0 before the first update."""
        return self.total / self.weight.clamp(min=1e-8)


# the least deviation, as a share of the root mean square: a floor in absolute units would switch
# small numbers off
FLOOR = 0.01


class RunningScale(nn.Module):
    """EMAs of batch means of x and x^2: `mean`, `deviation` and `size` of x. All three scale with
    x.
    """

    def __init__(self, decay: float):
        super().__init__()
        self.first, self.second = RunningMean(decay), RunningMean(decay)

    def update(self, values: Tensor, mask: Tensor) -> None:
        """Take in the values [T, B] where `mask` [T, B]."""
        self.first.update(values, mask)
        self.second.update(values.square(), mask)

    @property
    def mean(self) -> Tensor:
        return self.first.mean

    @property
    def size(self) -> Tensor:
        """The root mean square, sqrt(E[x^2]); 1 before the first update, and where all was 0."""
        return torch.where(self.second.mean > 0, self.second.mean.sqrt(), 1.0)

    @property
    def deviation(self) -> Tensor:
        """sqrt(max(E[x^2] - E[x]^2, 0) + (FLOOR * size)^2); 1 before the first update, and where
        all was 0.

        BYOL-Explore has 1e-8 in place of the last term, for errors of order 1.
        """
        variance = (self.second.mean - self.first.mean.square()).clamp(min=0)
        return torch.where(
            self.second.mean > 0, (variance + (FLOOR * self.size).square()).sqrt(), 1.0
        )
