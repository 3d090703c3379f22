"""Several runs side by side: one process each, one progress bar each, nothing lost if one fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from afterwit.runs import checkpoint
from afterwit.runs.config import RunConfig, read_config, to_dict
from afterwit.runs.logging import METRICS, read_metrics
from afterwit.runs.train import headline

OUTPUT = "output.txt"


def train_all(folders: Sequence[Path], jobs: int) -> None:
    """Train the runs whose configs lie in `folders`, `jobs` at a time. Finished ones are left alone, others go on.

    Raises ValueError, after all others have ended, naming the runs that failed and their last line of output.
    """
    waiting = [folder for folder in folders if not finished(folder)]
    bars = {folder: progress_bar(read_config(folder), index) for index, folder in enumerate(waiting)}
    running: dict[Path, subprocess.Popen[bytes]] = {}
    failed: list[Path] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                folder = waiting.pop(0)
                running[folder] = start(folder)
            time.sleep(0.3)
            for folder, process in list(running.items()):
                code = process.poll()
                show(bars[folder], folder)
                if code is not None:
                    del running[folder]
                    failed += [folder] if code else []
    finally:
        for process in running.values():  # Ctrl-C here: each run saves a checkpoint and stops
            process.terminate()
        for process in running.values():
            process.wait()
        for bar in bars.values():
            bar.close()
    if failed:
        raise ValueError("; ".join(f"{folder} failed: {last_line(folder / OUTPUT)}" for folder in failed))


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "afterwit.runs.cli", "train", "--resume", str(folder), "--quiet"]
    with (folder / OUTPUT).open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def finished(folder: Path) -> bool:
    """Does the run's checkpoint hold all its steps? (The log may be ahead of the checkpoint.)"""
    config = read_config(folder)
    exists = (folder / checkpoint.NAME).exists()
    return exists and checkpoint.load(folder, to_dict(config))["agent_steps"] >= config.total_steps


def last_line(path: Path) -> str:
    return ([line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()] or ["it said nothing"])[-1]


def progress_bar(config: RunConfig, position: int) -> tqdm[None]:
    return tqdm(total=config.total_steps, desc=f"{config.title:<24}", unit="step", unit_scale=True, position=position,
                dynamic_ncols=True, file=sys.stdout)  # fmt: skip


def show(bar: tqdm[None], folder: Path) -> None:
    entries = read_metrics(folder) if (folder / METRICS).exists() else []
    if entries and entries[-1]["agent_steps"] > bar.n:
        bar.set_postfix(headline(entries[-1]), refresh=False)
        bar.update(min(int(entries[-1]["agent_steps"]), bar.total) - bar.n)
