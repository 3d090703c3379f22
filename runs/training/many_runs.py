"""Train many runs, some at a time: a process each, and one progress display for all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from afterwit.runs.configs.run_config import read_config
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run_log import headline, last_entry

OUTPUT = "output.txt"
POLL = 0.3  # seconds between two checks of the runs
PATIENCE = 60.0  # seconds that the runs of a killed session have to save and stop


class RunsFailed(ValueError):
    """Some runs ended with an error, after all others were finished.

    `failed` maps their folders to their last lines of output.
    """

    def __init__(self, failed: Mapping[Path, str]):
        super().__init__("; ".join(f"{folder} failed: {line}" for folder, line in failed.items()))
        self.failed = dict(failed)


def train_all(
    folders: Sequence[Path],
    jobs: int,
    lock: int,
    on_end: Callable[[Path, int], None] = lambda folder, code: None,
) -> None:
    """Train the runs whose configs are in `folders`, `jobs` at a time.

    Finished runs are skipped, unfinished ones continue. If this process is interrupted or killed,
    each run saves a checkpoint and stops.

    Args:
      folders: run folders, each with a config.json.
      jobs: runs at a time.
      lock: the file descriptor from `locked_folder`; every run holds the lock too.
      on_end: called with the folder and exit code of each run that ends.

    Raises:
      RunsFailed: some runs failed. All others are finished first.
    """
    done = {
        folder: read_config(folder).total_steps if finished(folder) else 0 for folder in folders
    }
    waiting = [folder for folder in folders if not done[folder]]
    running: dict[Path, subprocess.Popen[bytes]] = {}
    failed: dict[Path, str] = {}
    with Display(folders, done) as display:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    folder = waiting.pop(0)
                    running[folder] = start_process(folder, lock)
                    display.begin(folder)
                time.sleep(POLL)
                for folder, process in list(running.items()):
                    code = process.poll()
                    display.update(folder)
                    if code is not None:
                        del running[folder]
                        close_stdin(process)
                        if code:
                            failed[folder] = last_line(folder / OUTPUT)
                        display.end(folder, failed.get(folder))
                        on_end(folder, code)
        finally:
            for process in running.values():
                process.terminate()
            for folder, process in running.items():
                on_end(folder, process.wait())
                close_stdin(process)
    if failed:
        raise RunsFailed(failed)


def start_process(folder: Path, lock: int) -> subprocess.Popen[bytes]:
    """Start the run as a process that holds `lock` and stops when this process is gone.

    With -P, as for this process, modules of the current folder come last.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "afterwit.runs.training.train_folder",
        str(folder),
        "--stop-with-parent",
    ]
    with (folder / OUTPUT).open("ab") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,
            pass_fds=(lock,),
        )


def close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def finished(folder: Path) -> bool:
    """Return whether the run's checkpoint has all its steps.

    The log may be ahead of the checkpoint, never behind it.
    """
    config, entry = read_config(folder), last_entry(folder)
    if (
        entry is None
        or entry["agent_steps"] < config.total_steps
        or not (folder / checkpoint.NAME).exists()
    ):
        return False
    try:
        return bool(checkpoint.load(folder, config)["agent_steps"] >= config.total_steps)
    except ValueError:
        return False  # damaged: the run will report it, and the others go on


def last_line(path: Path) -> str:
    """Return the last line of a file that is not blank."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return ([line for line in lines if line.strip()] or ["no output"])[-1]


class Display:
    """Shows the agent steps of all runs and the time left, and a line for each running run.

    If stdout is not a terminal, it prints the total every half minute and a line for each run that
    ends.
    """

    def __init__(self, folders: Sequence[Path], done: Mapping[Path, int]):
        self.configs = {folder: read_config(folder) for folder in folders}
        self.steps = dict(done)
        self.terminal = sys.stdout.isatty()
        self.title = max(24, *(len(self.name(folder)) for folder in folders)) if folders else 24
        self.bars: dict[Path, tqdm[None]] = {}
        for folder in folders:
            self.steps[folder] = self.steps[folder] or self.logged_steps(folder)
        self.ended = sum(
            self.steps[folder] >= self.configs[folder].total_steps for folder in folders
        )
        self.all = tqdm(
            total=sum(config.total_steps for config in self.configs.values()),
            initial=sum(self.steps.values()),
            unit="step",
            unit_scale=True,
            position=0,
            dynamic_ncols=True,
            file=sys.stdout,
            desc=self.caption(),
            smoothing=0.02,
            mininterval=0.1 if self.terminal else 30,
            maxinterval=0.1 if self.terminal else 30,
        )

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *reason: object) -> None:
        for bar in self.bars.values():
            bar.close()
        self.all.refresh()
        self.all.close()

    def caption(self) -> str:
        return f"{f'{self.ended} of {len(self.configs)} runs':<{self.title}}"

    def name(self, folder: Path) -> str:
        """Return what distinguishes the run's folder: its path below the part that all share."""
        shared = Path(os.path.commonpath([path.parent for path in self.configs]))
        return str(folder.relative_to(shared))

    def logged_steps(self, folder: Path) -> int:
        entry = last_entry(folder)
        return min(int(entry["agent_steps"]), self.configs[folder].total_steps) if entry else 0

    def begin(self, folder: Path) -> None:
        positions = {-bar.pos for bar in self.bars.values()}
        place = next(index for index in range(1, len(self.bars) + 2) if index not in positions)
        if self.terminal:
            self.bars[folder] = tqdm(
                total=self.configs[folder].total_steps,
                initial=self.steps[folder],
                desc=f"{self.name(folder):<{self.title}}",
                unit="step",
                unit_scale=True,
                position=place,
                leave=False,
                dynamic_ncols=True,
                file=sys.stdout,
            )

    def update(self, folder: Path) -> None:
        """Update the run's line and the total from the run's log."""
        steps = self.logged_steps(folder)
        if steps == self.steps[folder]:
            return
        self.all.update(steps - self.steps[folder])
        if folder in self.bars:
            self.bars[folder].set_postfix(headline(last_entry(folder) or {}), refresh=False)
            self.bars[folder].update(steps - self.steps[folder])
        self.steps[folder] = steps

    def end(self, folder: Path, failure: str | None) -> None:
        if folder in self.bars:
            self.bars.pop(folder).close()
        self.ended += failure is None
        self.all.set_description(self.caption(), refresh=self.terminal)
        if failure is not None or not self.terminal:
            result = f"failed: {failure}" if failure else "finished"
            tqdm.write(f"{self.name(folder)} {result}", file=sys.stdout)
