"""Output: it never stops a command, any encoding can show it, and its commands can be pasted."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from afterwit.envs.maze import MazeConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.command_line.options import Evaluate, Report, Train, at_home
from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import read_config, write_config
from afterwit.runs.output.files import read_json
from afterwit.runs.output.provenance import record
from afterwit.runs.output.streams import TolerantStream, tolerant_output
from afterwit.runs.output.text import quoted
from afterwit.runs.training import checkpoint, stop_signals
from afterwit.runs.training.run_log import read_metrics
from afterwit.runs.training.stop_signals import SilenceNotice, StopSignals

AFTERWIT = [sys.executable, "-m", "afterwit"]
COMMAND = (
    "train maze --model rnd --env.num-envs 4 --unroll-length 10 --total-steps 80 --log-interval 40"
)
TINY = COMMAND.split()


class Full(io.StringIO):
    """A stream that cannot be written for a while."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_output_that_cannot_be_written_is_dropped(number: int) -> None:
    stream = Full(number)
    tolerant = TolerantStream(stream)
    print("lost", file=tolerant, flush=True)
    stream.number = 0
    print("kept", file=tolerant, flush=True)
    tolerant.end()
    assert stream.getvalue() == "kept\n"
    assert isinstance(tolerant.failure, OSError) and tolerant.failure.errno == number


def test_a_closed_or_missing_stream_accepts_all_output(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", None)
    with tolerant_output():
        print("lost", flush=True)
        print("lost", file=sys.stderr, flush=True)
        assert not sys.stdout.isatty()
    assert sys.stdout is closed and sys.stderr is None


@pytest.mark.parametrize(("number", "lines"), [(errno.EPIPE, 0), (errno.ENOSPC, 1)])
def test_a_full_device_is_reported_at_the_end_and_a_reader_that_left_is_not(
    number: int, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Full(number))
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["list"]) == 0
    assert errors.getvalue().count("\n") == lines
    assert ("No space left" in errors.getvalue()) == bool(lines)


def test_letters_that_an_encoding_lacks_are_replaced_and_the_stream_is_restored() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    tolerant = TolerantStream(stream)
    tolerant.write("1 … 2, λ, é, \udcff")
    tolerant.end()
    assert stream.errors == "strict"
    assert stream.buffer.getvalue() == b"1 ... 2, lambda, \\xe9, \\udcff"  # type: ignore[attr-defined]


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", line, "bash", *AFTERWIT]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_run_outlives_its_reader_and_its_streams(tmp_path: Path) -> None:
    """Two runs in one folder.

    The first writes to a pipe without a reader and a full device. The second has all its streams
    closed from the start.
    """
    tiny = " ".join(TINY)
    result = shell(f'"$@" {tiny} --out one 2>/dev/full | true; echo "${{PIPESTATUS[0]}}"', tmp_path)
    assert (result.stdout, result.stderr) == ("0\n", "")
    result = shell(f'"$@" {tiny} --out two >&- 2>&- <&-; echo $? >code', tmp_path)
    assert (tmp_path / "code").read_text() == "0\n"
    for name in ("one", "two"):
        folder = tmp_path / name
        assert checkpoint.load(folder, read_config(folder))["agent_steps"] == 80
        assert [entry["agent_steps"] for entry in read_metrics(folder)] == [40, 80]


def test_help_can_be_read_in_ascii_and_left_early(tmp_path: Path) -> None:
    result = shell(
        '"$@" train atari --help | head -1; echo "${PIPESTATUS[0]}"',
        tmp_path,
        PYTHONIOENCODING="ascii",
        LC_ALL="C",
        PYTHONUTF8="0",
    )
    assert result.stdout.splitlines()[-1] == "0" and result.stderr == ""


def test_a_closed_terminal_stops_a_run_and_nohup_keeps_it(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, stops in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            with StopSignals(tmp_path) as signals:
                # A shell sends one and the system another. That is not a second Ctrl-C.
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGHUP)
                    time.sleep(0.1)
            assert signals.received == ([signal.SIGHUP] * 2 if stops else [])
            assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


NAMES = [
    b"plain",
    b"two words",
    b"it's",
    b'a "b"',
    b"$HOME",
    b"-q",
    b"~me",
    b"caf\xc3\xa9",
    b"\xff x'\\",
    b"a\nb",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_quoted_path_is_what_a_shell_reads(name: bytes) -> None:
    word = quoted(os.fsdecode(name))
    assert "\n" not in word
    result = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert result.stdout.removeprefix(b"./") == name and result.stdout[:1] not in (b"-", b"~")


@pytest.mark.parametrize("name", [b"two words", b"it's \xff"])
def test_a_folder_of_any_name_is_trained_resumed_and_looked_at(
    name: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(name)
    assert main([*TINY, "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"afterwit report {quoted(folder)}" in printed
    assert main([*TINY, "--out", str(folder)]) == 2
    assert f"afterwit train --resume {quoted(folder)};" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--episodes", "1", "--max-steps", "10"]) == 0
    assert f"written: {quoted(folder / 'evaluation.json')}" in capsys.readouterr().out
    assert main(["train", f"--resume={folder}", "--quiet"]) == 0
    assert main(["report", str(folder), "--out", str(tmp_path / "report")]) == 0


def test_a_command_with_a_folder_that_is_not_unicode_is_recorded_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["afterwit", "train", "--resume", os.fsdecode(b"run\xff")])
    record(tmp_path)
    record(tmp_path)
    sessions = read_json(tmp_path / "provenance.json", "")
    assert len(sessions) == 2 and all("run\\udcff" in session["command"] for session in sessions)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--resume"], "--resume takes one run folder, not 0"),
        (["--resume="], "--resume takes one run folder, not 0"),
        (["--resume", "a", "b"], "--resume takes one run folder, not 2"),
        (["--resume", "a", "--out", "b"], "--out does not go with --resume"),
        (["maze", "--resume=a", "--seed=1"], "--seed=1 does not go with --resume"),
        (["--resume=nowhere", "--quiet"], "nowhere is no run folder"),
        (["--resume=nowhere", "--total-steps", "40"], "nowhere is no run folder"),
        (["--resume", "a", "--total-steps"], "--total-steps is ''; it must be a whole number"),
        (["--resume", "a", "--total-steps=4.5"], "--total-steps is '4.5'; it must be a whole"),
        (["--resume", "a", "--total-steps", "-4"], "--total-steps is '-4'; it must be a whole"),
        (["--total-steps=4", "--resume=a", "--total-steps=5"], "--total-steps is given twice"),
    ],
)
def test_resuming_takes_a_folder_and_little_else(
    line: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *line]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def test_a_path_may_begin_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home(Evaluate(Path("~/run"), out=Path("~/out"))) == Evaluate(
        tmp_path / "run", out=tmp_path / "out"
    )
    assert at_home(Report((Path("~/a"), Path("b~")))).runs == (tmp_path / "a", Path("b~"))
    assert at_home(Train(maze(), out=Path("~/x"))).out == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    write_config(maze(), tmp_path / "run")
    assert main(["evaluate", "~/run"]) == 2
    assert f"{tmp_path}/run has no checkpoint" in capsys.readouterr().err
    assert main(["train", "--resume=~/nowhere"]) == 2
    assert f"{tmp_path}/nowhere is no run folder" in capsys.readouterr().err
    assert main(["report", "~no-such-user/run"]) == 2
    assert "unknown user" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["evaluate", "report", "scores", "probe", "benchmark", "study", "train"]
)
def test_ctrl_c_reports_the_state_of_the_results(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    for name in (
        "evaluating.evaluate",
        "scoring.scores",
        "probing.probe",
        "benchmarking.benchmark",
    ):
        monkeypatch.setattr(f"afterwit.runs.command_line.commands.{name}", stop)
    monkeypatch.setattr("afterwit.runs.command_line.study_command.run_study", stop)
    monkeypatch.setattr("afterwit.runs.reports.comparison_page.write_report", stop)
    monkeypatch.setattr("afterwit.runs.training.loop.make_run", stop)
    rest = {
        "scores": ["a", "b"],
        "benchmark": [],
        "study": ["maze"],
        "train": ["maze", "--out", str(tmp_path / "new")],
    }
    assert main([command, *rest.get(command, ["run"])]) == 130
    messages = {
        "report": "the same command writes it again",
        "study": "the same command goes on",
        "train": "nothing was started",
    }
    errors = capsys.readouterr().err
    assert messages.get(command, "no result was written") in errors
    assert "--resume" not in errors and errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_notice_breaks_the_silence_and_again_when_it_has_doubled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stop_signals, "SILENCE_SECONDS", 0.02)
    with SilenceNotice(lambda silence: "still nothing"):
        time.sleep(0.5)
    assert 2 <= capsys.readouterr().err.count("afterwit: still nothing\n") <= 6


MODULE = """
import gymnasium, numpy
class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Discrete(2)
    def __init__(self, render_mode=None): pass
    def reset(self, *, seed=None, options=None): return numpy.zeros(3, numpy.float32), {}
    def step(self, action): return numpy.zeros(3, numpy.float32), 0.0, False, False, {}
gymnasium.register("OfThisFolder-v0", Mine)
"""


def test_an_environment_of_the_current_folder_is_found_after_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_this_folder.py").write_text(MODULE)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    before = list(sys.path)
    id = "module_of_this_folder:OfThisFolder-v0"
    options = "--total-steps 64 --env.num-envs 2 --unroll-length 16 --out run --quiet"
    assert main(["train", "gym", "--id", id, *options.split()]) == 0
    assert sys.path == [*before, str(tmp_path)]


def test_a_runs_own_process_finds_it_too_and_its_folder_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afterwit.runs.output.files import locked_folder
    from afterwit.runs.training.many_runs import OUTPUT, close_stdin, finished, start_process

    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_this_folder.py").write_text(MODULE)
    (tmp_path / "tqdm.py").write_text("raise RuntimeError('mine')")
    config = replace(
        maze("rnd"), env=MazeConfig(num_envs=2), unroll_length=16, total_steps=64, log_interval=32
    )
    data = {"name": "gym", "id": "module_of_this_folder:OfThisFolder-v0", "num_envs": 2}
    write_config(config, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    changed = read_json(path, "") | {"env": data}
    path.write_text(json.dumps(changed))
    with locked_folder(tmp_path, 0) as lock:
        process = start_process(tmp_path / "run", lock)
        assert process.wait(120) == 0, (tmp_path / "run" / OUTPUT).read_text()
        close_stdin(process)
    assert finished(tmp_path / "run")
