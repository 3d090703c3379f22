"""Scores: aggregates against their definitions, incomparable runs, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import atari_small, maze
from afterwit.runs.configs.run_config import write_config
from afterwit.runs.evaluation.scores import (
    HUMAN,
    aggregates,
    improvement,
    matrices,
    profiles,
    scores,
)

TABLES = {
    "byol-hindsight": np.array([[3.0, 5.0], [4.0, 9.0], [5.0, 7.0]]),
    "rnd": np.array([[1.0, 6.0], [2.0, 8.0], [3.5, 4.0]]),
}


def evaluated(
    folder: Path,
    score: float,
    model: str = "byol-hindsight",
    game: str = "BankHeist",
    seed: int = 0,
    **more: Any,
) -> Path:
    write_config(replace(atari_small(model, game), seed=seed), folder)  # type: ignore[arg-type]
    summary = {"mean": score, "low": score, "high": score}
    evaluation = {
        "results": {"return": summary, "rooms": {"mean": score / 10}},
        "trained_agent_steps": 100,
        "policy": "stochastic",
        "episodes": 3,
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation | more))
    return folder


def test_aggregates_are_those_of_all_runs_of_all_tasks() -> None:
    found = aggregates(TABLES)
    for method, table in TABLES.items():
        means = table.mean(0)  # over runs; the median and the mean are over tasks
        numbers = {
            "IQM": np.sort(table.ravel())[1:-1].mean(),
            "median": np.median(means),
            "mean": table.mean(),
        }
        for name, expected in numbers.items():
            entry = found[method][name]
            assert (
                entry["value"] == pytest.approx(expected)
                and entry["low"] <= entry["value"] <= entry["high"]
                and entry["low"] < entry["high"]
            )
    assert aggregates(TABLES) == found
    alone = aggregates({"rnd": TABLES["rnd"][:1]})["rnd"]["IQM"]
    assert alone["value"] == 3.5 and np.isnan(alone["low"])


def test_improvement_is_counted_pair_by_pair() -> None:
    for entry in improvement(TABLES):
        one, other = TABLES[entry["better"]], TABLES[entry["than"]]
        wins = [
            np.mean([(x > y) + (x == y) / 2 for x in one[:, task] for y in other[:, task]])
            for task in range(2)
        ]
        assert (
            entry["probability"] == pytest.approx(np.mean(wins))
            and entry["low"] <= entry["probability"] <= entry["high"]
        )


def test_profiles_fall_from_all_to_none() -> None:
    found = profiles(TABLES)
    for method, table in TABLES.items():
        curve = found["methods"][method]["share"]
        assert curve == pytest.approx(
            [
                np.mean([(table[:, task] > at).mean() for task in range(2)])
                for at in found["thresholds"]
            ]
        )


def test_a_method_that_lacks_runs_is_named() -> None:
    with pytest.raises(
        ValueError, match="rnd has 2 runs of Pong and 1 of Venture; give as many runs of each"
    ):
        matrices({"rnd": {"Pong": [1.0, 2.0], "Venture": [1.0]}})
    with pytest.raises(ValueError, match="icm has 1 runs of Pong and 0 of Venture"):
        matrices({"rnd": {"Pong": [1.0], "Venture": [1.0]}, "icm": {"Pong": [1.0]}})


def test_from_run_folders_to_a_table_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        evaluated(
            tmp_path / f"{model}-{seed}",
            100.0 * seed + 50 * (model == "byol-hindsight"),
            model,
            seed=seed,
        )
        for model in ("byol-hindsight", "rnd")
        for seed in range(4)
    ]
    assert main(["scores", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (
        result["measure"] == "return"
        and result["tasks"] == ["BankHeist"]
        and len(result["runs"]) == 8
    )
    assert result["aggregates"]["byol-hindsight"]["IQM"]["value"] == pytest.approx(200)
    assert (tmp_path / "out" / "scores.png").stat().st_size > 10_000
    assert "200.00 [" in capsys.readouterr().out
    rooms = scores(runs, "rooms", tmp_path / "rooms")
    assert rooms["aggregates"]["rnd"]["mean"]["value"] == pytest.approx(15)


def test_the_human_normalised_score_is_taken_where_all_have_it(tmp_path: Path) -> None:
    both = [
        evaluated(tmp_path / str(seed), 1.0, seed=seed, **{HUMAN: {"mean": 0.25 + seed}})
        for seed in range(2)
    ]
    result = scores(both, None, tmp_path / "out")
    assert result["measure"] == HUMAN and result["scores"] == {"byol-hindsight": [[0.25], [1.25]]}
    without = evaluated(tmp_path / "without", 1.0, seed=2)
    assert scores([*both, without], None, tmp_path / "out")["measure"] == "return"


MISTAKES = {
    "one": (["a"], "scores compares runs, and was given 1"),
    "measure": (["a", "b", "--measure", "speed"], "has no 'speed'; it has return, rooms"),
    "not evaluated": (["a", "c"], "was not evaluated; run: afterwit evaluate"),
    "damaged": (["a", "d"], "is damaged"),
    "no run": (["a", "e"], "is no run folder"),
    "twice": (["b", "a", "f"], "a and f are both byol-hindsight, seed 0 on BankHeist"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(
    mistake: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b", "d", "f")):
        evaluated(tmp_path / name, 1.0, seed=seed % 3)
    (tmp_path / "d" / "evaluation.json").write_text("{")
    write_config(maze(), tmp_path / "c")
    arguments, message = MISTAKES[mistake]
    assert main(["scores", *arguments, "--out", "out"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
