"""Actor and learner together on a small maze: they agree, unrolls join, seeds decide, and what did not happen teaches nothing."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from afterwit.agents import Actor, Learner, LearnerConfig, PolicyConfig
from afterwit.agents.vmpo import VMPOConfig, vmpo_loss
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.world_models import WORLD_MODELS, Trajectory
from afterwit.world_models.byol_explore import BYOLExploreConfig
from afterwit.world_models.byol_hindsight import BYOLHindsightConfig
from tests.helpers import close, random_trajectory, tiny_spec, tiny_torso_config

B, UNROLL, CPU = 3, 10, torch.device("cpu")
SMALL = LearnerConfig(
    torso=tiny_torso_config(), policy=PolicyConfig(hidden=12), world_model=BYOLHindsightConfig(horizon=2, hidden=16, noise=4, latent=4),
    vmpo=VMPOConfig(target_period=3), extrinsic_weight=0.5,
)  # fmt: skip


def pair(config: LearnerConfig = SMALL, seed: int = 0, greedy: bool = False) -> tuple[Actor, Learner]:
    maze = Maze(MazeConfig(num_envs=B, episode_steps=7), seed)
    learner = Learner(config, maze.spec, seed, CPU)
    return Actor(maze, learner.policy, UNROLL, seed, CPU, greedy), learner


def same(left: Trajectory, right: Trajectory) -> bool:
    plain = [f.name for f in fields(left) if f.name != "info"]
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in plain) and all(
        torch.equal(value, right.info[name]) for name, value in left.info.items()
    )


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
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(equal(*both) for both in zip(left, right, strict=True))
    return bool(left == right)


def test_unrolls_have_the_shape_of_a_trajectory_and_contain_resets() -> None:
    actor, _ = pair()
    trajectory = actor.unroll()
    spec = actor.env.spec
    assert trajectory.obs.shape == (UNROLL + 1, B, *spec.observation_shape) and trajectory.obs.dtype == torch.uint8
    assert trajectory.first.shape == (UNROLL + 1, B) and trajectory.first[0].all()
    assert trajectory.first[1:].any(0).all() and not trajectory.first[1:].all(1).any()  # each environment resets, at its own time
    assert trajectory.action.shape == trajectory.reward.shape == trajectory.terminal.shape == (UNROLL, B)
    assert trajectory.action.dtype == torch.int64 and len(trajectory.action.unique()) > 1
    close(trajectory.behaviour.exp().sum(-1), torch.ones(UNROLL, B))
    assert all(value.shape[:2] == (UNROLL, B) for value in trajectory.info.values())
    # The maze tells which action it executed: its row and column follow from it.
    assert torch.equal(trajectory.info["executed_action"][trajectory.real], trajectory.action[trajectory.real])


def test_learner_and_actor_agree_on_every_probability() -> None:
    """Also after resets, over several unrolls, and after new weights in between."""
    actor, learner = pair()
    for round_ in range(6):
        trajectory = actor.unroll()
        out = learner.policy(trajectory.obs, trajectory.first, trajectory.previous_actions, trajectory.core, trajectory.resets)
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
        assert torch.equal(after.obs[0], before.obs[-1]) and torch.equal(after.first[0], before.first[-1])
        assert torch.equal(after.prev_action, before.action[-1])
        out = learner.policy(  # without the last row: the state before it
            before.obs[:-1], before.first[:-1], before.previous_actions[:-1], before.core, tuple(t for t in before.resets if t < UNROLL)
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
    part = learner.policy(second.obs, second.first, second.previous_actions, second.core, second.resets)
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
    config = replace(SMALL, world_model=WORLD_MODELS[name][0]())
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
    config = replace(SMALL, world_model=WORLD_MODELS[name][0](), shared_torso=shared)
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
        behaviour=torch.where(absent[..., None], trajectory.behaviour.roll(1, -1) - 3, trajectory.behaviour),
        prev_action=torch.where(trajectory.first[0], (trajectory.prev_action + 1) % 5, trajectory.prev_action),
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
    actor, learner = pair(replace(SMALL, world_model=WORLD_MODELS[name][0](), shared_torso=shared))
    trajectory = actor.unroll()
    nothing = replace(trajectory, first=torch.ones_like(trajectory.first), reward=torch.zeros_like(trajectory.reward))
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
    moved = {name.split(".")[1] for name, value in learner.named_parameters() if "." in name and not torch.equal(value, before[name])}
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
    assert equal(dict(actor.policy.state_dict()), learner.acting) and not equal(dict(actor.policy.state_dict()), dict(before))
    assert not any(p.requires_grad for p in actor.policy.parameters())


@pytest.mark.parametrize("shared", (True, False))
@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_restored_learner_and_actor_go_on_bit_for_bit(name: str, shared: bool) -> None:
    config = replace(SMALL, world_model=WORLD_MODELS[name][0](), shared_torso=shared)
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
    actor, learner = pair(replace(SMALL, world_model=WORLD_MODELS[name][0]()))
    metrics = train(actor, learner, 2)
    assert metrics
    trajectory, before = actor.unroll(), deepcopy(learner.state())
    out = learner.appraise(trajectory)
    assert out.reward.shape == (UNROLL, B) and not out.reward.requires_grad
    assert equal(learner.state(), before)


def trained(learner: Learner, trajectory: Trajectory) -> set[str]:
    """The parts that one update moves."""
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    learner.update(trajectory)
    return {".".join(name.split(".")[:2]) for name, p in learner.named_parameters() if not torch.equal(p, before[name])}


def test_a_shared_torso_is_trained_by_both_and_an_own_one_by_the_world_model_alone() -> None:
    quiet = replace(SMALL, world_model=replace(SMALL.world_model, loss_scale=0.0))
    for shared in (True, False):
        actor, learner = pair(replace(SMALL, shared_torso=shared))
        trajectory = actor.unroll()
        moved = trained(learner, trajectory)
        assert {"policy.torso", "policy.action_head", "policy.value_head", "policy.popart", "world_model.critic"} <= moved
        assert any(name.startswith("own_torso") for name in moved) == (not shared)
        assert "world_model.target" not in {name for name in moved if name != "world_model.target"} and learner.steps == 1
    for shared in (True, False):  # without the world model's loss
        _, learner = pair(replace(quiet, shared_torso=shared))
        moved = trained(learner, trajectory)
        assert "policy.torso" in moved
        assert not any(name.startswith("own_torso") or name == "world_model.generator" for name in moved)


@pytest.mark.parametrize("shared", (True, False))
@pytest.mark.parametrize("name", ("byol-explore", "byol-hindsight"))
def test_the_target_follows_the_encoder_that_the_world_model_looks_through(name: str, shared: bool) -> None:
    actor, learner = pair(replace(SMALL, world_model=WORLD_MODELS[name][0](target_decay=0.8), shared_torso=shared))
    torso = learner.policy.torso if learner.own_torso is None else learner.own_torso
    for _ in range(2):
        before = [p.clone() for p in learner.world_model.target.slow.parameters()]  # type: ignore[union-attr]
        learner.update(actor.unroll())
        slow = learner.world_model.target.slow.parameters()  # type: ignore[union-attr]
        for p, old, online in zip(slow, before, torso.encoder.parameters(), strict=True):
            close(p, 0.8 * old + 0.2 * online, 1e-7)
            assert not torch.equal(p, old)


def test_an_own_torso_starts_each_unroll_with_a_blank_memory() -> None:
    actor, learner = pair(replace(SMALL, shared_torso=False))
    actor.unroll()
    trajectory = actor.unroll()
    assert trajectory.core.any() and not trajectory.first[0].all()
    seen: list[Tensor] = []
    assert learner.own_torso is not None
    learner.own_torso.register_forward_hook(lambda module, inputs, output: seen.append(inputs[3]))
    learner.update(trajectory)
    assert len(seen) == 1 and not seen[0].any()


def slow_targets(learner: Learner, trajectory: Trajectory, reward: Tensor, value: Tensor) -> Tensor:
    discount, targets = learner.config.discount, torch.zeros(UNROLL, B)
    for b in range(B):
        for t in range(UNROLL):
            total, weight = 0.0, 1.0
            for time in range(t, UNROLL):
                total += weight * float(reward[time, b])
                weight *= discount
                if trajectory.terminal[time, b]:
                    break
                if time + 1 == UNROLL or trajectory.first[time + 2, b]:
                    total += weight * float(value[time + 1, b])
                    break
            targets[t, b] = total
    return targets


def update_and_catch(learner: Learner, trajectory: Trajectory) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Metrics of one update, and the value targets and advantages that it used."""
    caught: list[tuple[Tensor, Tensor]] = []
    inner = learner._targets

    def catch(*args: Any) -> tuple[Tensor, Tensor]:
        caught.append(inner(*args))
        return caught[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "_targets", catch)
        metrics = learner.update(trajectory)
    return metrics, *caught[0]


@pytest.mark.parametrize(("extrinsic", "intrinsic"), ((0.0, 0.1), (1.0, 0.0), (0.5, 0.3)), ids=("intrinsic", "extrinsic", "mixed"))
def test_the_reward_is_mixed_as_the_paper_says(extrinsic: float, intrinsic: float) -> None:
    """(1 - gamma) (weight * r_ext / deviation + lambda_mix * r_int), returned to the sequence's end."""
    config = replace(SMALL, extrinsic_weight=extrinsic, intrinsic_weight=intrinsic, policy=PolicyConfig(hidden=12, popart_step=0.2))
    actor, learner = pair(config)
    for seed in range(3):
        trajectory = actor.unroll()
        random = torch.Generator().manual_seed(seed)
        trajectory = replace(trajectory, reward=torch.rand(UNROLL, B, generator=random).masked_fill(~trajectory.real, 9.0))
        value = learner.policy.popart.denormalise(
            learner.policy.value(learner.policy(
                trajectory.obs, trajectory.first, trajectory.previous_actions, trajectory.core, trajectory.resets
            ).beliefs)
        ).detach()  # fmt: skip
        metrics, targets, advantage = update_and_catch(learner, trajectory)
        deviation = learner.extrinsic.deviation  # after this batch was taken in
        reward = 0.005 * (extrinsic * trajectory.reward / deviation + intrinsic * metrics["bonus"])
        assert config.discount == 0.995
        expected = slow_targets(learner, trajectory, reward, value)
        close(targets[trajectory.real], expected[trajectory.real], 1e-6)
        # The scale follows the targets first; advantages are on it.
        close(advantage[trajectory.real], ((expected - value[:-1]) / learner.policy.popart.scale.deviation)[trajectory.real], 1e-3)
        assert float(metrics["value_scale"]) == pytest.approx(float(learner.policy.popart.scale.deviation))


def test_the_loss_is_the_weighted_sum_of_its_parts_over_real_steps() -> None:
    config = replace(SMALL, world_model=BYOLExploreConfig(horizon=2, loss_scale=3.0), value_weight=0.7, entropy_weight=0.4)
    actor, learner = pair(config)
    for _ in range(2):
        trajectory = actor.unroll()
        out = learner.policy(trajectory.obs, trajectory.first, trajectory.previous_actions, trajectory.core, trajectory.resets)
        value = learner.policy.popart.denormalise(learner.policy.value(out.beliefs))[:-1].detach()
        duals = deepcopy(learner.duals)
        metrics, targets, advantage = update_and_catch(learner, trajectory)
        real = [(t, b) for t in range(UNROLL) for b in range(B) if not trajectory.first[t + 1, b]]
        log_probs = out.log_probs.detach()
        policy, _ = vmpo_loss(
            log_probs=log_probs[:-1], behaviour=trajectory.behaviour, action=trajectory.action,
            advantage=advantage, real=trajectory.real, duals=duals, config=config.vmpo,
        )  # fmt: skip
        entropy = sum(-(log_probs[step].exp() * log_probs[step]).sum() for step in real) / len(real)
        # The deviation is that of after the update; the values are what they were.
        value_loss = sum(((value[step] - targets[step]) / metrics["value_scale"]) ** 2 for step in real) / len(real)
        assert float(metrics["entropy"]) == pytest.approx(float(entropy), rel=1e-6)
        assert float(metrics["value_loss"]) == pytest.approx(float(value_loss), rel=1e-3)
        expected = policy.detach() + 0.7 * value_loss - 0.4 * entropy + 3 * metrics["model_reconstruction"]
        assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.0}, r"learner\.discount is 1\.0"),
        ({"learning_rate": 0.0}, r"learner\.learning_rate is 0\.0"),
        ({"world_model_rate": 0.0}, r"learner\.world_model_rate is 0\.0"),
        ({"max_gradient_norm": 0.0}, r"learner\.max_gradient_norm is 0\.0"),
        ({"extrinsic_weight": 0.0, "intrinsic_weight": 0.0}, "are both 0"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_the_world_models_own_layers_learn_at_their_own_rate() -> None:
    spec = tiny_spec()
    steps, once_a_step = [], BYOLHindsightConfig(critic_steps=1)
    for rate in (1.0, 4.0):
        learner = Learner(LearnerConfig(world_model=once_a_step, world_model_rate=rate, learning_rate=1e-3), spec, 0, torch.device("cpu"))
        before = {name: p.detach().clone() for name, p in learner.named_parameters()}
        learner.update(random_trajectory(belief=learner.policy.torso.config.belief))
        steps.append({name: (p.detach() - before[name]).abs().max().item() for name, p in learner.named_parameters() if p.requires_grad})
    for name, once in steps[0].items():  # Adam's first step is as long as the rate
        assert steps[1][name] == pytest.approx((4 if name.startswith("world_model.") else 1) * once, rel=1e-3), name
