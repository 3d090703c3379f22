"""Self-prediction on tabular chains: what theory says that it learns, with the module itself.

The numbers are derived from Tang et al. (2022) and Khetarpal et al. (2024). The chain of two
actions has pairs of eigenvalues (1, 1), (.95, .95), (.8, 0), (.6, .3) and (.1, .1) four times.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.examples.loading import load

chains = load("what_self_prediction_learns")
LAZY = chains.corridor()
ROOMS, MODES = chains.rooms()
SEEDS = range(3)


def trace(features: Tensor, kernels: Tensor) -> Tensor:
    """The mean of |Q'T Q|^2 over kernels T [A, S, S], of an orthonormal basis Q of features."""
    q = torch.linalg.qr(features)[0]
    return (q.T @ kernels @ q).square().sum((-1, -2)).mean()


def test_the_chains_are_chains() -> None:
    for kernel in (LAZY, *ROOMS):
        assert (kernel > -1e-6).all() and torch.allclose(kernel, kernel.T, atol=1e-6)
        assert torch.allclose(kernel.sum(1), torch.ones(8), atol=1e-6)
        assert torch.linalg.eigvalsh(kernel)[0] > -1e-6  # with negative ones theory is another
    angles = torch.pi * torch.arange(8) / 8
    assert torch.allclose(torch.linalg.eigvalsh(LAZY).flip(0), (1 + angles.cos()) / 2, atol=1e-6)
    assert torch.allclose(ROOMS[0] @ ROOMS[1], ROOMS[1] @ ROOMS[0], atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_features_end_in_the_slowest_modes(seed: int) -> None:
    top = torch.linalg.eigh(LAZY)[1].flip(1)[:, :2]
    path = chains.learn([LAZY], chains.drawn(2, seed), 2500)
    assert (chains.within(path[0], top) < 0.95).any()
    assert (chains.within(path[-1], top) > 0.99).all()


def test_the_gram_matrix_is_kept_and_what_is_predicted_never_falls() -> None:
    drifts = []
    for rate in (0.1, 0.05):
        path = chains.learn([LAZY], chains.drawn(2, 0), round(40 / rate), rate)
        gram = [features.T @ features for features in path]
        drifts.append(float((gram[-1] - gram[0]).norm()))
        predicted = torch.stack([(f.T @ LAZY @ f).square().sum() for f in path])
        assert (predicted.diff() > -1e-5).all()
        assert predicted[-1] > predicted[0] + 0.5
    assert drifts[0] < 0.05
    assert drifts[1] == pytest.approx(drifts[0] / 2, rel=0.1)  # of the order of the step


def test_a_target_with_a_gradient_keeps_a_constant_only() -> None:
    path = chains.learn([LAZY], chains.drawn(2, 0), 2500, stop=False)
    constant, rest = path[-1].mean(0), path[-1] - path[-1].mean(0)
    assert rest.norm() < 1e-3 < 0.1 < constant.norm() * 8**0.5
    kept = chains.learn([LAZY], chains.drawn(2, 0), 2500)[-1]
    assert (kept - kept.mean(0)).norm() > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_with_one_predictor_the_mean_counts_and_with_two_the_mean_square(seed: int) -> None:
    """The left room's corners: mean 0.40, mean square 0.32. The right room's: 0.45 and 0.225."""
    vectors, start = torch.stack(list(MODES.values()), 1), chains.drawn(3, seed)
    both = chains.learn([ROOMS.mean(0)], start, 2500)[-1]
    each = chains.learn(list(ROOMS), start, 2500)[-1]
    assert torch.allclose(chains.within(both, vectors), torch.tensor([1.0, 1, 0, 1]), atol=0.1)
    assert torch.allclose(chains.within(each, vectors), torch.tensor([1.0, 1, 1, 0]), atol=0.1)
    mean = ROOMS.mean(0, keepdim=True)
    assert float(trace(both, mean)) == pytest.approx(1 + 0.95**2 + 0.45**2, abs=5e-3)
    assert float(trace(each, ROOMS)) == pytest.approx(1 + 0.95**2 + 0.32, abs=5e-3)


def test_with_negative_eigenvalues_both_ends_hold() -> None:
    """So theory's chains are lazy: which end a feature reaches depends on where it starts."""
    basis = torch.linalg.qr(torch.cat([torch.ones(8, 1), chains.drawn(7, 0)], 1))[0]
    kernel = basis @ torch.diag(torch.linspace(1, -0.7, 8)) @ basis.T
    for end in (0, 7):
        start = basis[:, [end]] + 0.1 * basis[:, [3]]
        last = chains.learn([kernel], start / start.norm(), 300)[-1]
        assert chains.within(last, basis[:, [end]]) > 0.999
