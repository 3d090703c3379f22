"""The film of an episode of the newest checkpoint, played by another process at low priority.

`python -m afterwit.runs.watching.film RUN OUT` plays one episode and writes OUT/evaluation.json and
OUT/video.mp4. Nothing is written into the run's folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any, BinaryIO

from afterwit.runs.configs.run_config import config_of
from afterwit.runs.evaluation.evaluate import evaluate
from afterwit.runs.evaluation.evaluation_result import VIDEO, read_evaluation
from afterwit.runs.output import html
from afterwit.runs.training import checkpoint
from afterwit.runs.training.exit_codes import run_and_report
from afterwit.runs.watching.page import problem

SEED = 1_000_000  # as of `afterwit evaluate`; training uses small seeds
# a film shows at most so many agent steps, and they take at most so many seconds to play
MAX_STEPS, MAX_SECONDS = 600, 8.0
REST = 2.0  # after a film, for so many times as long as it took, no other is played
BACKGROUND = {"device": "cpu", "threads": 1, "acting_threads": 1, "compile": False}


def main(argv: Sequence[str] | None = None) -> int:
    """Play an episode of the run RUN, and film it into OUT. Returns the exit code."""
    run, out = map(Path, sys.argv[1:] if argv is None else argv)
    os.nice(19)
    return run_and_report(lambda: play(run, out))


def play(run: Path, out: Path) -> int:
    evaluate(
        run,
        episodes=1,
        greedy=False,
        seed=SEED,
        video=True,
        progress=False,
        out=out,
        max_steps=MAX_STEPS,
        max_seconds=MAX_SECONDS,
        resources=BACKGROUND,
    )
    return 0


class Film:
    """The newest film of a run. A new one is played when there is a newer checkpoint.

    Args:
      run: the run folder.
      scratch: an empty folder for films.
    """

    def __init__(self, run: Path, scratch: Path):
        self.run, self.scratch = run, scratch
        self.process: subprocess.Popen[bytes] | None = None
        self.filmed: Hashable = None  # the checkpoint that was played last, or is played now
        self.number, self.started, self.next = 0, 0.0, 0.0
        self.shown = self.problem = ""  # as HTML

    def html(self) -> str:
        """Return the film, or why there is none, as HTML. Begins another one where it is due.

        Raises:
          ValueError or OSError: the run's config cannot be read.
        """
        if self.process is not None and self.process.poll() is not None:
            self._collect()
        newest = stamp(self.run / checkpoint.NAME)
        due = newest is not None and newest != self.filmed and time.monotonic() >= self.next
        if due and self.process is None:
            self._start(newest)
        if self.shown or self.problem:
            return self.problem + self.shown
        if newest is not None:
            return '<p class="note">The first film is being played …</p>'
        interval = config_of(self.run).checkpoint_interval
        return (
            '<p class="note">No film yet: the first checkpoint comes after'
            f" {interval:,} agent steps, or when the run stops.</p>"
        )

    @property
    def folder(self) -> Path:
        """The folder of the film that is played, or was played last."""
        return self.scratch / f"film-{self.number}"

    def _start(self, newest: Hashable) -> None:
        self.number, self.filmed, self.started = self.number + 1, newest, time.monotonic()
        with (self.scratch / f"{self.folder.name}.txt").open("wb") as output:
            self.process = play_apart(self.run, self.folder, output)

    def _collect(self) -> None:
        """Read what the process that has ended left, and remove it."""
        assert self.process is not None
        code, self.process = self.process.returncode, None
        now = time.monotonic()
        self.next = now + REST * (now - self.started)
        output = self.scratch / f"{self.folder.name}.txt"
        said = output.read_text(encoding="utf-8", errors="backslashreplace").strip().splitlines()
        try:
            result = read_evaluation(self.folder)
            if code or result is None:
                why = said[-1].removeprefix("afterwit: ") if said else f"exit code {code}"
                raise ValueError(why)
            self.shown = html.film((self.folder / VIDEO).read_bytes()) + caption(result)
            self.problem = ""
        except (ValueError, OSError) as error:
            self.problem = problem(f"No new film: {error}")
        for path in (output, *self.folder.glob("*")):
            path.unlink()
        if self.folder.exists():
            self.folder.rmdir()

    def close(self) -> None:
        """End the process that plays, if there is one, and its ffmpeg."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def play_apart(run: Path, out: Path, output: BinaryIO) -> subprocess.Popen[bytes]:
    """Return a new process that plays an episode of `run` into `out`, and prints to `output`."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__, run.absolute(), out],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the server, which then ends this process
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def caption(result: dict[str, Any]) -> str:
    """Return what the episode of an evaluation came to, as HTML."""
    cut = result.get("limit")
    numbers = {
        name: values["mean"]
        for name, values in (cut["unfinished"] if cut else result["results"]).items()
    }
    parts = [f"{numbers['length']:,.0f} agent steps{', cut short there' if cut else ''}"]
    parts.append(f"return {numbers['return']:,.1f}")
    reached = [name for name, value in numbers.items() if name[0] == "R" and value]
    parts += [f"reached {', '.join(reached)}"] if reached else []
    parts += [f"{numbers[name]:,.0f} {name}" for name in ("rooms", "cells") if name in numbers]
    checkpoint_steps = f"{result['trained_agent_steps']:,} agent steps"
    return (
        f'<p class="note">One episode of the checkpoint at {checkpoint_steps}:'
        f" {escape('; '.join(parts))}. Below the game: the intrinsic reward of each step; red"
        " wedges mark its peaks.</p>"
    )


def stamp(path: Path) -> Hashable:
    """Return what changes when a file is written anew, None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


if __name__ == "__main__":
    sys.exit(main())
