"""Separation worlds of Atari: kinds by slow definitions on a real log, and mistakes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from afterwit.envs.arrays import Array
from afterwit.envs.atari_config import AtariConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import atari_small
from afterwit.runs.diagnostics import separation
from afterwit.runs.diagnostics.separation import SeparationConfig
from afterwit.runs.diagnostics.separation_atari import ATARI_WORLDS, AtariLogs, any_within
from afterwit.runs.diagnostics.separation_play import Play, draw, keep, read
from afterwit.runs.diagnostics.separation_verdicts import judge_parts, shares
from afterwit.runs.diagnostics.separation_world import FAMILIAR, NOISY, NOVEL, Log, Sizes

pytestmark = pytest.mark.xdist_group("separation_atari")  # they share a log
STEPS = 20
ON_DEMAND = ATARI_WORLDS["private-eye-on-demand"]


@pytest.fixture(scope="module")
def play() -> Play:
    """A log that leads through at least three rooms."""
    return draw(ON_DEMAND.config(), 300, seed=0)


def logs_of(play: Play) -> AtariLogs:
    """Return logs whose observations are time and game instead of a frame."""
    length, games = play.first.shape
    marks = np.stack(np.broadcast_arrays(np.arange(length)[:, None], np.arange(games)), -1)
    return AtariLogs(ON_DEMAND, replace(play, obs=marks))


def judged(play: Play) -> list[Log]:
    return logs_of(play).judged_logs(STEPS, 16, np.random.default_rng(0))


def familiar_rooms(play: Play) -> set[int]:
    """Return the most visited rooms until they hold 80% of all observations, by a loop."""
    rooms, held = set[int](), 0
    for room, visits in Counter(play.room.ravel().tolist()).most_common():
        if held >= 0.8 * play.room.size:
            break
        rooms.add(room)
        held += visits
    return rooms


def is_crossing(play: Play, t: int, b: int) -> bool:
    """Whether step t of game b leads from a familiar room into another familiar one."""
    if not 0 <= t < len(play.action) or play.first[t + 1, b]:
        return False
    rooms = {int(play.room[t, b]), int(play.room[t + 1, b])}
    return len(rooms) == 2 and rooms <= familiar_rooms(play)


def first_steps(play: Play, steps: int) -> Play:
    rows = {field.name: getattr(play, field.name)[: steps + 1] for field in fields(Play)}
    return Play(**rows | {"action": play.action[:steps]})


def test_training_stays_in_familiar_rooms_of_the_first_games(play: Play) -> None:
    logs, random = logs_of(play), np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        log = logs.training_log(STEPS, 16, random)
        assert log.action.shape == (STEPS, 16) and not log.done.any()
        time, game = log.obs[..., 0], log.obs[..., 1]
        assert (np.diff(time, axis=0) == 1).all() and (game == game[0]).all()
        assert (game < 12).all() and not play.first[time[1:], game[1:]].any()
        np.testing.assert_array_equal(log.action, play.action[time[:-1], game[:-1]])
        seen |= set(play.room[time, game].ravel().tolist())
    assert seen == familiar_rooms(play) and seen < set(play.room.ravel().tolist())


def test_kinds_are_what_the_module_says(play: Play) -> None:
    familiar, found = familiar_rooms(play), Counter[int]()
    for log in judged(play):
        for k, b in np.argwhere(log.kind >= 0):
            t, game = log.obs[k, b]
            kind = log.kind[k, b]
            assert k >= STEPS // 4 and not play.first[t + 1, game]
            assert log.action[k, b] == play.action[t, game]
            outcome = int(play.room[t + 1, game])
            near_a_crossing = any(is_crossing(play, t + d, game) for d in range(-2, 3))
            is_noisy = near_a_crossing or play.action[t, game] == 0
            if kind == NOVEL:
                rooms = play.room[: t + 2, game].tolist()  # up to the outcome
                since = next(k for k in range(t + 1) if rooms[-2 - k] in familiar)
                assert outcome not in familiar and play.action[t, game] != 0 and since <= 2
                assert log.parts["entry"][k, b] == (since == 0)
            else:
                assert game >= 12 and outcome in familiar and kind == (NOISY if is_noisy else 0)
                assert log.parts["border"][k, b] == near_a_crossing
                assert log.parts["crossing"][k, b] == is_crossing(play, t, game)
                assert log.parts["no-op"][k, b] == (play.action[t, game] == 0)
            found[int(kind)] += 1
    assert found[FAMILIAR] > 500 and found[NOISY] > 40 and found[NOVEL] >= 12


def test_no_step_is_judged_twice(play: Play) -> None:
    steps = Counter(
        tuple(mark) for log in judged(play) for mark in log.obs[:-1][log.kind >= 0].tolist()
    )
    assert set(steps.values()) == {1}


def test_without_noise_no_ops_are_like_other_actions(play: Play) -> None:
    quiet = AtariLogs(ATARI_WORLDS["private-eye"], play)
    logs = quiet.judged_logs(STEPS, 16, np.random.default_rng(0))
    assert not any(log.parts["no-op"].any() for log in logs)
    assert any((log.action[log.kind >= 0] == 0).any() for log in logs)
    assert not any((log.action[log.kind == NOVEL] == 0).any() for log in judged(play))


def test_the_same_seed_gives_the_same_log(tmp_path: Path) -> None:
    noisy = replace(ON_DEMAND.config(), num_envs=2)
    log, again = draw(noisy, 90, seed=0), draw(noisy, 90, seed=0)
    keep(log, tmp_path / "log")
    for name in ("obs", "first", "action", "room", "cell"):
        for other in (again, read(tmp_path / "log")):
            np.testing.assert_array_equal(getattr(log, name), getattr(other, name))
    quiet = draw(replace(noisy, noise="none"), 90, seed=0)
    np.testing.assert_array_equal(quiet.cell, log.cell)
    covered = (quiet.obs[1:] != log.obs[1:]).any((2, 3, 4))
    np.testing.assert_array_equal(covered, log.action == 0)
    assert covered.any() and (draw(noisy, 9, seed=1).obs != log.obs[:10]).any()


def test_one_room_is_divided_into_squares() -> None:
    """Square 3 is seldom visited, and a change between squares is no noise."""
    cell = np.zeros((200, 16), np.int64)
    cell[np.arange(200) % 50 > 10] = 2
    cell[np.arange(200) % 50 > 40] = 3
    room, first = np.ones_like(cell), np.zeros(cell.shape, bool)
    action = np.random.default_rng(0).integers(18, size=(199, 16))
    play = Play(np.zeros((200, 16, 1, 42, 42), np.uint8), first, action, room, cell)
    logs = AtariLogs(ATARI_WORLDS["montezuma-on-demand"], play)
    assert logs.facts == {"places": "squares", "familiar_places": [0, 2], "held_out_places": [3]}
    assert not logs.border.any() and logs.entered.any()


def test_any_within_equals_a_loop() -> None:
    values: Array = np.random.default_rng(0).random((9, 3)) < 0.2
    expected = [values[t : t + 4].any(0) for t in range(6)]
    np.testing.assert_array_equal(any_within(values, 4), expected)


def test_shares_of_pay_and_time() -> None:
    noise = shares(np.array([3.0, -9.0]), np.array([1.0, -1.0, 0.0]))
    assert noise == {"pay": 0.75, "time": 0.4}
    assert shares(np.array([-1.0]), np.array([0.0]))["pay"] == 0
    paid, kind = np.array([4.0, 1.0, 1.0, 4.0, 9.0]), np.array([NOISY, NOISY, 0, NOVEL, -1])
    parts = {"a": np.arange(5) != 1, "none": np.zeros(5, bool), "entry": np.arange(5) > 2}
    assert judge_parts(paid, kind, parts) == {
        "a": {"pay": 4 / 6, "time": 1 / 3, "mean": 4.0, "count": 1},
        "entry": {"mean": 4.0, "count": 1, "auc": {"a": 0.5}},
    }
    assert judge_parts(paid, kind, {}) == {}


def test_sizes_are_those_of_the_world_unless_an_option_says_otherwise(play: Play) -> None:
    config = SeparationConfig(models=("rnd",), worlds=("jump", "private-eye"), updates=7)
    assert config.sizes("jump") == Sizes(updates=7, steps=10, batch=64)
    assert config.sizes("private-eye") == Sizes(updates=7, steps=20, batch=16)
    assert not set(SeparationConfig().worlds) & set(ATARI_WORLDS)
    assert logs_of(play).torso == atari_small().learner.torso


@pytest.mark.slow
def test_models_share_one_log(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(separation, "draw", lambda *args: drawn.append(args) or play)
    options = "--models rnd icm --worlds private-eye-on-demand --seeds 1 --updates 3 --jobs 1"
    out = tmp_path / "numbers.json"
    words = [*options.split(), "--log-steps", "4800", "--out", str(out)]
    assert main(["benchmark", "--separation", *words]) == 0
    assert drawn == [(ON_DEMAND.config(), 300, 0)]
    assert "3 updates of 20 steps x 16 environments" in capsys.readouterr().out
    runs = json.loads(out.read_text())["runs"]
    assert runs[0]["count"] == runs[1]["count"] and runs[0]["auc"] != runs[1]["auc"]
    assert set(runs[0]["familiar_places"]) == familiar_rooms(play)
    assert 0 < runs[0]["noise"]["time"] < runs[0]["noise"]["pay"] < 1
    assert set(runs[0]["parts"]) == {"border", "crossing", "no-op", "entry"}


MISTAKES = {
    "pong": (["--worlds", "pong"], "unknown world 'pong'; choose from pixels, "),
    "log": (["--worlds", "pitfall", "--log-steps", "9"], "log_steps is 9; it must be at least 16"),
    "sizes": (
        ["--worlds", "pitfall", "--byol-explore.horizon", "21"],
        "byol-explore: world_model.horizon is 21",
    ),
    "short": (
        ["--worlds", "private-eye", "--jobs", "1"],
        "PrivateEye's log has no familiar steps to judge; set a larger log_steps",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(
    name: str, play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args, message = MISTAKES[name]
    monkeypatch.setattr(separation, "draw", lambda *args: first_steps(play, STEPS - 1))
    assert main(["benchmark", "--separation", *args]) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.strip().splitlines()) == 1


def test_a_game_needs_rooms() -> None:
    with pytest.raises(
        ValueError, match="the rooms of Pong are not known; choose from BankHeist, "
    ):
        draw(AtariConfig(game="Pong"), 10, seed=0)


def test_stretches_without_a_familiar_place_are_named(play: Play) -> None:
    logs = logs_of(play)
    with pytest.raises(ValueError, match="no 301 steps of PrivateEye's log stay in familiar"):
        logs.training_log(301, 16, np.random.default_rng(0))
