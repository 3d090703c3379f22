"""LPM against a loop in float64, and what is known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from afterwit.world_models.models.lpm import LPM, LPMConfig
from tests.helpers import RESETS, A, B, T, close, random_trajectory, seeded, tiny_spec, tiny_torso
from tests.world_models.curiosities import curiosity, steps

NOTHING = torch.empty(0)
EVERYWHERE = tuple((t, b) for t in range(T + 1) for b in range(B))


def make(**options: float) -> LPM:
    config = replace(LPMConfig(hidden=16), **options)  # type: ignore[arg-type]
    return seeded(lambda: LPM(config, tiny_torso(), tiny_spec(), 0), 1)


def test_it_equals_the_loop() -> None:
    model, trajectory = make(wait=0), random_trajectory()
    out = model(trajectory, NOTHING, NOTHING)
    model.eval().double()
    obs = model.whiten(trajectory.obs.double(), trajectory.real)
    reward, losses = torch.zeros(T, B, dtype=torch.float64), []
    for t in range(T):
        for b in range(B):
            if trajectory.first[t + 1, b]:
                continue
            action = torch.eye(A, dtype=torch.float64)[trajectory.action[t, b]]
            here = obs[t, b][None]
            predicted = model.model(torch.cat([model.encoder(here)[0], action]))
            error = ((obs[t + 1, b] - predicted) ** 2).mean()
            log = (error.detach() + 1e-3).log()
            expected = model.error_model(torch.cat([model.error_encoder(here)[0], action]))[0]
            losses.append(error + (expected - log) ** 2)
            reward[t, b] = (expected - log).detach()
    close(out.reward, reward)
    close(out.loss, torch.stack(losses).mean())


def test_nothing_is_paid_before_enough_was_seen() -> None:
    model = make(wait=2)
    paid = []
    for seed in range(4):  # the second batch only resets, so it does not count
        resets = EVERYWHERE if seed == 1 else RESETS
        out = model(random_trajectory(seed=seed, resets=resets), NOTHING, NOTHING)
        paid.append(bool(out.reward.any()))
    assert paid == [False, False, False, True]


def test_iid_noise_is_paid_nothing_on_average() -> None:
    """The mean log error of noise in d dimensions is psi(d/2) - log(d/2) + log variance."""
    model, trajectory = make(wait=0, floor=1e-9), random_trajectory(length=4000, resets=())
    model(trajectory, NOTHING, NOTHING)
    model.eval()
    d = trajectory.obs.shape[-1]
    expected = float(torch.digamma(torch.tensor(d / 2))) - math.log(d / 2)
    with torch.no_grad():
        for head, value in ((model.model, 0.0), (model.error_model, expected)):
            weight, bias = list(head.parameters())[-2:]
            weight.zero_()
            bias.fill_(value)
    reward = model(trajectory, NOTHING, NOTHING).reward
    assert abs(float(reward.mean())) < 3 * float(reward.std()) / reward.numel() ** 0.5 + 1e-3


def test_what_is_not_paid_yet_sets_no_unit() -> None:
    """The first update pays nothing, so the bonus has no deviation before the second."""
    intrinsic = curiosity("lpm")
    for update in range(3):
        assert intrinsic.normaliser.has_statistics == (update == 2)
        batch = steps(update)
        assert intrinsic.reward(*batch).any() == (update > 0)
        intrinsic.update(*batch)
    once = curiosity("lpm")
    for update in range(2):
        bonus = once.reward(*steps(update))
        once.update(*steps(update))
    assert 0.3 < bonus[bonus != 0].std() < 3  # in units of its own deviation from the start
