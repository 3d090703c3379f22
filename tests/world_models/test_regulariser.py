"""Terms after MSBReg: dispersion, Brownian motion and the centroid, against closed forms."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.agents import Learner, LearnerConfig
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.rnd import RNDConfig
from afterwit.world_models.open_loop import outcome_loss, pair_mask, pair_mean
from afterwit.world_models.regulariser import Regulariser, dispersion, make_regulariser
from tests.helpers import B, T, random_trajectory, same, tiny_spec, tiny_torso_config
from tests.world_models.curiosities import curiosity, steps

SIZE = 16


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def everywhere(vectors: Tensor) -> Tensor:
    return torch.ones(vectors.shape[:-1], dtype=torch.bool)


def test_dispersion_is_zero_on_a_tight_frame_and_largest_at_collapse() -> None:
    frame = torch.cat([torch.eye(SIZE), -torch.eye(SIZE)])[:, None]  # [32, 1, 16]
    assert dispersion(7 * frame, everywhere(frame)) == pytest.approx(0, abs=1e-6)
    same_point = drawn(SIZE).expand(32, 1, SIZE)
    assert float(dispersion(same_point, everywhere(same_point))) == pytest.approx(1 - 1 / SIZE)


def test_dispersion_has_three_forms() -> None:
    vectors, mask = drawn(T, B, SIZE), drawn(T, B, seed=1) > 0
    vectors[~mask] = 1e4
    z = F.normalize(vectors[mask], dim=-1)
    n = len(z)
    pairs = sum(float(a @ b) ** 2 for a in z for b in z) / n**2 - 1 / SIZE
    singular = torch.linalg.svdvals(z).pow(4).sum() / n**2 - 1 / SIZE
    assert float(dispersion(vectors, mask)) == pytest.approx(pairs, rel=1e-4)
    assert float(dispersion(vectors, mask)) == pytest.approx(float(singular), rel=1e-4)


def test_only_brownian_motion_leaves_a_full_collapse() -> None:
    point = drawn(SIZE)
    vectors = point.expand(8, 5, SIZE).clone().requires_grad_()
    regulariser = Regulariser(RNDConfig(dispersion_weight=1.0, brownian_weight=1.0), 0)
    spread = dispersion(vectors, everywhere(vectors))
    (held,) = torch.autograd.grad(spread, vectors)
    assert held.norm() < 1e-6
    motion = (F.normalize(vectors, dim=-1) * regulariser.directions(vectors)).sum(-1).mean()
    (moved,) = torch.autograd.grad(motion, vectors)
    assert moved.norm() > 0.01


def test_brownian_motion_is_zero_on_average_and_has_its_size() -> None:
    regulariser = Regulariser(RNDConfig(brownian_weight=1.0), 0)
    unit = F.normalize(drawn(200, 50, SIZE, seed=9), dim=-1).requires_grad_()
    total = (F.normalize(unit, dim=-1) * regulariser.directions(unit)).sum()
    (gradient,) = torch.autograd.grad(total, unit)
    assert gradient.mean((0, 1)).abs().max() < 0.01
    square = gradient.square().sum(-1).mean()
    assert float(square) == pytest.approx((SIZE - 1) / SIZE, abs=0.01)
    lengths = regulariser.directions(unit).norm(dim=-1)
    assert torch.allclose(lengths, torch.ones_like(lengths))


def test_the_loss_is_the_weighted_sum_over_real_outcomes() -> None:
    embeddings, real = drawn(T + 1, B, SIZE), drawn(T, B, seed=1) > 0
    regulariser = Regulariser(RNDConfig(dispersion_weight=2.0, brownian_weight=0.5), 3)
    loss, terms = deepcopy(regulariser)(embeddings, real)
    directions = regulariser.directions(embeddings[1:])
    z = F.normalize(embeddings[1:], dim=-1)
    motion = (z * directions).sum(-1)[real].mean()
    assert torch.allclose(terms["dispersion"], dispersion(embeddings[1:], real))
    assert torch.allclose(terms["brownian"], motion)
    assert torch.allclose(loss, 2 * terms["dispersion"] + 0.5 * motion)
    embeddings[1:][~real] = 5.0
    again, _ = Regulariser(RNDConfig(dispersion_weight=2.0, brownian_weight=0.5), 3)(
        embeddings, real
    )
    assert torch.allclose(again, loss)


def test_an_encoder_that_chases_itself_keeps_its_rank_with_dispersion() -> None:
    """Without stop-gradient and predictor, the loss alone makes all embeddings the same."""

    def rank(weight: float) -> float:
        torch.manual_seed(0)
        encoder = torch.nn.Linear(6, 4)
        optimiser = torch.optim.Adam(encoder.parameters(), 0.02)
        for step in range(300):
            x = drawn(32, 1, 6, seed=step)
            one = encoder(x + 0.3 * drawn(32, 1, 6, seed=step + 1000))
            two = encoder(x + 0.3 * drawn(32, 1, 6, seed=step + 2000))
            loss = (F.normalize(one, dim=-1) - F.normalize(two, dim=-1)).square().sum(-1).mean()
            loss = loss + weight * dispersion(one, everywhere(one))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        z = F.normalize(encoder(drawn(256, 6)), dim=-1)
        shares = torch.linalg.svdvals(z).square() / 256
        return float(torch.exp(-(shares * shares.clamp(min=1e-9).log()).sum()))

    assert rank(0.0) < 1.2
    assert rank(4.0) > 3.5


def test_off_it_is_absent() -> None:
    assert make_regulariser(RNDConfig(), 0) is None
    assert make_regulariser(RNDConfig(brownian_weight=0.1), 0) is not None


@pytest.mark.parametrize("config", [RNDConfig, BYOLExploreConfig])
def test_it_reaches_the_torso_in_learner_and_facade(config: type) -> None:
    apart = config(dispersion_weight=1.0, brownian_weight=0.1)
    settings = LearnerConfig(torso=tiny_torso_config(), world_model=apart, learning_rate=3e-3)
    learner = Learner(settings, tiny_spec(), 0, torch.device("cpu"))
    trajectory = random_trajectory()
    spread = [float(learner.update(trajectory)["model_dispersion"]) for _ in range(100)]
    assert spread[-1] < 0.7 * spread[0]
    bonus = curiosity(apart, learning_rate=3e-3)
    spread = [bonus.update(*steps())["dispersion"] for _ in range(100)]
    assert spread[-1] < 0.7 * spread[0]


def test_a_resumed_learner_draws_the_same_directions() -> None:
    config = LearnerConfig(torso=tiny_torso_config(), world_model=RNDConfig(brownian_weight=0.1))
    one, two = (Learner(config, tiny_spec(), seed, torch.device("cpu")) for seed in (0, 1))
    one.update(random_trajectory())
    two.load_state(deepcopy(one.state()))
    for learner in (one, two):
        learner.update(random_trajectory(seed=1))
    assert same(one.state(), two.state())


def pairs(horizon: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions and targets [K, T, B, N] of the pairs, and which are valid."""
    valid = pair_mask(random_trajectory().real, horizon)
    outcomes = drawn(T, B, 4, seed=seed + 5)
    targets = torch.stack([outcomes.roll(-k, 0) for k in range(horizon)])
    return drawn(horizon, T, B, 4, seed=seed), targets, valid


@pytest.mark.parametrize("forgiven", [0.0, 0.4, 1.0])
def test_the_centroid_loss_equals_a_loop_over_outcomes(forgiven: float) -> None:
    views, targets, valid = pairs()
    error = (views - targets).square().sum(-1)
    losses = []
    for q in range(T):
        for b in range(B):
            about = [
                (views[k, q - k, b], targets[k, q - k, b])
                for k in range(len(views))
                if q - k >= 0 and valid[k, q - k, b]
            ]
            if not about:
                continue
            p = torch.stack([view for view, _ in about])
            y = about[0][1]
            apart = (p - p.mean(0)).square().sum(-1).mean()
            losses.append((p.mean(0) - y).square().sum() + (1 - forgiven) * apart)
    expected = torch.stack(losses).mean()
    assert torch.allclose(outcome_loss(error, views, valid, forgiven), expected, rtol=1e-5)


def test_forgiving_all_only_the_mean_of_the_views_is_taught() -> None:
    views, targets, valid = pairs()
    views.requires_grad_()
    error = (views - targets).square().sum(-1)
    (gradient,) = torch.autograd.grad(outcome_loss(error, views, valid, 1.0), views)
    q, b = next((q, b) for q in range(2, T) for b in range(B) if valid[:, q - 2 : q + 1, b].all())
    assert torch.allclose(gradient[0, q, b], gradient[1, q - 1, b], atol=1e-6)
    assert torch.allclose(gradient[0, q, b], gradient[2, q - 2, b], atol=1e-6)


def test_one_step_ahead_the_centroid_changes_nothing() -> None:
    views, targets, valid = pairs(horizon=1)
    error = (views - targets).square().sum(-1)
    loss = outcome_loss(error, views, valid, 1.0)
    assert torch.allclose(loss, pair_mean(error, valid), rtol=1e-5)


@pytest.mark.parametrize("name", ["dispersion_weight", "brownian_weight"])
def test_weights_are_not_negative(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1.0; it must be 0"):
        RNDConfig(**{name: -1.0})


def test_the_centroid_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"centroid is 2; it is a share, between 0 and 1"):
        BYOLExploreConfig(centroid=2)
