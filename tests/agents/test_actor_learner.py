"""Actor and learner on a small maze: they agree, trajectories join, and seeds reproduce runs."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from afterwit.agents import Actor, Learner
from afterwit.world_models import WORLD_MODELS, Trajectory
from tests.agents.small_agents import SMALL, UNROLL, B, pair
from tests.helpers import close


def same(left: Trajectory, right: Trajectory) -> bool:
    return equal(left.state(), right.state())


def train(actor: Actor, learner: Learner, steps: int) -> list[dict[str, Tensor]]:
    metrics = []
    for _ in range(steps):
        actor.set_weights(learner.acting, learner.version)
        metrics.append(learner.update(actor.unroll()))
    return metrics


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            equal(value, right[key]) for key, value in left.items()
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(
            equal(*both) for both in zip(left, right, strict=True)
        )
    return bool(left == right)


def test_unrolls_have_the_shape_of_a_trajectory_and_contain_resets() -> None:
    actor, _ = pair()
    trajectory = actor.unroll()
    spec = actor.env.spec
    assert (
        trajectory.obs.shape == (UNROLL + 1, B, *spec.observation_shape)
        and trajectory.obs.dtype == torch.uint8
    )
    assert trajectory.first.shape == (UNROLL + 1, B) and trajectory.first[0].all()
    # each environment resets, at its own time
    assert trajectory.first[1:].any(0).all() and not trajectory.first[1:].all(1).any()
    assert (
        trajectory.action.shape
        == trajectory.reward.shape
        == trajectory.terminal.shape
        == (UNROLL, B)
    )
    assert trajectory.action.dtype == torch.int64 and len(trajectory.action.unique()) > 1
    close(trajectory.behaviour.exp().sum(-1), torch.ones(UNROLL, B))
    assert all(value.shape[:2] == (UNROLL, B) for value in trajectory.info.values())
    # The maze tells which action it executed: its row and column follow from it.
    assert torch.equal(
        trajectory.info["executed_action"][trajectory.real], trajectory.action[trajectory.real]
    )


def test_learner_and_actor_agree_on_every_probability() -> None:
    """They agree after resets, over several trajectories, and after new weights."""
    actor, learner = pair()
    for round_ in range(6):
        trajectory = actor.unroll()
        out = learner.policy(
            trajectory.obs,
            trajectory.first,
            trajectory.previous_actions,
            trajectory.core,
            trajectory.resets,
        )
        close(out.log_probs[:-1], trajectory.behaviour)
        assert trajectory.behaviour.std(0).max() > 1e-4  # it does depend on what was seen
        if round_ == 3:
            with torch.no_grad():
                for p in learner.policy.parameters():
                    p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
            actor.set_weights(learner.policy.state_dict(), 1)


def test_unrolls_overlap_by_one_observation() -> None:
    actor, learner = pair()
    before = actor.unroll()
    for _ in range(4):
        after = actor.unroll()
        assert torch.equal(after.obs[0], before.obs[-1]) and torch.equal(
            after.first[0], before.first[-1]
        )
        assert torch.equal(after.prev_action, before.action[-1])
        out = learner.policy(  # without the last row: the state before it
            before.obs[:-1],
            before.first[:-1],
            before.previous_actions[:-1],
            before.core,
            tuple(t for t in before.resets if t < UNROLL),
        )
        close(after.core, out.core)
        assert after.core.any()
        before = after


def test_the_learner_cannot_tell_two_unrolls_from_one() -> None:
    actor, learner = pair()
    halves = [actor.unroll(), actor.unroll()]
    actor, _ = pair()
    actor.unroll_length = 2 * UNROLL
    whole = actor.unroll()
    assert torch.equal(torch.cat([half.action for half in halves]), whole.action)
    out = learner.policy(whole.obs, whole.first, whole.previous_actions, whole.core, whole.resets)
    second = halves[1]
    part = learner.policy(
        second.obs, second.first, second.previous_actions, second.core, second.resets
    )
    close(part.beliefs, out.beliefs[UNROLL:])


def test_actions_follow_the_probabilities_or_are_the_likeliest() -> None:
    actor, _ = pair(greedy=True)
    trajectory = actor.unroll()
    assert torch.equal(trajectory.action, trajectory.behaviour.argmax(-1))
    actor, learner = pair()
    with torch.no_grad():
        head = learner.policy.action_head[-1]
        assert isinstance(head, torch.nn.Linear)
        head.weight.zero_()
        head.bias.copy_(torch.tensor([0.4, 0.1, 0.2, 0.05, 0.25]).log())
    actor.set_weights(learner.policy.state_dict(), 1)
    actor.unroll_length = 700
    share = torch.bincount(actor.unroll().action.flatten(), minlength=5) / 2100
    close(share, torch.tensor([0.4, 0.1, 0.2, 0.05, 0.25]), 0.03)


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_the_same_seed_gives_the_same_run_bit_for_bit(name: str) -> None:
    config = replace(SMALL, world_model=WORLD_MODELS[name].Config())
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # nothing may draw from the global state
        actor, learner = pair(config)
        metrics = train(actor, learner, 7)
        runs.append((actor, learner, metrics, actor.unroll()))
    assert same(runs[0][3], runs[1][3])
    assert equal(runs[0][2], runs[1][2]) and equal(runs[0][1].state(), runs[1][1].state())
    actor, learner = pair(config, seed=1)
    assert not same(actor.unroll(), pair(config)[0].unroll())
    assert all(bool(value.isfinite().all()) for row in runs[0][2] for value in row.values())


@pytest.mark.parametrize("shared", (True, False))
@pytest.mark.parametrize("name", WORLD_MODELS)
def test_what_did_not_happen_teaches_nothing(name: str, shared: bool) -> None:
    config = replace(SMALL, world_model=WORLD_MODELS[name].Config(), shared_torso=shared)
    actor, learner = pair(config)
    other = pair(config)[1]
    train(actor, learner, 2)
    other.load_state(deepcopy(learner.state()))
    trajectory = actor.unroll()
    absent = ~trajectory.real
    assert absent.any(0).all()
    changed = replace(
        trajectory,
        reward=trajectory.reward.masked_fill(absent, 1e5),
        terminal=trajectory.terminal | absent,
        action=torch.where(absent, (trajectory.action + 2) % 5, trajectory.action),
        behaviour=torch.where(
            absent[..., None], trajectory.behaviour.roll(1, -1) - 3, trajectory.behaviour
        ),
        prev_action=torch.where(
            trajectory.first[0], (trajectory.prev_action + 1) % 5, trajectory.prev_action
        ),
        core=torch.where(trajectory.first[0][:, None], trajectory.core + 7, trajectory.core),
    )
    metrics, other_metrics = learner.update(trajectory), other.update(changed)
    for left, right in zip(learner.parameters(), other.parameters(), strict=True):
        if left.grad is not None:
            close(right.grad, left.grad, 1e-7)  # type: ignore[arg-type]
    for key, value in metrics.items():
        close(other_metrics[key], value)
    close(other_metrics["bonus"][absent], torch.zeros(int(absent.sum())))
    for key, value in learner.state_dict().items():
        close(other.state_dict()[key], value, 1e-6)


@pytest.mark.parametrize("name", WORLD_MODELS)
@pytest.mark.parametrize("shared", (True, False))
def test_a_batch_of_resets_alone_leaves_a_finite_learner(name: str, shared: bool) -> None:
    actor, learner = pair(
        replace(SMALL, world_model=WORLD_MODELS[name].Config(), shared_torso=shared)
    )
    trajectory = actor.unroll()
    nothing = replace(
        trajectory,
        first=torch.ones_like(trajectory.first),
        reward=torch.zeros_like(trajectory.reward),
    )
    for data in (nothing, trajectory, nothing, trajectory):
        metrics = learner.update(data)
        assert all(bool(value.isfinite().all()) for value in metrics.values())
    assert all(bool(p.isfinite().all()) for p in learner.parameters())


def test_the_uniform_policy_stays_uniform_while_the_rest_learns() -> None:
    actor, learner = pair(replace(SMALL, policy=replace(SMALL.policy, uniform=True)))
    before = {name: value.clone() for name, value in learner.named_parameters()}
    train(actor, learner, 4)
    log_probs = actor.unroll().behaviour
    assert torch.equal(log_probs, torch.full_like(log_probs, -math.log(log_probs.shape[-1])))
    moved = {
        name.split(".")[1]
        for name, value in learner.named_parameters()
        if "." in name and not torch.equal(value, before[name])
    }
    assert {"torso", "value_head", "reconstructor"} <= moved and "action_head" not in moved


def test_the_acting_policy_changes_once_per_period() -> None:
    actor, learner = pair()
    last, version = learner.acting, learner.version
    assert equal(dict(learner.policy.state_dict()), last)
    for step in range(1, 8):
        learner.update(actor.unroll())
        assert learner.steps == step
        if step % 3 == 0:
            assert not equal(learner.acting, last) and learner.version == version + 1
            assert equal(dict(learner.policy.state_dict()), learner.acting)
            last, version = learner.acting, learner.version
        else:
            assert learner.acting is last and learner.version == version
            assert not equal(dict(learner.policy.state_dict()), learner.acting)


def test_an_actor_keeps_its_own_weights() -> None:
    actor, learner = pair()
    actor.set_weights(learner.acting, learner.version)
    before = deepcopy(actor.policy.state_dict())
    train_on = actor.unroll()
    for _ in range(3):
        learner.update(train_on)
    assert equal(dict(actor.policy.state_dict()), dict(before))
    actor.set_weights(learner.acting, learner.version)
    assert equal(dict(actor.policy.state_dict()), learner.acting) and not equal(
        dict(actor.policy.state_dict()), dict(before)
    )
    assert not any(p.requires_grad for p in actor.policy.parameters())


@pytest.mark.parametrize("shared", (True, False))
@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_restored_learner_and_actor_go_on_bit_for_bit(name: str, shared: bool) -> None:
    config = replace(SMALL, world_model=WORLD_MODELS[name].Config(), shared_torso=shared)
    actor, learner = pair(config)
    train(actor, learner, 4)
    saved = deepcopy((actor.state(), learner.state()))
    other_actor, other = pair(config, seed=5)
    train(other_actor, other, 2)  # nothing of its own past may remain
    other_actor.load_state(saved[0])
    other.load_state(saved[1])
    assert equal(train(actor, learner, 4), train(other_actor, other, 4))
    assert equal(learner.state(), other.state())
    assert same(actor.unroll(), other_actor.unroll())


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_appraising_changes_nothing(name: str) -> None:
    actor, learner = pair(replace(SMALL, world_model=WORLD_MODELS[name].Config()))
    metrics = train(actor, learner, 2)
    assert metrics
    trajectory, before = actor.unroll(), deepcopy(learner.state())
    out, _ = learner.appraise(trajectory)
    assert out.reward.shape == (UNROLL, B) and not out.reward.requires_grad
    assert equal(learner.state(), before)
