"""The ends of runs: unwritable results, failing close(), simultaneous starts, endless episodes."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from afterwit.envs.checks import is_reading, reading_only
from afterwit.envs.gym import GymConfig
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.envs.minigrid import MiniGridConfig
from afterwit.runs.benchmarks.speed import plain_ppo_rnd, stepping
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import RunConfig, read_config, to_dict, write_config
from afterwit.runs.diagnostics.latent_swap import probe
from afterwit.runs.evaluation import evaluate as evaluating
from afterwit.runs.evaluation.evaluate import evaluate
from afterwit.runs.evaluation.scores import scores
from afterwit.runs.evaluation.video import Recorder
from afterwit.runs.output.files import (
    LOCK,
    Unwritable,
    atomic_write,
    checked_outputs,
    locked_folder,
)
from afterwit.runs.reports.comparison_page import write_report
from afterwit.runs.training import checkpoint
from afterwit.runs.training.loop import start, train
from afterwit.runs.training.run import Run
from afterwit.runs.training.run_log import read_metrics
from tests.runs.written_runs import log, make, small

CONFIG = replace(
    maze(),
    env=MazeConfig(num_envs=4, noise="pixel", episode_steps=9),
    unroll_length=6,
    total_steps=96,
    log_interval=48,
)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Maze]:
    """The environments whose close() was called; each call raised an error."""
    found: list[Maze] = []

    def close(self: Maze) -> None:
        found.append(self)
        raise RuntimeError("no\nway")

    monkeypatch.setattr(Maze, "close", close)
    return found


def test_a_close_that_raises_costs_no_training(
    tmp_path: Path, closed: list[Maze], capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, actor_envs=2, total_steps=48)
    assert start(config, tmp_path / "run", progress=False)
    assert len(closed) == 2 and capsys.readouterr().err.count("could not be closed") == 2
    assert checkpoint.load(tmp_path / "run", config)["agent_steps"] == 48
    assert len(read_metrics(tmp_path / "run")) == 1


def test_a_close_that_raises_costs_no_resumed_run(
    tmp_path: Path,
    closed: list[Maze],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Environments that cannot be saved are made anew on resume, and the first ones closed."""
    monkeypatch.delattr(Maze, "state_dict")
    write_config(CONFIG, tmp_path / "run")
    run = Run(CONFIG)
    run.step()
    checkpoint.save(tmp_path / "run", run.state())
    assert train(tmp_path / "run", progress=False)
    assert len(closed) == 2 and capsys.readouterr().err.count("could not be closed") == 2


def test_a_close_that_raises_costs_no_result(
    trained: Path, closed: list[Maze], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(trained, 2, False, 1, True, False)
    assert json.loads((trained / "evaluation.json").read_text())["video"] == "video.mp4"
    assert (
        len(closed) == 1
        and "could not be closed (RuntimeError: no\\nway); no result is lost"
        in capsys.readouterr().err
    )
    probe(trained, 1, 1, 100, 1, progress=False)
    assert (trained / "probe.json").is_file() and len(closed) == 2
    with ExitStack() as stack:  # as a benchmark closes what it measures
        assert stepping(CONFIG, 2, stack)() == 20 and plain_ppo_rnd(CONFIG, stack)() > 0
    assert len(closed) == 4 and capsys.readouterr().err.count("could not be closed") == 3


def never(*args: Any, **options: Any) -> None:
    raise AssertionError("the work has begun")


Place = Callable[[Path], Path]
PLACES: dict[str, Place] = {
    "a file": lambda home: home / "file",
    "below a file": lambda home: home / "file" / "x",
    "no folder can be": lambda _: Path("/proc/no/x"),
    "names of results are folders": lambda home: home / "folders",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    place: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("rliable.library")
    (tmp_path / "file").write_text("precious")
    for name in (
        "evaluation.json",
        "probe.json",
        "scores.json",
        "summary.json",
        "drill.json",
        "speed.json",
    ):
        (tmp_path / "folders" / name).mkdir(parents=True)
    for seed in range(2):
        folder = make(tmp_path / f"s{seed}", small(seed=seed), log(0.5)[:2], maps=False)
        (folder / "evaluation.json").write_text(json.dumps({"results": {"return": {"mean": 1.0}}}))
    for work in (
        "evaluation.evaluate.play",
        "diagnostics.latent_swap.gather",
        "evaluation.scores.aggregated",
        "reports.comparison_page.write_page",
        "drills.drill.undisturbed_run",
        "benchmarks.speed.Run",
    ):
        monkeypatch.setattr(f"afterwit.runs.{work}", never)
    monkeypatch.setattr(evaluating, "Run", never)
    before = sorted(tmp_path.rglob("*"))
    out = str(PLACES[place](tmp_path))
    runs = [str(tmp_path / "s0"), str(tmp_path / "s1")]
    for line in (
        ["evaluate", str(trained)],
        ["probe", str(trained)],
        ["scores", *runs],
        ["report", *runs],
        ["drill"],
    ):
        assert main([*line, "--out", out]) == 2, line
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1 and "cannot be written" in errors and out in errors
    assert main(["benchmark", "maze", "--out", f"{out}/speed.json"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "precious"


def test_a_full_disk_is_found_before_the_work_and_new_folders_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(KeyboardInterrupt), checked_outputs(tmp_path / "a" / "b" / "x"):
        assert (tmp_path / "a" / "b").is_dir()
        raise KeyboardInterrupt
    monkeypatch.setattr("afterwit.runs.output.files.sync", full)
    with (
        pytest.raises(
            ValueError,
            match=r"x cannot be written \(No space left on device\); nothing was started",
        ),
        checked_outputs(tmp_path / "a" / "x"),
    ):
        never()
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("precious")
    for out in (file / "x", file / "below" / "x"):
        with (
            pytest.raises(ValueError, match=rf"\({re.escape(str(file))} is a file, no folder\)"),
            checked_outputs(out),
        ):
            never()
    assert file.read_text() == "precious"


def test_results_that_cannot_be_written_at_the_end_are_reported(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failing film costs only the film. If the disk is full, the numbers are printed."""
    with monkeypatch.context() as patch:
        patch.setattr(
            Recorder, "write", lambda self, path: (_ for _ in ()).throw(OSError("no room"))
        )
        assert main(["evaluate", str(trained), "--episodes", "2", "--video"]) == 2
    assert "video.mp4 could not be made (no room); the scores are in" in capsys.readouterr().err
    old = (trained / "evaluation.json").read_bytes()
    assert "video" not in json.loads(old)

    def fail(path: Path, data: Any) -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise Unwritable(28, "No space left on device", str(path))

    monkeypatch.setattr(evaluating, "write_json", fail)
    assert main(["evaluate", str(trained), "--episodes", "2"]) == 2
    printed = capsys.readouterr()
    assert "2 episodes, stochastic policy" in printed.out and "No space left" in printed.err
    assert (trained / "evaluation.json").read_bytes() == old


def test_an_evaluation_that_never_ends_says_so_and_can_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, env=replace(CONFIG.env, episode_steps=10**6))
    folder = tmp_path / "run"
    write_config(config, folder)
    checkpoint.save(folder, Run(config).state())
    assert main(["evaluate", str(folder), "--episodes", "6", "--max-steps", "20"]) == 0
    result = json.loads((folder / "evaluation.json").read_text())
    assert result["episodes"] == 0 and result["results"] == {}
    assert {name: result["limit"][name] for name in ("max_steps", "agent_steps", "asked")} == {
        "max_steps": 20,
        "agent_steps": 24,
        "asked": 6,
    }
    assert (
        result["limit"]["unfinished"]["length"]["mean"] == 24
        and result["limit"]["unfinished"]["length"]["episodes"] == 4
    )
    assert "24 agent steps of each environment: 0 of 6 episodes ended" in capsys.readouterr().out
    assert main(["scores", str(folder), str(folder)]) == 2
    assert "no numbers: no episode ended" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--max-steps", "0"]) == 2
    assert "max_steps is 0" in capsys.readouterr().err
    monkeypatch.setattr("afterwit.runs.training.stop_signals.SILENCE_SECONDS", 0.01)
    evaluate(folder, 6, False, 1, False, False, out=tmp_path / "on", max_steps=600)
    assert re.search(
        r"afterwit: no episode has ended for 0 s; 0 of 6 have, and each environment took \d+",
        capsys.readouterr().err,
    )


def test_a_limit_that_is_not_reached_changes_nothing(trained: Path, tmp_path: Path) -> None:
    plain = evaluate(trained, 5, False, 1, False, False)
    limited = evaluate(trained, 5, False, 1, False, False, out=tmp_path / "1", max_steps=1000)
    assert plain["results"] == limited["results"] and "limit" not in limited
    cut = evaluate(trained, 12, False, 1, False, False, out=tmp_path / "2", max_steps=12)
    assert cut["episodes"] == 4 and cut["limit"]["unfinished"]["length"]["episodes"] == 4


MISSING = {
    "gym": {"name": "gym", "id": "no_such_module:Nothing-v0"},
    "atari": {"name": "atari", "game": "GameOfTomorrow"},
}


@pytest.mark.parametrize("kind", MISSING)
def test_runs_whose_environment_is_missing_here_are_compared(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rliable.library")
    monkeypatch.setattr("afterwit.runs.evaluation.scores.REPETITIONS", 10)
    for seed in range(2):
        folder = make(tmp_path / f"s{seed}", replace(CONFIG, seed=seed), log(0.5)[:2], maps=False)
        data = to_dict(replace(CONFIG, seed=seed)) | {"env": MISSING[kind] | {"num_envs": 4}}
        (folder / "config.json").write_text(json.dumps(data))
        (folder / "evaluation.json").write_text(json.dumps({"results": {"return": {"mean": seed}}}))
    folders = [tmp_path / "s0", tmp_path / "s1"]
    assert write_report(
        [*folders, make(tmp_path / "maze", small(), log(0.5)[:2], maps=False)], tmp_path / "report"
    ).is_file()
    assert (
        scores(folders, None, tmp_path / "scores")["aggregates"]["byol-hindsight"]["mean"]["value"]
        == 0.5
    )
    assert main(["evaluate", str(folders[0])]) == 2
    assert "unknown" in capsys.readouterr().err and not is_reading()


def test_only_reading_takes_an_environment_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afterwit.envs.minigrid.find_spec", lambda name: None)
    with reading_only():
        assert (
            MiniGridConfig().has_tv and GymConfig("no_such_module:X-v0").id == "no_such_module:X-v0"
        )
    for make_config in (MiniGridConfig, lambda: GymConfig("no_such_module:X-v0")):
        with pytest.raises(ValueError, match=r"minigrid|no_such_module"):
            make_config()


def test_of_two_starts_in_one_folder_one_gets_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterwit.runs.training.loop._train_in", lambda folder, progress: True)
    for round in range(8):
        folder, gate, ended = tmp_path / str(round), threading.Barrier(4), dict[int, str]()

        def begin(
            seed: int,
            folder: Path = folder,
            gate: threading.Barrier = gate,
            ended: dict[int, str] = ended,
        ) -> None:
            gate.wait()
            try:
                start(replace(CONFIG, seed=seed), folder)
                ended[seed] = ""
            except ValueError as error:
                ended[seed] = str(error)

        threads = [threading.Thread(target=begin, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [seed for seed, line in ended.items() if not line]
        assert winners == [read_config(folder).seed]
        errors = [line for line in ended.values() if line]
        assert all("exists; go on" in line or "is in use by another" in line for line in errors)
        assert {path.name for path in folder.iterdir()} == {"config.json", LOCK}


def test_a_start_that_is_too_late_leaves_the_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def fail(config: RunConfig) -> Run:
        with pytest.raises(ValueError, match="exists"):
            start(CONFIG, folder)
        assert (folder / "config.json").is_file() and (folder / LOCK).is_file()
        raise ValueError("cannot be set up")

    monkeypatch.setattr("afterwit.runs.training.loop.make_run", fail)
    with pytest.raises(ValueError, match="cannot be set up"):
        start(CONFIG, folder)
    assert not folder.exists()  # its own start has removed it
    with locked_folder(folder, 0), pytest.raises(ValueError, match="is in use by another"):
        start(CONFIG, folder)
    assert [path.name for path in folder.iterdir()] == [LOCK]


def test_a_lock_that_was_removed_with_its_folder_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the folder again between opening the lock and taking it."""
    from afterwit.runs.output import files

    flock, calls = files.fcntl.flock, []

    def late(file: Any, how: int) -> None:
        if not calls:
            (tmp_path / "run" / LOCK).unlink()
            (tmp_path / "run" / LOCK).write_text("another's")
        calls.append(how)
        flock(file, how)

    monkeypatch.setattr(files.fcntl, "flock", late)
    with locked_folder(tmp_path / "run", 0) as number:
        assert (
            len(calls) == 2
            and files.os.fstat(number).st_ino == (tmp_path / "run" / LOCK).stat().st_ino
        )


def test_a_run_whose_folder_is_removed_says_what_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, folder = Run.step, tmp_path / "run"

    def remove(self: Run) -> dict[str, torch.Tensor]:
        shutil.rmtree(folder, ignore_errors=True)
        return step(self)

    monkeypatch.setattr(Run, "step", remove)
    words = "train maze --quiet --threads 1 --env.num-envs 4 --unroll-length 5 --total-steps 40"
    assert main([*words.split(), "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert f"{folder / 'maps.npz'} cannot be written: No such file" in error
    assert "it had no checkpoint yet" in error and error.count("\n") == 1
