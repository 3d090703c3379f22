"""SLAP: two modalities without negatives (Guinot, Riou et al., ISMIR 2025), here pixels and sound.

Each modality m has an encoder with a projector, z; a predictor of z, q; and a slow copy of encoder
and projector, y. With d(q, y) = 1 - cos(q, y) and no gradient through y:

    inter = d(q_pixels, y_sound) + d(q_sound, y_pixels)
    intra = d(q_pixels, y_pixels) + d(q_sound, y_sound)
    loss  = inter_weight * inter + (1 - inter_weight) * intra

One predictor aims at both targets. In the authors' code the arguments are swapped, so that inter
and intra change places; at their weight of 0.5 that makes no difference. There is no BatchNorm, so
the loss is a mean over independent samples, and gradients add up over micro-batches exactly
(micro_batches.py).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models.torso import Encoder, mlp

ITERATIONS = 30  # of the logistic regression


@dataclass(frozen=True)
class SLAPConfig:
    """The settings."""

    inter_weight: float = 0.5
    """Weight of the loss between the modalities; that within them has the rest (published: 0.5;
    outside of 0.2 to 0.7 the paper's runs collapse)."""
    target_decay: float = 0.95
    """Share of the slow copies that is kept at each step (published: 0.95; in the code 0.995)."""
    hidden: int = 256
    """Width of projectors, predictors and the sound's encoder (published: 4096)."""
    projection: int = 128
    """Numbers that are compared (published: 512)."""

    def __post_init__(self) -> None:
        for name in ("inter_weight", "target_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        for name in ("hidden", "projection"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @classmethod
    def published(cls) -> SLAPConfig:
        """The paper's settings, whose encoders are others."""
        return cls(hidden=4096, projection=512)


def apart(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - cosine, from 0 to 2: [n, D] to [n]."""
    return 1 - F.cosine_similarity(prediction, target, dim=-1)


class SLAP(nn.Module):
    """The objective: it trains an encoder of pixels, beside one of sound.

    Args:
      config: The settings.
      encoder: Of pixels.
      size: N, size of its embedding.
      sound: Numbers of a sound.
    """

    def __init__(self, config: SLAPConfig, encoder: Encoder, size: int, sound: int):
        super().__init__()
        self.config, self.encoder = config, encoder
        hidden, projection = config.hidden, config.projection
        self.pixels = nn.Sequential(encoder, mlp(size, hidden, projection, 1))
        self.sound = mlp(sound, hidden, projection, 2)
        self.predict = nn.ModuleList([mlp(projection, hidden, projection, 1) for _ in range(2)])
        self.slow = nn.ModuleList([deepcopy(self.pixels), deepcopy(self.sound)])
        self.slow.requires_grad_(False)

    def forward(self, pixels: Tensor, sound: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss [] and its parts.

        Args:
          pixels: uint8 [n, C, H, W].
          sound: float32 [n, D], of the same times.
        """
        q = self.predictions(pixels, sound)
        with torch.no_grad():
            y = [slow(x) for slow, x in zip(self.slow, (pixels, sound), strict=True)]
        inter = (apart(q[0], y[1]) + apart(q[1], y[0])).mean()
        intra = (apart(q[0], y[0]) + apart(q[1], y[1])).mean()
        weight = self.config.inter_weight
        loss = weight * inter + (1 - weight) * intra
        return loss, {"inter": inter.detach(), "intra": intra.detach()}

    @property
    def online(self) -> tuple[nn.Module, nn.Module]:
        """The trained networks to z, of pixels and of sound."""
        return self.pixels, self.sound

    @torch.no_grad()
    def embed(self, pixels: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors q of both modalities, [n, D] each. They retrieve better than z."""
        q = self.predictions(pixels, sound)
        return F.normalize(q[0], dim=-1), F.normalize(q[1], dim=-1)

    def predictions(self, pixels: Tensor, sound: Tensor) -> list[Tensor]:
        """q of both modalities, [n, D] each."""
        return [
            predict(network(x))
            for predict, network, x in zip(self.predict, self.online, (pixels, sound), strict=True)
        ]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the slow copies. Called once after each optimiser step."""
        online: list[Tensor] = [p for network in self.online for p in network.parameters()]
        torch._foreach_lerp_(list(self.slow.parameters()), online, 1 - self.config.target_decay)


def centroid_distance(one: Tensor, two: Tensor) -> float:
    """The modality gap as distance of the centroids of two clouds of vectors [n, D]."""
    return float((one.mean(0) - two.mean(0)).norm())


def separability(one: Tensor, two: Tensor, seed: int = 0) -> float:
    """The modality gap as accuracy of a logistic regression on a fifth that it was not fitted on.

    It is 0.5 if the two clouds of vectors [n, D] cannot be told apart.
    """
    x = torch.cat([one, two]).double()
    y = torch.cat([torch.zeros(len(one)), torch.ones(len(two))]).double()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], -1)[order]
    y, cut = y[order], int(0.8 * len(x))
    fit, weights = x[:cut], torch.zeros(x.shape[1], dtype=x.dtype)
    ridge = torch.eye(x.shape[1], dtype=x.dtype)  # scikit-learn's default strength
    ridge[-1, -1] = 1e-9  # the offset is free
    for _ in range(ITERATIONS):  # Newton's method
        chance = torch.sigmoid(fit @ weights)
        slope = fit.T @ (chance - y[:cut]) + ridge @ weights
        curvature = (fit * (chance * (1 - chance))[:, None]).T @ fit + ridge
        weights = weights - torch.linalg.solve(curvature, slope)
    guess = x[cut:] @ weights > 0
    return float((guess == (y[cut:] > 0.5)).double().mean())


def recall(one: Tensor, two: Tensor, among: int = 128) -> float:
    """The share of vectors of `one` whose nearest of `among` vectors of `two` is their partner.

    Args:
      one: Unit vectors [n, D].
      two: Their partners [n, D].
      among: Candidates; n is cut to a multiple of it.

    Raises:
      ValueError: There are fewer pairs than candidates.
    """
    if len(one) < among:
        raise ValueError(f"there are {len(one)} pairs; retrieval among {among} needs as many")
    count = len(one) // among * among
    a, b = (z[:count].unflatten(0, (-1, among)) for z in (one, two))
    nearest = (a @ b.transpose(1, 2)).argmax(-1)
    return float((nearest == torch.arange(among)).float().mean())
