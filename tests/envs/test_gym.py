"""Gymnasium environments as a VectorEnv, and the maze as a Gymnasium environment."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from afterwit.envs.gym import Gym, GymConfig, GymVector
from afterwit.envs.gym_maze import ID, NoisyMazeVectorEnv, register
from afterwit.envs.maze import NOISES, Maze, MazeConfig
from tests.envs.toys import B, toys

T = 7
VECTOR, IMAGE = Box(-np.inf, np.inf, (4,), np.float64), Box(0, 255, (6, 5, 3), np.uint8)


def test_doubles_become_floats_and_actions_count_from_zero() -> None:
    env = GymVector(toys(VECTOR, Discrete(5, start=-2)), seed=0)
    assert (env.spec.observation_shape, env.spec.observation_dtype, env.spec.num_actions) == (
        (4,),
        "float32",
        5,
    )
    env.reset()
    step = env.step(np.array([0, 2, 4]))
    assert step.observation.dtype == np.float32
    np.testing.assert_array_equal(step.observation[:, 0], [-2, 0, 2])
    np.testing.assert_array_equal(step.reward, np.full(B, 0.1, np.float32))
    assert step.info == {}, "what an environment does not declare is its own"


def test_images_become_channels_first() -> None:
    env = GymVector(toys(IMAGE, Discrete(2)), seed=0)
    assert (env.spec.observation_shape, env.spec.observation_dtype) == ((3, 6, 5), "uint8")
    image = np.arange(90).reshape(6, 5, 3)
    observation = env.reset().observation
    np.testing.assert_array_equal(observation[1], image.transpose(2, 0, 1))
    assert observation.flags.c_contiguous


@pytest.mark.parametrize("shape", [(3, 6, 5), (4, 4, 4), (2, 7, 3)])
def test_images_that_are_channels_first_stay_so(shape: tuple[int, ...]) -> None:
    env = GymVector(toys(Box(0, 255, shape, np.uint8), Discrete(2)), seed=0)
    assert env.spec.observation_shape == shape
    np.testing.assert_array_equal(
        env.reset().observation[1], np.arange(np.prod(shape)).reshape(shape)
    )


def test_an_ending_that_is_both_is_terminal() -> None:
    env = GymVector(toys(VECTOR, Discrete(2), both=True), seed=0)
    env.reset()
    flags = [
        (step.first.tolist(), step.terminal.tolist(), step.truncated.tolist())
        for step in (env.step(np.ones(B, int)) for _ in range(T))
    ]
    on, off = [True] * B, [False] * B
    assert flags == [
        (off, off, off),
        (off, off, off),
        (off, on, off),
        (on, off, off),
        (off, off, off),
        (off, off, off),
        (off, on, off),
    ]


def test_what_does_not_fit_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"SyncVectorEnv has autoreset mode AutoresetMode.SAME_STEP; make it with"
            r" autoreset_mode=AutoresetMode.NEXT_STEP"
        ),
    ):
        GymVector(toys(VECTOR, Discrete(2), AutoresetMode.SAME_STEP), seed=0)
    with pytest.raises(ValueError, match=r"observation space Discrete\(4\); wrap it"):
        GymVector(toys(Discrete(4), Discrete(2)), seed=0)
    with pytest.raises(ValueError, match=r"action space MultiDiscrete\(\[2 3\]\); wrap it"):
        GymVector(toys(VECTOR, MultiDiscrete([2, 3])), seed=0)
    with pytest.raises(
        ValueError, match=r"unknown Gymnasium environment 'CartPol-v1'.*Did you mean: `CartPole`"
    ):
        GymConfig("CartPol-v1")
    with pytest.raises(ValueError, match="no_such_package"):
        GymConfig("no_such_package:Maze-v0")
    with pytest.raises(ValueError, match="num_envs is 0"):
        GymConfig(num_envs=0)
    with pytest.raises(ValueError, match="episode_steps is 0"):
        GymConfig(episode_steps=0)


def test_limits_are_in_the_spec() -> None:
    assert Gym(GymConfig("CartPole-v1", num_envs=2), 0).spec.max_episode_steps == 500
    assert Gym(GymConfig("CartPole-v1", num_envs=2, episode_steps=9), 0).spec.max_episode_steps == 9


def test_neighbouring_seeds_share_no_environment() -> None:
    left, right = (
        Gym(GymConfig("CartPole-v1", num_envs=2), seed).reset().observation for seed in (0, 1)
    )
    assert not (left[1] == right[0]).any()


@pytest.mark.parametrize("noise", NOISES)
def test_the_maze_passes_gymnasiums_checker(noise: str) -> None:
    register()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, noise=noise, render_mode="rgb_array").unwrapped)


def test_one_maze_is_the_batched_maze_of_one() -> None:
    env = gymnasium.make(ID, noise="pixel", dose=0.5, episode_steps=T)
    for seed in (3, 4, 3):
        maze = Maze(MazeConfig(1, "pixel", 0.5, episode_steps=T, stagger=False), seed)
        expected, (observation, info) = maze.reset(), env.reset(seed=seed)
        for action in [4, 4, 0, 1, 2, 3, 4]:
            np.testing.assert_array_equal(observation, expected.observation[0])
            assert info["cell"] == expected.info["cell"][0]
            observation, reward, terminal, truncated, info = env.step(np.int64(action))
            expected = maze.step(np.array([action]))
            assert (reward, terminal, truncated) == (0.0, False, bool(expected.truncated[0]))
        assert truncated
        with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
            env.step(0)


def test_unseeded_mazes_differ_and_a_reset_goes_on() -> None:
    def blocks(env: Any) -> list[int]:
        env.reset()
        return list(env.unwrapped.maze.block_row[0])

    env, other = gymnasium.make(ID), gymnasium.make(ID)
    assert len({tuple(blocks(each)) for each in (env, other, env, other, env, other)}) > 1
    with pytest.raises(gymnasium.error.ResetNeeded):
        gymnasium.make(ID).unwrapped.step(0)


def test_many_mazes_at_once() -> None:
    env = gymnasium.make_vec(
        ID,
        num_envs=8,
        vectorization_mode="vector_entry_point",
        noise="brownian",
        episode_steps=T,
        render_mode="rgb_array",
    )
    assert isinstance(env.unwrapped, NoisyMazeVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    actions = np.random.default_rng(0).integers(5, size=(2 * T, 8))

    def play() -> list[Any]:
        first, info = env.reset(seed=5)
        assert env.observation_space.contains(first) and info["cell"].shape == (8,)
        return [first] + [env.step(action)[0] for action in actions]

    once, again = play(), play()
    assert all(map(np.array_equal, once, again))
    env.reset(seed=5)
    ends = [env.step(action)[3] for action in actions]
    assert [step for step, end in enumerate(ends) if end.any()] == [T - 1]
    assert ends[T - 1].all(), "no staggered first episodes: as with single environments"
    frames: Any = env.render()
    (frame,) = frames
    assert frame.dtype == np.uint8 and frame.ndim == 3

    wrapped = GymVector(gymnasium.make_vec(ID, num_envs=8, episode_steps=T), seed=0)
    own = Maze(MazeConfig(8, "brownian", episode_steps=T, stagger=False), wrapped.seed)
    for left, right in zip(
        [wrapped.reset(), *map(wrapped.step, actions)],
        [own.reset(), *map(own.step, actions)],
        strict=True,
    ):
        np.testing.assert_array_equal(left.observation, right.observation)
        np.testing.assert_array_equal(left.first, right.first)
        np.testing.assert_array_equal(left.info["trackers"], right.info["trackers"])
