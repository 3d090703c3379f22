"""ALE's own vector environment and EnvPool play the same games, bit for bit, if they open alike."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from afterwit.envs.arrays import Array
from afterwit.envs.atari import Atari, AtariConfig
from afterwit.envs.specs import TimeStep

ENDING = ("endings", "rooms", "limit")
NAMES = ("observation", "reward", "terminal", "truncated")


def pair(game: str, **settings: Any) -> tuple[Atari, Atari]:
    """EnvPool's and ALE's environment of one config and seed."""
    envpool, ale = (
        Atari(
            AtariConfig(
                game,
                backend=backend,
                **{"num_envs": 6, "noop_max": 1, "image_size": 42, "threads": 1, **settings},
            ),
            0,
        )
        for backend in ("envpool", "ale")
    )
    return envpool, ale


@cache
def opening_frames() -> Array:
    """The number of no-ops with which ALE opens the first episodes, int [B].

    They follow from the seeds and do not depend on the game.
    """
    ale = pair("Pong")[1]
    _, info = ale.pool.games.reset(seed=ale.pool.seeds)
    return np.array(info["episode_frame_number"])  # a copy: ALE takes its buffers back


def rollouts(envpool: Atari, ale: Atari, steps: int) -> tuple[list[TimeStep], list[TimeStep]]:
    random, taken = np.random.default_rng(1), ([envpool.reset()], [ale.reset()])
    for _ in range(steps):
        action = random.integers(0, envpool.spec.num_actions, envpool.spec.num_envs)
        for env, kept in zip((envpool, ale), taken, strict=True):
            kept.append(env.step(action))
    return taken


GAMES = {
    "endings": ("Breakout", {"sticky": 0.0}),
    "sticky": ("Breakout", {"sticky": 0.25}),
    "rooms": ("MontezumaRevenge", {"sticky": 0.25}),
    "rewards": ("Pong", {"sticky": 0.1, "frame_skip": 3}),
    "colours": ("Pong", {"sticky": 0.25, "grayscale": False}),
    "few actions": ("Pong", {"sticky": 0.0, "full_action_space": False, "image_size": 84}),
    "limit": ("Breakout", {"sticky": 0.25, "episode_frames": 150}),
    "noise": ("Pong", {"noise": "walk"}),
}


@pytest.mark.parametrize("name", GAMES)
def test_the_two_agree_bit_for_bit_until_an_episode_ends(name: str) -> None:
    game, settings = GAMES[name]
    alike = opening_frames() == 1
    assert 2 <= alike.sum() < len(alike), (
        "some games have to open alike, and others not, or this shows little"
    )
    envpool, ale = pair(game, **settings)
    assert (
        envpool.spec.observation_shape == ale.spec.observation_shape
        and envpool.spec.action_names == ale.spec.action_names
    )
    compared, differing, going = 0, False, alike.copy()
    steps = 250 if name in (*ENDING, "rewards") else 80
    for one, other in zip(*rollouts(envpool, ale, steps), strict=True):
        for array in NAMES:
            # the frame at the limit differs
            rows = going & ~one.truncated if array == "observation" else going
            np.testing.assert_array_equal(
                getattr(one, array)[rows], getattr(other, array)[rows], err_msg=array
            )
        for value in ("lives", "episode_frames"):
            np.testing.assert_array_equal(one.info[value][going], other.info[value][going])
        assert all(getattr(one, array).dtype == getattr(other, array).dtype for array in NAMES)
        compared += going.sum()
        differing |= bool((one.observation[~alike] != other.observation[~alike]).any())
        going &= ~(one.terminal | one.truncated)
    assert compared > 60
    assert differing, "an opening that differs must show, or the comparison sees nothing"
    assert name not in ENDING or not going[alike].all(), "these are chosen to end"


def test_where_they_differ() -> None:
    """The differences that envs/atari_ale.py lists.

    If a version changes one, its docstring must change too.
    """
    envpool, ale = pair("MontezumaRevenge", frame_stack=2)
    assert set(opening_frames()) == {0, 1}, (
        "0 to noop_max no-ops, where EnvPool takes 1 to noop_max"
    )
    ones, others = envpool.reset(), ale.reset()
    np.testing.assert_array_equal(ones.observation[:, 0], ones.observation[:, 1])
    assert not others.observation[:, 0].any() and others.observation[:, 1].any()
    assert "room" in ones.info and "room" not in others.info
    with pytest.raises(ValueError, match="episodic_life with backend 'ale'"):
        AtariConfig("Breakout", backend="ale", episodic_life=True)
    with pytest.raises(ValueError, match="unknown Atari backend 'gym'; choose from envpool, ale"):
        AtariConfig("Breakout", backend="gym")  # type: ignore[arg-type]
