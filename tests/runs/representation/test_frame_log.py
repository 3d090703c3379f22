"""Logs of frames: they are what the environments did, and files that are whole or refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from afterwit.envs.arrays import Array
from afterwit.envs.atari import Atari, AtariConfig
from afterwit.envs.atari_labels import labels_of
from afterwit.envs.gym import GymConfig
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.runs.representation.frame_log import HEADER, FrameLog, log_game, read_log, save_log
from tests.runs.representation.logs import made_up


def same(one: FrameLog, other: FrameLog) -> bool:
    arrays = [(one.obs, other.obs), (one.action, other.action), (one.first, other.first)]
    arrays += [(one.labels[name], other.labels[name]) for name in one.labels]
    arrays += [] if one.sound is None or other.sound is None else [(one.sound, other.sound)]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays) and (
        one.categories,
        one.num_actions,
        one.meta,
        one.sound is None,
    ) == (other.categories, other.num_actions, other.meta, other.sound is None)


@pytest.mark.parametrize("with_sound", (False, True))
def test_what_is_read_is_what_was_written(with_sound: bool, tmp_path: Path) -> None:
    log = made_up()
    if with_sound:
        log = replace(log, sound=np.full((40, 4, 4, 512), 128, np.uint8))
    save_log(log, tmp_path / "log")
    found = read_log(tmp_path / "log")
    assert same(found, log) and isinstance(found.obs, np.memmap)
    with pytest.raises(ValueError, match="exists; choose another"):
        save_log(log, tmp_path / "log")


def test_a_log_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    log = replace(made_up(), meta={"odd": object()})
    with pytest.raises(TypeError):
        save_log(log, tmp_path / "log")
    assert not list(tmp_path.iterdir())


def cut(folder: Path) -> None:
    (folder / "obs.npy").write_bytes((folder / "obs.npy").read_bytes()[:-100])


def lose(folder: Path) -> None:
    (folder / "label luck.npy").unlink()


def exchange(folder: Path) -> None:
    shutil.copy(folder / "first.npy", folder / "action.npy")


def scribble(folder: Path) -> None:
    (folder / HEADER).write_text("{")


def empty(folder: Path) -> None:
    (folder / HEADER).write_text("{}")


def grow(folder: Path) -> None:
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps(header | {"format": 99}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, r"obs\.npy is damaged"),
        (lose, r"label luck\.npy is damaged or missing"),
        (exchange, r"action\.npy holds bool"),
        (scribble, r"log\.json is damaged"),
        (empty, r"log\.json is damaged"),
        (grow, "newer version"),
        (lambda folder: shutil.rmtree(folder), "is no log of frames"),
    ],
)
def test_a_damaged_log_is_named(damage: object, words: str, tmp_path: Path) -> None:
    save_log(made_up(), tmp_path / "log")
    assert callable(damage)
    damage(tmp_path / "log")
    with pytest.raises(ValueError, match=words) as caught:
        read_log(tmp_path / "log")
    assert "\n" not in str(caught.value)


def test_parts_must_fit() -> None:
    log = made_up()
    with pytest.raises(ValueError, match="action of a log has shape"):
        replace(log, action=log.action[1:])
    with pytest.raises(ValueError, match="different names"):
        replace(log, categories={})


def test_a_game_is_logged_as_it_is_played(tmp_path: Path) -> None:
    """Replayed with the logged actions, the games show the same frames and the same RAM."""
    config = AtariConfig("Freeway", num_envs=2, sticky=0.25, image_size=42, threads=1)
    log = log_game(config, 30, seed=5, folder=tmp_path)
    env = Atari(config, seed=5)
    step = env.reset()
    for time in range(30):
        assert env.ram is not None
        assert np.array_equal(log.obs[time], step.observation)
        assert np.array_equal(log.first[time], step.first)
        for name, (place, _) in labels_of("Freeway").items():
            assert np.array_equal(log.labels[name][time], env.ram[:, place])
        step = env.step(log.action[time])
    env.close()
    assert isinstance(log.obs, np.memmap) and len(np.unique(log.labels["enemy_car_x_0"])) > 20
    assert log.meta["semantics"]["repeat_action_probability"] == 0.25


def test_a_maze_is_logged_with_its_places_and_with_a_given_policy() -> None:
    config = MazeConfig(num_envs=3, episode_steps=9)
    seen = []

    def choose(observation: Array, first: Array) -> Array:
        seen.append(observation)
        return np.full(3, len(seen) % 4)

    log = log_game(config, 25, seed=1, choose=choose)
    env = Maze(config, seed=1)
    step = env.reset()
    for time in range(25):
        assert np.array_equal(log.obs[time], seen[time])
        assert np.array_equal(log.labels["cell"][time], step.info["cell"])
        assert (log.action[time] == (time + 1) % 4).all()
        step = env.step(log.action[time])
    assert log.categories["cell"] == "place" and log.meta["policy"] == "given"


def test_worlds_without_labels_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Alien has no labels"):
        log_game(AtariConfig("Alien", num_envs=1, threads=1), 2, 0)
    with pytest.raises(ValueError, match="backend 'ale' does not tell"):
        log_game(AtariConfig("Pong", num_envs=1, threads=1, backend="ale"), 2, 0)
    with pytest.raises(ValueError, match="declares nothing of its state"):
        log_game(GymConfig("CartPole-v1", num_envs=1), 2, 0)
    with pytest.raises(ValueError, match="steps is 0"):
        log_game(MazeConfig(num_envs=1), 0, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(ValueError, match=r"do not fit .*TMPDIR"):
        log_game(MazeConfig(num_envs=1), 99, 0, folder=tmp_path)
