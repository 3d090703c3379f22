"""AMA against a loop in float64, and what is known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from afterwit.world_models.models.ama import AMA, AMAConfig
from tests.helpers import A, B, T, close, random_trajectory, seeded, tiny_spec, tiny_torso

NOTHING = torch.empty(0)


def make(**options: float) -> AMA:
    config = replace(AMAConfig(hidden=16), **options)  # type: ignore[arg-type]
    return seeded(lambda: AMA(config, tiny_torso(), tiny_spec(), 0), 1)


def test_it_equals_the_loop() -> None:
    model, trajectory = make(variance_weight=0.7, variance_pay=0.6), random_trajectory()
    out = model(trajectory, NOTHING, NOTHING)
    model.eval().double()
    obs = model.whiten(trajectory.obs.double(), trajectory.real)
    reward, losses = torch.zeros(T, B, dtype=torch.float64), []
    for t in range(T):
        for b in range(B):
            if trajectory.first[t + 1, b]:
                continue
            action = torch.eye(A, dtype=torch.float64)[trajectory.action[t, b]]
            inputs = torch.cat([model.encoder(obs[t, b][None])[0], action])
            square = (obs[t + 1, b] - model.mu(inputs)) ** 2
            log = model.log_variance(inputs)
            losses.append((square / log.exp() + 0.7 * log).mean())
            reward[t, b] = (square - 0.6 * log.exp()).mean().detach()
    close(out.reward, reward)
    close(out.loss, torch.stack(losses).mean())


@pytest.mark.parametrize(("weight", "pay"), ((1.0, 0.0), (0.1, -9.0)))
def test_at_the_optimum_noise_is_paid_nothing_or_punished(weight: float, pay: float) -> None:
    """The optimum is e^l = m / lambda, where m is the mean square error."""
    model, trajectory = make(variance_weight=weight), random_trajectory()
    model(trajectory, NOTHING, NOTHING)
    model.eval()
    with torch.no_grad():
        for head in (model.mu, model.log_variance):
            for p in list(head.parameters())[-2:]:
                p.zero_()
        outcomes = model.whiten(trajectory.obs, trajectory.real)[1:][trajectory.real]
        square = outcomes.square().mean(0)
        bias = list(model.log_variance.parameters())[-1]
        bias.copy_((square / weight).log())
    out = model(trajectory, NOTHING, NOTHING)
    (gradient,) = torch.autograd.grad(out.loss, bias)
    close(gradient, torch.zeros_like(gradient))
    expected = pay * float(square.mean())
    mean = float(out.reward[trajectory.real].mean())
    assert math.isclose(mean, expected, rel_tol=1e-4, abs_tol=1e-5)


@pytest.mark.parametrize("log", (-34.0, 34.0))
def test_a_log_variance_far_beyond_its_bounds_comes_back(log: float) -> None:
    """Noise after much that was certain, and the other way round. Adam moves it inwards."""
    model, trajectory = make(), random_trajectory()
    last = model.log_variance[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias += log
    optimiser = torch.optim.Adam([last.bias], 1.0)
    for _ in range(60):
        optimiser.zero_grad()
        model(trajectory, NOTHING, NOTHING).loss.backward()
        optimiser.step()
    assert (last.bias.abs() < 5).all(), "each number is well within its bounds of 10"
