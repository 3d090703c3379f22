"""A soak: the resources of a run's processes once a second, and whether any of them grow.

It reads /proc, so it needs Linux. `sample` and `take_samples` take a process and follow all its
children, also those of another command or a cluster.
"""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import write_config
from afterwit.runs.drills.processes import NUMBERS, PROC, Sample, family, sample, workers
from afterwit.runs.output.files import atomic_write
from afterwit.runs.training.checkpoint import list_checkpoints

WARM_UP = 0.25  # share of a soak that is not judged, while caches and allocators fill
GROWTH = 0.05  # growth of memory that is allowed after the warm-up
TABLE, PICTURE, OUTPUT = "soak.csv", "soak.png", "output.txt"
KILL = 60.0  # seconds between two kills of an actor


def take_samples(
    pid: int, minutes: float, each: Callable[[Sample], None] = lambda sample: None
) -> list[Sample]:
    """Take a sample a second until `minutes` are over or the process ends.

    `each` is called with every sample, and may do harm to the process.
    """
    begun, samples = time.monotonic(), list[Sample]()
    while (now := time.monotonic() - begun) < minutes * 60 and family(pid):
        samples.append(sample(pid, now))
        each(samples[-1])
        time.sleep(max(0.0, begun + len(samples) - time.monotonic()))
    return samples


def judge(samples: list[Sample]) -> dict[str, tuple[float, float, bool]]:
    """Return name -> (value at the start, value at the end, whether it is flat).

    Memory may grow by GROWTH; nothing else may grow.

    Raises:
      ValueError: there are fewer than 20 samples.
    """
    if len(samples) < 20:
        raise ValueError(
            f"{len(samples)} samples are too few to judge; soak for a minute or longer, and check"
            " that the run does not end early"
        )
    result = {}
    for name in NUMBERS:
        first, last = start_and_end(samples, lambda each, name=name: getattr(each, name))  # type: ignore[misc]
        limit = first * (1 + GROWTH) if name in ("memory", "shared") else first
        result[name] = (first, last, last <= limit)
    return result


def start_and_end(samples: list[Sample], number: Callable[[Sample], float]) -> tuple[float, float]:
    """Return a number's value in the first fifth after the warm-up, and in the last fifth.

    Each is the 90th percentile. While a process is being replaced, less is held, and how long that
    takes depends on the load of the machine.
    """
    judged = samples[int(len(samples) * WARM_UP) :]
    part = max(1, len(judged) // 5)
    first, last = (
        float(np.percentile([number(each) for each in some], 90))
        for some in (judged[:part], judged[-part:])
    )
    return first, last


def growing_processes(samples: list[Sample], name: str, unit: int = 1) -> str:
    """Return which processes hold more of `name` at the end, in units: "raylet 41 to 67"."""
    growing = []
    for title in dict.fromkeys(title for each in samples for title in each.parts):

        def amount(each: Sample, title: str = title) -> int:
            return each.parts.get(title, {}).get(name, 0)

        first, last = start_and_end(samples, amount)
        if last >= first + unit:
            growing.append(f"{title} {first / unit:,.0f} to {last / unit:,.0f}")
    return ", ".join(growing)


class ActorKiller:
    """Sends kill -9 to one of a run's actors every KILL seconds."""

    def __init__(self, pid: int):
        self.pid, self.kills, self.random = pid, 0, np.random.default_rng(0)

    def __call__(self, now: Sample) -> None:
        if now.seconds >= KILL * (self.kills + 1) and (actors := workers(self.pid, "ActorProcess")):
            os.kill(actors[self.random.integers(len(actors))], signal.SIGKILL)
            self.kills += 1


def soak(minutes: float, out: Path, cluster: bool, progress: bool = True) -> bool:
    """Train the maze for `minutes` in its own process, write the samples, and print the verdict.

    Args:
      minutes: how long.
      out: folder for soak.csv and soak.png.
      cluster: on a local Ray cluster with two actors, one of which is killed every minute.
      progress: whether to show a progress bar.

    Returns:
      True if nothing grows and everything ends cleanly.
    """
    if not minutes > 0:
        raise ValueError(f"soak is {minutes}; it takes minutes above 0")
    if not PROC.joinpath("self", "status").is_file():
        raise ValueError("a soak reads /proc, which this system does not have; run it on Linux")
    folder = out / "run"
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} holds an earlier soak; choose another --out, or remove it")
    config = replace(maze(), total_steps=1_000_000_000, checkpoint_interval=50_000)
    write_config(
        replace(config, cluster="local", actors=2, policy_lag=2) if cluster else config, folder
    )
    before = sample(os.getpid(), 0)
    command = [sys.executable, "-P", "-m", "afterwit.runs.training.train_folder", str(folder)]
    with (out / OUTPUT).open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    killer = ActorKiller(process.pid) if cluster else None
    bar = tqdm(
        total=round(minutes * 60),
        unit="s",
        desc="soak",
        disable=not progress,
        dynamic_ncols=True,
        file=sys.stdout,
    )

    def show(now: Sample) -> None:
        if killer is not None:
            killer(now)
        bar.set_postfix(MiB=now.memory >> 20, refresh=False)
        bar.update()

    try:
        samples = take_samples(process.pid, minutes, show)
    finally:
        bar.close()
        children = family(process.pid)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    write(samples, out)
    verdicts = judge(samples)
    for name, (first, last, flat) in verdicts.items():
        unit = 1 << 20 if name in ("memory", "shared") else 1
        whose = "" if flat else f": {growing_processes(samples, name, unit)}"
        word = "flat" if flat else "GROWS"
        print(
            f"{name:<10} {first / unit:>10,.1f}"
            f" {last / unit:>10,.1f}{' MiB' if unit > 1 else '    '} {word}{whose}"
        )
    remaining = [pid for pid in children if family(pid)]
    after = sample(os.getpid(), 0)
    clean = (
        not remaining
        and after.segments <= before.segments
        and code == 130
        and bool(list_checkpoints(folder))
    )
    print(
        f"after its end: {len(remaining)} processes and {max(0, after.segments - before.segments)}"
        f" segments left, exit code {code}"
    )
    if killer is not None:
        replaced = (
            (out / OUTPUT).read_text(encoding="utf-8", errors="replace").count(" is replaced: ")
        )
        print(f"{killer.kills} actors were killed, {replaced} replaced")
        clean = clean and killer.kills == replaced
    return clean and all(flat for _, _, flat in verdicts.values())


def write(samples: list[Sample], out: Path) -> None:
    """Write the samples as a table and a figure."""
    from matplotlib.figure import Figure  # late import: slow

    rows = io.StringIO(newline="")
    table = csv.DictWriter(rows, ["seconds", *NUMBERS], extrasaction="ignore")
    table.writeheader()
    table.writerows(vars(sample) for sample in samples)
    with atomic_write(out / TABLE) as file:
        file.write(rows.getvalue().encode())
    names = [name for name in NUMBERS if name != "shared"]
    figure = Figure(figsize=(8, 8), layout="constrained")
    minutes = [sample.seconds / 60 for sample in samples]
    for axes, name in zip(figure.subplots(len(names), sharex=True), names, strict=True):
        axes.plot(
            minutes,
            [getattr(sample, name) / (1 << 20 if name == "memory" else 1) for sample in samples],
        )
        axes.axvspan(0, minutes[-1] * WARM_UP, alpha=0.1)
        axes.set_ylabel("memory, MiB" if name == "memory" else name)
        axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes; shaded: warm-up, not judged")
    with atomic_write(out / PICTURE) as file:
        figure.savefig(file, format="png", dpi=100)
