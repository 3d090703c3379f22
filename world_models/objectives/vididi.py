"""ViDiDi: temporal derivatives of a clip as further views of it (Chen et al., 2024).

    D0 V(t) = V(t),   D1 V(t) = V(t) - V(t-1),   D2 V(t) = V(t) - 2 V(t-1) + V(t-2)

V(t) is an observation; one that stacks frames is a clip. One encoder maps a clip, its derivatives
and those of the clip that follows to nearby points. Derivatives drop what stands still. They are
plain differences, as in the authors' code: not divided, scaled or clipped. Noise of variance s^2 in
every pixel becomes 2 s^2 at order 1 and 6 s^2 at order 2.

The orders of the two clips alternate in four phases: both differentiated, only the second, only the
first, neither. With probability 1/2 both are differentiated once more. The authors change the phase
with each pass over their videos, and here it changes with each step. The loss between the two clips
is VICReg's or BYOL's.

The paper's text was not available to us: this follows the authors' code (arXiv 2409.02371). The
sizes are ours.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models.torso import Encoder, mlp

Loss = Literal["vicreg", "byol"]
PHASES = ((1, 1), (0, 1), (1, 0), (0, 0))  # orders of the first and the second clip
MOST = 2  # the highest order


@dataclass(frozen=True)
class ViDiDiConfig:
    """The settings."""

    loss: Loss = "vicreg"
    """Between the two clips: vicreg (variance, invariance, covariance) or byol (a slow copy)."""
    derivatives: bool = True
    """Alternate the orders. Off: plain clips alone, the control."""
    gap: int = 1
    """Agent steps from the first clip to the second. Clips of n stacked frames follow directly upon
    each other with n."""
    hidden: int = 512
    """Width of the projector (published: 2048)."""
    projection: int = 256
    """Numbers that the loss compares."""
    invariance_weight: float = 25.0
    """VICReg's weight of the squared distance (as published, up to a common factor)."""
    variance_weight: float = 25.0
    """VICReg's weight of the hinge that keeps each number's deviation at 1 or more."""
    covariance_weight: float = 1.0
    """VICReg's weight of squared covariances of different numbers."""
    target_decay: float = 0.99
    """BYOL's share of the slow copy that is kept at each step (the authors': 0.99)."""

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise ValueError(f"unknown loss {self.loss!r}; choose from {', '.join(get_args(Loss))}")
        for name in ("gap", "hidden", "projection"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.target_decay <= 1:
            raise ValueError(f"target_decay is {self.target_decay}; it must lie between 0 and 1")

    @property
    def window(self) -> int:
        """Consecutive observations that one pair of clips needs."""
        return self.gap + MOST + 1


def differences(obs: Tensor, order: int) -> Tensor:
    """The derivatives of observations along their first axis: [S, ...] to [S - order, ...].

    Args:
      obs: uint8, read as 0..1, or float [S, ...] with S > `order`.
      order: 0, 1 or 2.
    """
    values = obs.float() / 255 if obs.dtype == torch.uint8 else obs
    for _ in range(order):
        values = values[1:] - values[:-1]
    return values


def derivative(obs: Tensor, order: int) -> Tensor:
    """The derivative of observations along their first axis, at the last time: [S, ...] to [...].

    Args:
      obs: uint8, read as 0..1, or float [S, ...] with S > `order`.
      order: 0, 1 or 2.
    """
    return differences(obs[-1 - order :], order)[0]


def orders(step: int, more: bool) -> tuple[int, int]:
    """The orders of the two clips at a step, with or without one order more for both."""
    first, second = PHASES[step % len(PHASES)]
    return first + more, second + more


def vicreg(one: Tensor, two: Tensor, config: ViDiDiConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """VICReg (Bardes et al., 2022) of two views [n, D]: the loss [] and its parts."""
    invariance = F.mse_loss(one, two)
    parts = {"invariance": invariance}
    for name in ("variance", "covariance"):
        parts[name] = torch.zeros_like(invariance)
    for view in (one, two):
        centred = view - view.mean(0)
        deviation = (centred.square().sum(0) / (len(view) - 1) + 1e-4).sqrt()
        parts["variance"] = parts["variance"] + F.relu(1 - deviation).mean() / 2
        covariance = centred.T @ centred / (len(view) - 1)
        apart = covariance - torch.diag(covariance.diagonal())
        parts["covariance"] = parts["covariance"] + apart.square().sum() / view.shape[1]
    loss = (
        config.invariance_weight * parts["invariance"]
        + config.variance_weight * parts["variance"]
        + config.covariance_weight * parts["covariance"]
    )
    return loss, {name: part.detach() for name, part in parts.items()}


class ViDiDi(nn.Module):
    """The objective: it trains an encoder on windows of consecutive observations.

    Args:
      config: The settings.
      encoder: What is trained; it also reads derivatives, as floats.
      size: N, size of its embedding.
      seed: Of the draws of orders.
    """

    def __init__(self, config: ViDiDiConfig, encoder: Encoder, size: int, seed: int):
        super().__init__()
        self.config, self.encoder = config, encoder
        self.random, self.steps = torch.Generator().manual_seed(seed), 0
        self.project = mlp(size, config.hidden, config.projection, 2)
        if config.loss == "byol":
            self.predict = mlp(config.projection, config.hidden, config.projection, 1)
            self.slow = nn.ModuleList([deepcopy(encoder), deepcopy(self.project)]).requires_grad_(
                False
            )

    def forward(self, windows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss [] of windows, and what it is made of.

        Pairs of which a differentiated clip does not move at all are left out: every such
        derivative is the same point. `still` is their share.

        Args:
          windows: uint8 or float [S, n, ...], S = `config.window` consecutive observations of one
            episode.
        """
        first, second = self.draw()
        one = derivative(windows[: MOST + 1], first)
        two = derivative(windows[self.config.gap :], second)
        moves = torch.ones(len(one), dtype=torch.bool, device=one.device)
        for view, order in ((one, first), (two, second)):
            if order:
                moves &= view.flatten(1).any(1)
        still = 1 - moves.float().mean()
        if moves.sum() < 2:
            nothing = sum(p.sum() * 0 for p in self.project.parameters())
            return torch.as_tensor(nothing), {"still": still}
        one, two = one[moves], two[moves]
        z1, z2 = self.project(self.encoder(one)), self.project(self.encoder(two))
        if self.config.loss == "vicreg":
            loss, metrics = vicreg(z1, z2, self.config)
            return loss, {**metrics, "still": still}
        with torch.no_grad():
            y1, y2 = self.slow[1](self.slow[0](one)), self.slow[1](self.slow[0](two))
        loss = distance(self.predict(z1), y2) + distance(self.predict(z2), y1)
        return loss, {"distance": loss.detach() / 2, "still": still}

    def draw(self) -> tuple[int, int]:
        """The orders of this step's clips. In training mode the next step has the next phase."""
        if not self.config.derivatives:
            return 0, 0
        more = bool(torch.rand((), generator=self.random) < 0.5)
        pair = orders(self.steps, more)
        self.steps += self.training
        return pair

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the slow copy. Called after each optimiser step."""
        if self.config.loss == "byol":
            online: list[Tensor] = [*self.encoder.parameters(), *self.project.parameters()]
            torch._foreach_lerp_(list(self.slow.parameters()), online, 1 - self.config.target_decay)


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance [] of unit vectors [n, D], from 0 to 4."""
    return 2 - 2 * F.cosine_similarity(prediction, target, dim=-1).mean()
