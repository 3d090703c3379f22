"""The critic that estimates how much z reveals of state and action, by contrast."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models.torso import mlp

CriticForm = Literal["dot", "mlp"]


def check_contrast(size: int | None, steps: int, environments: int) -> None:
    """Raise a ValueError unless groups of `size` divide `steps` of `environments`.

    None stands for all environments, which always fit.
    """
    if size is not None and steps * environments % size:
        raise ValueError(
            f"world_model.contrast_size is {size}, but {environments} environments x {steps} steps"
            f" are {environments * steps} pairs; it must divide them"
        )


class ReverseGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by -scale.

    What the critic maximises, the generator minimises.
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

    dot: scale * cosine of two embeddings. It is bounded and never flat. (A tanh of the dot product
    is bounded too. But the contrast does not change if a constant is added to all scores, so
    nothing kept the scores from drifting to where tanh has no gradient. The critic then found
    nothing, and z revealed the state.)

    mlp: one hidden layer that reads both s and z. It is unbounded.

    Args:
      form: "dot" or "mlp".
      state: Size of s.
      latent: Size of z.
      hidden: Width of the hidden layers.
      embedding: Size of the two embeddings (dot).
      scale: Bound of the score (dot).
    """

    def __init__(
        self, form: CriticForm, state: int, latent: int, hidden: int, embedding: int, scale: float
    ):
        super().__init__()
        self.form, self.scale = form, scale
        if form == "dot":
            self.state = mlp(state, hidden, embedding, 1)
            self.latent = mlp(latent, hidden, embedding, 1)
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
    """How much better each s fits its own z than the z of its group.

        log[ exp g(s_i, z_i) / mean_j exp g(s_i, z_j) ]   over the valid j, including j = i

    Args:
      scores: float [..., n, n]: g(s_i, z_j).
      valid: bool [..., n].

    Returns:
      float [..., n], at most log n. It is 0 where i is not valid.
    """
    valid_scores = scores.masked_fill(~valid.unsqueeze(-2), -torch.inf)
    # the rows of invalid pairs stay finite
    valid_scores = torch.where(valid.unsqueeze(-1), valid_scores, 0.0)
    mean = valid_scores.logsumexp(-1) - valid.sum(-1, keepdim=True).clamp(min=1).log()
    return torch.where(valid, scores.diagonal(dim1=-2, dim2=-1) - mean, 0.0)
