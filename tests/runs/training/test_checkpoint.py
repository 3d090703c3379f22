"""Checkpoints: damage is found, and a killed run ends like an undisturbed one."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pickle
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from afterwit.runs.command_line.main import main
from afterwit.runs.configs.run_config import RunConfig, read_config, to_dict, write_config
from afterwit.runs.drills.child import Child, begin
from afterwit.runs.drills.drill import without_times
from afterwit.runs.drills.scene import CARTPOLE, MAZE, STEP
from afterwit.runs.output.files import (
    LOCK,
    AppendOnlyFile,
    Unwritable,
    atomic_write,
    discard_temporaries,
    link_or_copy,
    locked_folder,
)
from afterwit.runs.training import checkpoint
from afterwit.runs.training.checkpoint import BEST, NAME, Damaged
from afterwit.runs.training.episode_statistics import Statistics
from afterwit.runs.training.run import Run
from afterwit.runs.training.run_log import EVENTS, METRICS, read_metrics
from tests.helpers import random_trajectory, same, tiny_spec

# No checkpoint coincides with a log entry, so the metrics since the last entry must be saved too.
CONFIG = replace(MAZE, log_interval=80, checkpoint_interval=60)


def state(agent_steps: int = 0, score: float | None = None, **config: Any) -> dict[str, Any]:
    """Return the smallest possible checkpoint."""
    learner = {"weights": torch.arange(20.0)}
    return {
        "config": to_dict(replace(MAZE, **config)),
        "learner": learner,
        "agent_steps": agent_steps,
        "score": score,
    }


def steps(path: Path) -> int:
    return int(checkpoint.read(path)["agent_steps"])


def started(config: RunConfig, folder: Path, plant: str = "", at: int = 0) -> Child:
    if not folder.exists():
        write_config(config, folder)
    command = ["train", "--resume", str(folder), "--quiet"]  # what people type
    return begin(command, folder.with_suffix(".output"), plant, at, program=main)


def finished(config: RunConfig, folder: Path) -> Path:
    child = started(config, folder)
    assert child.wait() == 0, child.errors()
    return folder


def learner(folder: Path) -> Any:
    return checkpoint.load(folder, read_config(folder))["learner"]


def logged_in_tensorboard(folder: Path, tag: str) -> list[int]:
    """Return the agent steps at which TensorBoard shows a number."""
    events = EventAccumulator(str(folder / EVENTS), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def test_a_score_of_another_kind_is_not_compared(tmp_path: Path) -> None:
    """Before November's end H.E.R.O. was scored by its return, since then by cells."""
    places = {"arrays": {"explored_rooms": torch.zeros(2), "explored_cells": torch.zeros(2)}}
    checkpoint.save(tmp_path, state(1, 500.0))
    checkpoint.save(tmp_path, state(2, 30.0) | {"statistics": places})
    assert steps(tmp_path / BEST) == 2
    checkpoint.save(tmp_path, state(3, 20.0) | {"statistics": places})
    assert steps(tmp_path / BEST) == 2


def test_flipped_bits_and_cuts_are_found_before_anything_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, state(7))
    path, random = tmp_path / NAME, np.random.default_rng(0)
    whole = path.read_bytes()
    assert steps(path) == 7

    unpickled: list[Any] = []
    monkeypatch.setattr(torch, "load", lambda file, **options: unpickled.append(file))
    header = whole.index(b"\n") + 1
    for byte in (
        *range(header),
        *random.integers(header, len(whole), 500),
        *range(len(whole) - 50, len(whole)),
    ):
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(Damaged):
            checkpoint.read(path)
    for length in (*range(header + 1), *random.integers(header, len(whole), 200), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            checkpoint.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(Damaged):
        checkpoint.read(path)
    assert not unpickled


class Harm:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ("format 2", "format 1", "pickle"))
def test_no_pickled_code_is_run_whatever_the_file_claims(kind: str, tmp_path: Path) -> None:
    buffer, harm = io.BytesIO(), Harm(tmp_path / "harm")
    torch.save({"format": 1, **state(), "harm": harm}, buffer)
    content = pickle.dumps(harm) if kind == "pickle" else buffer.getvalue()
    start = b"afterwit checkpoint, format 2"
    header = (
        b"%s, sha256 %s\n" % (start, checkpoint.digest(start, content))
        if kind == "format 2"
        else b""
    )
    (tmp_path / NAME).write_bytes(header + content)
    with pytest.raises(Damaged, match="not a checkpoint of afterwit"):
        checkpoint.read(tmp_path / NAME)
    assert not (tmp_path / "harm").exists()


def test_the_last_k_and_the_best_are_kept(tmp_path: Path) -> None:
    scores = [0.1, 0.7, None, 0.7, 0.3]
    for index, score in enumerate(scores):
        checkpoint.save(tmp_path, state(index, score, keep_checkpoints=3))
    assert [(path.name, steps(path)) for path in checkpoint.list_checkpoints(tmp_path)] == [
        (NAME, 4),
        ("checkpoint.1.pt", 3),
        ("checkpoint.2.pt", 2),
    ]
    assert steps(tmp_path / BEST) == 3  # the later one of two equals
    checkpoint.save(tmp_path, state(5, 0.2, keep_checkpoints=1))
    assert [(path.name, steps(path)) for path in checkpoint.list_checkpoints(tmp_path)] == [
        (NAME, 5)
    ]
    assert steps(tmp_path / BEST) == 3
    (tmp_path / BEST).write_bytes(b"damaged")
    checkpoint.save(tmp_path, state(6, 0.0, keep_checkpoints=2))
    assert steps(tmp_path / BEST) == 6 and steps(tmp_path / "checkpoint.1.pt") == 5
    assert {path.name for path in tmp_path.iterdir()} == {NAME, "checkpoint.1.pt", BEST}


def test_a_disk_without_links_keeps_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    for index in range(3):
        checkpoint.save(tmp_path, state(index, 1.0))
    assert [steps(path) for path in checkpoint.list_checkpoints(tmp_path)] == [2, 1] and steps(
        tmp_path / BEST
    ) == 2
    assert not list(tmp_path.glob("*.tmp"))


def test_linking_a_file_that_is_linked_already_leaves_nothing_behind(tmp_path: Path) -> None:
    """POSIX: a rename does nothing if both names are the same file."""
    (tmp_path / "a").write_text("a")
    for _ in range(2):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "a", "b": "a"}


def test_the_score_is_the_main_measure_and_needs_an_episode_of_each_environment() -> None:
    trajectory = random_trajectory(length=9, batch=3, resets=[(5, 0), (5, 1)], shape=(2,))
    trajectory = replace(trajectory, reward=torch.ones(9, 3) * ~trajectory.first[1:])
    # all episodes end: four of 4 steps, one of 9
    again = replace(trajectory, first=torch.ones(10, 3, dtype=torch.bool))
    cases: list[tuple[dict[str, torch.Tensor], float]] = [
        ({}, (4 * 4 + 9) / 5),
        ({"room": torch.tensor([7, 8])[torch.arange(9) % 2, None].expand(9, 3).contiguous()}, 2.0),
        (
            {
                "room": torch.full((9, 3), 7),
                "cell": (
                    torch.tensor([1, 4, 5])[torch.arange(9) % 3, None].expand(9, 3).contiguous()
                ),
            },
            3.0,
        ),
        ({"trackers": torch.tensor([True, False, False, False]).expand(9, 3, 4)}, 0.25),
    ]
    for info, expected in cases:
        spec = replace(tiny_spec(num_envs=3), semantics={"cells": 9} if "cell" in info else {})
        statistics, restored = Statistics(spec, 100), Statistics(spec, 100)
        statistics.add(replace(trajectory, info=info), torch.zeros(9, 3), 0)
        assert statistics.score() is None  # two episodes of three environments
        restored.load_state(statistics.state())
        for each in (statistics, restored):
            each.add(replace(again, info=info), torch.zeros(9, 3), 0)
            assert each.score() == expected and each.score() is None  # each episode counts once


def test_a_newer_format_is_refused_and_an_older_checkpoint_does_not_take_its_place(
    tmp_path: Path,
) -> None:
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    content = (tmp_path / NAME).read_bytes().split(b"\n", 1)[1]
    start = b"afterwit checkpoint, format 3"
    (tmp_path / NAME).write_bytes(
        b"%s, sha256 %s\n" % (start, checkpoint.digest(start, content)) + content
    )
    for action in (checkpoint.load, checkpoint.resume):
        with pytest.raises(
            ValueError,
            match=(
                r"has format 3; this version of afterwit reads formats 1 to 2: read it with the"
                r" version"
            ),
        ):
            action(tmp_path, MAZE)


@pytest.mark.parametrize("lag", (0, 1))
def test_a_checkpoint_of_format_1_is_read_and_goes_on(lag: int, tmp_path: Path) -> None:
    config = replace(MAZE, policy_lag=lag)
    run = Run(config)
    for _ in range(4):
        run.step()
    old = run.state()
    run.close()
    del old["config"]["keep_checkpoints"], old["statistics"]["achieved"]
    (actor,) = old["actor"]["actors"]
    old["actor"] = actor | {"ahead": [batch[0] for batch in old["actor"]["ahead"]]}
    write_config(config, tmp_path / "old")
    torch.save({"format": 1, **old}, tmp_path / "old" / NAME)
    (tmp_path / "old" / METRICS).write_text(
        "".join(json.dumps({"agent_steps": STEP * n}) + "\n" for n in range(1, 5))
    )
    assert same(
        learner(finished(config, tmp_path / "old")), learner(finished(config, tmp_path / "new"))
    )
    assert (tmp_path / "old" / NAME).read_bytes().startswith(b"afterwit checkpoint, format 2, ")
    assert [entry["agent_steps"] for entry in read_metrics(tmp_path / "old")] == list(
        range(STEP, MAZE.total_steps + 1, STEP)
    )


@pytest.mark.parametrize("lag", (0, 1))
def test_a_run_that_is_killed_again_and_again_ends_as_the_undisturbed_one(
    lag: int, tmp_path: Path
) -> None:
    config = replace(CONFIG, policy_lag=lag)
    whole, killed = finished(config, tmp_path / "whole"), tmp_path / "killed"
    random = np.random.default_rng(lag)
    for plant, low, high in (
        ("kill in unroll", 16, 31),
        ("kill in learning", 1, 5),
        ("kill in unroll", 1, 11),
    ):
        assert (
            started(config, killed, plant, int(random.integers(low, high))).wait()
            == -signal.SIGKILL
        )
    finished(config, killed)
    assert same(learner(whole), learner(killed))
    assert without_times(read_metrics(whole)) == without_times(read_metrics(killed))
    expected = [entry["agent_steps"] for entry in read_metrics(whole)]
    for tag in ("learner/loss", "time/agent_steps"):
        assert logged_in_tensorboard(whole, tag) == logged_in_tensorboard(killed, tag) == expected
    assert (killed / BEST).exists() and same(
        checkpoint.read(killed / BEST)["learner"], checkpoint.read(whole / BEST)["learner"]
    )


def test_a_run_without_a_checkpoint_starts_its_logs_anew(tmp_path: Path) -> None:
    config = replace(MAZE, checkpoint_interval=10_000)
    child = started(config, tmp_path / "run", "kill in learning", at=6)
    assert child.wait() == -signal.SIGKILL and not (tmp_path / "run" / NAME).exists()
    assert (
        len(read_metrics(tmp_path / "run"))
        == 5
        == len(logged_in_tensorboard(tmp_path / "run", "learner/loss"))
    )
    expected = list(range(STEP, MAZE.total_steps + 1, STEP))
    finished(config, tmp_path / "run")
    assert (
        [entry["agent_steps"] for entry in read_metrics(tmp_path / "run")]
        == expected
        == logged_in_tensorboard(tmp_path / "run", "learner/loss")
    )


def test_where_the_newest_is_damaged_training_goes_on_from_the_one_before_and_readers_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(MAZE, tmp_path / "run")
    whole = learner(folder)
    path = folder / NAME
    path.write_bytes(path.read_bytes()[:-1])
    damaged = path.read_bytes()
    remedy = (
        "checkpoint.1.pt is intact: choose it with --checkpoint checkpoint.1.pt, or go on from it"
        " with: afterwit train --resume"
    )
    assert main(["evaluate", str(folder), "--episodes", "2"]) == 2
    error = capsys.readouterr().err
    assert (
        f"{path} is damaged ({len(damaged)} bytes)" in error
        and remedy in error
        and error.count("\n") == 1
    )
    assert (
        main(["evaluate", str(folder), "--episodes", "2", "--checkpoint", "checkpoint.1.pt"]) == 0
    )
    assert (
        json.loads((folder / "evaluation.json").read_text())["trained_agent_steps"]
        == MAZE.total_steps - 3 * STEP
    )
    assert main(["evaluate", str(folder), "--episodes", "2", "--checkpoint", "best"]) == 2
    assert "checkpoint is 'checkpoint.1.pt' there, 'best' now; rem" in capsys.readouterr().err
    command = ["evaluate", str(folder), "--episodes", "2", "--checkpoint", "best"]
    assert main([*command, "--out", str(tmp_path / "best")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--checkpoint", "bset.pt"]) == 2
    assert (
        f"{folder} has no bset.pt; it has {NAME}, checkpoint.1.pt, {BEST}"
        in capsys.readouterr().err
    )
    for name in (f"../run/{NAME}", f"./{NAME}/", str(path), ""):
        assert main(["evaluate", str(folder), "--checkpoint", name]) == 2
        assert f"is {name!r}; it must be the name of a file in" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    error = capsys.readouterr().err
    assert (
        f"is now {NAME}.damaged; going on from the one before, at {MAZE.total_steps - 3 * STEP}"
        " agent steps" in error
    )
    assert error.count("\n") == 1 and (folder / f"{NAME}.damaged").read_bytes() == damaged
    assert same(learner(folder), whole)
    assert [entry["agent_steps"] for entry in read_metrics(folder)] == list(
        range(STEP, MAZE.total_steps + 1, STEP)
    )


def test_where_all_are_damaged_the_run_says_what_to_do(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    for path in checkpoint.list_checkpoints(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(
        Damaged,
        match=(
            r"restore a copy, or remove checkpoint.pt and checkpoint.1.pt to start this run from"
            r" the beginning"
        ),
    ):
        checkpoint.resume(tmp_path, MAZE)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == [
        NAME,
        "checkpoint.1.pt",
    ]


def test_a_run_whose_config_is_gone_takes_it_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    assert checkpoint.restore_config(tmp_path).endswith(
        f"config.json is missing; written again from {NAME}"
    )
    assert read_config(tmp_path) == MAZE and checkpoint.restore_config(tmp_path) == ""


def test_a_record_that_cannot_be_written_completely_is_removed(tmp_path: Path) -> None:
    """The limit on file sizes makes a write fail halfway, as a full disk does."""
    log = AppendOnlyFile(tmp_path / "log")
    log.write(b"whole\n")
    (tmp_path / "file").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(Unwritable, match="log"):
            log.write(b"cut short\n")
        with pytest.raises(Unwritable, match="file"), atomic_write(tmp_path / "file") as file:
            file.write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "log").read_bytes() == b"whole\n"
    log.write(b"again\n")
    assert (tmp_path / "log").read_bytes() == b"whole\nagain\n"
    assert {path.name: path.read_bytes() for path in tmp_path.glob("file*")} == {"file": b"old"}


def test_temporary_files_of_a_killed_process_are_removed_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = started(MAZE, folder, "kill in checkpoint", at=2)
    assert child.wait() == -signal.SIGKILL and list(folder.glob(f"{NAME}.*.tmp"))
    (folder / "checkpoint.9.pt.tmp").write_bytes(b"of a session that kept more")
    finished(MAZE, folder)
    assert not list(folder.glob("*.tmp"))
    (folder / "notes.txt").write_text("mine")
    discard_temporaries(folder)
    assert (folder / "notes.txt").exists()


def test_a_folder_is_locked_by_one_process_and_free_when_that_has_ended(tmp_path: Path) -> None:
    with locked_folder(tmp_path, 0):
        with (
            pytest.raises(
                ValueError, match=rf"is in use by another afterwit process \(number {os.getpid()}\)"
            ),
            locked_folder(tmp_path, 0),
        ):
            pass
        with (tmp_path / LOCK).open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with locked_folder(tmp_path, 0):
        pass


def test_an_environment_that_hangs_in_the_acting_thread_can_be_ended(tmp_path: Path) -> None:
    child = started(replace(CARTPOLE, policy_lag=1), tmp_path / "run", "hangs", at=20)
    try:
        while not child.errors() and child.process.exitcode is None:
            child.process.join(0.02)
        child.signal(signal.SIGINT)
        child.process.join(0.3)
        assert child.process.exitcode is None
        child.signal(signal.SIGINT)
        child.process.join(30)
        assert child.process.exitcode == 130
    finally:
        child.end()
    first, last = child.errors()
    assert "the run is in hang, drills/plants.py" in first and "ended at once" in last
