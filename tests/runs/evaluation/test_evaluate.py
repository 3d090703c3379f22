"""Evaluation: changed rules, human-normalised scores, counted places, and marked peaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterwit.envs.maze import MazeConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import maze
from afterwit.runs.evaluation.evaluate import evaluate
from afterwit.runs.evaluation.evaluation_result import (
    HUMAN_RANDOM,
    OTHER_COLUMNS,
    human_normalised,
    rules,
    summarise,
    table,
)
from afterwit.runs.evaluation.video import MIN_PEAK_DISTANCE, PEAKS, compose, peaks
from afterwit.runs.training.episode_statistics import Statistics
from tests.helpers import B, T, random_trajectory, tiny_spec

CONFIG = replace(
    maze(), env=MazeConfig(num_envs=3, noise="sticky", episode_steps=9), unroll_length=7
)


def test_other_rules_are_played_and_reported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "short"
    options = "--episodes 5 --set episode_steps=6 noise=none --out"
    assert main(["evaluate", str(trained), *options.split(), str(out)]) == 0
    result = json.loads((out / "evaluation.json").read_text())
    assert (
        result["changes"] == {"episode_steps": 6, "noise": "none"}
        and result["environment"]["noise"] == "none"
    )
    assert result["results"]["length"]["max"] == 6 and result["results"]["length"]["episodes"] == 5
    assert not (trained / "evaluation.json").exists()
    assert "noise none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stickyness=1", "unknown field 'stickyness'"),
        ("dose=2", "dose is 2.0"),
        ("episode_steps=long", "episode_steps is 'long'; it takes int"),
    ],
)
def test_a_rule_that_cannot_be_played_is_named(
    trained: Path, change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained), "--episodes", "1", "--set", change]) == 2
    assert message in capsys.readouterr().err
    assert not (trained / "evaluation.json").exists()


def test_the_same_episodes_with_and_without_a_video(trained: Path) -> None:
    with_video = evaluate(trained, 3, False, 5, video=True, progress=False)
    without = evaluate(trained, 3, False, 5, video=False, progress=False)
    assert (
        with_video["results"] == without["results"]
        and (trained / "video.mp4").stat().st_size > 1000
    )


def test_scores_are_normalised_by_a_humans() -> None:
    returns = summarise(np.array([0.0, 1000.0, 2000.0]))
    found = human_normalised("BankHeist", returns)
    human, random = HUMAN_RANDOM["BankHeist"]
    assert (
        found["mean"] == pytest.approx((1000 - random) / (human - random))
        and found["capped"] == 1.0
    )
    assert found["low"] <= found["median"] <= found["high"]
    low = human_normalised("BankHeist", summarise(np.array([random])))
    assert low["mean"] == low["capped"] == pytest.approx(0)


def test_the_rules_of_a_game_are_one_sentence() -> None:
    environment: dict[str, Any] = {
        "backend": "envpool",
        "task": "Pong-v5",
        "repeat_action_probability": 0.25,
        "frame_skip": 4,
        "noop_max": 30,
        "episode_frames": 108_000,
        "full_action_space": True,
        "episodic_life": False,
    }
    assert (
        rules(environment)
        == "Pong-v5 on envpool: sticky 0.25 a frame, skip 4, 1 to 30 no-ops at the start, at most"
        " 108,000 frames (30 min), all 18 actions, a lost life ends nothing, raw scores"
    )


def test_large_numbers_do_not_run_together() -> None:
    """A bonus whose unit is of a few steps may be large."""
    result = {
        "trained_agent_steps": 2,
        "trained_frames": 2,
        "episodes": 2,
        "policy": "sampled",
        "environment": {},
        "results": {"bonus": {**summarise(np.array([-1583547.14, 98765432.1])), "episodes": 2}},
    }
    row = next(line for line in table(result).splitlines() if line.startswith("bonus"))
    numbers = [word for word in row.split()[1:] if word != ".."]
    assert [float(number) for number in numbers] == pytest.approx(
        [result["results"]["bonus"][key] for key in ("mean", "low", "high", *OTHER_COLUMNS)]
    )


def test_rooms_and_cells_are_counted_by_episode_and_over_the_whole_run() -> None:
    """Compared with sets that are filled step by step, over two unrolls and a checkpoint."""
    spec = replace(tiny_spec(), semantics={"cells": 50})
    statistics, ended, logged = Statistics(spec, 1000), [], []
    open_now: list[dict[str, set[int]]] = [{"room": set(), "cell": set()} for _ in range(B)]
    ever: dict[str, set[int]] = {"room": set(), "cell": set()}
    for seed in range(2):
        random = torch.Generator().manual_seed(seed)
        info = {
            name: torch.randint(0, many, (T, B), generator=random)
            for name, many in (("room", 4), ("cell", 50))
        }
        trajectory = replace(random_trajectory(seed=seed), info=info)
        statistics.add(trajectory, torch.zeros(T, B), 0)
        logged += [episode for _, episode in statistics.episodes]
        for t in range(T):
            for b in range(B):
                if trajectory.real[t, b]:
                    for name, seen in open_now[b].items():
                        seen.add(int(info[name][t, b]))
                        ever[name].add(int(info[name][t, b]))
                elif open_now[b]["cell"]:
                    ended.append({name: len(seen) for name, seen in open_now[b].items()})
                    open_now[b] = {"room": set(), "cell": set()}
        entry = statistics.pop()
        assert (entry["explored/rooms"], entry["explored/cells"]) == (
            len(ever["room"]),
            len(ever["cell"]),
        )
        restored = Statistics(spec, 1000)
        restored.load_state(statistics.state())
        statistics = restored
    assert [
        {"room": episode["rooms"], "cell": episode["cells"]} for episode in logged
    ] == ended and len(ended) > 2


def test_steps_that_change_the_room_are_shares_of_time_and_pay() -> None:
    """Compared with a walk through each environment.

    A reset that leads to another room is no change, and the first step of an unroll is unknown.
    """
    trajectory = random_trajectory()
    bonus = torch.rand(T, B, generator=torch.Generator().manual_seed(1))
    room = torch.randint(0, 2, (T, B), generator=torch.Generator().manual_seed(2))
    statistics = Statistics(tiny_spec(), 1000)
    statistics.add(replace(trajectory, info={"room": room}), bonus, 0)
    changes = [
        (t, b)
        for b in range(B)
        for t in range(1, T)
        if trajectory.real[t, b] and room[t, b] != room[t - 1, b]
    ]
    assert any(
        not trajectory.real[t, b] and room[t, b] != room[t - 1, b]
        for b in range(B)
        for t in range(1, T)
    )
    entry = statistics.pop()
    assert entry["share_of_time/room_change"] == pytest.approx(
        len(changes) / int(trajectory.real.sum())
    )
    paid = sum(float(bonus[t, b]) for t, b in changes) / float(bonus[trajectory.real].sum())
    assert entry["share_of_pay/room_change"] == pytest.approx(paid)


def test_what_an_abandoned_episode_saw_is_not_the_next_ones() -> None:
    statistics = Statistics(replace(tiny_spec(), semantics={"cells": 50}), 1000)
    info = {"cell": torch.arange(T)[:, None].expand(T, B).contiguous()}
    whole = replace(random_trajectory(resets=()), info=info)
    statistics.add(whole, torch.zeros(T, B), 0)
    statistics.abandon_episodes(np.array([1, 3]))
    statistics.add(replace(whole, info={"cell": info["cell"] * 0 + 49}), torch.zeros(T, B), 0)
    statistics.add(
        replace(whole, first=torch.ones(T + 1, B, dtype=torch.bool)), torch.zeros(T, B), 0
    )
    assert [episode["cells"] for _, episode in statistics.episodes] == [T + 1, 1, T + 1, 1, T + 1]
    assert statistics.pop()["explored/cells"] == T + 1


def test_counts_go_on_from_other_checkpoints_as_far_as_they_have_them() -> None:
    spec = replace(tiny_spec(), semantics={"cells": 50})
    statistics = Statistics(spec, 1000)
    info = {"cell": torch.full((T, B), 7), "room": torch.full((T, B), 3)}
    whole = replace(random_trajectory(resets=()), info=info)
    statistics.add(whole, torch.zeros(T, B), 0)
    fewer = Statistics(replace(spec, num_envs=B - 1), 1000)
    fewer.load_state(statistics.state())
    assert fewer.explored["cell"].nonzero()[0].tolist() == [7] and not fewer.seen["cell"].any()
    older = statistics.state()
    older["arrays"] = {
        name: value
        for name, value in older["arrays"].items()
        if "cells" not in name and "explored" not in name
    }
    older["arrays"]["rooms"] = torch.from_numpy(statistics.seen["room"])  # as they were saved then
    restored = Statistics(spec, 1000)
    restored.load_state(older)
    assert (
        restored.seen["room"].nonzero()[1].tolist() == [3] * B
        and not restored.explored["cell"].any()
    )
    restored.add(whole, torch.zeros(T, B), 0)
    assert restored.pop()["explored/cells"] == 1


def test_the_first_reward_is_timed_from_the_episodes_start() -> None:
    """Compared with a walk through each environment, over two unrolls."""
    statistics, expected = Statistics(tiny_spec(), 1000), []
    open_since, first = [0] * B, [0] * B
    for seed in range(2):
        trajectory = random_trajectory(seed=seed)
        reward = (
            torch.rand(T, B, generator=torch.Generator().manual_seed(seed)) < 0.2
        ).float() - 0.1
        trajectory = replace(trajectory, reward=reward)
        statistics.add(trajectory, torch.zeros(T, B), 0)
        for t in range(T):
            for b in range(B):
                if not trajectory.real[t, b]:
                    if open_since[b]:
                        expected.append((b, first[b]))
                    open_since[b], first[b] = 0, 0
                    continue
                open_since[b] += 1
                if reward[t, b] > 0 and not first[b]:
                    first[b] = open_since[b]
    found = [(env, int(episode.get("first_reward", 0))) for env, episode in statistics.episodes]
    assert (
        found == expected and any(when for _, when in found) and any(not when for _, when in found)
    )
    whole = [when for _, when in expected if when]
    assert statistics.pop()["episode/first_reward"] == pytest.approx(np.mean(whole))


def test_the_first_reach_of_a_tracker_is_timed_over_all_environments() -> None:
    """Compared with a walk through all steps, over a resumption, and over one that lacks it."""
    rng, statistics, expected = np.random.default_rng(0), Statistics(tiny_spec(), 1000), {}
    for unroll in range(6):
        if unroll == 3:
            saved, statistics = statistics.state(), Statistics(tiny_spec(), 1000)
            statistics.load_state(saved)
        trackers = rng.random((T, B, 4)) < [0.2, 0.05, 0.01, 0.0]
        whole = replace(
            random_trajectory(seed=unroll), info={"trackers": torch.from_numpy(trackers)}
        )
        statistics.add(whole, torch.zeros(T, B), unroll * T * B)
        for t, b, index in np.argwhere(trackers):
            if whole.real[t, b]:
                expected.setdefault(f"first/R{index + 1}", unroll * T * B + (int(t) + 1) * B)
        logged = statistics.pop()
        found = {name: step for name, step in logged.items() if name.startswith("first/")}
        assert found == expected
    assert set(expected) == {"first/R1", "first/R2", "first/R3"}
    assert len(set(expected.values())) == 3
    older = statistics.state()
    del older["arrays"]["first_reach"]
    resumed = Statistics(tiny_spec(), 1000)
    resumed.load_state(older)
    resumed.add(whole, torch.zeros(T, B), 0)
    assert not any(name.startswith("first/") for name in resumed.pop())  # unknown is not late


def test_peaks_are_the_highest_and_lie_apart() -> None:
    totals = np.random.default_rng(0).random(500).tolist()
    totals[100], totals[101], totals[300] = 9.0, 8.0, 7.0
    found = peaks(totals)
    assert len(found) == PEAKS and {100, 300} <= found and 101 not in found
    assert (
        min(abs(one - other) for one in found for other in found if one != other)
        >= MIN_PEAK_DISTANCE
    )
    assert peaks([0.0] * 100) == set()


def test_a_peak_gets_its_wedge() -> None:
    frame = np.zeros((10, 10, 3), np.uint8)
    values = [{"reconstruction": 0.5}] * 50
    plain, marked = (compose(frame, values, 1.0, marks) for marks in (set(), {30}))
    rows, columns = np.nonzero((plain != marked).any(-1))
    newest = plain.shape[1] - 2
    assert len(rows) and abs(columns.mean() - (newest - 2 * (len(values) - 1 - 30))) < 2


@pytest.mark.parametrize(("planned", "window"), [(1000, 9), (2000, 4), (500, 9), (10_000, 0)])
def test_maps_by_tenth_follow_a_run_that_is_made_longer(planned: int, window: int) -> None:
    """The last tenth of 1,000 steps is the fifth of 2,000."""
    spec = replace(tiny_spec(), semantics={"map": (5, 10)})
    statistics, longer = Statistics(spec, 1000), Statistics(spec, planned)
    whole = replace(random_trajectory(resets=()), info={"cell": torch.full((T, B), 7)})
    statistics.add(whole, torch.ones(T, B), 950)
    longer.load_state(statistics.state())
    assert longer.visits[window, 7] == longer.visits.sum() == T * B
    assert longer.pay[window, 7] == longer.pay.sum() == T * B
