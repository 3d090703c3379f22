"""The drill: every fault once, and a drill that must find a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from afterwit.runs.command_line.main import main
from afterwit.runs.drills import drill as drilling
from afterwit.runs.drills import faults as drill_faults
from afterwit.runs.drills.drill import drill, run_trial, table, undisturbed_run
from afterwit.runs.drills.faults import FAULTS
from afterwit.runs.drills.scene import MAZE, Scene


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield undisturbed_run(MAZE, tmp_path_factory.mktemp("drill") / "whole")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_no_more_than_the_promise(name: str, whole: Path, tmp_path: Path) -> None:
    trial = run_trial(name, 0, 1, tmp_path / name, whole)
    assert not trial.wrong, trial
    assert trial.moment and not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ("disk-full-checkpoint", "disk-full-log"))
def test_a_disk_can_be_full_without_root(
    name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_faults, "mount_disk", lambda scene: False)
    trial = run_trial(name, 0, 2, tmp_path / name, whole)
    assert not trial.wrong and "RLIMIT_FSIZE" in trial.moment, trial


def test_a_loss_beyond_what_is_allowed_is_reported_and_the_run_is_kept(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallow(scene: Scene) -> None:
        """the config is another one, and an older log is gone"""
        scene.start_and_stop()
        path = scene.folder / "metrics.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
        scene.finish(scene.start(), 2, "a message that never comes")

    monkeypatch.setitem(drilling.ALL, "swallow", swallow)
    monkeypatch.setattr(drilling, "undisturbed_run", lambda config, folder: whole)
    trials = drill(["swallow"], 1, 0, tmp_path, progress=False)
    wrong = "; ".join(trials[0].wrong)
    for words in (
        "it ended with code 0, not 2",
        "not one line with 'a message that never comes'",
        "its log is not that of an undisturbed run",
    ):
        assert words in wrong
    assert "weights" not in wrong and (tmp_path / "runs" / "swallow" / "0" / "config.json").exists()
    assert "| the config is another one, and an older log is gone |" in table(
        trials
    ) and "| 0 of 1 |" in table(trials)
    assert json.loads((tmp_path / "drill.json").read_text())["trials"][0]["fault"] == "swallow"


def test_moments_follow_the_seed(tmp_path: Path) -> None:
    def moments(seed: int) -> list[int]:
        with ExitStack() as closing:
            scene = Scene(tmp_path, np.random.default_rng(seed), closing)
            return [scene.learner_step() for _ in range(8)]

    assert moments(0) == moments(0) != moments(1)


def test_unknown_faults_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "--faults", "earthquake", "--out", str(tmp_path)]) == 2
    assert (
        "unknown fault 'earthquake'; choose from kill-unroll, kill-learning"
        in capsys.readouterr().err
    )
    assert main(["drill", "--times", "0", "--out", str(tmp_path)]) == 2
    assert "times is 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
