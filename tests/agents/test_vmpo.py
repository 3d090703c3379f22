"""V-MPO's losses against NumPy in float64, its two constraints in closed loop, and a bandit."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from afterwit.agents.vmpo import (
    MAX_ALPHA,
    MIN_ALPHA,
    TrustRegion,
    VMPOConfig,
    Weights,
    entropy,
    sample_weights,
    solve_temperature,
    top_half,
    vmpo_loss,
)
from afterwit.envs.arrays import Array
from tests.helpers import A, B, T, close, random_trajectory

CONFIG = VMPOConfig(trust_region_init=0.4, temperature_epsilon=0.03, trust_region_epsilon=0.05)
ALPHA = torch.tensor(CONFIG.trust_region_init)


class Batch(NamedTuple):
    log_probs: Tensor
    behaviour: Tensor
    action: Tensor
    advantage: Tensor
    real: Tensor


def batch(seed: int = 0, real: Tensor | None = None) -> Batch:
    """A random batch. Steps that are not real hold large numbers."""
    random = torch.Generator().manual_seed(seed)
    trajectory = random_trajectory(seed=seed)
    real = trajectory.real if real is None else real
    advantage = torch.randn(T, B, generator=random).masked_fill(~real, 50.0)
    log_probs = torch.randn(T, B, A, generator=random).log_softmax(-1)
    return Batch(
        log_probs.requires_grad_(), trajectory.behaviour, trajectory.action, advantage, real
    )


def chosen_steps(data: Batch) -> list[tuple[int, int]]:
    """The half (rounded up) of the real steps with the largest advantages."""
    steps = [(t, b) for t in range(T) for b in range(B) if data.real[t, b]]
    return sorted(steps, key=lambda step: -float(data.advantage[step]))[: (len(steps) + 1) // 2]


def reference_temperature(advantage: Array, epsilon: float) -> float:
    """The eta that minimises eta (epsilon + log mean exp(A / eta)).

    By golden-section search on log eta, in float64.
    """

    def dual(log_eta: float) -> float:
        eta = np.exp(log_eta)
        scaled = advantage / eta
        return float(
            eta * (epsilon + np.log(np.mean(np.exp(scaled - scaled.max()))) + scaled.max())
        )

    low, high, ratio = -20.0, 20.0, (5**0.5 - 1) / 2
    for _ in range(200):
        one, two = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, two) if dual(one) < dual(two) else (one, high)
    return float(np.exp((low + high) / 2))


def slow(data: Batch) -> tuple[float, float, float, dict[tuple[int, int], float]]:
    """Policy loss, eta, mean KL(pi_target || pi) and the weights psi."""
    log_probs, behaviour = data.log_probs.detach().double().numpy(), data.behaviour.double().numpy()
    steps = chosen_steps(data)
    eta = reference_temperature(
        np.array([float(data.advantage[step]) for step in steps]), CONFIG.temperature_epsilon
    )
    weights = {step: np.exp(float(data.advantage[step]) / eta) for step in steps}
    psi = {step: weight / sum(weights.values()) for step, weight in weights.items()}
    policy = -sum(
        weight * log_probs[(*step, int(data.action[step]))] for step, weight in psi.items()
    )
    kls = [
        sum(
            np.exp(behaviour[t, b, a]) * (behaviour[t, b, a] - log_probs[t, b, a]) for a in range(A)
        )
        for t in range(T)
        for b in range(B)
        if data.real[t, b]
    ]
    return policy, eta, float(np.mean(kls)), psi


def losses(data: Batch, alpha: Tensor = ALPHA) -> tuple[Tensor, dict[str, Tensor]]:
    return vmpo_loss(**data._asdict(), alpha=alpha, config=CONFIG)


@pytest.mark.parametrize("seed", range(4))
def test_losses_and_gradients_equal_numpy(seed: int) -> None:
    data = batch(seed)
    loss, metrics = losses(data)
    policy, eta, kl, psi = slow(data)
    assert float(metrics["policy_loss"]) == pytest.approx(policy, rel=1e-4)
    assert float(metrics["temperature"]) == pytest.approx(eta, rel=1e-3)
    assert float(metrics["temperature_ratio"]) == pytest.approx(1, abs=1e-3)
    assert float(metrics["kl"]) == pytest.approx(kl, rel=1e-4)
    assert float(metrics["trust_region_ratio"]) == pytest.approx(
        kl / CONFIG.trust_region_epsilon, rel=1e-4
    )
    assert float(loss.detach()) == pytest.approx(policy + float(ALPHA) * kl, rel=1e-4)
    loss.backward()
    # d/d log pi: -psi on the action taken in the top half, and -alpha pi_target / n from the KL
    gradient = -float(ALPHA) * data.behaviour.exp() * data.real[..., None] / data.real.sum()
    for (t, b), weight in psi.items():
        gradient[t, b, data.action[t, b]] -= weight
    assert data.log_probs.grad is not None
    close(data.log_probs.grad, gradient, 1e-5)


# --- the temperature


@pytest.mark.parametrize("epsilon", (1e-3, 0.01, 0.1, 1.0))
@pytest.mark.parametrize("scale", (1e-22, 1e-12, 1e-3, 1.0, 1e6, 1e19))
def test_the_temperature_meets_its_constraint_in_any_unit(epsilon: float, scale: float) -> None:
    random = torch.Generator().manual_seed(0)
    for advantage in (
        torch.randn(400, generator=random),
        torch.rand(400, generator=random) ** 8,
        torch.arange(400.0),
    ):
        chosen = torch.rand(400, generator=random) < 0.5
        eta, kl = solve_temperature(scale * advantage, chosen, epsilon)
        assert float(kl) == pytest.approx(epsilon, rel=5e-3)
        assert float(eta) == pytest.approx(
            scale * reference_temperature(advantage[chosen].double().numpy(), epsilon), rel=5e-3
        )


def test_where_no_temperature_meets_the_constraint_the_best_samples_are_taken() -> None:
    everywhere = torch.ones(4, dtype=torch.bool)
    # log 4 is the most that there is
    eta, kl = solve_temperature(torch.tensor([1.0, 2.0, 3.0, 4.0]), everywhere, 5.0)
    assert float(kl) == pytest.approx(np.log(4), rel=1e-4) and 0 < float(eta) < 0.1
    for values in ([2.0, 2.0, 2.0, 2.0], [0.0] * 4):
        eta, kl = solve_temperature(torch.tensor(values), everywhere, 0.1)
        assert float(kl) == pytest.approx(0, abs=1e-6) and float(eta) > 0
    eta, kl = solve_temperature(torch.tensor([7.0, 1.0]), torch.tensor([True, False]), 0.1)
    assert float(kl) == 0 and bool(eta.isfinite())


def test_one_reward_among_zeros_does_not_upset_the_temperature() -> None:
    advantage = torch.zeros(4096)
    advantage[17] = 640.0
    eta, kl = solve_temperature(advantage, torch.ones(4096, dtype=torch.bool), 0.1)
    assert float(kl) == pytest.approx(0.1, rel=1e-2) and bool(eta.isfinite())


@pytest.mark.parametrize("count", (1, 2, 5, 8))
def test_the_top_half_is_taken_among_real_steps_and_rounded_up(count: int) -> None:
    real = torch.zeros(T * B, dtype=torch.bool)
    real[torch.randperm(T * B, generator=torch.Generator().manual_seed(count))[:count]] = True
    data = batch(1, real.view(T, B))
    found = top_half(data.advantage, data.real)
    assert found.shape == (T, B) and int(found.sum()) == (count + 1) // 2
    assert {(int(t), int(b)) for t, b in found.nonzero()} == set(chosen_steps(data))


def test_equal_advantages_still_give_a_half() -> None:
    real = random_trajectory().real
    found = top_half(torch.zeros(T, B), real)
    assert int(found.sum()) == (int(real.sum()) + 1) // 2 and not found[~real].any()


def test_a_batch_of_resets_pulls_on_no_policy() -> None:
    data = batch(0, torch.zeros(T, B, dtype=torch.bool))
    loss, metrics = losses(data)
    loss.backward()
    assert bool(loss.isfinite()) and all(bool(value.isfinite()) for value in metrics.values())
    assert data.log_probs.grad is not None and not data.log_probs.grad.any()


def test_huge_advantages_stay_finite() -> None:
    data = batch(0)
    loss, _ = losses(data._replace(advantage=1e4 * data.advantage))
    loss.backward()
    assert (
        bool(loss.isfinite())
        and data.log_probs.grad is not None
        and bool(data.log_probs.grad.isfinite().all())
    )


# --- the trust region


def test_the_multiplier_climbs_with_the_kl_and_stays_in_its_bounds() -> None:
    config = VMPOConfig(trust_region_epsilon=0.02, trust_region_rate=0.1)
    for kl, factor in ((0.02, 1.0), (0.04, np.exp(0.1)), (0.0, np.exp(-0.1)), (9.0, np.exp(0.4))):
        region = TrustRegion(config)
        region.follow(torch.tensor(kl), torch.tensor(True))
        assert float(region.alpha) == pytest.approx(0.5 * factor, rel=1e-5)
    before = float(region.alpha)
    region.follow(torch.tensor(0.0), torch.tensor(False))  # a batch of resets has no KL
    assert float(region.alpha) == before
    slow = TrustRegion(replace(config, target_period=100))
    slow.follow(torch.tensor(0.04), torch.tensor(True))
    assert float(slow.alpha) == pytest.approx(0.5 * np.exp(0.01), rel=1e-5)
    for kl, end in ((0.0, MIN_ALPHA), (1.0, MAX_ALPHA)):
        for _ in range(500):
            region.follow(torch.tensor(kl), torch.tensor(True))
        assert float(region.alpha) == pytest.approx(end)


@pytest.mark.parametrize("epsilon", (2e-4, 2e-3, 2e-2))
def test_the_trust_region_is_met_in_closed_loop(epsilon: float) -> None:
    """A policy that is always pulled in one direction moves as far as it may.

    The mean KL is epsilon, for any epsilon.
    """
    config = VMPOConfig(trust_region_epsilon=epsilon)
    logits, region = torch.zeros(A, requires_grad=True), TrustRegion(config)
    optimiser = torch.optim.Adam([logits], 0.1)
    real, random, ratios = torch.ones(T, B, dtype=torch.bool), torch.Generator().manual_seed(0), []
    for step in range(600):
        if step % 10 == 0:
            # the pull never ends
            acting = (logits - logits.mean()).detach().clamp(-1, 1).log_softmax(-1)
            with torch.no_grad():
                logits.copy_(acting)
        action = torch.multinomial(acting.exp(), T * B, replacement=True, generator=random).view(
            T, B
        )
        loss, metrics = vmpo_loss(
            log_probs=logits.log_softmax(-1).expand(T, B, A),
            behaviour=acting.expand(T, B, A),
            action=action,
            advantage=(action == (step // 40) % A).float(),
            real=real,
            alpha=region.alpha,
            config=config,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        region.follow(metrics["kl"], real.any())
        ratios.append(float(metrics["trust_region_ratio"]))
    assert 0.7 < np.mean(ratios[200:]) < 1.4


def test_advantages_and_behaviour_must_carry_no_gradient() -> None:
    data = batch(0)
    for name in ("advantage", "behaviour"):
        with pytest.raises(AssertionError):
            losses(data._replace(**{name: getattr(data, name).clone().requires_grad_()}))
    with pytest.raises(AssertionError):
        losses(data._replace(action=data.action.T))


def test_entropy_is_that_of_numpy() -> None:
    log_probs = batch(0).log_probs.detach()
    p: Array = log_probs.double().exp().numpy()
    np.testing.assert_allclose(entropy(log_probs).numpy(), -(p * np.log(p)).sum(-1), rtol=1e-5)
    close(entropy(torch.zeros(A).log_softmax(-1)), torch.tensor(float(np.log(A))))


def play(config: VMPOConfig, mean: list[float], deviation: list[float], steps: int) -> Tensor:
    """Chances of a bandit's arms after every ten learner steps of 320 samples, float [n, arms]."""
    random = torch.Generator().manual_seed(0)
    means, deviations = torch.tensor(mean), torch.tensor(deviation)
    logits = torch.zeros(len(mean), requires_grad=True)
    region, real = TrustRegion(config), torch.ones(20, 16, dtype=torch.bool)
    optimiser = torch.optim.Adam([logits], 0.02)
    chances = []
    for step in range(steps):
        if step % 10 == 0:
            acting = logits.detach().log_softmax(-1)
            chances.append(acting.exp())
        action = torch.multinomial(acting.exp(), 320, replacement=True, generator=random)
        reward = means[action] + deviations[action] * torch.randn(320, generator=random)
        advantage = reward - (acting.exp() * means).sum()
        loss, metrics = vmpo_loss(
            log_probs=logits.log_softmax(-1).expand(20, 16, len(mean)),
            behaviour=acting.expand(20, 16, len(mean)),
            action=action.view(20, 16),
            advantage=advantage.view(20, 16),
            real=real,
            alpha=region.alpha,
            config=config,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        region.follow(metrics["kl"], real.any())
    return torch.stack(chances)


@pytest.mark.parametrize("weights", ("exponential", "linear"))
def test_it_finds_the_best_arm_of_a_bandit(weights: Weights) -> None:
    means = [0.0, 0.2, 1.0, 0.4, -1.0, 0.6, 0.1]
    best = play(VMPOConfig(weights=weights), means, [0.3] * 7, 500)[:, 2]
    assert best[0] < 0.2 and best[-1] > 0.8
    assert best.diff().max() < 0.3  # inside the trust region


def test_noise_that_pays_nothing_is_sought_with_the_published_weights_and_not_with_linear() -> None:
    # the last arm is noise; the first is better on average, by a tenth of the noise
    means, deviations = [0.1, 0.0, 0.0, 0.0], [0.2, 0.2, 0.2, 1.0]
    published = play(VMPOConfig(temperature_epsilon=0.1), means, deviations, 400)[-1]
    ours = play(VMPOConfig(temperature_epsilon=0.1, weights="linear"), means, deviations, 400)[-1]
    assert published[3] > 0.9
    assert ours[0] > 0.8 and ours[3] < 0.1


def test_linear_weights_are_the_first_order_of_exponential_ones() -> None:
    random = torch.Generator().manual_seed(0)
    advantage = torch.randn(T, B, generator=random) + 0.5
    real = torch.ones(T, B, dtype=torch.bool)
    config = VMPOConfig(temperature_epsilon=3e-4, weights="linear")
    weights, temperature, kl = sample_weights(advantage, real, config)
    exact, reached = solve_temperature(advantage.flatten(), real.flatten(), 3e-4)
    np.testing.assert_allclose(temperature, exact, rtol=0.02)
    np.testing.assert_allclose(kl, reached, rtol=0.01)
    improved = torch.softmax((advantage / exact).flatten(), 0).view(T, B)
    np.testing.assert_allclose(weights, improved - 1 / (T * B), atol=2e-3 / (T * B))


@pytest.mark.parametrize("weights", ("exponential", "linear"))
def test_a_value_that_lags_changes_no_weight(weights: Weights) -> None:
    data, config = batch(2), VMPOConfig(weights=weights)
    before, temperature, _ = sample_weights(data.advantage, data.real, config)
    for lag in (0.7, -30.0):
        after, same, _ = sample_weights(data.advantage + lag, data.real, config)
        np.testing.assert_allclose(after, before, atol=1e-5)
        np.testing.assert_allclose(same, temperature, rtol=1e-4)
    np.testing.assert_allclose(before.sum(), float(weights == "exponential"), atol=1e-6)


def test_a_value_that_errs_by_state_moves_no_policy_with_linear_weights() -> None:
    """Two states, in which the actions were taken exactly as often as the acting policy says."""
    acting = torch.tensor([0.5, 0.25, 0.25])
    action = torch.tensor([0, 0, 1, 2]).repeat(2, 1).T  # [4, 2 states]
    advantage = torch.tensor([1.0, -1.0]).expand(4, 2)
    logits = torch.tensor([[0.3, -0.2, 0.6], [-0.4, 0.5, 0.1]], requires_grad=True)
    log_probs = logits.log_softmax(-1).expand(4, 2, 3)
    loss, _ = vmpo_loss(
        log_probs=log_probs,
        behaviour=acting.log().expand(4, 2, 3),
        action=action,
        advantage=advantage,
        real=torch.ones(4, 2, dtype=torch.bool),
        alpha=torch.tensor(0.0),
        config=VMPOConfig(weights="linear"),
    )
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    # log-probabilities would move it: towards the acting policy where the advantages are too high
    taken = log_probs.gather(-1, action[..., None]).squeeze(-1)
    (moved,) = torch.autograd.grad((advantage * taken).mean(), logits, retain_graph=True)
    kl = (acting * (acting.log() - log_probs[0])).sum(-1)
    (away,) = torch.autograd.grad(kl.sum() / 2, logits)
    np.testing.assert_allclose(moved, -away * torch.tensor([[1.0], [-1.0]]), atol=1e-6)
    assert away.abs().max() > 0.05


def test_linear_weights_multiply_ratios() -> None:
    data, config = batch(3), VMPOConfig(weights="linear")
    far = data.behaviour.masked_fill(~data.real[..., None], -500.0)  # what did not happen is no inf
    data = data._replace(behaviour=far)
    loss, metrics = vmpo_loss(**data._asdict(), alpha=torch.tensor(0.0), config=config)
    weights, _, _ = sample_weights(data.advantage, data.real, config)
    ratio = (data.log_probs - data.behaviour).detach().exp().nan_to_num(posinf=0)
    taken = ratio.gather(-1, data.action[..., None]).squeeze(-1)
    np.testing.assert_allclose(metrics["policy_loss"], -(weights * taken).sum(), rtol=1e-5)
    loss.backward()
    expected = torch.zeros(T, B, A).scatter(
        -1, data.action[..., None], -(weights * taken)[..., None]
    )
    assert data.log_probs.grad is not None
    close(data.log_probs.grad, expected, 1e-5)


@pytest.mark.parametrize("value", (0.0, 0.1, -7.3e4))
def test_equal_advantages_have_no_linear_weights(value: float) -> None:
    advantage, real = torch.full((T, B), value), batch().real
    weights, temperature, _ = sample_weights(advantage, real, VMPOConfig(weights="linear"))
    assert (weights == 0).all() and temperature.isfinite()


def test_linear_weights_ignore_steps_that_did_not_happen_and_bear_a_batch_without_any() -> None:
    data = batch(1)
    config = VMPOConfig(weights="linear")
    weights, temperature, _ = sample_weights(data.advantage, data.real, config)
    assert (weights[~data.real] == 0).all() and temperature > 0
    happened = data.advantage[data.real].double().numpy()
    happened -= happened.mean()
    eta = np.sqrt(np.mean(happened**2) / (2 * config.temperature_epsilon))
    np.testing.assert_allclose(weights[data.real], happened / eta / len(happened), rtol=1e-5)
    for advantage in (data.advantage, torch.zeros(T, B)):
        none, _, _ = sample_weights(advantage, torch.zeros_like(data.real), config)
        assert (none == 0).all()


@pytest.mark.parametrize(
    "name",
    ("trust_region_init", "trust_region_rate", "temperature_epsilon", "trust_region_epsilon"),
)
def test_values_out_of_range_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"vmpo\.{name} is 0"):
        VMPOConfig(**{name: 0})
    with pytest.raises(ValueError, match="target_period is 0"):
        VMPOConfig(target_period=0)
    with pytest.raises(ValueError, match=r"unknown vmpo\.weights 'square'; choose from exp"):
        VMPOConfig(weights="square")  # type: ignore[arg-type]
