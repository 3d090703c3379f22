"""ViDiDi: derivatives, the alternation, both losses, and what they do."""

from __future__ import annotations

from collections import Counter
from math import comb

import pytest
import torch
from torch import Tensor

from afterwit.world_models.objectives.vididi import (
    ViDiDi,
    ViDiDiConfig,
    derivative,
    distance,
    orders,
    vicreg,
)
from afterwit.world_models.torso import Encoder
from tests.helpers import EMBEDDING, tiny_torso_config

SHAPE = (2, 24, 26)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def objective(**options: object) -> ViDiDi:
    torch.manual_seed(0)
    encoder = Encoder(tiny_torso_config("small"), SHAPE)
    config = ViDiDiConfig(hidden=16, projection=8, **options)  # type: ignore[arg-type]
    return ViDiDi(config, encoder, EMBEDDING, 0)


def windows(length: int, count: int = 7, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length, count, *SHAPE), generator=random, dtype=torch.uint8)


def test_derivatives_are_differences_of_the_last_observations() -> None:
    obs = windows(5)
    x = obs.double() / 255
    assert torch.allclose(derivative(obs, 0).double(), x[4], atol=1e-6)
    assert torch.allclose(derivative(obs, 1).double(), x[4] - x[3], atol=1e-6)
    assert torch.allclose(derivative(obs, 2).double(), x[4] - 2 * x[3] + x[2], atol=1e-6)


def test_a_ramp_has_a_constant_slope_and_no_curvature() -> None:
    ramp = torch.arange(6.0)[:, None, None] * drawn(1, 3, 4)
    assert torch.allclose(derivative(ramp, 1), drawn(1, 3, 4)[0], atol=1e-5)
    assert torch.allclose(derivative(ramp, 2), torch.zeros(3, 4), atol=1e-5)


def test_what_stands_still_drops_out() -> None:
    obs, still = drawn(4, 3, *SHAPE), drawn(1, 3, *SHAPE, seed=1)
    for order in (1, 2):
        assert torch.allclose(derivative(obs + still, order), derivative(obs, order), atol=1e-5)


def test_newton_s_series_gives_the_future_back() -> None:
    obs = drawn(8, 5).double()
    for k in range(3):  # V(t + k) from differences at t = 0, forward
        forward = [derivative(obs[: j + 1], j) for j in range(k + 1)]
        assert torch.allclose(sum(comb(k, j) * d for j, d in enumerate(forward)), obs[k])


def test_noise_grows_with_the_order() -> None:
    noise = drawn(3, 200_000)
    for order, variance in ((0, 1), (1, 2), (2, 6)):
        assert float(derivative(noise, order).var()) == pytest.approx(variance, rel=0.02)


def test_orders_alternate_as_published() -> None:
    pairs = Counter(orders(step, more) for step in range(4) for more in (False, True))
    assert pairs == {(0, 0): 1, (1, 1): 2, (2, 2): 1, (0, 1): 1, (1, 0): 1, (1, 2): 1, (2, 1): 1}
    model = objective()
    seen = Counter(model.draw() for _ in range(4000))
    assert set(seen) == set(pairs)
    for pair, eighths in pairs.items():
        assert seen[pair] / 4000 == pytest.approx(eighths / 8, abs=0.03)
    plain = objective(derivatives=False)
    assert {plain.draw() for _ in range(50)} == {(0, 0)}


def test_watching_does_not_move_the_alternation() -> None:
    model = objective().eval()
    assert {tuple(sorted(model.draw())) for _ in range(100)} == {(1, 1), (2, 2)}
    assert model.steps == 0


def test_vicreg_equals_its_definition() -> None:
    one, two = drawn(9, 4), drawn(9, 4, seed=1)
    config = ViDiDiConfig()
    variance = covariance = 0.0
    for z in (one, two):
        c = torch.cov(z.T)
        variance += sum(max(0.0, 1 - float(c[i, i] + 1e-4) ** 0.5) for i in range(4)) / 4 / 2
        covariance += sum(float(c[i, j]) ** 2 for i in range(4) for j in range(4) if i != j) / 4
    loss, parts = vicreg(one, two, config)
    assert float(parts["variance"]) == pytest.approx(variance, rel=1e-4)
    assert float(parts["covariance"]) == pytest.approx(covariance, rel=1e-4)
    expected = 25 * float((one - two).square().mean()) + 25 * variance + covariance
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_byol_s_distance_is_that_of_unit_vectors() -> None:
    one, two = drawn(5, 4), drawn(5, 4, seed=1)
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (one, two)]
    assert torch.allclose(distance(one, two), (unit[0] - unit[1]).square().sum(-1).mean())


@pytest.mark.parametrize("loss", ["vicreg", "byol"])
def test_clips_see_the_right_observations(loss: str) -> None:
    """The first clip ends at observation 2, the second `gap` later; others change nothing."""
    model = objective(loss=loss, gap=3).eval()
    model.steps = 3  # neither clip is differentiated, or both once
    seen = windows(6)
    state = model.random.get_state()
    before = model(seen)[0]
    other = seen.clone()
    other[[0, 3]] = 7  # read by neither at orders 0 and 1
    model.random.set_state(state)
    assert torch.equal(model(other)[0], before)
    other[5] = 9
    model.random.set_state(state)
    assert not torch.equal(model(other)[0], before)


@pytest.mark.parametrize("loss", ["vicreg", "byol"])
def test_clips_that_do_not_move_are_left_out(loss: str) -> None:
    model = objective(loss=loss)
    model.steps = 0  # both differentiated
    seen = windows(model.config.window)
    seen[:, :3] = seen[:1, :3]  # three windows stand still
    value, metrics = model(seen)
    assert float(metrics["still"]) == pytest.approx(3 / 7)
    state = model.random.get_state()
    seen[:, :3] = 5
    model.random.manual_seed(0)
    model.steps = 0
    assert torch.allclose(model(seen)[0], value)
    model.random.set_state(state)
    model.steps = 0
    nothing, metrics = model(windows(1).expand(model.config.window, 7, *SHAPE))
    assert float(nothing.detach()) == 0
    assert float(metrics["still"]) == 1
    nothing.backward()


@pytest.mark.parametrize("loss", ["vicreg", "byol"])
def test_it_learns_and_targets_follow(loss: str) -> None:
    model = objective(loss=loss)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    losses = []
    for step in range(120):
        value, _ = model(windows(model.config.window, 16, seed=step % 4))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if loss == "byol":
            slow = [p.clone() for p in model.slow.parameters()]
            model.after_step()
            online = [*model.encoder.parameters(), *model.project.parameters()]
            for old, new, now in zip(slow, model.slow.parameters(), online, strict=True):
                assert torch.allclose(new, 0.99 * old + 0.01 * now, atol=1e-6)
        losses.append(float(value.detach()))
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "simclr"}, "unknown loss 'simclr'; choose from vicreg, byol"),
        ({"gap": 0}, "gap is 0; it must be at least 1"),
        ({"target_decay": 1.5}, "target_decay is 1.5; it must lie between 0 and 1"),
    ],
)
def test_bad_values_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViDiDiConfig(**options)  # type: ignore[arg-type]
