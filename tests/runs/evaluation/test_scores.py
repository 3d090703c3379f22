"""Scores: aggregates against their definitions, incomparable runs, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterwit.runs.command_line.main import main
from afterwit.runs.configs.overrides import changed
from afterwit.runs.configs.presets import atari_small, maze
from afterwit.runs.configs.run_config import RunConfig, write_config
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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afterwit.runs.evaluation.scores.REPETITIONS", 10)


@pytest.fixture
def hundreds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afterwit.runs.evaluation.scores.REPETITIONS", 300)


@pytest.mark.usefixtures("hundreds")
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


@pytest.mark.usefixtures("hundreds")
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


@pytest.mark.usefixtures("hundreds")
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


@pytest.mark.usefixtures("quick")
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


@pytest.mark.usefixtures("quick")
def test_the_human_normalised_score_is_taken_where_all_have_it(tmp_path: Path) -> None:
    both = [
        evaluated(tmp_path / str(seed), 1.0, seed=seed, **{HUMAN: {"mean": 0.25 + seed}})
        for seed in range(2)
    ]
    result = scores(both, None, tmp_path / "out")
    assert result["measure"] == HUMAN and result["scores"] == {"byol-hindsight": [[0.25], [1.25]]}
    without = evaluated(tmp_path / "without", 1.0, seed=2)
    assert scores([*both, without], None, tmp_path / "out")["measure"] == "return"
    json.loads((tmp_path / "out/scores.json").read_text(), parse_constant=pytest.fail)
    (tmp_path / "out/scores.json").write_text("mine")
    with pytest.raises(ValueError, match="is no result of this command"):
        scores(both, None, tmp_path / "out")


def test_returns_of_different_games_are_not_added_up(tmp_path: Path) -> None:
    games = []
    for game, more in (("PrivateEye", {HUMAN: {"mean": 0.1}}), ("Solaris", {})):
        for seed in range(2):
            config = replace(atari_small(game=game), seed=seed)
            games.append(write(tmp_path / f"{game}{seed}", config, 1.0, **more))
    with pytest.raises(ValueError, match="Solaris0 has no human-normalised score"):
        scores(games, None, tmp_path / "out")


def write(folder: Path, config: RunConfig, score: float = 1.0, **more: Any) -> Path:
    evaluated(folder, score, **more)
    write_config(config, folder)
    return folder


def changed_runs(folder: Path, *changes: dict[str, Any]) -> list[Path]:
    """Two seeds of a maze run for each set of changed fields."""
    runs = []
    for number, changes_ in enumerate(changes):
        for seed in range(2):
            config = changed(replace(maze(), seed=seed), changes_)
            runs.append(write(folder / f"{number}-{seed}", config, 10.0 * number + seed))
    return runs


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("changes", "tasks"),
    [
        ({"env.density": 0.25}, ["the maze with brownian noise, density 0.25", "density 0.5"]),
        ({"env.dose": 0.5}, ["the maze with brownian noise", "(dose 0.5)"]),
        ({"env.layout": "branches"}, ["the maze of branches", "the maze with"]),
        ({"env.episode_steps": 50}, ["episode_steps 50", "episode_steps 500"]),
    ],
)
def test_other_worlds_are_other_tasks(
    changes: dict[str, Any], tasks: list[str], tmp_path: Path
) -> None:
    result = scores(changed_runs(tmp_path, {}, changes), None, tmp_path / "out")
    assert len(result["tasks"]) == 2
    assert all(part in task for part, task in zip(tasks, result["tasks"], strict=True))
    assert result["scores"]["byol-hindsight"] in ([[0, 10], [1, 11]], [[10, 0], [11, 1]])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("changes", "methods"),
    [
        ({"learner.learning_rate": 0.5}, ["learning_rate 0.0003", "learning_rate 0.5"]),
        ({"total_steps": 7}, ["total_steps 1500000", "total_steps 7"]),
        ({"env.num_envs": 8}, ["num_envs 64", "num_envs 8"]),
        ({"learner.world_model.horizon": 7}, ["horizon 1", "horizon 7"]),
    ],
)
def test_other_ways_to_train_are_other_methods(
    changes: dict[str, Any], methods: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = changed_runs(tmp_path, {}, changes)
    assert main(["scores", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert result["scores"] == {
        f"byol-hindsight, {words}": [[10 * number], [10 * number + 1]]
        for number, words in enumerate(methods)
    }
    assert result["tasks"] == ["the maze with brownian noise"]
    assert f"a run of byol-hindsight, {methods[1]} beats" in capsys.readouterr().out
    assert [run["method"] for run in result["runs"]][::2] == list(result["scores"])


@pytest.mark.usefixtures("quick")
def test_what_changes_no_result_separates_no_runs(tmp_path: Path) -> None:
    alike = [
        write(tmp_path / "a", replace(atari_small("rnd", "Pong"), seed=0)),
        write(
            tmp_path / "b",
            changed(replace(atari_small("rnd", "Pong"), seed=1, threads=3), {"env.threads": 3}),
        ),
    ]
    assert list(scores(alike, None, tmp_path / "out")["scores"]) == ["rnd"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"policy": "greedy"}, "policy 'stochastic' and 'greedy'; evaluate them alike"),
        ({"checkpoint": "best"}, "checkpoint 'checkpoint.pt' and 'best'"),
        ({"changes": {"sticky": 0.0}}, "changes {} and {'sticky': 0.0}"),
    ],
)
def test_unlike_evaluations_are_not_pooled(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    runs = [evaluated(tmp_path / "a", 1.0), evaluated(tmp_path / "b", 2.0, seed=1, **more)]
    with pytest.raises(ValueError, match=f"both on BankHeist, were evaluated with {message}"):
        scores(runs, None, tmp_path / "out")


@pytest.mark.usefixtures("quick")
def test_unlike_numbers_of_runs_and_steps_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [evaluated(tmp_path / str(seed), 1.0, seed=seed) for seed in range(2)]
    more: dict[str, Any] = {"trained_agent_steps": 5_000, "limit": {"max_steps": 9}}
    runs.append(evaluated(tmp_path / "r", 2.0, "rnd", **more))
    assert main(["scores", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "return score of 1 to 2 runs a task, 1 task: BankHeist" in text
    assert "the runs had trained for 100 to 5,000 agent steps" in text
    assert f"1 of 3 evaluations ended early, with the short episodes alone: {runs[-1]}" in text


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
