"""Child processes of the drill: a run in its own process, with a fault planted around it.

Training knows nothing of this. A planted fault changes, in the child only, what training uses: its
environments, torch's backward, or the writing of files.
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

PATIENCE = 120.0  # seconds that a child may take; it has work for a few
# Children are forked from a server that has already imported everything, also what torch imports
# with the first optimiser. A new interpreter would take seconds each time.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "torch._dynamo"])


@dataclass(frozen=True)
class Child:
    """A running `afterwit`, and the files with its stdout and stderr."""

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
        """Return the exit code, or minus the number of the signal that killed the process.

        Raises:
          TimeoutError: it did not end within PATIENCE seconds. It has been killed.
        """
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.end()
            raise TimeoutError(
                f"the run did not end within {PATIENCE:.0f} s; its stderr: {self.errors()}"
            )
        return self.process.exitcode

    def end(self) -> None:
        self.process.kill()
        self.process.join()

    def errors(self) -> list[str]:
        """Return the lines on stderr so far."""
        return lines(self.error)


def lines(path: Path) -> list[str]:
    """Return the lines of a file that are not blank."""
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

    Args:
      arguments: of the program.
      output: its output goes to OUTPUT.out and OUTPUT.err.
      plant: the name of a fault in PLANTS. Empty: none.
      at: the step or checkpoint of the fault, from 1.
      choice: chooses a variant of the fault.
      program: what the process runs.
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
    # the default lock is a semaphore, which a killed child would leave behind
    tqdm.set_lock(threading.RLock())
    if plant:
        PLANTS[plant](at, choice)
    sys.exit(program(arguments))
