"""The targets of both BYOL models, and a short training on fixed embeddings and beliefs."""

from __future__ import annotations

from dataclasses import replace

import torch

from afterwit.world_models.base import TargetEncoder
from afterwit.world_models.models.byol_explore import BYOLExplore
from afterwit.world_models.models.byol_hindsight import BYOLHindsight
from tests.helpers import BELIEF, close, random_trajectory, tiny_torso
from tests.world_models.byol_models import (
    HINDSIGHT,
    all_forms,
    each_form,
    explore,
    hindsight,
    move_target,
    run,
)


@each_form
def test_targets_get_no_gradient_and_follow_by_the_average(index: int) -> None:
    torso, model = all_forms()[index]
    move_target(model)
    assert not any(p.requires_grad for p in model.target.parameters())
    before = [p.clone() for p in model.target.slow.parameters()]
    out, _ = run(torso, model, random_trajectory())
    optimiser = torch.optim.SGD([*model.parameters(), *torso.parameters()], 0.1)
    out.loss.backward()
    optimiser.step()
    assert all(p.grad is None for p in model.target.parameters())
    assert all(
        torch.equal(p, old) for p, old in zip(model.target.slow.parameters(), before, strict=True)
    )
    model.after_step()
    for slow_p, old, online in zip(
        model.target.slow.parameters(), before, torso.encoder.parameters(), strict=True
    ):
        close(slow_p, 0.99 * old + 0.01 * online, 1e-7)
        assert not torch.equal(slow_p, old)


def test_the_average_of_targets_keeps_the_configured_share() -> None:
    for decay in (0.0, 0.75, 1.0):
        online = torch.nn.Linear(2, 2)
        target = TargetEncoder(online, 2, decay, None)
        before = [p.clone() for p in target.slow.parameters()]
        assert all(
            torch.equal(p, q) and p is not q
            for p, q in zip(target.slow.parameters(), online.parameters(), strict=True)
        )
        with torch.no_grad():
            online.weight.add_(1)
            online.bias.add_(1)
        target.update()
        for p, old in zip(target.slow.parameters(), before, strict=True):
            close(p, old + 1 - decay)


def test_targets_are_in_units_of_the_running_mean_and_size_of_real_outcomes() -> None:
    online = torch.nn.Linear(6, 4)
    target = TargetEncoder(online, 4, 0.99, 0.9)
    total, square, weight = torch.zeros(4), torch.zeros(()), 0.0
    for seed in range(3):
        trajectory = random_trajectory(seed=seed)
        embeddings = online(trajectory.obs[1:]).detach()
        weight = 0.9 * weight + 0.1
        total = 0.9 * total + 0.1 * embeddings[trajectory.real].mean(0)
        square = (
            0.9 * square
            + 0.1 * (embeddings - total / weight)[trajectory.real].square().sum(-1).mean()
        )
        close(target(trajectory), (embeddings - total / weight) / (square / weight).sqrt(), 1e-6)
    target.eval()
    other = random_trajectory(seed=9)
    expected = (online(other.obs[1:]).detach() - total / weight) / (square / weight).sqrt()
    close(target(other), expected, 1e-6)
    close(target(other), expected, 1e-6)  # looking changed nothing


def test_a_model_that_knows_the_mean_alone_has_an_error_of_one() -> None:
    online = torch.nn.Linear(6, 4)
    target, trajectory = TargetEncoder(online, 4, 0.99, 0.9), random_trajectory(resets=())
    found = target(trajectory)
    close(target.error(torch.zeros_like(found), found).mean(), torch.ones(()))


def trained_terms(
    model: BYOLExplore | BYOLHindsight, steps: int, outcome: str
) -> tuple[float, float]:
    """Reconstruction and invariance at the end of a training on outcomes of four symbols.

    outcome "noise": the symbol is random. "action": it follows from the action, so z has nothing to
    explain.
    """
    random = torch.Generator().manual_seed(0)
    symbols = 2 * torch.randn(4, 6, generator=random)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 2e-3)
    reconstruction, invariance = 0.0, 0.0
    for step in range(steps):
        trajectory = random_trajectory(4, 24, seed=step, resets=())
        symbol_of_action = torch.cat([trajectory.prev_action[None], trajectory.action]) % 4
        random_symbol = torch.randint(4, symbol_of_action.shape, generator=random)
        trajectory = replace(
            trajectory, obs=symbols[symbol_of_action if outcome == "action" else random_symbol]
        )
        out = model(trajectory, torch.randn(5, 24, BELIEF, generator=random), torch.empty(0))
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        if step >= steps - 30:
            reconstruction += float(out.metrics["reconstruction"]) / 30
            invariance += float(out.metrics.get("invariance", 0)) / 30
    return reconstruction, invariance


def test_noise_is_explained_by_a_latent_that_tells_nothing_of_the_state() -> None:
    torso = tiny_torso().requires_grad_(False)
    floor, _ = trained_terms(explore(torso, 1), 300, "noise")
    reconstruction, invariance = trained_terms(
        hindsight(torso, replace(HINDSIGHT, latent=4, hidden=32)), 500, "noise"
    )
    assert floor > 0.15  # what BYOL-Explore is paid for ever
    assert reconstruction < 0.3 * floor
    assert invariance < 0.1


def test_what_can_be_foreseen_is_driven_out_of_the_latent() -> None:
    torso = tiny_torso().requires_grad_(False)
    reconstruction, invariance = trained_terms(
        hindsight(torso, replace(HINDSIGHT, latent=4, hidden=32)), 1200, "action"
    )
    assert reconstruction < 0.02
    assert invariance < 0.05  # about 1 where nothing pushes back; the reward goes to zero
