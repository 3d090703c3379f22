"""The published log: the emulator's frames and RAM, lives as episodes, and the authors' slip."""

from __future__ import annotations

from functools import cache
from typing import Any

import envpool
import numpy as np
import pytest

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


@pytest.mark.parametrize("game", ("Freeway", "Pong"))
def test_frames_and_labels_are_those_of_envpool(game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It steps the same game with the same actions: the same RAM, and the same pixels in colour."""
    monkeypatch.setattr(published, "NOOPS", 1)
    log = published_log(game, 0, None, steps=60, streams=1)
    grey = np.array([0.299, 0.587, 0.114])
    for before in range(1, log.num_actions):  # the action before the log, which it does not hold
        pool = envpool.make(
            f"{game}-v5",
            env_type="gymnasium",
            num_envs=1,
            img_height=210,
            img_width=160,
            gray_scale=False,
            stack_num=1,
            frame_skip=4,
            noop_max=1,
            repeat_action_probability=0.0,
            full_action_space=False,
            use_fire_reset=False,
        )
        pool.reset()
        steps = []
        opening = [1, 2] if game == "Pong" else []  # Pong has FIRE
        for action in (*opening, before, *log.action[:-1, 0]):
            obs, _, _, _, info = pool.step(np.array([action], np.int32))
            steps.append((obs[0], info["ram"][0]))
        steps = steps[len(opening) :]
        pool.close()
        rams = np.stack([ram for _, ram in steps])
        if all((rams[:, p] == log.labels[n][:, 0]).all() for n, (p, _) in labels_of(game).items()):
            seen = np.stack([(obs.transpose(1, 2, 0) @ grey) for obs, _ in steps])
            assert np.abs(seen - log.obs[:, 0, 0]).max() < 0.51
            return
    raise AssertionError("after no first action is the RAM the same")


def test_a_game_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="Alien has no labels"):
        published_log("Alien", 0, None, 100)
