"""Noise on any Gymnasium environment: where and when it shows, what it reports, what it keeps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

from afterwit.envs.gym import Gym, GymConfig
from afterwit.envs.gym_noise import NOISES, Noise
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.runs.configs.presets import gym
from afterwit.runs.training.run import Run
from tests.envs.toys import FIRST, FLAT, LAST, Toy

STEPS = 400
VECTOR = Box(-3, 3, (5,), np.float64)
RAM = Box(0, 255, (6,), np.uint8)


def play(
    env: gymnasium.Env[Any, Any], seed: int | None = 0, steps: int = STEPS
) -> list[tuple[Any, int | None, dict[str, Any]]]:
    """Rows (observation, action that led to it or None on resets, info) over several episodes."""
    rng = np.random.default_rng(1)
    assert isinstance(env.action_space, Discrete)
    observation, info = env.reset(seed=seed)
    rows: list[tuple[Any, int | None, dict[str, Any]]] = [(observation, None, info)]
    for _ in range(steps):
        action = int(rng.integers(env.action_space.n))
        observation, _, terminal, truncated, info = env.step(action + env.action_space.start)
        rows.append((observation, action, info))
        if terminal or truncated:
            observation, info = env.reset()
            rows.append((observation, None, info))
    return rows


@pytest.mark.parametrize("noise", NOISES)
def test_a_vector_keeps_its_own_numbers_and_gets_noise_beside_them(noise: str) -> None:
    env, plain = (
        Noise(gymnasium.make("CartPole-v1"), noise, density=1.0),
        gymnasium.make("CartPole-v1"),
    )
    layered, on = noise not in ("none", "sticky"), 0
    for (seen, _, info), (expected, _, _) in zip(play(env), play(plain), strict=noise != "sticky"):
        assert (
            seen.dtype == np.float32
            and seen.shape == ((8,) if layered else (4,))
            and env.observation_space.contains(seen)
        )
        if noise != "sticky":  # an action overridden leads elsewhere
            np.testing.assert_array_equal(seen[:4], expected)
        if layered:
            assert info["noise_on"] == seen[4:].any()
            on += info["noise_on"]
            assert (np.abs(seen[4:]) <= 1).all()
    assert 0 < on < STEPS or not layered


def test_a_games_ram_gets_bytes() -> None:
    rows = play(Noise(Toy(RAM), "pixel", dose=1.0, density=1.0))
    beside = np.stack([seen[6:] for seen, _, _ in rows])
    assert beside.dtype == np.uint8 and 120 < beside.mean() < 135 and beside.max() > 250


@pytest.mark.parametrize("density", [0.25, 0.8])
def test_random_pixels_lie_on_a_share_of_the_picture(density: float) -> None:
    rows = play(Noise(Toy(), "pixel", dose=0.5, density=density))
    noisy = np.stack([seen for seen, _, info in rows if info["noise_on"]])
    clean = np.stack([seen for seen, _, info in rows if not info["noise_on"]])
    assert abs(len(noisy) / len(rows) - 0.5) < 0.08
    assert set(np.unique(clean)) == {0, 1, 2, 3, 100}
    truth = [100 if action is None else action for _, action, info in rows if info["noise_on"]]
    changed = noisy != np.array(truth).reshape(-1, 1, 1, 1)
    # [frames, height, width]: all channels of a pixel are covered together
    covered = changed.any(1)
    assert abs(covered.mean() - density) < 0.02
    # one random byte in 256 is what was there
    assert abs(changed.sum() / covered.sum() / 3 - 255 / 256) < 0.01
    assert len(np.unique(noisy)) == 256


def test_channels_may_come_first_or_last_or_not_at_all() -> None:
    first, last, flat = (play(Noise(Toy(space), "pixel")) for space in (FIRST, LAST, FLAT))
    for left, right in zip(first, last, strict=True):
        np.testing.assert_array_equal(left[0].transpose(1, 2, 0), right[0])
        assert right[0].flags.c_contiguous
    assert all(seen.shape == (8, 7) for seen, _, _ in flat)
    assert any(info["noise_on"] and (seen != seen[0, 0]).any() for seen, _, info in flat)


def test_on_demand_noise_answers_to_one_action_counted_from_zero() -> None:
    rows = play(Noise(Toy(VECTOR, Discrete(4, start=-2)), "on-demand", noise_action=3))
    for _, action, info in rows:
        assert info["noise_on"] == (action == 3)
        assert info["executed_action"] == (0 if action is None else action)
    drawn = [
        info["noise_on"]
        for _, action, info in play(Noise(Toy(), "on-demand", dose=0.5, noise_action=3))
        if action == 3
    ]
    assert 0.3 < np.mean(drawn) < 0.7


def test_sticky_actions_are_executed_and_told() -> None:
    rows = play(Noise(Toy(VECTOR, Discrete(4, start=-2), length=7), "sticky", dose=0.4))
    overridden, previous, first = [], 0, True
    for seen, action, info in rows:
        if action is None:
            assert not info["noise_on"] and info["executed_action"] == 0
            first = True
            continue
        executed = int(seen[0]) + 2
        assert info["executed_action"] == executed in (action, previous)
        assert info["noise_on"] == (executed != action)
        if first:
            assert executed == action
        elif action != previous:
            overridden.append(executed != action)
        previous, first = executed, False
    assert abs(np.mean(overridden) - 0.4) < 0.1


def test_the_frozen_layer_is_one_pattern_in_a_rhythm_whatever_the_seed() -> None:
    rows = play(Noise(Toy(), "frozen"), seed=0, steps=9)
    assert [index for index, (_, _, info) in enumerate(rows) if info["noise_on"]] == [0, 4, 8]
    patterns = [seen for seen, _, info in rows if info["noise_on"]]
    covered = [~np.isin(seen, (0, 1, 2, 3, 100)) for seen in patterns]
    assert all((pattern == covered[0]).all() for pattern in covered)
    other = play(Noise(Toy(), "frozen"), seed=5, steps=9)
    assert all((left[0] == right[0]).all() for left, right in zip(rows, other, strict=True))
    assert covered[0].any() and not covered[0].all()


@pytest.mark.parametrize("noise", NOISES)
def test_seeds_reproduce_and_leave_the_environments_own_numbers_alone(noise: str) -> None:
    env = Noise(Toy(VECTOR), noise)
    once, again, other = play(env, 3), play(env, 3), play(env, 4)
    plain = play(Toy(VECTOR), 3)

    def same(left: list[Any], right: list[Any]) -> bool:
        return all(
            np.array_equal(a[0], b[0]) and a[2]["executed_action"] == b[2]["executed_action"]
            for a, b in zip(left, right, strict=True)
        )

    assert same(once, again)
    assert same(once, other) == (noise in ("none", "frozen"))
    assert [info["drawn"] for _, _, info in once] == [info["drawn"] for _, _, info in plain]


def test_every_environment_of_a_vector_has_its_own_stream() -> None:
    venv = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=3,
        vectorization_mode="sync",
        wrappers=[partial(Noise, noise="pixel", dose=1.0)],
    )
    first, info = venv.reset(seed=0)
    assert first.shape == (3, 8) and info["noise_on"].tolist() == [True] * 3
    assert len({row.tobytes() for row in first[:, 4:]}) == 3
    np.testing.assert_array_equal(first, venv.reset(seed=0)[0])
    assert (first[:, 4:] != venv.reset(seed=7)[0][:, 4:]).any()


def test_no_dose_is_no_noise_in_the_same_shape() -> None:
    for noise in ("pixel", "on-demand", "frozen", "sticky"):
        env = Noise(Toy(VECTOR), noise, dose=0.0)
        rows = play(env)
        assert env.observation_space.shape == ((5,) if noise == "sticky" else (10,))
        assert not any(info["noise_on"] or seen[5:].any() for seen, _, info in rows)
        assert all(action is None or info["executed_action"] == action for _, action, info in rows)


def test_the_environment_below_is_not_silenced_and_not_written_into() -> None:
    def maze() -> gymnasium.Env[Any, Any]:
        return gymnasium.make("afterwit.envs:afterwit/NoisyMaze-v0", noise="sticky", dose=0.5)

    below, above = play(maze()), play(Noise(maze(), "pixel", dose=0.3))
    assert [info["executed_action"] for _, _, info in below] == [
        info["executed_action"] for _, _, info in above
    ]
    assert all(
        upper["noise_on"]
        for (_, _, lower), (_, _, upper) in zip(below, above, strict=True)
        if lower["noise_on"]
    )
    assert sum(info["noise_on"] for _, _, info in above) > sum(
        info["noise_on"] for _, _, info in below
    )

    kept = Toy()
    picture = np.full(FIRST.shape, 9, np.uint8)
    kept.look = lambda number: picture  # type: ignore[method-assign]
    play(Noise(kept, "pixel", dose=1.0))
    assert (picture == 9).all()


@pytest.mark.parametrize("noise", NOISES)
def test_gymnasiums_checker_is_content(noise: str) -> None:
    check_env(Noise(gymnasium.make("CartPole-v1").unwrapped, noise), skip_render_check=True)
    check_env(
        Noise(gymnasium.make("afterwit.envs:afterwit/NoisyMaze-v0").unwrapped, noise),
        skip_render_check=True,
    )


@pytest.mark.parametrize(
    "options, named",
    [
        (
            {"noise": "brownian"},
            "unknown noise 'brownian'; choose from none, pixel, on-demand, frozen, sticky",
        ),
        ({"noise": "pixel", "dose": 1.5}, "dose is 1.5"),
        ({"noise": "pixel", "density": -0.1}, "density is -0.1"),
        ({"noise": "on-demand", "noise_action": -1}, "noise_action is -1"),
        (
            {"noise": "on-demand", "noise_action": 2},
            r"noise_action is 2; the environment has actions 0\.\.1",
        ),
    ],
)
def test_bad_values_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Noise(gymnasium.make("CartPole-v1"), **options)
    with pytest.raises(ValueError, match=named):
        Gym(GymConfig("CartPole-v1", **options), 0)


def test_spaces_that_noise_cannot_lie_on_are_named() -> None:
    with pytest.raises(ValueError, match="vectors or images, not Box"):
        Noise(Toy(Box(-1, 1, (8, 7), np.float32)), "pixel")
    with pytest.raises(ValueError, match="Discrete actions, not Box"):
        Noise(gymnasium.make("Pendulum-v1"), "sticky")
    with pytest.raises(ValueError, match="not Discrete"):
        Noise(gymnasium.make("FrozenLake-v1"), "pixel")
    Noise(gymnasium.make("FrozenLake-v1"), "sticky").reset(seed=0)


def test_the_spec_records_the_noise_and_the_action_that_makes_it() -> None:
    def semantics(**options: Any) -> Any:
        return Gym(GymConfig("CartPole-v1", num_envs=1, **options), 0).spec.semantics

    recorded = semantics(noise="on-demand", noise_action=1)
    assert {name: recorded[name] for name in ("noise", "dose", "density", "noise_action")} == {
        "noise": "on-demand",
        "dose": 1.0,
        "density": 0.5,
        "noise_action": 1,
    }
    assert semantics()["noise"] == "none" and semantics()["noise_action"] is None
    assert semantics(noise="pixel", noise_action=1)["noise_action"] is None
    assert semantics(noise="on-demand", dose=0.0)["noise_action"] is None
    for noise, dose, expected in (
        ("on-demand", None, 0),
        ("on-demand", 0.0, None),
        ("pixel", None, None),
    ):
        assert Maze(MazeConfig(1, noise, dose), 0).spec.semantics["noise_action"] == expected


def test_a_run_counts_the_noise() -> None:
    config = gym()
    run = Run(
        replace(
            config,
            env=GymConfig("CartPole-v1", num_envs=4, noise="on-demand", noise_action=1),
            unroll_length=50,
        )
    )
    run.step()
    assert 0.2 < run.statistics.pop()["share_of_time/noise"] < 0.8
