"""BYOL-Hindsight's critic: the contrast follows its definition, and planted leaks are found."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.world_models.models.hindsight_critic import Critic, CriticForm, contrast
from tests.helpers import B, close, critic_score, seeded


def test_contrast_is_the_log_ratio_among_the_valid() -> None:
    scores = 3 * torch.randn(
        2, 4, B, B, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    valid = torch.rand(2, 4, B, generator=torch.Generator().manual_seed(1)) < 0.6
    valid[0, 0], valid[0, 1], valid[1, 0] = False, True, torch.arange(B) == 2  # none, all, one
    scores.requires_grad_()
    found = contrast(scores, valid)
    for k in range(2):
        for t in range(4):
            among = [j for j in range(B) if valid[k, t, j]]
            for i in range(B):
                if i not in among:
                    assert found[k, t, i] == 0
                    continue
                mean = sum(scores[k, t, i, j].exp() for j in among) / len(among)
                # the count is a float32
                close(found[k, t, i], torch.log(scores[k, t, i, i].exp() / mean), 1e-7)
                assert found[k, t, i] <= math.log(len(among)) + 1e-9
    assert found[1, 0, 2] == 0  # alone there is nothing to tell apart
    found.sum().backward()
    assert scores.grad is not None and bool(scores.grad.isfinite().all())
    assert not scores.grad[~(valid[..., None] & valid[..., None, :])].any()


def test_contrast_reaches_log_n_and_stays_finite_at_extremes() -> None:
    sharp = 1e4 * torch.eye(B)
    close(contrast(sharp, torch.ones(B, dtype=torch.bool)), torch.full((B,), math.log(B)))
    assert bool(contrast(-sharp, torch.ones(B, dtype=torch.bool)).isfinite().all())
    close(contrast(torch.zeros(B, B), torch.ones(B, dtype=torch.bool)), torch.zeros(B))


@pytest.mark.parametrize("form", get_args(CriticForm))
def test_the_critic_scores_every_state_with_every_latent(form: CriticForm) -> None:
    critic = seeded(lambda: Critic(form, 6, 3, 16, 8, 5.0), 0)
    states, latents = torch.randn(2, 4, 6), torch.randn(2, 4, 3)
    scores = critic(states, latents)
    assert scores.shape == (2, 4, 4) and (form != "dot" or bool((scores.abs() <= 5 + 1e-5).all()))
    for group in range(2):
        for i in range(4):
            for j in range(4):
                close(
                    scores[group, i, j], critic_score(critic, states[group, i], latents[group, j])
                )


# --- what the critic finds


def trained_critic(
    form: CriticForm, leak: str, steps: int = 300, n: int = 16, actions: int = 4
) -> tuple[float, float]:
    """Invariance on new data after training a critic alone, and its upper limit."""
    random = torch.Generator().manual_seed(0)
    critic = seeded(lambda: Critic(form, 5 + actions, 6, 64, 32, 5.0), 0)
    optimiser = torch.optim.Adam(critic.parameters(), 3e-3)
    valid = torch.ones(32, n, dtype=torch.bool)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        belief, action = (
            torch.randn(32, n, 5, generator=random),
            torch.randint(actions, (32, n), generator=random),
        )
        latent = torch.randn(32, n, 6, generator=random)
        if leak == "action":
            latent[..., :actions] = F.one_hot(action, actions) + 0.1 * latent[..., :actions]
        elif leak == "belief":
            latent[..., :5] = belief
        return torch.cat([belief, F.one_hot(action, actions)], -1), latent, action

    for _ in range(steps):
        state, latent, _ = batch()
        loss = -contrast(critic(state, latent), valid).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found, ceiling = [], []
        for _ in range(10):
            state, latent, action = batch()
            found.append(contrast(critic(state, latent), valid).mean())
            alike = (action[:, :, None] == action[:, None]).sum(-1)
            ceiling.append(
                (n / alike).log().mean() if leak == "action" else torch.tensor(math.log(n))
            )
    return float(torch.stack(found).mean()), float(torch.stack(ceiling).mean())


@pytest.mark.parametrize("form", get_args(CriticForm))
@pytest.mark.parametrize("leak", ("action", "belief"))
def test_the_critic_finds_a_planted_leak(form: CriticForm, leak: str) -> None:
    found, ceiling = trained_critic(form, leak)
    assert 0.75 * ceiling < found <= ceiling + 0.01


@pytest.mark.parametrize("form", get_args(CriticForm))
def test_the_critic_finds_nothing_in_pure_noise(form: CriticForm) -> None:
    found, _ = trained_critic(form, "none")
    assert abs(found) < 0.05
