"""Square predictors: statistics, closed forms of DirectPred and DirectCopy, the noise filter."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from afterwit.agents import Learner, LearnerConfig
from afterwit.world_models.models.byol_config import BYOLConfig
from afterwit.world_models.models.byol_explore import BYOLExplore, BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.predictors import Kind, SquarePredictor, direct_weights, shrink
from tests.helpers import (
    BELIEF,
    EMBEDDING,
    B,
    T,
    random_trajectory,
    same,
    tiny_spec,
    tiny_torso_config,
)

SET: tuple[Kind, ...] = ("direct-pred", "direct-copy")
POWER = {"direct-pred": 0.5, "direct-copy": 1.0}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlation(size: int = 6) -> Tensor:
    features = drawn(40, size) * torch.linspace(0.3, 2, size, dtype=torch.float64)
    return features.T @ features / 40


@pytest.mark.parametrize("kind", SET)
def test_the_weights_are_a_function_of_the_statistics(kind: Kind) -> None:
    f = correlation()
    weights, values = direct_weights(f, kind, 0.1), torch.linalg.eigvalsh(f)
    expected = (values / values[-1]) ** POWER[kind] + 0.1
    assert torch.allclose(weights, weights.T)
    assert torch.allclose(torch.linalg.eigvalsh(weights), expected)
    assert torch.allclose(weights @ f, f @ weights)
    assert torch.allclose(direct_weights(9 * f, kind, 0.1), weights)  # free of scale
    turn = torch.linalg.qr(drawn(6, 6, seed=1))[0]
    assert torch.allclose(direct_weights(turn @ f @ turn.T, kind, 0.1), turn @ weights @ turn.T)


@pytest.mark.parametrize("kind", SET)
def test_before_anything_is_seen_the_weights_stay(kind: Kind) -> None:
    predictor = SquarePredictor(kind, 3, 4, 0.3, 0.1, 1)
    predictor.observe(torch.ones(5, 4), torch.zeros(5, dtype=torch.bool))
    predictor.after_step()
    assert torch.equal(predictor.weight, torch.eye(4))


@pytest.mark.parametrize("kind", SET)
def test_without_features_the_weights_are_the_floor(kind: Kind) -> None:
    nothing = torch.zeros(4, 4)
    assert torch.allclose(direct_weights(nothing, kind, 0.3), 0.3 * torch.eye(4))


def test_direct_copy_is_the_scaled_correlation() -> None:
    f = correlation()
    largest = torch.linalg.eigvalsh(f)[-1]
    expected = f / largest + 0.25 * torch.eye(6, dtype=f.dtype)
    assert torch.allclose(direct_weights(f, "direct-copy", 0.25), expected)


def predictor(kind: Kind = "direct-pred", **options: float) -> SquarePredictor:
    settings = {"decay": 0.3, "floor": 0.1, "every": 1} | options
    torch.manual_seed(0)
    return SquarePredictor(kind, BELIEF, EMBEDDING, **settings)  # type: ignore[arg-type]


def test_statistics_start_with_the_first_batch_and_count_what_is_valid() -> None:
    model = predictor()
    batches = [drawn(T, B, BELIEF, seed=seed).float() for seed in range(3)]
    valid = drawn(T, B, seed=9) > 0
    means = []
    for belief in batches:
        belief[~valid] = torch.nan  # what did not happen is not looked at
        model(belief, valid)
        features = [model.project(row) for row in belief[valid]]
        means.append(sum(torch.outer(f, f) for f in features) / len(features))
    expected = 0.3 * (0.3 * means[0] + 0.7 * means[1]) + 0.7 * means[2]
    assert torch.allclose(model.correlation, expected, atol=1e-5)
    before = model.correlation.clone()
    model(batches[0], torch.zeros_like(valid))  # nothing happened
    model.eval()
    model(batches[0], valid)  # looking on
    assert torch.equal(model.correlation, before)


def test_the_weights_act_from_the_next_step_and_every_so_often() -> None:
    model = predictor(every=3)
    assert isinstance(model.weight, torch.nn.Parameter)  # in between it is trained
    model(drawn(T, B, BELIEF).float(), torch.ones(T, B, dtype=torch.bool))
    was = model.weight.detach().clone()
    assert torch.equal(was, torch.eye(EMBEDDING))
    for step in range(1, 7):
        with torch.no_grad():
            model.weight.copy_(was)
        model.after_step()
        expected = direct_weights(model.correlation, "direct-pred", 0.1) if step % 3 == 0 else was
        assert torch.equal(model.weight.detach(), expected)


def test_only_trained_weights_are_parameters() -> None:
    assert "weight" not in dict(predictor("direct-copy").named_parameters())
    assert "weight" in dict(predictor("linear").named_parameters())


def test_readings_tell_shared_eigenvectors_from_others() -> None:
    model = predictor("linear")
    model(drawn(T, B, BELIEF).float(), torch.ones(T, B, dtype=torch.bool))
    model.weight.data = direct_weights(model.correlation, "direct-pred", 0.1)
    readings = model.readings()
    assert readings["align/predictor"] > 0.9999
    assert readings["align/commutator"] < 1e-5
    model.weight.data = drawn(EMBEDDING, EMBEDDING).float()
    readings = model.readings()
    assert readings["align/predictor"] < 0.5
    assert readings["align/commutator"] > 0.1


def test_broken_statistics_leave_the_weights_alone_and_the_instrument_silent() -> None:
    model = predictor()
    model.correlation.fill_(torch.nan)
    model.after_step()
    assert torch.equal(model.weight, torch.eye(EMBEDDING))
    assert all(value.isnan() for value in model.readings().values())


def test_shrink_takes_a_share_of_matrices_only() -> None:
    layer = torch.nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    shrink(layer, 0.25)
    assert torch.allclose(layer.weight, 0.75 * weight)
    assert torch.equal(layer.bias, bias)


# --- the linear theory (Tian, Chen & Ganguli, 2021), in the paper's units: W is not divided by m


def raw_weights(f: Tensor, kind: Kind) -> Tensor:
    return direct_weights(f, kind, 0.0) * torch.linalg.eigvalsh(f)[-1].clamp(min=0) ** POWER[kind]


def flow(
    weights: Tensor,
    own: Tensor,
    across: Tensor,
    decay: float,
    predictor: Callable[[Tensor], Tensor],
    steps: int = 20_000,
    dt: float = 0.02,
) -> tuple[Tensor, Tensor]:
    """Gradient flow of |P W x1 - sg(W x2)|^2 / 2 with decay: E[x1 x1'] own, E[x2 x1'] across."""
    for _ in range(steps):
        p = predictor(weights @ own @ weights.T)
        change = p.T @ (weights @ across - p @ weights @ own) - decay * weights
        weights = weights + dt * change
        if change.norm() < 1e-7:  # it has arrived
            break
    return weights, predictor(weights @ own @ weights.T)


@pytest.mark.parametrize("kind", SET)
@pytest.mark.parametrize(("noise", "expected"), [(0.0, 0.94721), (0.5, 0.61222), (8.0, 0.0)])
def test_scalar_modes_end_where_the_theory_says(kind: Kind, noise: float, expected: float) -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    _, p = flow(0.4 * one, (1 + noise) * one, one, 0.05, lambda f: raw_weights(f, kind))
    # the theory has s = w^2 without the noise of the views; f here has it, so compare p alone
    root = 1 - 4 * 0.05 * (1 + noise)
    assert expected == pytest.approx(
        (1 + root**0.5) / (2 * (1 + noise)) if root > 0 else 0, abs=1e-4
    )
    assert float(p) == pytest.approx(expected, abs=2e-3)


def test_below_the_edge_a_mode_collapses() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    edge = (1 - (1 - 4 * 0.05) ** 0.5) / 2  # p-, and s = p for direct-copy
    for share, expected in ((0.9, 0.0), (1.1, 0.94721)):
        start = (share * edge) ** 0.5 * one
        _, p = flow(start, one, one, 0.05, lambda f: raw_weights(f, "direct-copy"))
        assert float(p) == pytest.approx(expected, abs=2e-3)


def test_what_cannot_be_foreseen_is_dropped() -> None:
    noise = torch.tensor([0.0, 0, 0, 8, 8, 8], dtype=torch.float64)
    weights, p = flow(
        drawn(4, 6) * 0.2,
        torch.diag(1 + noise),
        torch.eye(6, dtype=torch.float64),
        0.05,
        lambda f: raw_weights(f, "direct-copy"),
    )
    kept = torch.linalg.eigvalsh(p)
    assert torch.allclose(kept, torch.tensor([0, 0.9472, 0.9472, 0.9472]).double(), atol=2e-3)
    assert weights[:, 3:].norm() < 1e-3  # nothing reads the noisy coordinates


def test_a_feature_survives_if_its_squared_correlation_is_large_enough() -> None:
    """A lazy chain: E[x2 x1'] has the eigenvalues r l; a mode is kept iff r^2 l > 4 decay."""
    size, decay = 5, 0.03
    turn = torch.linalg.qr(drawn(size, size))[0]
    foreseen = torch.tensor([0.95, 0.8, 0.65, 0.3, 0.1], dtype=torch.float64)
    level = 0.3
    _, p = flow(
        turn.T * 1.5,
        level * torch.eye(size, dtype=torch.float64),
        turn @ torch.diag(level * foreseen) @ turn.T,
        decay,
        lambda f: raw_weights(f, "direct-copy"),
    )
    root = (foreseen**2 * level**2 - 4 * decay * level).clamp(min=0).sqrt()
    kept = foreseen**2 * level > 4 * decay
    assert kept.tolist() == [True, True, True, False, False]
    expected = torch.where(kept, (foreseen * level + root) / (2 * level), 0.0)
    assert torch.allclose(torch.linalg.eigvalsh(p).flip(0), expected, atol=5e-3)


# --- in the models


@pytest.mark.parametrize("kind", ["mlp", "linear", *SET])
def test_the_model_pays_its_error_and_learns(kind: Kind) -> None:
    config = LearnerConfig(
        torso=tiny_torso_config(),
        world_model=BYOLExploreConfig(horizon=2, predictor=kind, weight_decay=1e-4),
        learning_rate=3e-3,
    )
    learner = Learner(config, tiny_spec(), 0, torch.device("cpu"))
    trajectory = random_trajectory()
    losses = [float(learner.update(trajectory)["model_reconstruction"]) for _ in range(100)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    out, _ = learner.appraise(trajectory)
    assert torch.isfinite(out.reward).all()
    model = learner.world_model
    assert isinstance(model, BYOLExplore)
    if isinstance(model.predictor, SquarePredictor) and kind in SET:
        expected = direct_weights(model.predictor.correlation, kind, 0.1)
        assert torch.equal(model.predictor.weight, expected)


@pytest.mark.parametrize("config", [BYOLExploreConfig(), BYOLHindsightConfig()])
def test_a_resumed_learner_goes_on_bit_for_bit(config: BYOLConfig) -> None:
    config = replace(config, predictor="direct-pred", predictor_every=2, weight_decay=1e-3)
    settings = LearnerConfig(torso=tiny_torso_config(), world_model=config)
    one, two = (Learner(settings, tiny_spec(), seed, torch.device("cpu")) for seed in (0, 1))
    batches = [random_trajectory(seed=seed) for seed in range(5)]
    for batch in batches[:3]:
        one.update(batch)
    two.load_state(deepcopy(one.state()))
    for batch in batches[3:]:
        one.update(batch)
        two.update(batch)
    assert same(one.state(), two.state())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("predictor", "direct", "unknown world_model.predictor 'direct'; choose from mlp, linear"),
        ("predictor_decay", 1.0, "predictor_decay is 1.0; it must be at least 0 and below 1"),
        ("predictor_floor", -0.1, "predictor_floor is -0.1; it must be 0 or more"),
        ("predictor_every", 0, "predictor_every is 0; it must be at least 1"),
        ("weight_decay", 1.0, "weight_decay is 1.0; it is a share"),
        ("weight_decay", float("nan"), "weight_decay is nan"),
    ],
)
def test_bad_values_are_named(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        BYOLExploreConfig(**{field: value})  # type: ignore[arg-type]


def test_hindsight_needs_a_foresight_for_it() -> None:
    with pytest.raises(ValueError, match=r"set world_model\.foresight_weight above 0"):
        BYOLHindsightConfig(
            predictor="linear", foresight_weight=0.0, generator_reads="outcome", purity="critic"
        )
