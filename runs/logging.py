"""A run's log: one JSON line per entry for reports, the same numbers in TensorBoard for people. x is agent steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from afterwit.runs.checkpoint import replacing
from afterwit.runs.statistics import Statistics

METRICS, MAPS = "metrics.jsonl", "maps.npz"


class Log:
    """Appends to RUN/metrics.jsonl and RUN/tensorboard. On resume, entries after `agent_steps` are dropped first."""

    def __init__(self, folder: Path, agent_steps: int):
        self.folder = folder
        path = folder / METRICS
        kept = [entry for entry in read_metrics(folder) if entry["agent_steps"] <= agent_steps] if path.exists() else []
        with replacing(path) as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in kept).encode())
        self.file = path.open("a", encoding="utf-8")
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=agent_steps + 1 if agent_steps else None)

    def write(self, entry: dict[str, float]) -> None:
        """One entry; it must hold `agent_steps`."""
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        for name, value in entry.items():
            tag = name if "/" in name else f"time/{name}"
            self.writer.add_scalar(tag, value, int(entry["agent_steps"]))

    def write_maps(self, statistics: Statistics) -> None:
        """Visits and pay per cell for each tenth of the run, where the world has cells."""
        if statistics.visits.shape[1]:
            with replacing(self.folder / MAPS) as file:
                np.savez_compressed(file, visits=statistics.visits, pay=statistics.pay)

    def close(self) -> None:
        self.file.close()
        self.writer.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log in order; a last line that was cut short by a crash is left out."""
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    entries = []
    for number, line in enumerate(lines):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines) - 1:
                raise ValueError(f"{folder / METRICS} line {number + 1} is damaged ({error}); remove the line") from error
    return entries
