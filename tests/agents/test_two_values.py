"""Two values: the intrinsic return has its own, and goes on where an episode ends."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from afterwit.agents import Learner, LearnerConfig, PolicyConfig
from afterwit.agents.returns import continuing_returns
from afterwit.world_models.models.rnd import RNDConfig
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import RESETS, B, T, close, random_trajectory, tiny_spec, tiny_torso_config

CONFIG = LearnerConfig(
    torso=tiny_torso_config(),
    policy=PolicyConfig(hidden=12, popart_step=0.2, two_values=True),
    world_model=RNDConfig(),
    extrinsic_weight=2.0,
    intrinsic_weight=0.5,
    discount=0.9,
    intrinsic_discount=0.8,
)


def make(config: LearnerConfig = CONFIG, seed: int = 0) -> Learner:
    return Learner(config, tiny_spec(), seed, torch.device("cpu"))


def walk(
    trajectory: Trajectory, reward: Tensor, value: Tensor, t: int, b: int, steps: int = T
) -> float:
    """Discounted rewards from obs[t] to the end of the sequence, whatever ends in between.

    Or of a number of real steps, to where the next one begins.
    """
    total, weight = 0.0, 1.0
    for time in range(t, T):
        if trajectory.real[time, b]:
            if steps == 0:
                return total + weight * float(value[time, b])
            total += weight * float(reward[time, b])
            weight *= 0.8
            steps -= 1
    return total + weight * float(value[T, b])


@pytest.mark.parametrize("trace", (0.0, 0.6, 1.0))
@pytest.mark.parametrize("resets", [RESETS, (), ((8, 0), (7, 1), (1, 2), (3, 2))])
def test_a_continuing_return_is_a_mean_of_walks_through_all_endings(
    resets: tuple[tuple[int, int], ...], trace: float
) -> None:
    trajectory = random_trajectory(resets=resets)
    value = torch.randn(T + 1, B, generator=torch.Generator().manual_seed(1))
    found = continuing_returns(
        reward=trajectory.reward, real=trajectory.real, value=value, discount=0.8, trace=trace
    )
    weights = [(1 - trace) * trace**n for n in range(T - 1)] + [trace ** (T - 1)]
    for t in range(T):
        for b in range(B):
            walks = [walk(trajectory, trajectory.reward, value, t, b, n) for n in range(1, T + 1)]
            expected = sum(w * each for w, each in zip(weights, walks, strict=True))
            assert float(found[t, b]) == pytest.approx(expected, abs=1e-5)


def test_constant_pay_is_worth_its_sum_for_ever() -> None:
    """A value of r / (1 - gamma) explains itself, also across endings."""
    trajectory = random_trajectory()
    reward = torch.where(trajectory.real, 3.0, 0.0)
    value = torch.full((T + 1, B), 3.0 / (1 - 0.8))
    found = continuing_returns(reward=reward, real=trajectory.real, value=value, discount=0.8)
    close(found, value[:-1])


def test_each_value_learns_its_own_return() -> None:
    """The values' errors, with no policy in the way."""
    learner, trajectory = make(), random_trajectory()
    first = learner.update(trajectory)
    out = learner.policy(*trajectory.inputs)
    streams, advantage, _ = learner._targets(trajectory, out.beliefs.detach(), first["bonus"])
    own, curious = (stream.targets for stream in streams)
    # without any bonus the first return is the same, and the second is its value alone
    again, _, _ = learner._targets(trajectory, out.beliefs.detach(), torch.zeros(T, B))
    close(again[0].targets, own, 0.2)  # PopArt's scale has moved
    assert not torch.allclose(again[1].targets, curious)
    assert float(advantage[trajectory.real].square().mean().sqrt()) == pytest.approx(1, rel=1e-4)


def test_what_an_unroll_may_end_with_has_a_value_that_is_trained() -> None:
    """The last observation of an episode, at which the next step only resets.

    The first value ends there and is not asked for it; in the second it stands for all that comes.
    """
    learner, trajectory = make(), random_trajectory()
    out = learner.policy(*trajectory.inputs)
    bonus = torch.rand(T, B)
    own, curious = learner._targets(trajectory, out.beliefs.detach(), bonus)[0]
    assert torch.equal(own.where, trajectory.real) and curious.where.all()
    t, b = (int(index) for index in torch.nonzero(~trajectory.real[:-1])[0])
    assert float(curious.targets[t, b]) == float(curious.targets[t + 1, b])
    learner.update(random_trajectory(resets=[(t, b) for t in range(T + 1) for b in range(B)]))
    assert all(bool(p.isfinite().all()) for p in learner.parameters())


def test_it_learns_both_and_is_restored_bit_for_bit() -> None:
    learner, other = make(), make(seed=1)
    heads = ("value_head", "popart", "intrinsic_head", "intrinsic_popart")
    before = {
        name: [p.clone() for p in getattr(learner.policy, name).parameters()] for name in heads
    }
    for seed in range(3):
        learner.update(random_trajectory(seed=seed))
    for name in heads:
        after = getattr(learner.policy, name).parameters()
        assert any(not torch.equal(p, old) for p, old in zip(after, before[name], strict=True))
    other.load_state(deepcopy(learner.state()))
    one, two = (x.update(random_trajectory(seed=7)) for x in (learner, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_off_it_changes_nothing() -> None:
    """The intrinsic discount has no effect on one value."""
    one_value = replace(CONFIG, policy=replace(CONFIG.policy, two_values=False))
    left, right = make(one_value), make(replace(one_value, intrinsic_discount=0.5))
    for seed in range(2):
        one, two = (x.update(random_trajectory(seed=seed)) for x in (left, right))
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any("intrinsic_head" in name for name in left.policy.state_dict())


def test_a_wrong_discount_is_named() -> None:
    with pytest.raises(ValueError, match=r"learner.intrinsic_discount is 1.0; it must be at least"):
        LearnerConfig(intrinsic_discount=1.0)


def test_both_values_learn_from_one_step_where_lambda_is_0() -> None:
    learner, trajectory = make(replace(CONFIG, return_lambda=0.0)), random_trajectory(resets=())
    policy, bonus = learner.policy, torch.rand(T, B)
    beliefs = policy(*trajectory.inputs).beliefs.detach()
    own, curious = policy.popart, policy.intrinsic_popart
    ahead = [
        own.denormalise(policy.value(beliefs)).detach()[1:],
        curious.denormalise(policy.intrinsic_value(beliefs)).detach()[1:],
    ]
    streams, _, _ = learner._targets(trajectory, beliefs, bonus)
    unit = 1 - CONFIG.discount  # of both
    close(streams[1].targets, unit * CONFIG.intrinsic_weight * bonus + 0.8 * ahead[1])
    reward = CONFIG.extrinsic_weight * trajectory.reward / learner.extrinsic.size
    close(streams[0].targets, unit * reward + 0.9 * ahead[0])
