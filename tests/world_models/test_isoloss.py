"""IsoLoss: the published gradients, one rate for all eigenmodes, and what it means for a decay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from afterwit.agents import Learner, LearnerConfig
from afterwit.world_models.base import TargetEncoder
from afterwit.world_models.models.byol_config import BYOLConfig
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.predictors import Kind, SquarePredictor, direct_weights, isotropic
from tests.helpers import random_trajectory, tiny_spec, tiny_torso_config

N, COUNT = 4, 7
POWER = {"direct-pred": 0.5, "direct-copy": 1.0}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def predictor(kind: Kind, iso: bool, every: int = 1) -> SquarePredictor:
    torch.manual_seed(0)
    return SquarePredictor(kind, N, N, 0.0, 0.0, every, iso).double()


# --- the gradient, against the forms that the authors print in their code


def square_and_root() -> tuple[Tensor, Tensor]:
    features = drawn(40, N, seed=3)
    root = direct_weights(features.T @ features / 40, "direct-pred", 0.1)
    return root @ root, root


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of)[0]


@pytest.mark.parametrize("decay", [0.9, None], ids=["euclidean", "cosine"])
def test_the_gradient_is_the_published_one(decay: float | None) -> None:
    weight, root = square_and_root()
    z, target = drawn(COUNT, N, seed=1).requires_grad_(), drawn(COUNT, N, seed=2)
    encoder = TargetEncoder(torch.nn.Linear(2, N), N, 0.99, decay)
    error = encoder.error(isotropic(z.detach() @ weight.T, z), target)
    assert torch.allclose(error, encoder.error(z @ weight.T, target))  # the pay is as it was
    total = torch.zeros((), dtype=z.dtype)
    for one, y in zip(z, target, strict=True):  # sample by sample
        p = weight @ one
        if decay is not None:  # |z - sg(y + z - p)|^2
            total = total + (one - (y + one - p).detach()).square().sum()
            continue
        size, apart = p.norm().detach(), y.norm()
        similarity = one @ y / (size * apart)
        similarity = similarity - 0.5 * (p @ y).detach() / (size**3 * apart) * (root @ one) @ (
            root @ one
        )
        total = total - 2 * similarity  # and |p/|p| - y/|y||^2 = 2 - 2 cos
    published = gradient(total, z)
    assert torch.allclose(gradient(error.sum(), z), published)
    full = gradient(encoder.error(z @ weight.T, target).sum(), z)
    assert not torch.allclose(full, published, rtol=0.1)


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("kind", ["linear", "direct-pred", "direct-copy"])
def test_the_module_has_that_gradient_and_a_trained_matrix_its_own(kind: Kind, every: int) -> None:
    plain, iso = predictor(kind, False, every), predictor(kind, True, every)
    weight = drawn(N, N, seed=4)
    x, target = drawn(COUNT, N, seed=1), drawn(COUNT, N, seed=2)
    for model in (plain, iso):
        model.weight.data.copy_(weight)
        model(x).sub(target).square().sum().backward()
    assert torch.equal(plain(x), iso(x))
    residual = 2 * (plain(x) - target)
    assert iso.project.weight.grad is not None and plain.project.weight.grad is not None
    assert torch.allclose(iso.project.weight.grad, residual.T @ x)
    assert torch.allclose(plain.project.weight.grad, (residual @ weight).T @ x)
    if isinstance(iso.weight, torch.nn.Parameter):
        assert iso.weight.grad is not None and plain.weight.grad is not None
        assert torch.allclose(iso.weight.grad, plain.weight.grad)
        assert torch.allclose(iso.weight.grad, residual.T @ iso.project(x))


# --- the eigenvalues, in closed form


def eigenvalues(kind: Kind, iso: bool, time: float, rate: float) -> tuple[Tensor, Tensor]:
    """u = (s / max s)^power of F's eigenvalues s before and after, by the module's own gradient.

    Inputs have E[x x'] = 1 and no mean; both views are the same.
    """
    model = predictor(kind, iso)
    x = torch.cat([torch.eye(N), -torch.eye(N)]).double() * N**0.5
    turn = torch.linalg.qr(drawn(N, N, seed=5))[0]
    start = torch.tensor([1.0, 0.3, 0.05, 0.005], dtype=torch.float64).sqrt()
    with torch.no_grad():
        model.project.weight.copy_(turn @ torch.diag(start) @ torch.linalg.qr(drawn(N, N))[0])
        model.project.bias.zero_()
    valid = torch.ones(len(x), dtype=torch.bool)
    model(x, valid)  # the first statistics, and the first matrix
    model.after_step()

    def shares() -> Tensor:
        s = torch.linalg.eigvalsh(model.project.weight @ model.project.weight.T).flip(0)
        return ((s / s[0]) ** POWER[kind]).detach()

    before = shares()
    for _ in range(round(time / rate)):
        y = model.project(x).detach()
        loss = (model(x, valid) - y).square().sum(-1).mean() / 2
        change = gradient(loss, model.project.weight)
        with torch.no_grad():
            model.project.weight -= rate * change
        model.after_step()
    return before, shares()


@pytest.mark.parametrize("kind", POWER)
def test_all_eigenmodes_converge_at_one_rate(kind: Kind) -> None:
    """du/dt = 2 power u (1 - u), a logistic curve: the log odds of u grow alike for all modes."""
    time = 2.0
    before, after = eigenvalues(kind, True, time, rate=0.002)
    grown = after[1:].logit() - before[1:].logit()
    assert torch.allclose(grown, torch.full_like(grown, 2 * POWER[kind] * time), rtol=0.01)
    assert float(after[0]) == 1


@pytest.mark.parametrize("kind", POWER)
def test_without_it_each_learns_at_the_rate_of_its_eigenvalue(kind: Kind) -> None:
    """du/dt = 2 power u^2 (1 - u), so log odds less 1/u grow alike: small modes hardly move."""
    time = 2.0
    before, after = eigenvalues(kind, False, time, rate=0.002)
    grown = (after.logit() - 1 / after)[1:] - (before.logit() - 1 / before)[1:]
    assert torch.allclose(grown, torch.full_like(grown, 2 * POWER[kind] * time), rtol=0.01)
    odds = (after.logit() - before.logit())[1:]
    assert odds[0] > 4 * odds[2]


# --- with a decay of the weights, in the units of Tian, Chen & Ganguli (2021): W is F^power


def end_of(start: float, kind: Kind, foreseen: float, decay: float, iso: bool) -> float:
    """The eigenvalue in W that one mode of variance 1 and correlation r between views ends at."""
    weight = start
    for _ in range(40_000):
        p = weight ** (2 * POWER[kind])
        weight += 0.02 * ((1 if iso else p) * (foreseen - p) - decay) * weight
    return float(weight ** (2 * POWER[kind]))


@pytest.mark.parametrize("kind", POWER)
def test_a_feature_survives_a_decay_by_its_correlation_alone(kind: Kind) -> None:
    decay = 0.2
    for foreseen in (0.95, 0.5, 0.25, 0.15):
        expected = max(0.0, foreseen - decay)
        for start in (1e-4, 0.5, 1.5):  # there is no edge below which it collapses
            assert end_of(start, kind, foreseen, decay, True) == pytest.approx(expected, abs=1e-3)
    assert end_of(1.0, kind, 0.5, decay, False) == pytest.approx(0, abs=1e-3)  # r^2 < 4 decay
    assert end_of(1e-2, kind, 0.95, 0.05, False) == pytest.approx(0, abs=1e-3)  # the edge
    assert end_of(1.0, kind, 0.95, 0.05, False) > 0.8


# --- in the models


@pytest.mark.parametrize("kind", ["linear", "direct-pred", "direct-copy"])
@pytest.mark.parametrize(
    "config",
    [
        BYOLExploreConfig(horizon=2),
        BYOLExploreConfig(standardise_decay=None),
        BYOLHindsightConfig(),
    ],
    ids=["byol-explore", "unit vectors", "foresight"],
)
def test_models_learn_with_it_and_it_changes_them(config: BYOLConfig, kind: Kind) -> None:
    ends = []
    for iso in (False, True):
        settings = {**config.__dict__, "predictor": kind, "predictor_isotropic": iso}
        learner = Learner(
            LearnerConfig(
                torso=tiny_torso_config(), world_model=type(config)(**settings), learning_rate=3e-3
            ),
            tiny_spec(),
            0,
            torch.device("cpu"),
        )
        trajectory = random_trajectory()
        losses = [float(learner.update(trajectory)["model_reconstruction"]) for _ in range(60)]
        assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
        ends.append(torch.cat([p.flatten() for p in learner.world_model.parameters()]))
    assert not torch.equal(*ends)


def test_an_mlp_has_no_matrix_to_leave_out() -> None:
    with pytest.raises(ValueError, match="predictor_isotropic needs a square matrix"):
        BYOLExploreConfig(predictor_isotropic=True)
