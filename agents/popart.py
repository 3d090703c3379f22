"""PopArt (van Hasselt et al., 2016): a value output on a scale that follows its targets.

When the scale moves, the last layer is rescaled so that the outputs stay the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterwit.world_models.running_scale import RunningScale


class PopArt(nn.Module):
    """A linear value output on the running scale of its targets.

    Args:
      inputs: H, size of the features.
      step: Rate of the running scale, per learner step.
    """

    def __init__(self, inputs: int, step: float):
        super().__init__()
        self.linear = nn.Linear(inputs, 1)
        self.scale = RunningScale(1 - step)

    def forward(self, features: Tensor) -> Tensor:
        """Normalised values [...] of features [..., H]."""
        return self.linear(features).squeeze(-1)

    def denormalise(self, value: Tensor) -> Tensor:
        """Normalised values on the targets' own scale."""
        return value * self.scale.deviation + self.scale.mean

    def normalise(self, target: Tensor) -> Tensor:
        """Targets on the normalised scale."""
        return (target - self.scale.mean) / self.scale.deviation

    @torch.no_grad()
    def update(self, targets: Tensor, mask: Tensor) -> None:
        """Move the scale towards the targets, and keep all denormalised outputs the same.

        Args:
          targets: [T, B].
          mask: bool [T, B]: the targets that count.
        """
        mean, deviation = self.scale.mean, self.scale.deviation
        self.scale.update(targets, mask)
        new_mean, new_deviation = self.scale.mean, self.scale.deviation
        self.linear.weight.mul_(deviation / new_deviation)
        self.linear.bias.mul_(deviation).add_(mean - new_mean).div_(new_deviation)
