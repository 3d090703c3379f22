"""One update of the learner: what it trains, on which targets, with which loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from afterwit.agents import Learner, LearnerConfig, PolicyConfig
from afterwit.agents.vmpo import vmpo_loss
from afterwit.world_models import WORLD_MODELS, Trajectory
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from tests.agents.small_agents import SMALL, UNROLL, B, pair
from tests.helpers import close, random_trajectory, tiny_spec


def trained(learner: Learner, trajectory: Trajectory) -> set[str]:
    """The parts of the learner that one update changes."""
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    learner.update(trajectory)
    return {
        ".".join(name.split(".")[:2])
        for name, p in learner.named_parameters()
        if not torch.equal(p, before[name])
    }


def test_a_shared_torso_is_trained_by_both_and_an_own_one_by_the_world_model_alone() -> None:
    quiet = replace(SMALL, world_model=replace(SMALL.world_model, loss_scale=0.0))
    for shared in (True, False):
        actor, learner = pair(replace(SMALL, shared_torso=shared))
        trajectory = actor.unroll()
        moved = trained(learner, trajectory)
        assert {
            "policy.torso",
            "policy.action_head",
            "policy.value_head",
            "policy.popart",
            "world_model.generator",
            "expected.head",
        } <= moved
        assert any(name.startswith("own_torso") for name in moved) == (not shared)
        assert learner.steps == 1
    for shared in (True, False):  # without the world model's loss
        _, learner = pair(replace(quiet, shared_torso=shared))
        moved = trained(learner, trajectory)
        assert "policy.torso" in moved
        assert not any(
            name.startswith("own_torso") or name == "world_model.generator" for name in moved
        )


@pytest.mark.parametrize("shared", (True, False))
@pytest.mark.parametrize("name", ("byol-explore", "byol-hindsight"))
def test_the_target_follows_the_encoder_that_the_world_model_looks_through(
    name: str, shared: bool
) -> None:
    actor, learner = pair(
        replace(SMALL, world_model=WORLD_MODELS[name].Config(target_decay=0.8), shared_torso=shared)
    )
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


def update_and_catch(
    learner: Learner, trajectory: Trajectory
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Metrics of one update, and the value targets and advantages that it used."""
    caught: list[tuple[Any, Tensor, Tensor]] = []
    inner = learner._targets

    def catch(*args: Any) -> tuple[Any, Tensor, Tensor]:
        caught.append(inner(*args))
        return caught[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "_targets", catch)
        metrics = learner.update(trajectory)
    (trained,), advantage, _ = caught[0]
    return metrics, trained.targets, advantage


@pytest.mark.parametrize(
    ("extrinsic", "intrinsic"),
    ((0.0, 0.1), (1.0, 0.0), (0.5, 0.3)),
    ids=("intrinsic", "extrinsic", "mixed"),
)
def test_the_reward_is_mixed_as_the_paper_says(extrinsic: float, intrinsic: float) -> None:
    """BYOL-Explore (Guo et al., 2022): extrinsic plus lambda_mix times intrinsic reward.

    (1 - gamma) (weight * r_ext / root mean square + lambda_mix * r_int), summed to the end of the
    sequence.
    """
    config = replace(
        SMALL,
        extrinsic_weight=extrinsic,
        intrinsic_weight=intrinsic,
        policy=PolicyConfig(hidden=12, popart_step=0.2),
    )
    actor, learner = pair(config)
    for seed in range(3):
        trajectory = actor.unroll()
        random = torch.Generator().manual_seed(seed)
        trajectory = replace(
            trajectory,
            reward=torch.rand(UNROLL, B, generator=random).masked_fill(~trajectory.real, 9.0),
        )
        value = learner.policy.popart.denormalise(
            learner.policy.value(
                learner.policy(
                    trajectory.obs,
                    trajectory.first,
                    trajectory.previous_actions,
                    trajectory.core,
                    trajectory.resets,
                ).beliefs
            )
        ).detach()
        metrics, targets, advantage = update_and_catch(learner, trajectory)
        size = learner.extrinsic.second.mean.sqrt()  # after this batch was taken in
        reward = 0.005 * (extrinsic * trajectory.reward / size + intrinsic * metrics["bonus"])
        assert config.discount == 0.995
        expected = slow_targets(learner, trajectory, reward, value)
        close(targets[trajectory.real], expected[trajectory.real], 1e-6)
        plain = (expected - value[:-1])[trajectory.real]
        close(advantage[trajectory.real], plain / plain.square().mean().sqrt(), 1e-3)
        amounts = (
            (extrinsic * trajectory.reward / size).abs()[trajectory.real].sum(),
            (intrinsic * metrics["bonus"]).sum(),
        )
        assert float(metrics["curiosity_share"]) == pytest.approx(
            float(amounts[1] / sum(amounts)), rel=1e-4
        )
        assert float(metrics["value_scale"]) == pytest.approx(
            float(learner.policy.popart.scale.deviation)
        )


@pytest.mark.parametrize("unit", (1e-6, 1.0, -1.0, 1e6))
@pytest.mark.parametrize(
    "kind", ("constant", "sparse", "random", "nothing", "constant, then nothing")
)
def test_extrinsic_rewards_are_of_order_one_in_any_unit(kind: str, unit: float) -> None:
    """CartPole pays 1 at each step, and Acrobot -1.

    Divided by their deviation about the mean, these rewards were 100 at each step.
    """
    actor, learner = pair(replace(SMALL, extrinsic_weight=1.0))
    random = torch.Generator().manual_seed(0)
    for step in range(20):
        trajectory = actor.unroll()
        reward = {
            "constant": torch.ones(UNROLL, B),
            "random": torch.randn(UNROLL, B, generator=random) + 0.5,
            "sparse": (torch.rand(UNROLL, B, generator=random) < 0.05).float(),
            "nothing": torch.zeros(UNROLL, B),
            "constant, then nothing": torch.full((UNROLL, B), float(step < 10)),
        }[kind]
        metrics = learner.update(replace(trajectory, reward=unit * reward))
        assert all(bool(value.isfinite().all()) for value in metrics.values())
    paid = unit * reward / learner.extrinsic.size
    share = float(metrics["curiosity_share"])
    if kind == "constant":
        assert paid.abs().mean() == pytest.approx(1, rel=1e-3) and 0.005 < share < 0.2
    elif kind in ("sparse", "random"):
        assert 0.3 < paid.square().mean().sqrt() < 3 and share > 0.005
    else:
        assert not paid.any() and share == pytest.approx(1)


def test_the_loss_is_the_weighted_sum_of_its_parts_over_real_steps() -> None:
    config = replace(
        SMALL,
        world_model=BYOLExploreConfig(horizon=2, loss_scale=3.0),
        value_weight=0.7,
        entropy_weight=0.4,
    )
    actor, learner = pair(config)
    for _ in range(2):
        trajectory = actor.unroll()
        out = learner.policy(
            trajectory.obs,
            trajectory.first,
            trajectory.previous_actions,
            trajectory.core,
            trajectory.resets,
        )
        value = learner.policy.popart.denormalise(learner.policy.value(out.beliefs))[:-1].detach()
        alpha = learner.trust_region.alpha.clone()
        metrics, targets, advantage = update_and_catch(learner, trajectory)
        real = [(t, b) for t in range(UNROLL) for b in range(B) if not trajectory.first[t + 1, b]]
        log_probs = out.log_probs.detach()
        policy, _ = vmpo_loss(
            log_probs=log_probs[:-1],
            behaviour=trajectory.behaviour,
            action=trajectory.action,
            advantage=advantage,
            real=trajectory.real,
            alpha=alpha,
            config=config.vmpo,
        )
        entropy = sum(-(log_probs[step].exp() * log_probs[step]).sum() for step in real) / len(real)
        # The deviation is that of after the update; the values are what they were.
        value_loss = sum(
            ((value[step] - targets[step]) / metrics["value_scale"]) ** 2 for step in real
        ) / len(real)
        assert float(metrics["entropy"]) == pytest.approx(float(entropy), rel=1e-6)
        assert float(metrics["value_loss"]) == pytest.approx(float(value_loss), rel=1e-3)
        expected = (
            policy.detach() + 0.7 * value_loss - 0.4 * entropy + 3 * metrics["model_reconstruction"]
        )
        assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.0}, r"learner\.discount is 1\.0"),
        ({"return_lambda": 1.5}, r"learner\.return_lambda is 1\.5; it must be from 0 to 1"),
        ({"return_lambda": -0.1}, r"learner\.return_lambda is -0\.1"),
        ({"learning_rate": 0.0}, r"learner\.learning_rate is 0\.0"),
        ({"world_model_rate": 0.0}, r"learner\.world_model_rate is 0\.0"),
        ({"max_gradient_norm": 0.0}, r"learner\.max_gradient_norm is 0\.0"),
        ({"value_weight": -0.5}, r"learner\.value_weight is -0\.5; it must be at least 0"),
        ({"entropy_weight": -1.0}, r"learner\.entropy_weight is -1\.0"),
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
        learner = Learner(
            LearnerConfig(world_model=once_a_step, world_model_rate=rate, learning_rate=1e-3),
            spec,
            0,
            torch.device("cpu"),
        )
        before = {name: p.detach().clone() for name, p in learner.named_parameters()}
        learner.update(random_trajectory(belief=learner.policy.torso.config.belief))
        steps.append(
            {
                name: (p.detach() - before[name]).abs().max().item()
                for name, p in learner.named_parameters()
                if p.requires_grad
            }
        )
    for name, once in steps[0].items():  # Adam's first step is as long as the rate
        assert steps[1][name] == pytest.approx(
            (4 if name.startswith("world_model.") else 1) * once, rel=1e-3
        ), name
