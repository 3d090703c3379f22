"""A soak: what a run's processes hold, once a second, and whether any of it grows. Reads /proc, so
it needs Linux.

`sample` and `watch` take a process and follow its children, however they were started: another
command's, or a cluster's.
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
from afterwit.runs.output.files import replacing
from afterwit.runs.training.checkpoint import list_checkpoints

WARM_UP = 0.25  # share of a soak that is not judged: caches and allocators fill
GROWTH = 0.05  # of memory after that; more is a leak
TABLE, PICTURE, OUTPUT = "soak.csv", "soak.png", "output.txt"
KILL = 60.0  # seconds between two kills of an actor


def watch(
    pid: int, minutes: float, each: Callable[[Sample], None] = lambda sample: None
) -> list[Sample]:
    """A sample a second, until `minutes` are over or the process ends. `each` is told of every
    sample: it may do harm, say.
    """
    begun, samples = time.monotonic(), list[Sample]()
    while (now := time.monotonic() - begun) < minutes * 60 and family(pid):
        samples.append(sample(pid, now))
        each(samples[-1])
        time.sleep(max(0.0, begun + len(samples) - time.monotonic()))
    return samples


def judge(samples: list[Sample]) -> dict[str, tuple[float, float, bool]]:
    """name -> (at the beginning, at the end, is that flat?), by `heights`.

    Memory may grow by GROWTH, of nothing else may there be more. Raises ValueError for fewer than
    20 samples.
    """
    if len(samples) < 20:
        raise ValueError(
            f"{len(samples)} samples are too few to judge; soak for a minute or longer, and see"
            " that the run goes on"
        )
    result = {}
    for name in NUMBERS:
        first, last = heights(samples, lambda each, name=name: getattr(each, name))  # type: ignore[misc]
        limit = first * (1 + GROWTH) if name in ("memory", "shared") else first
        result[name] = (first, last, last <= limit)
    return result


def heights(samples: list[Sample], number: Callable[[Sample], float]) -> tuple[float, float]:
    """Of a number: what it reaches in the first fifth after the warm-up and in the last (the ninth
    decile: while a process is being replaced less is held, and how long that takes hangs on what
    else the machine does)."""
    judged = samples[int(len(samples) * WARM_UP) :]
    part = max(1, len(judged) // 5)
    first, last = (
        float(np.percentile([number(each) for each in some], 90))
        for some in (judged[:part], judged[-part:])
    )
    return first, last


def holders(samples: list[Sample], name: str, unit: int = 1) -> str:
    """Whose processes hold more of `name`, in units, at the end than at the beginning: "raylet 41
    to 67".
    """
    found = []
    for who in dict.fromkeys(who for each in samples for who in each.parts):
        first, last = heights(samples, lambda each, who=who: each.parts.get(who, {}).get(name, 0))  # type: ignore[misc]
        if last >= first + unit:
            found.append(f"{who} {first / unit:,.0f} to {last / unit:,.0f}")
    return ", ".join(found)


class Killer:
    """kill -9 of one of a run's actors every KILL seconds."""

    def __init__(self, pid: int):
        self.pid, self.kills, self.random = pid, 0, np.random.default_rng(0)

    def __call__(self, now: Sample) -> None:
        if now.seconds >= KILL * (self.kills + 1) and (actors := workers(self.pid, "ActorProcess")):
            os.kill(actors[self.random.integers(len(actors))], signal.SIGKILL)
            self.kills += 1


def soak(minutes: float, out: Path, cluster: bool, progress: bool = True) -> bool:
    """Train the maze for `minutes` in a process of its own, write OUT/soak.csv and OUT/soak.png,
    print the verdict. True: all is flat.

    `cluster`: on a local Ray cluster with two actors, of which one is killed every minute.
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
    killer = Killer(process.pid) if cluster else None
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
        samples = watch(process.pid, minutes, show)
    finally:
        bar.close()
        children = family(process.pid)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    write(samples, out)
    verdicts = judge(samples)
    for name, (first, last, flat) in verdicts.items():
        unit = 1 << 20 if name in ("memory", "shared") else 1
        whose = "" if flat else f": {holders(samples, name, unit)}"
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
    """The samples as a table and as a picture."""
    from matplotlib.figure import Figure  # which the rest of the soak need not wait for

    rows = io.StringIO(newline="")
    table = csv.DictWriter(rows, ["seconds", *NUMBERS], extrasaction="ignore")
    table.writeheader()
    table.writerows(vars(sample) for sample in samples)
    with replacing(out / TABLE) as file:
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
    with replacing(out / PICTURE) as file:
        figure.savefig(file, format="png", dpi=100)
