"""Disagreement against a loop in float64, and what is known in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from afterwit.world_models.models.disagreement import Disagreement, DisagreementConfig
from tests.helpers import A, B, T, close, random_trajectory, seeded, tiny_spec, tiny_torso

NOTHING = torch.empty(0)


def make(**options: float) -> Disagreement:
    config = replace(DisagreementConfig(hidden=16), **options)  # type: ignore[arg-type]
    return seeded(lambda: Disagreement(config, tiny_torso(), tiny_spec(), 0), 1)


def set_outputs(member: nn.Module, value: float) -> None:
    with torch.no_grad():
        *_, weight, bias = member.parameters()
        weight.zero_()
        bias.fill_(value)


def test_it_equals_the_loop() -> None:
    model, trajectory = make(keep=1.0), random_trajectory()
    out = model(trajectory, NOTHING, NOTHING)
    model.eval().double()
    obs = model.whiten(trajectory.obs.double(), trajectory.real)
    unit = model.features.scale.size
    reward, losses = torch.zeros(T, B, dtype=torch.float64), []
    for t in range(T):
        for b in range(B):
            if trajectory.first[t + 1, b]:
                continue
            here, there = (model.features.encoder(x[b][None])[0] / unit for x in obs[t : t + 2])
            action = torch.eye(A, dtype=torch.float64)[trajectory.action[t, b]]
            outputs = [member(torch.cat([here, action])) for member in model.members]
            mean = sum(outputs) / len(outputs)
            spread = sum((output - mean) ** 2 for output in outputs) / len(outputs)
            reward[t, b] = spread.mean().detach()
            losses += [((output - there) ** 2).mean() for output in outputs]
    close(out.reward, reward)
    close(out.loss, torch.stack(losses).mean())


def test_the_variance_is_the_populations() -> None:
    model, trajectory = make(members=2), random_trajectory()
    for member, value in zip(model.members, (3.0, -3.0), strict=True):
        set_outputs(member, value)
    out = model(trajectory, NOTHING, NOTHING)
    close(out.reward, 9.0 * trajectory.real)
    for member in model.members:
        set_outputs(member, 1.0)
    assert not model(trajectory, NOTHING, NOTHING).reward.any()


def test_the_outcome_is_not_paid() -> None:
    model, trajectory = make(), random_trajectory(length=1, resets=())
    model(random_trajectory(), NOTHING, NOTHING)
    model.eval()
    other = replace(trajectory, obs=torch.cat([trajectory.obs[:1], trajectory.obs[1:] + 1]))
    with model.watching():
        out = model(trajectory, NOTHING, NOTHING)
    changed = model(other, NOTHING, NOTHING)
    assert torch.equal(changed.reward, out.reward) and not torch.equal(changed.loss, out.loss)


def test_each_member_sees_its_own_four_fifths() -> None:
    weights = make().draw(torch.ones(100, 100, dtype=torch.bool))
    assert set(weights.unique().tolist()) == {0.0, 1.25}
    for member in weights:
        assert float((member > 0).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert not torch.equal(weights[0], weights[1])
