"""V-MPO's losses against NumPy in float64, the signs of the duals, and a bandit."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from afterwit.agents.vmpo import Duals, VMPOConfig, entropy, top_half, vmpo_loss
from afterwit.envs.specs import Array
from tests.helpers import A, B, T, close, random_trajectory

CONFIG = VMPOConfig(temperature_init=0.7, trust_region_init=0.4, temperature_epsilon=0.03, trust_region_epsilon=0.05)


class Batch(NamedTuple):
    log_probs: Tensor
    behaviour: Tensor
    action: Tensor
    advantage: Tensor
    real: Tensor


def batch(seed: int = 0, real: Tensor | None = None) -> Batch:
    """Garbage, large and tempting, lies where a step is not real."""
    random = torch.Generator().manual_seed(seed)
    trajectory = random_trajectory(seed=seed)
    real = trajectory.real if real is None else real
    advantage = torch.randn(T, B, generator=random).masked_fill(~real, 50.0)
    log_probs = torch.randn(T, B, A, generator=random).log_softmax(-1)
    return Batch(log_probs.requires_grad_(), trajectory.behaviour, trajectory.action, advantage, real)


def chosen_steps(data: Batch) -> list[tuple[int, int]]:
    """The half (rounded up) of the real steps with the largest advantages."""
    steps = [(t, b) for t in range(T) for b in range(B) if data.real[t, b]]
    return sorted(steps, key=lambda step: -float(data.advantage[step]))[: (len(steps) + 1) // 2]


def slow(data: Batch, eta: float) -> tuple[float, float, float, dict[tuple[int, int], float]]:
    """Policy loss, log mean exp(A / eta), mean KL(pi_target || pi) and the weights psi."""
    log_probs, behaviour = data.log_probs.detach().double().numpy(), data.behaviour.double().numpy()
    scaled = {step: float(data.advantage[step]) / eta for step in chosen_steps(data)}
    total = sum(np.exp(x) for x in scaled.values())
    psi = {step: np.exp(x) / total for step, x in scaled.items()}
    policy = -sum(weight * log_probs[(*step, int(data.action[step]))] for step, weight in psi.items())
    kls = [
        sum(np.exp(behaviour[t, b, a]) * (behaviour[t, b, a] - log_probs[t, b, a]) for a in range(A))
        for t in range(T) for b in range(B) if data.real[t, b]
    ]  # fmt: skip
    return policy, np.log(total / len(scaled)), float(np.mean(kls)), psi


def losses(data: Batch, duals: Duals) -> tuple[Tensor, dict[str, Tensor]]:
    return vmpo_loss(**data._asdict(), duals=duals, config=CONFIG)


@pytest.mark.parametrize("seed", range(4))
def test_losses_and_gradients_equal_numpy(seed: int) -> None:
    data, duals = batch(seed), Duals(CONFIG)
    loss, metrics = losses(data, duals)
    eta, alpha = CONFIG.temperature_init, CONFIG.trust_region_init
    policy, log_mean_exp, kl, psi = slow(data, eta)
    assert float(metrics["policy_loss"]) == pytest.approx(policy, rel=1e-4)
    assert float(metrics["kl"]) == pytest.approx(kl, rel=1e-4)
    expected = policy + eta * (CONFIG.temperature_epsilon + log_mean_exp) + alpha * (CONFIG.trust_region_epsilon - kl) + alpha * kl
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    loss.backward()
    # d/d eta of eta (epsilon + log mean exp(A / eta)) by finite differences
    step = 1e-5
    high, low = ((eta + d) * (CONFIG.temperature_epsilon + slow(data, eta + d)[1]) for d in (step, -step))
    assert duals.temperature.grad is not None and duals.trust_region.grad is not None and data.log_probs.grad is not None
    assert float(duals.temperature.grad) == pytest.approx((high - low) / (2 * step), rel=1e-3)
    assert float(duals.trust_region.grad) == pytest.approx(CONFIG.trust_region_epsilon - kl, rel=1e-4)
    # d/d log pi: -psi on the action taken in the top half, and -alpha pi_target / n from the KL
    gradient = -alpha * data.behaviour.exp() * data.real[..., None] / data.real.sum()
    for (t, b), weight in psi.items():
        gradient[t, b, data.action[t, b]] -= weight
    close(data.log_probs.grad, gradient, 1e-6)


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
    data, duals = batch(0, torch.zeros(T, B, dtype=torch.bool)), Duals(CONFIG)
    loss, metrics = losses(data, duals)
    loss.backward()
    assert bool(loss.isfinite()) and all(bool(value.isfinite()) for value in metrics.values())
    assert data.log_probs.grad is not None and not data.log_probs.grad.any()
    for dual in duals.parameters():
        assert dual.grad is not None and bool(dual.grad.isfinite())


def test_huge_advantages_stay_finite() -> None:
    data, duals = batch(0), Duals(CONFIG)
    loss, _ = losses(data._replace(advantage=1e4 * data.advantage), duals)
    loss.backward()
    assert bool(loss.isfinite()) and data.log_probs.grad is not None and bool(data.log_probs.grad.isfinite().all())


def duals_after(data: Batch, steps: int = 50) -> Duals:
    duals = Duals(CONFIG)
    optimiser = torch.optim.SGD(duals.parameters(), 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        losses(data, duals)[0].backward()
        optimiser.step()
        duals.project()
    return duals


def test_the_multiplier_grows_while_the_policy_is_too_far_and_shrinks_while_it_is_near() -> None:
    far = batch(0)
    near = far._replace(log_probs=far.behaviour.clone().requires_grad_())
    assert duals_after(far).trust_region > CONFIG.trust_region_init > duals_after(near).trust_region


def test_the_temperature_grows_while_the_weights_are_too_sharp_and_shrinks_while_they_are_flat() -> None:
    data = batch(0)
    sharp, flat = data._replace(advantage=20 * data.advantage), data._replace(advantage=0.01 * data.advantage)
    assert duals_after(sharp).temperature > CONFIG.temperature_init > duals_after(flat).temperature


def test_duals_stay_above_zero() -> None:
    duals = Duals(CONFIG)
    with torch.no_grad():
        duals.temperature.fill_(-1)
        duals.trust_region.fill_(-1)
    duals.project()
    assert float(duals.temperature.detach()) == float(duals.trust_region.detach()) == pytest.approx(1e-8)


def test_advantages_and_behaviour_must_carry_no_gradient() -> None:
    data = batch(0)
    for name in ("advantage", "behaviour"):
        with pytest.raises(AssertionError):
            losses(data._replace(**{name: getattr(data, name).clone().requires_grad_()}), Duals(CONFIG))
    with pytest.raises(AssertionError):
        losses(data._replace(action=data.action.T), Duals(CONFIG))


def test_entropy_is_that_of_numpy() -> None:
    log_probs = batch(0).log_probs.detach()
    p: Array = log_probs.double().exp().numpy()
    np.testing.assert_allclose(entropy(log_probs).numpy(), -(p * np.log(p)).sum(-1), rtol=1e-5)
    close(entropy(torch.zeros(A).log_softmax(-1)), torch.tensor(float(np.log(A))))


def test_it_finds_the_best_arm_of_a_bandit() -> None:
    random = torch.Generator().manual_seed(0)
    means = torch.tensor([0.0, 0.2, 1.0, 0.4, -1.0, 0.6, 0.1])
    logits, duals, real = torch.zeros(A, requires_grad=True), Duals(VMPOConfig()), torch.ones(T, B, dtype=torch.bool)
    optimiser = torch.optim.Adam([logits, *duals.parameters()], 0.02)
    chances = []
    for step in range(500):
        if step % 10 == 0:
            acting = logits.detach().log_softmax(-1)
            chances.append(float(acting[2].exp()))
        behaviour = acting.expand(T, B, A)
        action = torch.multinomial(acting.exp(), T * B, replacement=True, generator=random).view(T, B)
        reward = means[action] + 0.3 * torch.randn(T, B, generator=random)
        advantage = reward - (acting.exp() * means).sum()
        loss, _ = vmpo_loss(
            log_probs=logits.log_softmax(-1).expand(T, B, A), behaviour=behaviour, action=action,
            advantage=advantage, real=real, duals=duals, config=VMPOConfig(),
        )  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        duals.project()
    assert chances[0] < 0.2 and chances[-1] > 0.8
    assert max(after - before for before, after in pairwise(chances)) < 0.3  # inside the trust region


@pytest.mark.parametrize("name", ("temperature_init", "trust_region_init", "temperature_epsilon", "trust_region_epsilon"))
def test_values_out_of_range_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"vmpo\.{name} is 0"):
        VMPOConfig(**{name: 0})
    with pytest.raises(ValueError, match="target_period is 0"):
        VMPOConfig(target_period=0)
