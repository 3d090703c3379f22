"""Many runs, some at a time: one process each, one display for all, nothing lost if one fails or
all are killed.
"""

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
POLL = 0.3  # seconds between two looks at the runs
PATIENCE = 60.0  # seconds for which the runs of a killed session may save and stop


class RunsFailed(ValueError):
    """Some runs ended with an error; all others were finished first. `failed`: folder -> its last
    line of output.
    """

    def __init__(self, failed: Mapping[Path, str]):
        super().__init__("; ".join(f"{folder} failed: {line}" for folder, line in failed.items()))
        self.failed = dict(failed)


def train_all(
    folders: Sequence[Path],
    jobs: int,
    lock: int,
    ended: Callable[[Path, int], None] = lambda folder, code: None,
) -> None:
    """Train the runs whose configs lie in `folders`, `jobs` at a time. Finished ones are left
    alone, others go on.

    `lock`: what `locked_folder` gave; every run holds it too. `ended` is told of each run that ends,
    with its exit code. If this process is interrupted or killed, each run saves a checkpoint and
    stops. Raises RunsFailed at the end.
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
                    running[folder] = start(folder, lock)
                    display.begin(folder)
                time.sleep(POLL)
                for folder, process in list(running.items()):
                    code = process.poll()
                    display.look(folder)
                    if code is not None:
                        del running[folder]
                        close(process)
                        if code:
                            failed[folder] = last_line(folder / OUTPUT)
                        display.end(folder, failed.get(folder))
                        ended(folder, code)
        finally:
            for process in running.values():
                process.terminate()
            for folder, process in running.items():
                ended(folder, process.wait())
                close(process)
    if failed:
        raise RunsFailed(failed)


def start(folder: Path, lock: int) -> subprocess.Popen[bytes]:
    """The run as a process that holds `lock`, and that stops by itself when this process is gone.
    -P: as for this process, modules of the current folder come last."""
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


def close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def finished(folder: Path) -> bool:
    """Does the run's checkpoint hold all its steps? (The log may be ahead of the checkpoint, never
    behind it.)
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
        return False  # damaged: the run itself will say how, and all others go on


def last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return ([line for line in lines if line.strip()] or ["it said nothing"])[-1]


class Display:
    """Agent steps of all runs with the time they still need, and below it the runs of the moment,
    one line each.

    Where stdout is no terminal: the first line every half minute, and a line for each run that
    ends.
    """

    def __init__(self, folders: Sequence[Path], done: Mapping[Path, int]):
        self.configs = {folder: read_config(folder) for folder in folders}
        self.steps = dict(done)
        self.terminal = sys.stdout.isatty()
        self.title = max(24, *(len(self.name(folder)) for folder in folders)) if folders else 24
        self.bars: dict[Path, tqdm[None]] = {}
        for folder in folders:
            self.steps[folder] = self.steps[folder] or self.logged(folder)
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
        """How the runs' folders differ: what follows the part they share."""
        shared = Path(os.path.commonpath([path.parent for path in self.configs]))
        return str(folder.relative_to(shared))

    def logged(self, folder: Path) -> int:
        entry = last_entry(folder)
        return min(int(entry["agent_steps"]), self.configs[folder].total_steps) if entry else 0

    def begin(self, folder: Path) -> None:
        taken = {-bar.pos for bar in self.bars.values()}
        place = next(index for index in range(1, len(self.bars) + 2) if index not in taken)
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

    def look(self, folder: Path) -> None:
        """Bring the run's line, and the sum, to what its log says."""
        steps = self.logged(folder)
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
            tqdm.write(
                (
                    f"{self.name(folder)} failed: {failure}"
                    if failure
                    else f"{self.name(folder)} finished"
                ),
                file=sys.stdout,
            )
