"""Observations and actions of other spaces than Box and Discrete."""

from __future__ import annotations

import logging
import pickle
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Sequence,
    Space,
    Text,
    Tuple,
)
from gymnasium.vector.utils import batch_space

from afterwit.world_models import IntrinsicBonus, IntrinsicReward
from afterwit.world_models.caller_spaces import actions_of, observations_of, stack

T, B = 5, 3
IMAGE = Box(0, 255, (20, 24, 3), np.uint8)
VIEW = Box(0, 255, (7, 7, 3), np.uint8)  # MiniGrid's
DONES = np.zeros((T, B), bool)


def drawn(space: Space[Any], steps: int) -> Any:
    """Draws of `space`, time-major."""
    batch = batch_space(space, B)
    batch.seed(0)
    return stack([batch.sample() for _ in range(steps)])


def test_integers_become_one_number_for_each_value() -> None:
    reading = observations_of(Discrete(4, start=2))
    assert reading.space.shape == (4,)
    read = reading.read(np.array([[2, 5]]), "obs")
    np.testing.assert_array_equal(read, [[[1, 0, 0, 0], [0, 0, 0, 1]]])
    assert read.dtype == np.float32
    reading = observations_of(MultiDiscrete([[2, 3]]))
    np.testing.assert_array_equal(reading.read(np.array([[[[1, 2]]]]), "obs"), [[[0, 1, 0, 0, 1]]])


@pytest.mark.parametrize(
    "space",
    (
        Box(-1, 1, (2,)),
        Discrete(4, start=2),
        MultiDiscrete([2, 3]),
        MultiBinary(3),
        Dict({"direction": Discrete(4), "image": IMAGE}),
        Tuple([Discrete(3), Dict({"a": Box(-1, 1, (2, 2)), "say": Text(9)})]),
    ),
    ids=str,
)
def test_readings_can_be_pickled_and_copied(space: Space[Any]) -> None:
    reading, values = observations_of(space), drawn(space, T)
    copies = [deepcopy(reading), pickle.loads(pickle.dumps(reading))]
    for copy in copies:
        np.testing.assert_array_equal(copy.read(values, "obs"), reading.read(values, "obs"))
        assert copy.space == reading.space
    if not isinstance(space, Dict | Tuple):
        actions = actions_of(space)
        copy = pickle.loads(pickle.dumps(actions))
        np.testing.assert_array_equal(copy.read(values, "a"), actions.read(values, "a"))


def test_the_parts_of_a_dict_are_joined() -> None:
    space = Dict({"a": Box(-1, 1, (2, 2)), "b": Discrete(3), "c": MultiBinary(2), "say": Text(9)})
    reading = observations_of(space)
    obs = {
        "a": np.arange(8.0).reshape(1, 2, 2, 2),
        "b": np.array([[0, 2]]),
        "c": np.array([[[0, 1], [1, 1]]]),
        "say": np.array([["x", "y"]]),
    }
    expected = [[[0, 1, 2, 3, 1, 0, 0, 0, 1], [4, 5, 6, 7, 0, 0, 1, 1, 1]]]
    np.testing.assert_array_equal(reading.read(obs, "obs"), expected)
    assert reading.space.shape == (9,)
    nested = observations_of(Tuple([Dict({"x": Discrete(2)}), Box(0, 1, (1,))]))
    value = ({"x": np.array([[1]])}, np.array([[[0.5]]]))
    np.testing.assert_allclose(nested.read(value, "obs"), [[[0, 1, 0.5]]])


def test_the_only_image_of_a_dict_is_read_as_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "afterwit"):
        reading = observations_of(Dict({"direction": Discrete(4), "image": IMAGE}))
    assert reading.space is IMAGE and "left out of observations: direction" in caplog.text
    # MiniGrid's view is too small for a picture: a table of categories
    assert observations_of(Dict({"direction": Discrete(4), "image": VIEW})).space.shape == (151,)
    with pytest.raises(ValueError, match=r"several images \(left, right\); choose one"):
        observations_of(Dict({"left": IMAGE, "right": IMAGE}))


def test_actions_of_several_parts_are_told_apart() -> None:
    space = MultiDiscrete([2, 3], start=[0, 1])
    reading = actions_of(space)
    every = np.array([[a, b] for a in range(2) for b in range(1, 4)])
    assert reading.space == Discrete(6)
    assert sorted(reading.read(every[:, None], "actions").ravel().tolist()) == list(range(6))
    bits = actions_of(MultiBinary(3))
    read = bits.read(np.array([[[0, 0, 0], [1, 1, 1]]], np.int8), "actions")
    assert bits.space == Discrete(8) and read.tolist() == [[0, 7]]


@pytest.mark.parametrize("model", ["byol-hindsight", "rnd", "icm", "e3b", "ride"])
@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (Discrete(16), Discrete(4)),
        (MultiDiscrete([3, 4]), MultiDiscrete([2, 3])),
        (Dict({"direction": Discrete(4), "image": VIEW, "mission": Text(5)}), Discrete(7)),
        (Dict({"position": Box(-1, 1, (2,)), "image": IMAGE}), MultiBinary(2)),
        (Tuple([Box(-1, 1, (2,)), MultiBinary(4)]), Discrete(3, start=-1)),
    ],
)
def test_a_bonus_for_every_space(model: str, observation: Space[Any], action: Space[Any]) -> None:
    curiosity = IntrinsicReward(model, observation, action, seed=0)
    obs, actions = drawn(observation, T + 1), drawn(action, T)
    bonus = curiosity.reward(obs, actions, DONES)
    assert bonus.shape == (T, B) and np.isfinite(bonus).all()
    metrics = curiosity.update(obs, actions, DONES)
    assert np.isfinite(list(metrics.values())).all()


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (Discrete(4), np.array([[4]]), r"obs spans 4..4, outside of Discrete\(4\)"),
        (Discrete(4), np.array([[0.5]]), r"obs has dtype float64; Discrete\(4\) holds integers"),
        (Discrete(4), np.array([1]), r"obs has shape \(1,\); it must be \[T \+ 1, B\]"),
        (Dict({"a": Discrete(2)}), np.zeros((1, 1)), "obs is no dict with 'a'"),
        (Dict({"a": Discrete(2)}), {"b": 1}, "obs is no dict with 'a'"),
        (Tuple([Discrete(2)]), (), "obs is no tuple with 0"),
        (
            Dict({"a": Discrete(2), "b": Discrete(2)}),
            {"a": np.zeros((1, 1), int), "b": np.zeros((2, 1), int)},
            r"the parts of obs have lengths \[\(1, 1\), \(2, 1\)\]",
        ),
        (MultiBinary(3), np.zeros((1, 1, 2)), r"obs has shape \(1, 1, 2\)"),
        (Dict({"a": Box(0, 1, (2,))}), {"a": [["x"]]}, r"obs\['a'\] has dtype <U1"),
    ],
)
def test_bad_observations_are_named(space: Space[Any], value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        observations_of(space).read(value, "obs")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Text(5), "observation_space is Text.*; Box, Discrete"),
        (Dict({"a": Text(5), "b": Sequence(Discrete(2))}), "none of its parts holds numbers"),
        (Dict({"a": Discrete(5000), "b": Discrete(2)}), "'a' of the observation space: .*4,096"),
        (Tuple([Dict({"l": IMAGE, "r": IMAGE}), Discrete(2)]), "0 of the .*: .*several images"),
        (Discrete(5000), "at most 4,096 values are supported"),
    ],
)
def test_bad_observation_spaces_are_named(space: Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        observations_of(space)


def test_bad_actions_are_named() -> None:
    with pytest.raises(ValueError, match="MultiDiscrete, MultiBinary and Box are supported"):
        actions_of(Tuple([Discrete(2)]))
    with pytest.raises(ValueError, match="with 8,192 combinations; at most 4,096"):
        actions_of(MultiBinary(13))
    reading = actions_of(MultiDiscrete([2, 3]))
    with pytest.raises(ValueError, match=r"actions spans 0\.\.3, outside of MultiDiscrete"):
        reading.read(np.array([[[0, 3]]]), "actions")
    with pytest.raises(ValueError, match=r"actions \(float64\) has shape .* must be integers"):
        reading.read(np.zeros((1, 1, 2)), "actions")
    with pytest.raises(ValueError, match=r"it must be integers \[T, B, 2\]"):
        reading.read(np.zeros((1, 1, 3), int), "actions")


def test_frozen_lake_and_a_dict_pay_through_the_wrapper() -> None:
    envs = gym.make_vec("FrozenLake-v1", B, vectorization_mode="sync")
    bonus = IntrinsicBonus(envs, "e3b", weight=0.1, update_every=8, seed=0)
    bonus.reset(seed=0)
    bonus.action_space.seed(0)
    paid = [bonus.step(bonus.action_space.sample())[4]["intrinsic_reward"] for _ in range(20)]
    assert np.isfinite(paid).all() and np.any(np.array(paid) > 0)

    class WithClock(gym.ObservationWrapper):  # type: ignore[type-arg]
        observation_space = Dict({"place": Discrete(16), "clock": Box(0, 1, (1,))})

        def observation(self, observation: Any) -> dict[str, Any]:
            return {"place": observation, "clock": np.ones(1, np.float32)}

    def make() -> gym.Env[Any, Any]:
        return WithClock(gym.make("FrozenLake-v1"))

    bonus = IntrinsicBonus(
        gym.vector.SyncVectorEnv([make] * B), "rnd", weight=0.1, update_every=8, seed=0
    )
    bonus.reset(seed=0)
    bonus.action_space.seed(0)
    paid = [bonus.step(bonus.action_space.sample())[4]["intrinsic_reward"] for _ in range(20)]
    assert np.isfinite(paid).all() and np.any(np.array(paid) > 0)


def test_bytes_are_read_alike_alone_and_in_a_dict() -> None:
    bytes_of = np.full((1, 1, 7, 7, 3), 255, np.uint8)
    read = observations_of(Dict({"view": VIEW, "n": Discrete(2)})).read(
        {"view": bytes_of, "n": np.array([[1]])}, "obs"
    )
    assert read.max() == 1 and read.shape == (1, 1, 149)


@pytest.mark.parametrize("part", [Sequence(Discrete(3)), OneOf((Discrete(2), Box(0, 1, (2,))))])
def test_the_wrapper_never_touches_a_part_that_is_left_out(part: Space[Any]) -> None:
    class WithPart(gym.ObservationWrapper):  # type: ignore[type-arg]
        observation_space = Dict({"place": Discrete(16), "part": part})

        def observation(self, observation: Any) -> dict[str, Any]:
            return {"place": observation, "part": part.sample()}

    envs = gym.vector.SyncVectorEnv([lambda: WithPart(gym.make("FrozenLake-v1"))] * B)
    bonus = IntrinsicBonus(envs, "rnd", weight=0.1, update_every=4, seed=0)
    bonus.reset(seed=0)
    bonus.action_space.seed(0)
    for _ in range(9):
        *_, infos = bonus.step(bonus.action_space.sample())
    assert np.isfinite(infos["intrinsic_reward"]).all()
