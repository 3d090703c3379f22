"""Terms that keep embeddings apart, for any world model, after MSBReg (Moon et al., WACV 2023).

Embeddings of outcomes are particles on the unit sphere, z [n, N]. MSBReg pulls views of one image
to a centroid (M), spreads all particles evenly (S) and moves each at random (B). Both are off by
default.

    dispersion   S = | Z'Z / n - I / N |^2      squared Frobenius norm, over the whole batch
    brownian     B = mean over particles of z . r,   r a fresh random direction for each

S is 0 if all singular values of Z are equal, and 1 - 1/N if all particles are the same. There its
gradient along the sphere is 0: S cannot leave a full collapse, but B can. B's gradient is 0 on
average. The third term, M, is `centroid` of BYOL-Explore: the K predictions of one outcome are its
views.

MSBReg's method section was not available to us. B is that of a third party's code (there its weight
is 0.1); S is our reading of "singular value" and "whitening"; all weights are our choice. Two more
cautions: S gives noise the same variance as everything else, and Adam scales a gradient that is 0
on average by its own size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models import data_parallel
from afterwit.world_models.base import ModelConfig
from afterwit.world_models.trajectory import masked_mean


def dispersion(vectors: Tensor, mask: Tensor) -> Tensor:
    """S [] of the unit vectors of `vectors` [T, B, N] where `mask` [T, B], over the whole batch."""
    unit = F.normalize(vectors, dim=-1) * mask.unsqueeze(-1)
    rows = data_parallel.gather(unit, 1).flatten(0, 1)
    count = data_parallel.gather(mask, 1).sum().clamp(min=1)
    size = rows.shape[-1]
    return (rows.T @ rows / count - torch.eye(size, device=rows.device) / size).square().sum()


class Regulariser(nn.Module):
    """The weighted sum of dispersion and Brownian motion.

    Args:
      config: Of the world model; it has both weights.
      seed: Seed of the random directions.
    """

    def __init__(self, config: ModelConfig, seed: int):
        super().__init__()
        self.dispersion_weight = config.dispersion_weight
        self.brownian_weight = config.brownian_weight
        self.random = torch.Generator().manual_seed(seed)

    def forward(self, embeddings: Tensor, real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss [], and both terms [] by name, without gradient.

        Args:
          embeddings: float [T+1, B, N]; those of outcomes, embeddings[1:], are moved.
          real: bool [T, B]: steps that happened.
        """
        outcomes = embeddings[1:]
        spread = dispersion(outcomes, real)
        motion = masked_mean(
            (F.normalize(outcomes, dim=-1) * self.directions(outcomes)).sum(-1), real
        )
        loss = self.dispersion_weight * spread + self.brownian_weight * motion
        return loss, {"dispersion": spread.detach(), "brownian": motion.detach()}

    def directions(self, like: Tensor) -> Tensor:
        """A random unit vector for each of [T, B, N]: this learner's share of the batch's."""
        length, batch, size = like.shape
        everyone = batch * data_parallel.num_learners()
        drawn = torch.randn(length, everyone, size, generator=self.random)
        return F.normalize(data_parallel.own_share(drawn, 1), dim=-1).to(like.device)

    def get_extra_state(self) -> dict[str, Any]:
        return {"random": self.random.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.random.set_state(state["random"].cpu())


def make_regulariser(config: ModelConfig, seed: int) -> Regulariser | None:
    """The regulariser that a world model's config asks for, or None."""
    on = config.dispersion_weight or config.brownian_weight
    return Regulariser(config, seed) if on else None
