"""The linear predictor obeys the theorems of Tian, Chen & Ganguli (2021) that need no statistics.

Their setting: W embeds x, P predicts, two views of x differ by independent noise of variance s2 in
each coordinate, E[x x'] = I, and both W and P decay by eta. Gradient flow, in small steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from afterwit.world_models.predictors import SquarePredictor, shrink

N, D, NOISE = 3, 4, 0.5  # embedding, input, variance of what differs between the views
INPUTS = math.sqrt(D) * torch.cat([torch.eye(D), -torch.eye(D)]).double()  # mean 0, E[x x'] = I


def made(symmetric: bool) -> SquarePredictor:
    random = torch.Generator().manual_seed(0)
    predictor = SquarePredictor("linear", D, N, 0.0, 0.0, 1).double()
    start = 0.4 * torch.randn(N, N, generator=random, dtype=torch.float64)
    predictor.load_state_dict(
        predictor.state_dict()
        | {
            "project.weight": 0.5 * torch.randn(N, D, generator=random, dtype=torch.float64),
            "project.bias": torch.zeros(N, dtype=torch.float64),
            "weight": (start + start.T) / 2 if symmetric else start,
        }
    )
    predictor.project.bias.requires_grad_(False)
    return predictor


def flow(
    predictor: SquarePredictor,
    decay: float,
    dt: float,
    steps: int,
    target: float | None,
    symmetric: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(W, P) after each step.

    The target is `target` W without gradient, or W itself with gradient.
    """
    w, p = predictor.project.weight, predictor.weight
    for _ in range(steps):
        aim = w if target is None else target * w.detach()
        # the noise of the views in closed form
        spread = NOISE * ((p @ w).square().sum() + (w.square().sum() if target is None else 0))
        error = (predictor(INPUTS) - INPUTS @ aim.T).square().sum(-1).mean() + spread
        by_w, by_p = torch.autograd.grad(error / 2, [w, p])
        with torch.no_grad():
            w -= dt * by_w
            p -= dt * ((by_p + by_p.T) / 2 if symmetric else by_p)
            shrink(predictor, dt * decay)
        yield w.detach(), p.detach()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_two_weights_stay_balanced(decay: float) -> None:
    """Theorem 1: W W' - P' P keeps its value but for the decay, exp(-2 eta t)."""
    residuals = []
    for dt in (4e-3, 2e-3):
        predictor = made(symmetric=False)
        before = unbalanced(predictor.project.weight.detach(), predictor.weight.detach())
        steps = round(2 / dt)
        *_, (w, p) = flow(predictor, decay, dt, steps, target=0.5)
        expected = math.exp(-2 * decay * dt * steps) * before
        residuals.append(float((unbalanced(w, p) - expected).norm() / before.norm()))
    assert residuals[1] < 2e-3
    assert residuals[0] / residuals[1] == pytest.approx(2, abs=0.3)  # what is left is the step's


def unbalanced(w: Tensor, p: Tensor) -> Tensor:
    return w @ w.T - p.T @ p


def test_without_stop_gradient_it_collapses() -> None:
    """Theorem 2; and with it, it does not."""
    ends = {}
    for target in (None, 1.0):
        *_, (w, _) = flow(made(symmetric=True), 0.05, 0.02, 1500, target)
        ends[target] = float(w.norm())
    assert ends[None] < 1e-2 and ends[1.0] > 0.5


def test_the_predictor_comes_to_share_its_eigenvectors_with_the_features() -> None:
    """Theorem 3: F P - P F goes to zero, if P is kept symmetric."""
    apart = [
        float((w @ w.T @ p - p @ w @ w.T).norm())
        for w, p in flow(made(symmetric=True), 0.2, 0.02, 1000, target=0.5, symmetric=True)
    ]
    assert apart[0] > 0.05 and apart[-1] < 1e-3 * apart[0]
