"""A mixture of bonuses against its parts."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from afterwit.runs.training.checkpoint import equal_states
from afterwit.world_models import IntrinsicReward
from afterwit.world_models.base import WorldModel
from afterwit.world_models.catalogue import WORLD_MODELS
from afterwit.world_models.models.mix import Mix, MixConfig
from afterwit.world_models.registry import make_world_model
from afterwit.world_models.reward_normaliser import RewardNormaliser
from tests.helpers import close, look, random_trajectory, seeded, tiny_spec, tiny_torso
from tests.world_models.curiosities import ACTIONS, VECTOR


def make(**settings: object) -> Mix:
    config = MixConfig(**settings)  # type: ignore[arg-type]
    model = seeded(lambda: make_world_model(config, tiny_torso(), tiny_spec(), 3), 3)
    assert isinstance(model, Mix)
    return model


@pytest.mark.parametrize("operation", ["sum", "product"])
def test_it_is_the_sum_or_product_of_its_parts(operation: str) -> None:
    mix = make(parts=("e3b", "rnd", "icm"), weights=(1.0, 0.5, 2.0), operation=operation)
    alone: dict[str, WorldModel] = deepcopy(mix.models)
    for seed in range(3):
        trajectory = random_trajectory(seed=seed)
        seen = trajectory, *look(tiny_torso(), trajectory)
        out = mix(*seen)
        outputs = {name: model(*seen) for name, model in alone.items()}
        bonus = {
            name: output.reward / mix.normalisers[name].deviation
            for name, output in outputs.items()
        }
        expected = (
            bonus["e3b"] + 0.5 * bonus["rnd"] + 2 * bonus["icm"]
            if operation == "sum"
            else bonus["e3b"] * bonus["rnd"].sqrt() * bonus["icm"].square()
        )
        close(out.reward, expected, 1e-4)
        close(torch.stack(list(out.parts.values())).sum(0), out.reward, 1e-4)
        close(out.loss, torch.stack([output.loss for output in outputs.values()]).sum(), 1e-4)
        assert not out.reward[~trajectory.real].any()
        assert "rnd_reconstruction" in out.metrics


def test_each_part_pays_what_it_would_pay_alone() -> None:
    """BYOL-Hindsight takes off what was to be expected, BYOL-Explore pays what is above the mean,
    and LPM pays nothing at first.
    """
    mix = make(parts=("byol-hindsight", "byol-explore", "lpm"))
    alone = deepcopy(mix)
    reward = dict.fromkeys(mix.config.parts, torch.zeros(()))
    for seed in range(3):
        trajectory = random_trajectory(seed=seed)
        beliefs, embeddings = look(tiny_torso(), trajectory)
        out = mix(trajectory, beliefs, embeddings)
        loss = torch.zeros(())
        for name, model in alone.models.items():
            each = model(trajectory, beliefs, embeddings)
            config = WORLD_MODELS[name].Config()
            paid = trajectory.real & (seed > 0 or name != "lpm")
            surprise, expected_loss = alone.expected[name](
                each.reward, each.ignorance, paid, trajectory, beliefs
            )
            normaliser = alone.normalisers[name]
            assert isinstance(normaliser, RewardNormaliser)
            assert normaliser.prioritise == config.prioritise
            assert normaliser.absolute_zero == config.absolute_zero
            normaliser.update(surprise, paid, each.ignorance)
            reward[name] = normaliser(surprise, paid)
            loss = loss + config.loss_scale * each.loss + expected_loss
            close(out.parts[name], reward[name])
        close(out.reward, torch.stack(list(reward.values())).sum(0))
        close(out.loss, loss)
    assert list(alone.expected["byol-hindsight"].parameters())
    assert (reward["byol-hindsight"] < 0).any() and (reward["byol-explore"] >= 0).all()


def test_each_part_has_its_own_unit() -> None:
    """E3B pays about 10 at first and RND about 1. In the sum both weigh alike."""
    mix = make(parts=("e3b", "rnd"))
    for seed in range(5):
        trajectory = random_trajectory(seed=seed)
        out = mix(trajectory, *look(tiny_torso(), trajectory))
    sizes = {name: float(part[trajectory.real].std()) for name, part in out.parts.items()}
    assert all(0.3 < size < 3 for size in sizes.values()), sizes


def test_a_bonus_below_zero_counts_as_zero_in_a_product() -> None:
    mix = make(operation="product")
    left, right = torch.tensor([2.0, -1.0]), torch.tensor([3.0, 3.0])
    close(mix.joined({"e3b": left, "rnd": right}), torch.tensor([6.0, 0.0]))


def test_watching_changes_no_part() -> None:
    mix = make(parts=("byol-hindsight", "ngu", "ride"))
    for seed in range(2):
        trajectory = random_trajectory(seed=seed)
        mix(trajectory, *look(tiny_torso(), trajectory))
    before = deepcopy(mix.state_dict())
    states = {name: part.random.get_state() for name, part in mix.models.items()}
    with mix.watching():
        mix(trajectory, *look(tiny_torso(), trajectory))
        mix.inspect(trajectory, *look(tiny_torso(), trajectory))
    assert equal_states(mix.state_dict(), before)
    for name, part in mix.models.items():
        assert torch.equal(part.random.get_state(), states[name]) and part.training


@pytest.mark.parametrize("other", [name for name in WORLD_MODELS if name != "rnd"])
def test_every_bonus_mixes(other: str) -> None:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(6, 4, *VECTOR.shape)).astype(np.float32)
    actions, dones = rng.integers(0, ACTIONS.n, (5, 4)), rng.random((5, 4)) < 0.1
    curiosity = IntrinsicReward(MixConfig(parts=(other, "rnd")), VECTOR, ACTIONS, seed=0)
    state = curiosity.initial_state(4)
    for _ in range(2):
        bonus, after = curiosity.reward(obs, actions, dones, state=state)
        curiosity.update(obs, actions, dones, state=state)
        state = after
    assert np.isfinite(bonus).all() and bonus.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": ("e3b",)}, "parts is 'e3b'; name at least two"),
        ({"parts": ("e3b", "e3b")}, "name at least two bonuses, each once"),
        ({"parts": ("e3b", "dqn")}, "parts has 'dqn'; choose from byol-explore"),
        ({"parts": ("e3b", "mix")}, "parts has 'mix'"),
        ({"weights": (1.0,)}, "weights has 1 numbers for 2 parts"),
        ({"weights": (1.0, 0.0)}, r"weights is \(1.0, 0.0\); all must be above 0"),
        ({"operation": "maximum"}, "unknown world_model.operation 'maximum'; choose from sum"),
        ({"scale_decay": 1.0}, "scale_decay is 1.0"),
        (
            {"parts": ("byol-hindsight", "rnd"), "expected_error": "log"},
            "expected_error is log, but a part of the sum may pay less than nothing",
        ),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixConfig(**settings)  # type: ignore[arg-type]


def test_a_batch_must_suit_every_part() -> None:
    with pytest.raises(ValueError, match="must hold at least a batch"):
        MixConfig(parts=("re3", "rnd")).check_batch(100, 100)
