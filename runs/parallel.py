"""Several runs side by side: one process each, one progress bar each, nothing lost if one fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from afterwit.runs.config import RunConfig, read_config
from afterwit.runs.logging import METRICS, read_metrics
from afterwit.runs.train import headline

OUTPUT = "output.txt"


def train_all(folders: Sequence[Path], jobs: int) -> None:
    """Train the runs whose configs lie in `folders`, `jobs` at a time. Finished ones are left alone, others go on.

    Raises ValueError, after all others have ended, naming the runs that failed and their last line of output.
    """
    waiting = [folder for folder in folders if agent_steps(folder) < read_config(folder).total_steps]
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
        lines = [f"{folder}: {(folder / OUTPUT).read_text(encoding='utf-8').strip().splitlines()[-1:]}" for folder in failed]
        raise ValueError("these runs failed: " + "; ".join(lines))


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "afterwit.runs.cli", "train", "--resume", str(folder), "--quiet"]
    with (folder / OUTPUT).open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def agent_steps(folder: Path) -> int:
    entries = read_metrics(folder) if (folder / METRICS).exists() else []
    return int(entries[-1]["agent_steps"]) if entries else 0


def progress_bar(config: RunConfig, position: int) -> tqdm[None]:
    return tqdm(total=config.total_steps, desc=f"{config.title:<24}", unit="step", unit_scale=True, position=position,
                dynamic_ncols=True, file=sys.stdout)  # fmt: skip


def show(bar: tqdm[None], folder: Path) -> None:
    entries = read_metrics(folder) if (folder / METRICS).exists() else []
    if entries and entries[-1]["agent_steps"] > bar.n:
        bar.set_postfix(headline(entries[-1]), refresh=False)
        bar.update(min(int(entries[-1]["agent_steps"]), bar.total) - bar.n)
