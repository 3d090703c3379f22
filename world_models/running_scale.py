"""Running mean and deviation of a stream of batches, for rewards, value targets and bonuses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel
from afterwit.world_models.trajectory import masked_mean


class RunningMean(nn.Module):
    """Exponential moving average of batch means, corrected for its start at zero.

    The state is in buffers, so it is part of every checkpoint.

    Args:
      decay: Share that is kept at each update.
      shape: Shape of one value.
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
        """Include the values [T, B, *shape] where `mask` [T, B]. An empty batch changes nothing."""
        rate = (1 - self.decay) * data_parallel.any_true(mask)
        self.total.lerp_(data_parallel.average(masked_mean(values, mask)), rate)
        self.weight.lerp_(torch.ones_like(self.weight), rate)

    @property
    def mean(self) -> Tensor:
        """The mean; 0 before the first update."""
        return self.total / self.weight.clamp(min=1e-8)

    def mean_or_of(self, values: Tensor, mask: Tensor) -> Tensor:
        """The mean; before the first update that of these values [T, B] where `mask` [T, B]."""
        own = data_parallel.average(masked_mean(values, mask))
        return torch.where(self.weight > 0, self.mean, own)


# The smallest deviation, as a share of the root mean square. A floor in absolute units would
# suppress small numbers.
FLOOR = 0.01


class RunningScale(nn.Module):
    """Running `mean`, `deviation` and `size` of x. All three scale with x.

    Args:
      decay: Share that is kept at each update.
    """

    def __init__(self, decay: float):
        super().__init__()
        self.first, self.second = RunningMean(decay), RunningMean(decay)

    def update(self, values: Tensor, mask: Tensor) -> None:
        """Include the values [T, B] where `mask` [T, B]."""
        self.first.update(values, mask)
        self.second.update(values.square(), mask)

    @property
    def mean(self) -> Tensor:
        """The mean; 0 before the first update."""
        return self.first.mean

    @property
    def size(self) -> Tensor:
        """The root mean square, sqrt(E[x^2]).

        It is 1 before the first update, and if all values were 0.
        """
        return torch.where(self.second.mean > 0, self.second.mean.sqrt(), 1.0)

    @property
    def deviation(self) -> Tensor:
        """sqrt(max(E[x^2] - E[x]^2, 0) + (FLOOR * size)^2).

        It is 1 before the first update, and if all values were 0. BYOL-Explore (Guo et al., 2022)
        has 1e-8 in place of the last term, for errors of order 1.
        """
        return deviation_of(self.first.mean, self.second.mean)

    def or_of(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation; before the first update those of values [T, B] where `mask`."""
        first = self.first.mean_or_of(values, mask)
        return first, deviation_of(first, self.second.mean_or_of(values.square(), mask))


def deviation_of(first: Tensor, second: Tensor) -> Tensor:
    """The deviation of a first and a second moment, with its floor. It is 1 if all is 0."""
    variance = (second - first.square()).clamp(min=0)
    return torch.where(second > 0, (variance + FLOOR**2 * second).sqrt(), 1.0)
