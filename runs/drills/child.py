"""The processes of the fault drill: a run in a process of its own, with a fault planted around it.

Nothing in training knows of this. A plant changes, in the child only, what training is given: its
environments, torch's backward, or how files are written.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from afterwit.runs.drills.plants import PLANTS
from afterwit.runs.training import train_folder

PATIENCE = 120.0  # seconds that a child of a few seconds' work may take
# Children are forked from a server that has imported all this already, and what torch imports when
# an optimiser is made: a new interpreter would take seconds each time.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "torch._dynamo"])


@dataclass(frozen=True)
class Child:
    """A running `afterwit`, and the files that its stdout and stderr go to."""

    process: BaseProcess
    output: Path
    error: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code; minus a signal's number where that killed it. Raises TimeoutError, and
        ends it, after PATIENCE seconds.
        """
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.end()
            raise TimeoutError(
                f"the run did not end within {PATIENCE:.0f} s; it said: {self.errors()}"
            )
        return self.process.exitcode

    def end(self) -> None:
        self.process.kill()
        self.process.join()

    def errors(self) -> list[str]:
        """The lines on stderr so far."""
        return lines(self.error)


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def begin(
    arguments: Sequence[str],
    output: Path,
    plant: str = "",
    at: int = 0,
    choice: int = 0,
    program: Callable[[Sequence[str]], int] = train_folder.main,
) -> Child:
    """Start `program(arguments)` in a new process.

    Its output goes to OUTPUT.out and OUTPUT.err. `plant`, `at` and `choice`: see PLANTS.
    """
    files = output.with_suffix(".out"), output.with_suffix(".err")
    for path in files:
        path.write_bytes(b"")
    process = CONTEXT.Process(
        target=_run, args=(program, list(arguments), files, plant, at, choice), daemon=True
    )
    process.start()
    return Child(process, *files)


def _run(
    program: Callable[[Sequence[str]], int],
    arguments: list[str],
    files: tuple[Path, Path],
    plant: str,
    at: int,
    choice: int,
) -> None:
    for number, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["afterwit", *arguments]
    # by default a semaphore, which a killed child would leave behind
    tqdm.set_lock(threading.RLock())
    if plant:
        PLANTS[plant](at, choice)
    sys.exit(program(arguments))
