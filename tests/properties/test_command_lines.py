"""Random command lines: each starts its work, or is refused in one line and changes nothing."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterwit.runs.command_line import commands, representation_commands
from afterwit.runs.command_line.main import main
from afterwit.runs.command_line.options import (
    Benchmark,
    Demo,
    Drill,
    Evaluate,
    Objectives,
    Pretrain,
    Probe,
    Report,
    Scores,
    Separation,
    StateProbe,
    StudyOptions,
    Train,
    Watch,
)
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.diagnostics.separation import SeparationConfig
from afterwit.runs.representation.pretrain import OBJECTIVES
from afterwit.runs.studies.definitions import STUDIES
from tests.properties.strategies import BASES, NAMES, leaves
from tests.runs.written_runs import log, make, small

pytest.importorskip("rliable.library", reason="pip install -e '.[study]'")


class Started(BaseException):
    """The work of a command would begin here."""


def begin(*args: Any, **options: Any) -> None:
    raise Started


@pytest.fixture
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a run, a study and a file, in which no work begins."""
    import afterwit.runs.studies.demo

    monkeypatch.chdir(tmp_path)
    make(tmp_path / "run", small(), log(0.5)[:2])
    (tmp_path / "file").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("data")
    monkeypatch.setattr(commands, "train", begin)
    monkeypatch.setattr("afterwit.runs.training.loop._train_in", begin)
    monkeypatch.setattr(commands.benchmarking, "Run", begin)
    monkeypatch.setattr("afterwit.runs.diagnostics.separation.run_all", begin)
    monkeypatch.setattr(representation_commands.state_probe, "published_log", begin)
    monkeypatch.setattr(representation_commands.objectives, "log_game", begin)
    monkeypatch.setattr("afterwit.runs.watching.server.serve", begin)
    monkeypatch.setattr("afterwit.runs.studies.run_study.train_all", begin)
    monkeypatch.setattr(afterwit.runs.studies.demo, "train_all", begin)
    monkeypatch.setattr("afterwit.runs.reports.comparison_page.write_page", begin)
    monkeypatch.setattr("afterwit.runs.drills.drill.undisturbed_run", begin)
    monkeypatch.setattr("afterwit.runs.drills.soak.write_config", begin)
    return tmp_path


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def options(*kinds: type) -> list[str]:
    """Return the options that a command reads from its dataclasses."""
    return sorted(
        {
            "--" + field.name.replace("_", "-")
            for kind in kinds
            for field in fields(kind)
            if field.name != "config"
        }
    )


FIELDS = sorted({"--" + path.replace("_", "-") for config in BASES for path, _ in leaves(config)})
ARGUMENTS: dict[str, tuple[list[str], list[str]]] = {  # first arguments and options of each command
    "train": ([*PRESETS, "--resume"], options(Train) + FIELDS),
    "study": ([*STUDIES], options(StudyOptions)),
    "benchmark": (
        [*PRESETS, "--separation"],
        options(Benchmark, Separation, SeparationConfig) + FIELDS,
    ),
    "watch": (["run"], options(Watch)),
    "evaluate": (["run"], options(Evaluate)),
    "probe": (["run"], options(Probe)),
    "state-probe": (["run"], options(StateProbe)),
    "pretrain": ([*OBJECTIVES], options(Pretrain)),
    "objectives": ([], options(Objectives)),
    "report": (["run"], options(Report)),
    "scores": (["run"], options(Scores)),
    "demo": ([], options(Demo)),
    "drill": ([], options(Drill)),
    "list": ([], []),
}
VALUES = (
    st.sampled_from(
        [
            "0",
            "-1",
            "1",
            "2",
            "nan",
            "inf",
            "1e999",
            "1e6",
            "9" * 30,
            "9" * 5000,
            "None",
            "",
            "run",
            "file",
            "full",
            "nowhere",
            "full/x",
            "file/x",
            "x.json",
            "full/x.json",
            "rnd",
            "byol-hindsight",
            "pixel",
            "sticky=0",
            "env.dose=2",
            "seed=1",
            "threads=x",
            "learner=1",
            "=",
        ]
    )
    | NAMES
)


@st.composite
def lines(draw: st.DrawFn, command: str) -> list[str]:
    """Return a command with its arguments and an option or two, or with random words."""
    first, known = ARGUMENTS[command]
    rest = st.tuples(st.sampled_from(known), VALUES).map(list) if known else st.just([])
    line = [
        *([draw(st.sampled_from(first))] if first else []),
        *draw(rest),
        *draw(st.just([]) | rest),
    ]
    return [
        command,
        *draw(
            st.just(line)
            | st.just(line)
            | st.lists(st.sampled_from([*known, "--help"]) | VALUES, max_size=4)
        ),
    ]


def test_every_command_has_lines_drawn() -> None:
    assert ARGUMENTS.keys() == commands.COMMANDS.keys()


@pytest.mark.parametrize("command", ARGUMENTS)
# the work folder is cleared each time
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_command_line_starts_or_is_refused_in_one_line_and_changes_nothing(
    work_folder: Path, command: str, data: st.DataObject
) -> None:
    run_line(work_folder, data.draw(lines(command)))


@pytest.mark.parametrize(
    "line",
    (["demo", "--steps", "0"], ["study", "maze", "--out", "full"], ["report", "no\nrun"]),
    ids=" ".join,
)
def test_a_line_that_once_left_something_behind_is_refused(
    work_folder: Path, line: list[str]
) -> None:
    assert run_line(work_folder, line) == 2


def run_line(work_folder: Path, line: list[str]) -> Any:
    """Return the exit code of a command line.

    There must be no traceback, and a refused line must not change any file.
    """
    before, output, errors = tree(work_folder), io.StringIO(), io.StringIO()
    code: Any
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            code = main(line)
    except SystemExit as stopped:  # tyro
        code = stopped.code
    except Started:
        code = 0
    assert code in (0, 2), (code, errors.getvalue())
    if code == 2:
        assert errors.getvalue().strip() and "Traceback" not in errors.getvalue()
        assert errors.getvalue().count("\n") == 1 or not errors.getvalue().startswith(
            "afterwit: "
        ), errors.getvalue()
        assert tree(work_folder) == before
    else:
        clear(work_folder, before)
    return code


def clear(folder: Path, before: dict[str, bytes | None]) -> None:
    """Remove what a command that began has made, and restore the files."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if str(path.relative_to(folder)) not in before:
            path.rmdir() if path.is_dir() else path.unlink()
    for name, data in before.items():
        if data is not None:
            (folder / name).write_bytes(data)


def test_too_little_memory_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    sizes = "--learner.policy.hidden 1000000 --learner.torso.belief 1000000"
    line = ["train", "maze", *sizes.split(), "--out", str(out)]
    for error in (
        MemoryError("Unable to allocate 8 TiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 TB"),
    ):

        def fail(config: RunConfig, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("afterwit.runs.training.loop.make_run", fail)
        assert main(line) == 2
        errors = capsys.readouterr().err
        assert "not enough memory" in errors and errors.count("\n") == 1 and not out.exists()
