"""What every world model is: trajectory and beliefs in, loss and raw intrinsic reward out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
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


class WorldModel(nn.Module, ABC):
    def __init__(self, seed: int):
        super().__init__()
        self.random = torch.Generator().manual_seed(seed)  # on the host, so that a seed means the same everywhere

    @abstractmethod
    def forward(self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor) -> WorldModelOutput:
        """Loss and reward of T steps of B environments, from beliefs [T+1, B, M] and embeddings [T+1, B, N]."""

    def after_step(self) -> None:
        """Called after each optimiser step: move targets and averages."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it lasts, `forward` leaves no trace: no statistic moves and random draws are taken back."""
        was_training, state = self.training, self.random.get_state()
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)
            self.random.set_state(state)


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
def effective_rank(vectors: Tensor, mask: Tensor) -> Tensor:
    """exp(entropy of the normalised singular values) of the vectors [..., N] where `mask` [...], about their mean.

    1 means that they all lie on one line, N that they fill the space, 0 that they are all the same (Roy & Vetterli, 2007).
    """
    rows, weight = vectors.detach().flatten(0, -2).float(), mask.flatten().unsqueeze(-1).float()
    rows = rows.nan_to_num().clamp(-1e6, 1e6)  # of a broken network the loss is reported; this must not fail before it
    rows = (rows - (rows * weight).sum(0) / weight.sum().clamp(min=1)) * weight
    values = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0).sqrt()
    total = values.sum()
    share = values / total.clamp(min=1e-12)
    return torch.where(total > 1e-6, torch.exp(-(share * share.clamp(min=1e-12).log()).sum()), 0.0)
