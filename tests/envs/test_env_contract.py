"""The contract that every environment must meet.

A new environment gets a class here, with a config whose episodes end soon.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from afterwit.envs import ENVS, EnvConfig, TimeStep, VectorEnv, gym_noise, make_env
from afterwit.envs.atari import AtariConfig
from afterwit.envs.gym import GymConfig
from afterwit.envs.infos import ENTRIES, check_entry
from afterwit.envs.maze import NOISES, MazeConfig
from afterwit.envs.minigrid import MiniGridConfig
from afterwit.envs.noise import TVS

T, B = 41, 3


def rollout(env: VectorEnv, seed: int = 0, steps: int = T) -> list[TimeStep]:
    """The reset, followed by `steps` random steps."""
    rng = np.random.default_rng(seed)
    return [env.reset()] + [
        env.step(rng.integers(env.spec.num_actions, size=env.spec.num_envs)) for _ in range(steps)
    ]


def arrays(step: TimeStep) -> dict[str, Any]:
    named = {
        field.name: getattr(step, field.name)
        for field in dataclasses.fields(step)
        if field.name != "info"
    }
    return {**named, **step.info}


def same(left: TimeStep, right: TimeStep) -> bool:
    left_arrays, right_arrays = arrays(left), arrays(right)
    return left_arrays.keys() == right_arrays.keys() and all(
        np.array_equal(left_arrays[key], right_arrays[key]) for key in left_arrays
    )


class EnvContract:
    """Inherited by one class per environment.

    `config` has B environments whose episodes end within T - 2 steps.
    """

    config: EnvConfig

    @pytest.fixture
    def env(self) -> Iterator[VectorEnv]:
        env = make_env(self.config, seed=1)
        yield env
        env.close()

    def test_spec_can_be_recorded(self, env: VectorEnv) -> None:
        assert env.spec.num_envs == B
        assert env.spec.num_actions >= 2
        assert len(env.spec.action_names) in (0, env.spec.num_actions)
        recorded = json.loads(json.dumps(dict(env.spec.semantics)))
        assert recorded["autoreset"] == "next-step"

    def test_arrays_are_as_the_spec_says(self, env: VectorEnv) -> None:
        assert env.spec.observation_dtype in ("uint8", "float32")
        for step in rollout(env):
            assert step.observation.shape == (B, *env.spec.observation_shape)
            assert step.observation.dtype == env.spec.observation_dtype
            for array, dtype in (
                (step.first, bool),
                (step.reward, np.float32),
                (step.terminal, bool),
                (step.truncated, bool),
            ):
                assert array.shape == (B,)
                assert array.dtype == dtype
            assert all(
                isinstance(array, np.ndarray) and len(array) == B for array in step.info.values()
            )
            assert set(env.spec.tells) == step.info.keys(), "what a world tells, it declares"
            for key, array in step.info.items():
                assert array.dtype == (bool if ENTRIES[key].flag else np.int64)
                np.testing.assert_array_equal(
                    check_entry(env.spec.name, key, array, B, env.spec.semantics.get("cells")),
                    array,
                )

    def test_reset_opens_episodes_at_any_time(self, env: VectorEnv) -> None:
        for steps in (0, 4):
            step = rollout(env, steps=steps)[0]
            assert step.first.all()
            assert not step.reward.any() and not step.terminal.any() and not step.truncated.any()
        assert not env.step(np.zeros(B, np.int64)).first.any()

    def test_the_step_after_an_ending_resets_and_does_nothing_else(self, env: VectorEnv) -> None:
        steps = rollout(env)
        endings = 0
        for before, after in itertools.pairwise(steps):
            over = before.terminal | before.truncated
            endings += over.sum()
            np.testing.assert_array_equal(after.first, over)
            assert (
                not after.reward[over].any()
                and not after.terminal[over].any()
                and not after.truncated[over].any()
            )
        assert endings >= B, "the config must end episodes, or this shows nothing"

    def test_the_step_after_an_ending_ignores_its_action(self, env: VectorEnv) -> None:
        other = make_env(self.config, seed=1)
        rng, before = np.random.default_rng(0), env.reset()
        assert same(before, other.reset())
        differed = 0
        for _ in range(T):
            action = rng.integers(env.spec.num_actions, size=B)
            over = before.terminal | before.truncated
            differed += over.sum()
            before = env.step(action)
            assert same(
                before, other.step(np.where(over, (action + 1) % env.spec.num_actions, action))
            )
        assert differed >= B
        other.close()

    def test_an_ending_is_a_terminal_or_a_limit(self, env: VectorEnv) -> None:
        length, limit = np.zeros(B, int), env.spec.max_episode_steps
        assert limit is not None
        for step in rollout(env):
            assert not (step.terminal & step.truncated).any()
            length = np.where(step.first, 0, length + 1)
            assert (length <= limit).all()
            assert (length[step.truncated] == limit).all()
            assert (step.terminal | step.truncated)[length == limit].all()

    def test_seeds_reproduce_and_differ(self, env: VectorEnv) -> None:
        twin, stranger = make_env(self.config, seed=1), make_env(self.config, seed=2)
        steps = rollout(env)
        assert all(map(same, steps, rollout(twin)))
        assert not all(map(same, steps, rollout(stranger)))
        assert any((step.observation[0] != step.observation[1]).any() for step in steps), (
            "environments must not be seeded alike"
        )
        twin.close()
        stranger.close()

    def test_bad_actions_are_named_and_cost_nothing(self, env: VectorEnv) -> None:
        good, count = np.zeros(B, np.int64), env.spec.num_actions
        expected = rollout(make_env(self.config, seed=1), steps=2)
        with pytest.raises(RuntimeError, match="reset"):
            env.step(good)
        rng = np.random.default_rng(0)
        assert same(env.reset(), expected[0])
        for step in expected[1:]:
            for bad, named in (
                (good.astype(np.float32), "float32"),
                (np.array([0, count, 0]), str(count)),
                (np.array([0, -1, 10**6]), "-1..1000000"),
                (np.zeros(B - 1, np.int64), r"\(2,\)"),
                (np.zeros((B, 1), np.int64), r"\(3, 1\)"),
                (np.array(0), r"\(\)"),
            ):
                with pytest.raises(ValueError, match=named):
                    env.step(bad)
            assert same(env.step(rng.integers(count, size=B)), step)

    def test_what_was_returned_stays_as_it_was(self, env: VectorEnv) -> None:
        kept = rollout(env)
        copies = [{key: array.copy() for key, array in arrays(step).items()} for step in kept]
        rollout(env, seed=1)
        for step, copy in zip(kept, copies, strict=True):
            for key, array in arrays(step).items():
                np.testing.assert_array_equal(array, copy[key], err_msg=key)

    def test_writing_into_what_was_returned_changes_nothing(self, env: VectorEnv) -> None:
        twin = make_env(self.config, seed=1)
        rng = np.random.default_rng(0)
        env.reset(), twin.reset()
        for _ in range(T):
            action = rng.integers(env.spec.num_actions, size=B)
            step = env.step(action)
            assert same(step, twin.step(action.copy()))
            for array in (*arrays(step).values(), action):
                array[...] = 1
        twin.close()

    def test_render_is_an_image(self, env: VectorEnv) -> None:
        env.reset()
        image = env.render()
        assert image.dtype == np.uint8
        assert image.ndim == 3 and image.shape[2] == 3
        assert len(np.unique(image)) > 1


class TestQuietMaze(EnvContract):
    config = MazeConfig(B, "none", episode_steps=20, stagger=False)


class TestBrownianMaze(EnvContract):
    config = MazeConfig(B, "brownian", episode_steps=20, stagger=False)


class TestMazeOfBranches(EnvContract):
    config = MazeConfig(B, "brownian", episode_steps=20, stagger=False, layout="branches")


class TestPixelMaze(EnvContract):
    config = MazeConfig(B, "pixel", episode_steps=20, stagger=False)


class TestOnDemandMaze(EnvContract):
    config = MazeConfig(B, "on-demand", episode_steps=20, stagger=False)


class TestFrozenMaze(EnvContract):
    config = MazeConfig(B, "frozen", episode_steps=20, stagger=False)


class TestStickyMaze(EnvContract):
    config = MazeConfig(B, "sticky", episode_steps=20, stagger=False)


class TestMontezuma(EnvContract):
    config = AtariConfig(num_envs=B, episode_frames=20 * 4, threads=1)


class TestColourfulStackedPong(EnvContract):
    config = AtariConfig(
        "Pong",
        num_envs=B,
        sticky=0.1,
        frame_stack=2,
        grayscale=False,
        image_size=42,
        episode_frames=20 * 4,
        threads=2,
    )


class TestColourfulStackedPongOnALE(EnvContract):
    config = AtariConfig(
        "Pong",
        num_envs=B,
        frame_stack=2,
        grayscale=False,
        image_size=42,
        episode_frames=20 * 4,
        threads=2,
        backend="ale",
        noise="pixel",
    )


class TestStackedQbertWithSound(EnvContract):
    config = AtariConfig(
        "Qbert",
        num_envs=B,
        sticky=0.25,
        frame_stack=2,
        image_size=42,
        episode_frames=20 * 4,
        backend="sound",
        noise="on-demand",
    )


class NotDrawn:
    """CartPole draws with pygame, which is not installed here.

    The other environments below are drawn through Gymnasium.
    """

    def test_render_is_an_image(self, env: VectorEnv) -> None:
        env.reset()
        with pytest.raises(RuntimeError, match="rgb_array"):
            env.render()


class TestMazeOfGymnasiums(EnvContract):
    config = GymConfig(
        "afterwit.envs:afterwit/NoisyMaze-v0",
        num_envs=B,
        episode_steps=20,
        kwargs=("noise=brownian",),
        render=True,
    )


class TestCartPole(NotDrawn, EnvContract):
    config = GymConfig("CartPole-v1", num_envs=B, episode_steps=20)


class TestPixelCartPole(NotDrawn, EnvContract):
    config = GymConfig("CartPole-v1", num_envs=B, episode_steps=20, noise="pixel")


class TestFrozenCartPole(NotDrawn, EnvContract):
    config = GymConfig("CartPole-v1", num_envs=B, episode_steps=20, noise="frozen")


class TestMazeThroughGymnasium(EnvContract):
    config = GymConfig(
        "afterwit.envs:afterwit/NoisyMaze-v0", num_envs=B, episode_steps=20, render=True
    )


class TestPixelMazeThroughGymnasium(EnvContract):
    config = GymConfig(
        "afterwit.envs:afterwit/NoisyMaze-v0",
        num_envs=B,
        episode_steps=20,
        render=True,
        noise="pixel",
    )


class TestOnDemandMazeThroughGymnasium(EnvContract):
    config = GymConfig(
        "afterwit.envs:afterwit/NoisyMaze-v0",
        num_envs=B,
        episode_steps=20,
        render=True,
        noise="on-demand",
        noise_action=1,
    )


class TestStickyMazeThroughGymnasium(EnvContract):
    config = GymConfig(
        "afterwit.envs:afterwit/NoisyMaze-v0",
        num_envs=B,
        episode_steps=20,
        render=True,
        noise="sticky",
    )


class TestTVOff(EnvContract):
    config = MiniGridConfig(num_envs=B, episode_steps=20, render=True, tv="off")


class TestTVAlways(EnvContract):
    config = MiniGridConfig(num_envs=B, episode_steps=20, render=True, tv="always")


class TestTVOnDemand(EnvContract):
    config = MiniGridConfig(num_envs=B, episode_steps=20, render=True, tv="on-demand")


class TestMiniGridsOwn(EnvContract):
    config = MiniGridConfig(
        "minigrid:MiniGrid-DoorKey-5x5-v0",
        num_envs=B,
        episode_steps=20,
        render=True,
        noise="pixel",
        labels=True,
    )


def test_every_registered_environment_is_under_contract() -> None:
    configs = [contract.config for contract in EnvContract.__subclasses__()]
    assert {config_type for config_type, _ in ENVS.values()} == {type(config) for config in configs}
    assert {config.noise for config in configs if isinstance(config, MazeConfig)} == set(NOISES)
    assert {config.noise for config in configs if isinstance(config, GymConfig)} == set(
        gym_noise.NOISES
    )
    assert {config.tv for config in configs if isinstance(config, MiniGridConfig)} == set(TVS)


def test_a_config_of_no_environment_is_refused() -> None:
    with pytest.raises(
        TypeError, match="type dict; give one of MazeConfig, AtariConfig, GymConfig"
    ):
        make_env({}, 0)  # type: ignore[arg-type]
