"""Actions that are numbers: how they are read, and that models use them."""

from __future__ import annotations

import math
import sys
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from afterwit.world_models import (
    WORLD_MODELS,
    IntrinsicBonus,
    IntrinsicReward,
    ModelConfig,
    WorldModel,
)
from afterwit.world_models.caller_spaces import actions_of
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.models.icm import ICM, ICMConfig, spread
from tests.helpers import same, tiny_torso_config

T, B = 6, 3
VECTOR, ACTIONS = Box(-3, 3, (4,)), Box(np.array([0.0, -2.0]), np.array([10.0, 2.0]))


def make(model: Any, actions: Box = ACTIONS, **options: Any) -> IntrinsicReward:
    options = {"seed": 0, "torso": tiny_torso_config(), **options}
    return IntrinsicReward(model, VECTOR, actions, **options)


def steps(seed: int = 0, batch: int = B, length: int = T) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    dones = np.zeros((length, batch), bool)
    dones[2, 1] = True
    actions = rng.uniform(ACTIONS.low, ACTIONS.high, (length, batch, 2)).astype(np.float32)
    return rng.normal(size=(length + 1, batch, 4)).astype(np.float32), actions, dones


@pytest.mark.parametrize(
    "model",
    [
        *WORLD_MODELS,
        "mix",
        BYOLExploreConfig(horizon=3, expected_error="difference"),
        BYOLHindsightConfig(purity="critic", generator_reads="outcome", horizon=2),
    ],
    ids=lambda model: model if isinstance(model, str) else type(model).__name__,
)
def test_every_model_pays_learns_and_goes_on_from_what_was_saved(model: Any) -> None:
    curiosity, other = make(model), make(model, seed=1)
    for seed in range(2):
        assert all(map(math.isfinite, curiosity.update(*steps(seed)).values()))
    other.load_state_dict(deepcopy(curiosity.state_dict()))
    bonus, state = curiosity.reward(*steps(2), state=curiosity.initial_state(B))
    assert bonus.shape == (T, B) and np.isfinite(bonus).all()
    again, _ = other.reward(*steps(2), state=other.initial_state(B))
    np.testing.assert_array_equal(again, bonus)
    other.reward(*steps(2), state=state)
    assert all(map(math.isfinite, curiosity.inspect(*steps(2)).values()))
    assert same(curiosity.update(*steps(3)), other.update(*steps(3)))


def test_numbers_are_scaled_to_their_bounds() -> None:
    read = actions_of(ACTIONS).read(np.array([[[0, -2], [10, 2], [7.5, 1]]]), "actions")
    np.testing.assert_array_equal(read, [[[-1, -1], [1, 1], [0.5, 0.5]]])
    assert read.dtype == np.float32
    some = Box(np.array([-np.inf, 0, -3e38, 5]), np.array([np.inf, np.inf, 3e38, 5]), dtype=float)
    read = actions_of(some).read(np.array([[[7.0, 2.0, -9.0, 5.0]]]), "actions")
    np.testing.assert_array_equal(read, [[[7, 2, -9, 0]]])
    shaped = actions_of(Box(-1, 1, (2, 3))).read(np.ones((T, B, 2, 3)), "actions")
    alone = actions_of(Box(-2, 2, ())).read(np.ones((T, B)), "actions")
    assert shaped.shape == (T, B, 6) and (alone == 0.5).all() and alone.shape == (T, B, 1)
    obs, actions, dones = steps()
    one, two = make("byol-explore"), make("byol-explore", Box(-1, 1, (2,)))
    scaled = actions_of(ACTIONS).read(actions, "actions")
    assert one.update(obs, actions, dones) == two.update(obs, scaled, dones)
    np.testing.assert_array_equal(
        one.reward(obs, torch.from_numpy(actions), dones), two.reward(obs, scaled, dones)
    )


def test_a_stream_in_pieces_is_paid_as_the_whole_stream() -> None:
    curiosity, (obs, actions, dones) = make("byol-explore", autoreset="same-step"), steps()
    curiosity.update(obs, actions, dones)
    final = {"final_observations": np.ones((T, B, 4))}
    whole, _ = curiosity.reward(obs, actions, dones, state=curiosity.initial_state(B), **final)
    for cut in range(1, T):
        state, paid = curiosity.initial_state(B), []
        for start, stop in ((0, cut), (cut, T)):
            piece = obs[start : stop + 1], actions[start:stop], dones[start:stop]
            final = {"final_observations": np.ones((stop - start, B, 4))}
            bonus, state = curiosity.reward(*piece, state=state, **final)
            paid.append(bonus)
        np.testing.assert_allclose(np.concatenate(paid), whole, atol=1e-4)
        scaled = actions_of(ACTIONS).read(actions[-1:], "actions")[0]
        np.testing.assert_array_equal(state.action.numpy(), scaled)


def moved(seed: int, shuffled: bool) -> tuple[Any, Any, Any]:
    """Steps of a linear world: the next observation is a known function of the action alone."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (16, 8, 2)).astype(np.float32)
    pushed = actions @ np.array([[1, 0.5, -1, 0], [0, 1, 1, -0.5]], np.float32)
    obs = np.concatenate([np.zeros((1, 8, 4), np.float32), pushed])
    if shuffled:
        actions = rng.permutation(actions.reshape(-1, 2)).reshape(actions.shape)
    return obs, actions, np.zeros((16, 8), bool)


@pytest.mark.parametrize("shuffled", (False, True))
def test_what_the_action_tells_is_not_paid_for_ever(shuffled: bool) -> None:
    """In units of a model that knows nothing: it is learned if the action is given, and only so."""
    byol, icm = (
        make(config, Box(-1, 1, (2,)), learning_rate=1e-2)
        for config in (BYOLExploreConfig(), ICMConfig(forward_weight=0.5))
    )
    for seed in range(50):
        batch = moved(seed, shuffled)
        byol.update(*batch), icm.update(*batch)
    obs, actions, dones = moved(1000, shuffled)
    left, metrics = (
        byol.update(obs, actions, dones)["reconstruction"],
        icm.update(obs, actions, dones),
    )
    assert isinstance(icm.model, ICM)
    features = icm.model.features(torch.from_numpy(obs))[1:]
    unpredicted = metrics["reconstruction"] / float(spread(features, torch.ones(16, 8) > 0))
    if shuffled:
        assert left > 0.6 and unpredicted > 0.8
        # the square error of the best guess, which is the variance of uniform numbers
        assert metrics["inverse"] == pytest.approx(1 / 3, rel=0.1)
    else:
        assert left < 0.1 and unpredicted < 0.1 and metrics["inverse"] < 0.02


@pytest.mark.parametrize("mode", (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP))
@pytest.mark.parametrize("model", ("byol-hindsight", "ngu"))
def test_pendulum_through_the_wrapper(model: str, mode: AutoresetMode) -> None:
    envs = gym.make_vec(
        "Pendulum-v1",
        B,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        max_episode_steps=7,
    )
    bonus = IntrinsicBonus(envs, model, weight=0.5, update_every=8, seed=0)
    bonus.reset(seed=0)
    bonus.action_space.seed(0)
    paid = []
    for _ in range(30):
        _, rewards, _, _, infos = bonus.step(bonus.action_space.sample())
        paid.append(infos["intrinsic_reward"])
        np.testing.assert_allclose(rewards, infos["extrinsic_reward"] + 0.5 * paid[-1])
    assert np.isfinite(paid).all() and np.any(paid) and bonus.metrics
    with pytest.raises(ValueError, match=r"actions has 3, but number 0 .* -2\.\.2; clip"):
        bonus.step(np.full((B, 1), 3, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a * np.nan, "actions has nan; actions must be finite"),
        (lambda a: a + np.array([0, np.inf]), "actions has inf; actions must be finite"),
        (lambda a: a + np.array([0, 5]), r"but number 1 of an action lies in -2\.\.2; clip"),
        (lambda a: a - np.array([10.1, 0]), r"but number 0 of an action lies in 0\.\.10; clip"),
        (lambda a: a[..., :1], r"actions has shape \(6, 3, 1\); it must be \[T, B, 2\]"),
        (lambda a: a[..., 0], r"actions has shape \(6, 3\); it must be \[T, B, 2\]"),
        (lambda a: a[0], r"actions has shape \(3, 2\); it must be \[T, B, 2\]"),
        (lambda a: a[1:], r"actions have shape \(5, 3\) and dones \(6, 3\)"),
        (lambda a: a.astype(str), "actions has dtype <U"),
    ],
    ids=range(9),
)
def test_bad_actions_are_named(change: Any, message: str) -> None:
    obs, actions, dones = steps()
    curiosity = make("icm")
    for call in (curiosity.reward, curiosity.update):
        with pytest.raises(ValueError, match=message) as raised:
            call(obs, change(actions), dones)
        assert "\n" not in str(raised.value)


def test_rounding_at_the_bounds_is_clipped() -> None:
    at = np.nextafter(np.float32(2), np.float32(3))
    read = actions_of(ACTIONS).read(np.array([[[10.0001, at]]]), "actions")
    np.testing.assert_array_equal(read, [[[1, 1]]])


def test_what_is_not_supported_is_named() -> None:
    for shape in ((0,), (65,)):
        with pytest.raises(ValueError, match=f"a Box of {shape[0]} numbers; 1 to 64 are"):
            make("rnd", Box(-1, 1, shape))
    discrete = IntrinsicReward("rnd", VECTOR, gym.spaces.Discrete(2), 0, tiny_torso_config())
    with pytest.raises(ValueError, match="it must come from initial_state"):
        make("rnd").reward(*steps(), state=discrete.initial_state(B))

    @dataclass(frozen=True)
    class OwnConfig(ModelConfig):
        pass

    class Own(WorldModel):
        Config = OwnConfig

        def forward(self, trajectory: Any, beliefs: Any, embeddings: Any) -> Any: ...

    assert Own.__module__ in sys.modules
    with pytest.raises(ValueError, match=r"Own takes no continuous actions; choose another"):
        make(OwnConfig())
