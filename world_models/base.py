"""What every world model is: trajectory and beliefs in, loss and raw intrinsic reward out."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models.trajectory import Trajectory


@dataclass(frozen=True)
class WorldModelOutput:
    """One error tensor feeds both: `loss` has gradients, `reward` has none."""

    loss: Tensor  # []
    reward: Tensor  # [T, B]: raw intrinsic reward of the transition into obs[t+1]; 0 where not real
    parts: dict[str, Tensor] = field(default_factory=dict)  # [T, B] each: what the reward is the sum of
    metrics: dict[str, Tensor] = field(default_factory=dict)  # [] each, detached


class WorldModel(nn.Module):
    def forward(self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor) -> WorldModelOutput:
        """Loss and reward of T steps of B environments, from beliefs [T+1, B, M] and embeddings [T+1, B, N]."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each optimiser step: move targets and averages."""


class TargetEncoder(nn.Module):
    """phi <- decay * phi + (1 - decay) * theta: a slow copy of an encoder that never gets a gradient."""

    def __init__(self, online: nn.Module, decay: float):
        super().__init__()
        self.slow = deepcopy(online).requires_grad_(False)
        self.decay = decay
        self.online = (online,)  # in a tuple: the encoder belongs to the torso, not to this module

    def forward(self, obs: Tensor) -> Tensor:
        with torch.no_grad():
            return self.slow(obs)

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(list(self.slow.parameters()), list(self.online[0].parameters()), 1 - self.decay)


def cosine_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of unit vectors, 2 - 2 cos, in [0, 4]: [..., N] to [...]."""
    return 2 - 2 * F.cosine_similarity(prediction, target.detach(), dim=-1)


@torch.no_grad()
def effective_rank(vectors: Tensor) -> Tensor:
    """exp(entropy of the normalised singular values) of rows [n, N] about their mean (Roy & Vetterli, 2007).

    1 means that all rows lie on one line; N that they fill the space. 0 for rows that are all the same.
    """
    rows = vectors.detach().flatten(0, -2).float().nan_to_num()  # a loss that is not finite is reported, not died of
    rows = rows - rows.mean(0)
    values = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0).sqrt()
    total = values.sum()
    share = values / total.clamp(min=1e-12)
    return torch.where(total > 1e-6, torch.exp(-(share * share.clamp(min=1e-12).log()).sum()), 0.0)
