"""From the raw error to a bonus, and IntrinsicReward, the interface for other agents."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Text
from torch import Tensor

from afterwit.envs.arrays import Array
from afterwit.world_models import WORLD_MODELS, IntrinsicReward
from afterwit.world_models import intrinsic_reward as module
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.reward_normaliser import RewardNormaliser
from tests.helpers import A, B, T, close, random_trajectory, same
from tests.world_models.curiosities import ACTIONS, IMAGE, VECTOR, curiosity, steps

# --- the normaliser


def rewards(seed: int) -> tuple[Tensor, Tensor]:
    """Raw rewards [T, B] and where they are real. The others are large numbers."""
    random = torch.Generator().manual_seed(seed)
    real = (
        random_trajectory(resets=((3, 0), (8, 2), (2, 4))).real
        if seed % 2
        else random_trajectory().real
    )
    raw = torch.rand(T, B, generator=random) * (1 + seed) + 0.1 * seed
    return raw.masked_fill(~real, 1e6), real


class SlowNormaliser:
    """BYOL-Explore (Guo et al., 2022), section 3, in float64, with a floor of 1% of the size.

    It keeps bias-corrected averages of r, r^2 and n = r / sigma.
    """

    def __init__(self, decay: float):
        self.decay, self.updates, self.mean, self.square, self.normalised = decay, 0, 0.0, 0.0, 0.0

    def update(self, values: list[float]) -> None:
        self.updates += 1
        keep, n = self.decay, len(values)
        self.mean = keep * self.mean + (1 - keep) * sum(values) / n
        self.square = keep * self.square + (1 - keep) * sum(x * x for x in values) / n
        self.normalised = (
            keep * self.normalised + (1 - keep) * sum(x / self.sigma for x in values) / n
        )

    @property
    def correction(self) -> float:
        return 1 - self.decay**self.updates

    @property
    def sigma(self) -> float:
        mean, square = self.mean / self.correction, self.square / self.correction
        return math.sqrt(max(square - mean**2, 0) + 1e-4 * square)

    def bonus(self, value: float, prioritise: bool) -> float:
        n = value / self.sigma
        return max(n - self.normalised / self.correction, 0) if prioritise else n


@pytest.mark.parametrize("prioritise", (True, False))
@pytest.mark.parametrize("decay", (0.99, 0.5))
def test_the_bonus_equals_a_float64_loop(prioritise: bool, decay: float) -> None:
    normaliser, slow = RewardNormaliser(prioritise, decay), SlowNormaliser(decay)
    for seed in range(6):
        raw, real = rewards(seed)
        normaliser.update(raw, real)
        slow.update([float(raw[t, b]) for t in range(T) for b in range(B) if real[t, b]])
        assert float(normaliser.deviation) == pytest.approx(slow.sigma, rel=1e-4)
        bonus = normaliser(raw, real)
        expected = [
            [slow.bonus(float(raw[t, b]), prioritise) if real[t, b] else 0.0 for b in range(B)]
            for t in range(T)
        ]
        np.testing.assert_allclose(bonus.numpy(), expected, rtol=1e-3, atol=1e-4)
        if prioritise:
            assert bool((bonus[real] == 0).any()) and bool((bonus[real] > 0).any())


@pytest.mark.parametrize("prioritise", (True, False))
def test_a_batch_of_resets_changes_no_statistic(prioritise: bool) -> None:
    normaliser = RewardNormaliser(prioritise, 0.99)
    for batch in range(2):
        before = deepcopy(normaliser.state_dict())
        raw = torch.full((T, B), 1e6)
        normaliser.update(raw, torch.zeros(T, B, dtype=torch.bool))
        assert all(
            torch.equal(value, before[name]) for name, value in normaliser.state_dict().items()
        ), batch
        assert not normaliser(raw, torch.zeros(T, B, dtype=torch.bool)).any()
        normaliser.update(*rewards(0))


@pytest.mark.parametrize("prioritise", (True, False))
def test_what_is_paid_does_not_depend_on_the_scale_of_the_error(prioritise: bool) -> None:
    raw, real = rewards(0)
    paid = []
    # RND's error falls by orders of magnitude in a run
    for scale in (1.0, 300.0, 1e-3, 1e-6, 1e-9, 1e-12, 1e9):
        normaliser = RewardNormaliser(prioritise, 0.99)
        normaliser.update(scale * raw, real)
        paid.append(normaliser(scale * raw, real))
        torch.testing.assert_close(paid[0], paid[-1], rtol=1e-3, atol=1e-4)
        assert paid[-1].max() > 0.5


@pytest.mark.parametrize("value", (0.0, 1e-9, 1.0, 1e9))
def test_an_error_that_never_varies_pays_a_finite_bonus(value: float) -> None:
    real = random_trajectory().real
    for prioritise in (True, False):
        normaliser = RewardNormaliser(prioritise, 0.99)
        for _ in range(3):
            normaliser.update(torch.full((T, B), value), real)
        bonus = normaliser(torch.full((T, B), value), real)[real]
        close(bonus, torch.full_like(bonus, 0.0 if prioritise or value == 0 else 100.0), 2e-2)


def test_the_normaliser_moves_only_when_told() -> None:
    normaliser = RewardNormaliser(True, 0.99)
    normaliser.update(*rewards(0))
    before = deepcopy(normaliser.state_dict())
    normaliser(*rewards(1))
    assert all(torch.equal(value, before[name]) for name, value in normaliser.state_dict().items())


# --- the facade


def test_the_example_in_the_docstring_runs() -> None:
    found = doctest.testmod(module)
    assert found.attempted >= 8 and found.failed == 0


@pytest.mark.parametrize("space", (VECTOR, IMAGE), ids=("vector", "image"))
@pytest.mark.parametrize("name", WORLD_MODELS)
class TestIntrinsicReward:
    def test_bonuses_are_finite_and_deterministic(self, name: str, space: Box) -> None:
        paid = []
        for _ in range(2):
            intrinsic = curiosity(name, space)
            metrics = [intrinsic.update(*steps(seed, space)) for seed in range(3)]
            bonus = intrinsic.reward(*steps(9, space))
            assert (
                bonus.shape == (T, B)
                and bonus.dtype == np.float32
                and np.isfinite(bonus).all()
                and ((bonus >= 0).all() or not intrinsic.config.prioritise)
            )
            assert bonus.max() > 0
            assert all(
                isinstance(value, float) and math.isfinite(value)
                for row in metrics
                for value in row.values()
            )
            paid.append((bonus, metrics))
        np.testing.assert_array_equal(paid[0][0], paid[1][0])
        assert paid[0][1] == paid[1][1]
        other = curiosity(name, space, seed=1)
        metrics = [other.update(*steps(seed, space)) for seed in range(3)]
        assert metrics != paid[0][1]

    def test_a_restored_one_goes_on_as_the_saved_one(self, name: str, space: Box) -> None:
        intrinsic, other = curiosity(name, space), curiosity(name, space, seed=1)
        intrinsic.update(*steps(0, space))
        other.update(*steps(5, space))
        other.load_state_dict(deepcopy(intrinsic.state_dict()))
        for seed in (1, 2):
            assert intrinsic.update(*steps(seed, space)) == other.update(*steps(seed, space))
            np.testing.assert_array_equal(
                intrinsic.reward(*steps(9, space)), other.reward(*steps(9, space))
            )

    def test_reward_changes_nothing(self, name: str, space: Box) -> None:
        rewarded, silent = curiosity(name, space), curiosity(name, space)
        for each in (rewarded, silent):
            each.update(*steps(0, space))
        before = deepcopy(rewarded.state_dict()["modules"])
        rewarded.reward(*steps(1, space))
        assert same(dict(rewarded.state_dict()["modules"]), dict(before))
        assert rewarded.update(*steps(2, space)) == silent.update(*steps(2, space))


def is_real(dones: Array, t: int, b: int, autoreset: str) -> bool:
    """Whether step t of environment b has an outcome.

    Next-step: the step after an ending only resets. Same-step: the outcome of the ending was
    replaced.
    """
    return not (dones[t - 1, b] if t else False) if autoreset == "next-step" else not dones[t, b]


@pytest.mark.parametrize("autoreset", ("next-step", "same-step"))
@pytest.mark.parametrize("name", WORLD_MODELS)
def test_only_steps_with_an_outcome_are_paid(name: str, autoreset: str) -> None:
    config = WORLD_MODELS[name].Config()
    config = replace(config, prioritise=False, expected_error="off")
    intrinsic = curiosity(config, autoreset=autoreset)
    obs, actions, dones = steps()
    intrinsic.update(obs, actions, dones)
    bonus = intrinsic.reward(obs, actions, dones)
    for t in range(T):
        for b in range(B):
            real = is_real(dones, t, b, autoreset)
            # NovelD pays rises only
            assert (bonus[t, b] > 0) == real or (name in ("noveld", "ama", "lpm") and real), (t, b)
    assert bonus.any()


@pytest.mark.parametrize("prioritise", (True, False))
@pytest.mark.parametrize("name", WORLD_MODELS)
def test_the_bonus_is_the_error_in_units_of_what_updates_saw(name: str, prioritise: bool) -> None:
    if name == "lpm":
        pytest.skip("its first batch pays nothing, so there is no unit yet")
    config = replace(WORLD_MODELS[name].Config(), prioritise=prioritise, expected_error="off")
    intrinsic = curiosity(config, reward_decay=0.9)
    slow = SlowNormaliser(0.9)
    raw: list[Tensor] = []
    intrinsic.model.register_forward_hook(lambda module, inputs, output: raw.append(output.reward))
    obs, actions, dones = steps(9)
    for seed in range(3):
        batch = steps(seed)
        intrinsic.update(*batch)
        slow.update(
            [
                float(raw[-1][t, b])
                for t in range(T)
                for b in range(B)
                if is_real(batch[2], t, b, "next-step")
            ]
        )
        bonus = intrinsic.reward(obs, actions, dones)
        real = np.array([[is_real(dones, t, b, "next-step") for b in range(B)] for t in range(T)])
        expected = [
            [slow.bonus(float(raw[-1][t, b]), prioritise) if real[t, b] else 0.0 for b in range(B)]
            for t in range(T)
        ]
        np.testing.assert_allclose(bonus, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ("byol-explore", "byol-hindsight"))
def test_an_update_moves_the_target_by_its_average(name: str) -> None:
    intrinsic = curiosity(name)
    for seed in range(2):
        before = [p.clone() for p in intrinsic.model.target.slow.parameters()]  # type: ignore[union-attr]
        intrinsic.update(*steps(seed))
        slow = intrinsic.model.target.slow.parameters()  # type: ignore[union-attr]
        for p, old, online in zip(slow, before, intrinsic.torso.encoder.parameters(), strict=True):
            torch.testing.assert_close(p, 0.99 * old + 0.01 * online)
            assert not torch.equal(p, old)


@pytest.mark.parametrize("autoreset", ("next-step", "same-step"))
def test_nothing_is_remembered_across_an_ending(autoreset: str) -> None:
    """An episode has no influence on the bonus of the next one."""
    obs, actions, dones = steps()
    changed, changed_actions = obs.copy(), actions.copy()
    # rows of environment 0 before its ending at t = 2 opens the next episode
    last = 3 if autoreset == "next-step" else 2
    changed[: last + 1, 0] += 1
    changed_actions[: last + 1, 0] = (actions[: last + 1, 0] + 1) % A
    intrinsic = curiosity(BYOLExploreConfig(horizon=2, prioritise=False), autoreset=autoreset)
    intrinsic.update(*steps(1))
    bonus = intrinsic.reward(obs, actions, dones)
    other = intrinsic.reward(changed, changed_actions, dones)
    np.testing.assert_allclose(other[last + 1 :, 0], bonus[last + 1 :, 0], atol=1e-5)
    assert not np.allclose(other[:2, 0], bonus[:2, 0])


def test_an_ending_in_the_last_row_resets_in_the_first_row_of_the_next_call() -> None:
    """Next-step autoreset: the step after a done is not paid, wherever the stream is cut."""
    obs, actions, dones = steps(length=2 * T)
    dones[:] = False
    dones[T - 1, 0] = True
    intrinsic = curiosity(BYOLExploreConfig(prioritise=False))
    intrinsic.update(obs[: T + 1], actions[:T], dones[:T])
    assert intrinsic.reward(obs[T:], actions[T:], dones[T:], dones[T - 1])[0, 0] == 0
    assert intrinsic.reward(obs[T:], actions[T:], dones[T:])[0, 0] != 0


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_only_episode_ends_teach_nothing_and_break_nothing(name: str) -> None:
    intrinsic = curiosity(name, autoreset="same-step")
    intrinsic.update(*steps(0))
    obs, actions, dones = steps(1)
    metrics = intrinsic.update(obs, actions, np.ones_like(dones))
    assert all(math.isfinite(value) for value in metrics.values()) and metrics["loss"] == 0
    assert not intrinsic.reward(obs, actions, np.ones_like(dones)).any()


def test_a_call_starts_from_a_blank_memory() -> None:
    """The first steps of a call are paid as if an episode opened there."""
    intrinsic = curiosity(BYOLExploreConfig(prioritise=False), autoreset="same-step")
    intrinsic.update(*steps(1))
    obs, actions, _ = steps()
    dones = np.zeros((T, B), bool)
    dones[2] = True
    whole = intrinsic.reward(obs, actions, dones)
    alone = intrinsic.reward(obs[3:], actions[3:], dones[3:])
    np.testing.assert_allclose(alone, whole[3:], atol=1e-5)


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_bonus_is_of_order_one_before_the_first_update(name: str) -> None:
    assert curiosity(name).reward(*steps()).max() < 30


@pytest.mark.parametrize("space", [VECTOR, IMAGE], ids=["vector", "image"])
@pytest.mark.parametrize("name", ["rnd", "noveld", "ama", "lpm", "disagreement"])
def test_observations_are_told_apart_before_the_first_update(name: str, space: Box) -> None:
    """Without moments of their own each number above 0.05 was cut to 5, and all looked alike."""
    obs, actions, dones = steps(space=space)
    obs = obs if obs.dtype == np.uint8 else np.abs(obs) + 1
    paid = curiosity(name, space=space).reward(obs, actions, dones)
    assert name == "lpm" or paid.std() > 0.01 * np.abs(paid).mean()
    assert np.abs(paid).max() < 30


def assert_refused(
    change: Callable[[Array, Array, Array], tuple[Array, Array, Array]],
    message: str,
    space: Box = VECTOR,
) -> None:
    intrinsic = curiosity(space=space)
    for call in (intrinsic.update, intrinsic.reward):
        with pytest.raises(ValueError, match=message):
            call(*change(*steps(0, space)))


def test_bad_arrays_are_named() -> None:
    assert_refused(lambda o, a, d: (o, a[0], d[0]), r"actions have shape \(5,\)")
    assert_refused(lambda o, a, d: (o, a, d[:-1]), r"dones \(7, 5\)")
    assert_refused(lambda o, a, d: (o[:-1], a, d), r"obs has shape \(8, 5, 6\).*\(9, 5, 6\)")
    assert_refused(lambda o, a, d: (o.swapaxes(0, 1), a, d), r"obs has shape \(5, 9, 6\)")
    assert_refused(
        lambda o, a, d: (o, a.astype(np.float32), d), r"actions \(float32\) must be integers 0..6"
    )
    assert_refused(lambda o, a, d: (o, a + 1, d), r"integers 0..6, not 1..7")
    assert_refused(lambda o, a, d: (o, a - 1, d), r"integers 0..6, not -1..5")
    assert_refused(lambda o, a, d: (o, a, d.astype(np.uint8)), r"dones has dtype uint8")


@pytest.mark.parametrize("name", WORLD_MODELS)
@pytest.mark.parametrize("bad", (np.nan, np.inf))
def test_an_observation_that_is_not_finite_is_refused_and_leaves_no_trace(
    name: str, bad: float
) -> None:
    intrinsic = curiosity(name)
    intrinsic.update(*steps(0))
    obs, actions, dones = steps(1)
    obs[3, 3, 2] = bad
    before = deepcopy(intrinsic.state_dict()["modules"])
    with pytest.raises((ValueError, FloatingPointError), match="finite"):
        intrinsic.update(obs, actions, dones)
    for key, value in intrinsic.state_dict()["modules"].items():
        assert key.endswith("_extra_state") or torch.equal(value, before[key]), key
    assert math.isfinite(intrinsic.update(*steps(2))["loss"])
    with pytest.raises((ValueError, FloatingPointError), match="finite"):
        intrinsic.reward(obs, actions, dones)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(
    ("name", "bad"), [(name, bad) for name in WORLD_MODELS for bad in (1e30, 1e300)]
)
def test_huge_observations_do_no_lasting_harm(name: str, bad: float) -> None:
    """1e300 is finite in float64 but not in float32. The square of 1e30 is not in float32."""
    intrinsic = curiosity(name)
    intrinsic.update(*steps(0))
    obs, actions, dones = steps(1)
    obs = obs.astype(np.float64)
    obs[3, 3, 2] = bad
    before = deepcopy(intrinsic.state_dict()["modules"])
    try:
        intrinsic.update(obs, actions, dones)
    except (ValueError, FloatingPointError):  # "nothing was changed"
        for key, value in intrinsic.state_dict()["modules"].items():
            assert key.endswith("_extra_state") or torch.equal(value, before[key]), key
    assert math.isfinite(intrinsic.update(*steps(2))["loss"])
    assert np.isfinite(intrinsic.reward(*steps(3))).all()


@pytest.mark.parametrize(
    "previous",
    (np.ones(1, bool), np.ones(B, np.int64), np.full(B, np.nan), np.bool_(True)),
    ids=str,
)
def test_bad_previous_dones_are_named(previous: Array) -> None:
    with pytest.raises(ValueError, match="previous_dones"):
        curiosity().reward(*steps(), previous)


def test_floats_for_a_space_of_bytes_are_refused() -> None:
    """Floats in 0..1 would all become 0 as uint8."""
    assert_refused(lambda o, a, d: (o / 255.0, a, d), "float", IMAGE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: curiosity("byol"), "unknown world model 'byol'; choose from byol-explore"),
        (lambda: curiosity(autoreset="never"), "unknown autoreset 'never'"),
        (lambda: curiosity(space=Text(5)), r"observation_space is Text.*; Box, Discrete"),
        (lambda: IntrinsicReward("rnd", VECTOR, Text(5), seed=0), "action_space is Text"),
        (
            lambda: curiosity(BYOLHindsightConfig(horizon=T + 1)).update(*steps()),
            f"horizon is {T + 1}",
        ),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_config_may_stand_for_a_name_and_the_torso_follows_the_space() -> None:
    intrinsic = IntrinsicReward(
        BYOLHindsightConfig(horizon=2, noise=3), Box(0, 255, (1, 20, 24), np.uint8), ACTIONS, seed=0
    )
    assert intrinsic.torso.config.encoder == "resnet" and intrinsic.name == "byol-hindsight"
    assert IntrinsicReward("rnd", VECTOR, ACTIONS, seed=0).torso.config.encoder == "mlp"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 2, 1, 20, 24), dtype=np.uint8)
    dones = np.zeros((3, 2), bool)
    intrinsic.update(images, rng.integers(0, A, (3, 2)), dones)
    assert intrinsic.reward(images, rng.integers(0, A, (3, 2)), dones).shape == (3, 2)


def test_what_is_seen_again_and_again_pays_less() -> None:
    intrinsic = curiosity(BYOLExploreConfig(prioritise=False), learning_rate=3e-3)
    first = intrinsic.update(*steps(0))["reconstruction"]
    for _ in range(100):
        last = intrinsic.update(*steps(0))["reconstruction"]
    assert last < 0.5 * first


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_the_first_bonus_is_in_the_unit_of_all_later_ones(name: str) -> None:
    """Before the first update the statistics are those of the steps that are paid."""
    intrinsic = curiosity(replace(WORLD_MODELS[name].Config(), prioritise=False))
    obs, actions, dones = steps()
    before = intrinsic.reward(obs, actions, dones)
    if name == "lpm":
        assert not before.any()  # it has nothing to compare with
        return
    real = [[is_real(dones, t, b, "next-step") for b in range(B)] for t in range(T)]
    # in its own deviation; AMA's first rewards lie so far from 0 that the floor of 1% shows
    rel = 0.05 if name == "ama" else 0.01
    assert before[np.array(real)].std() == pytest.approx(1, rel=rel)
    np.testing.assert_array_equal(intrinsic.reward(*steps()), before, "paying changes nothing")
    assert float(intrinsic.normaliser.raw.first.weight) == 0
