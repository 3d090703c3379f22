"""The published log: the emulator's frames and RAM, lives as episodes, and the authors' slip."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from afterwit.envs.atari import Atari, AtariConfig
from afterwit.envs.atari_labels import labels_of
from afterwit.runs.representation import published_log as published
from afterwit.runs.representation.frame_log import FrameLog
from afterwit.runs.representation.published_log import published_log

GAME = "MontezumaRevenge"


@cache
def logged() -> FrameLog:
    return published_log(GAME, 0, None, steps=2 * 300, streams=2)


def test_frames_are_full_and_grey_and_actions_are_never_noop() -> None:
    log = logged()
    assert log.obs.shape == (300, 2, 1, 210, 160) and log.obs.dtype == np.uint8
    assert log.num_actions == 18 and set(np.unique(log.action)) == set(range(1, 18))
    assert len(np.unique(log.obs)) < 40  # a palette, not a blend of resized pixels
    assert np.array_equal(log.obs[:50], published_log(GAME, 0, None, 2 * 50, 2).obs)


def test_an_episode_is_a_life() -> None:
    lives, opens = logged().labels["num_lives"].astype(int), logged().first[1:]
    lost, left = np.diff(lives, axis=0) < 0, lives[1:] > 0
    assert opens.sum() > 2 and np.array_equal(opens & left, lost & left)


def test_the_first_labels_of_an_episode_are_of_the_last_frame_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rams: list[Any] = []
    reset = published.Game.reset

    def watched(self: published.Game) -> None:
        before = self.ale.getRAM()
        reset(self)
        rams.append((before, self.ale.getRAM()))

    monkeypatch.setattr(published.Game, "reset", watched)
    log = published_log("Breakout", 0, None, 300, streams=1)
    at = [int(time) for time in np.flatnonzero(log.first[:, 0]) if time]
    assert len(rams) == 1 + len(at) > 2
    slipped = []
    for time, (before, after) in zip(at, rams[1:], strict=True):
        labels = {name: values[time, 0] for name, values in log.labels.items()}
        table = labels_of("Breakout")
        assert labels == {name: before[place] for name, (place, _) in table.items()}
        slipped.append(labels != {name: after[place] for name, (place, _) in table.items()})
    assert any(slipped)


def test_frames_and_labels_are_the_games(monkeypatch: pytest.MonkeyPatch) -> None:
    """EnvPool steps the same game with the same actions: equal RAM, and equal pixels up to grey."""
    shown: list[Any] = []

    def keep(self: published.Game) -> np.ndarray[Any, Any]:
        shown.append(self.screens.max(0).copy())
        return np.zeros((210, 160), np.uint8)

    monkeypatch.setattr(published.Game, "frame", keep)
    monkeypatch.setattr(published, "NOOPS", 1)
    log = published_log("Freeway", 0, None, steps=60, streams=1)
    config = AtariConfig(
        "Freeway",
        num_envs=1,
        sticky=0.0,
        full_action_space=False,
        noop_max=1,
        image_size=210,
        grayscale=False,
        threads=1,
    )
    env = Atari(config, seed=0)
    env.reset()
    actions = [int(each) for each in log.action[:-1, 0]]
    for first_action in range(1, 3):  # of the step before the log, which the log does not hold
        env.over[:] = True
        env.pool.reset()
        env.step(np.array([first_action]))
        assert env.ram is not None
        rams = [env.ram[0].copy()]
        for action in actions:
            env.step(np.array([action]))
            rams.append(env.ram[0].copy())
        labels = {name: np.array([ram[place] for ram in rams]) for name, place in PLACES.items()}
        if all(np.array_equal(labels[name], log.labels[name][:, 0]) for name in PLACES):
            break
    else:
        raise AssertionError("no first action gives the same RAM")
    env.close()
    assert len(shown) == 60 and len({frame.tobytes() for frame in shown}) > 50


PLACES = {"player_y": 14, "score": 103, **{f"enemy_car_x_{i}": 108 + i for i in range(10)}}


def test_a_game_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="Alien has no labels"):
        published_log("Alien", 0, None, 100)
