"""The critic that tells how much z gives away of place and action, and its contrastive estimate."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models.torso import mlp

CriticForm = Literal["dot", "mlp"]


def check_contrast(size: int | None, steps: int, environments: int) -> None:
    """Raise a ValueError unless contrasts of `size` (None: all environments) divide `steps` of
    `environments`.
    """
    if size is not None and steps * environments % size:
        raise ValueError(
            f"world_model.contrast_size is {size}, but {environments} environments x {steps} steps"
            f" are {environments * steps} pairs; it must divide them"
        )


class ReverseGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by -scale: what the critic climbs, the generator
    descends.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


class Critic(nn.Module):
    """g(s, z) for all pairs of a group at once.

    dot: scale * cosine of two embeddings: bounded, and never flat. (A tanh of the dot product is
    bounded, too, but the contrast does not see a constant added to all scores, and nothing kept
    them from drifting to where tanh has no gradient: the critic then found nothing, and z told the
    place.) mlp: one hidden layer that reads both, unbounded.
    """

    def __init__(
        self, form: CriticForm, state: int, latent: int, hidden: int, embedding: int, scale: float
    ):
        super().__init__()
        self.form, self.scale = form, scale
        if form == "dot":
            self.state, self.latent = (
                mlp(state, hidden, embedding, 1),
                mlp(latent, hidden, embedding, 1),
            )
        else:  # the first layer of an mlp on [s, z] is the sum of a layer on each
            self.state, self.latent = mlp(state, hidden, hidden, 0), mlp(latent, hidden, hidden, 0)
            self.head = nn.Linear(hidden, 1)

    def forward(self, state: Tensor, latent: Tensor) -> Tensor:
        """[..., n, S] and [..., n, Z] to [..., n, n]: row i holds g(s_i, z_j) for all j."""
        s, z = self.state(state), self.latent(latent)
        if self.form == "dot":
            return self.scale * F.normalize(s, dim=-1) @ F.normalize(z, dim=-1).transpose(-1, -2)
        return self.head((s.unsqueeze(-2) + z.unsqueeze(-3)).relu()).squeeze(-1)


def contrast(scores: Tensor, valid: Tensor) -> Tensor:
    """log[ exp g(s_i, z_i) / mean_j exp g(s_i, z_j) ] over the valid j, the positive j = i among
    them: at most log n.

    scores [..., n, n], valid bool [..., n]; returns [..., n] (0 where i is not valid).
    """
    among = scores.masked_fill(~valid.unsqueeze(-2), -torch.inf)
    among = torch.where(valid.unsqueeze(-1), among, 0.0)  # rows that do not count stay finite
    mean = among.logsumexp(-1) - valid.sum(-1, keepdim=True).clamp(min=1).log()
    return torch.where(valid, scores.diagonal(dim1=-2, dim2=-1) - mean, 0.0)
