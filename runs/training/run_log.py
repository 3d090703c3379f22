"""A run's log: one JSON line per entry for reports, the same numbers in TensorBoard for people. x
is agent steps.
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from afterwit.runs.configs.overrides import short
from afterwit.runs.output.files import AppendOnlyFile, replacing
from afterwit.runs.training.episode_statistics import Statistics

METRICS, MAPS, EVENTS = "metrics.jsonl", "maps.npz", "tensorboard"


class Log:
    """Appends to RUN/metrics.jsonl and RUN/tensorboard. On resume, entries after `agent_steps` are
    dropped first.

    An entry is in both files when `write` returns, so a killed process loses none. (Not through
    torch's SummaryWriter: its thread keeps entries back for minutes, and where the disk is full it
    dies with a traceback of its own.)
    """

    def __init__(self, folder: Path, agent_steps: int):
        self.folder = folder
        path, events = folder / METRICS, folder / EVENTS
        kept = (
            [entry for entry in read_metrics(folder) if entry["agent_steps"] <= agent_steps]
            if path.exists()
            else []
        )
        with replacing(path) as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in kept).encode())
        self.lines = AppendOnlyFile(path)
        events.mkdir(exist_ok=True)
        session = len(list(events.iterdir()))
        # TensorBoard reads a run's files in the order of their names, and at a START forgets what
        # is at or after its step.
        self.events = AppendOnlyFile(
            events / f"events.out.tfevents.{int(time.time()):010d}.{session:04d}.afterwit"
        )
        self.events.write(event(0, file_version="brain.Event:2"))
        self.events.write(event(agent_steps + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, entry: dict[str, float]) -> None:
        """One entry; it must hold `agent_steps`. Raises Unwritable where there is no room."""
        values = [
            Summary.Value(tag=name if "/" in name else f"time/{name}", simple_value=value)
            for name, value in entry.items()
        ]
        self.lines.write((json.dumps(entry) + "\n").encode())
        self.events.write(event(int(entry["agent_steps"]), summary=Summary(value=values)))

    def sync(self) -> None:
        """On disk, whatever happens to the machine: what a checkpoint counts on is there before
        it.
        """
        self.lines.sync()
        self.events.sync()

    def write_maps(self, statistics: Statistics) -> None:
        """Visits and pay per cell for each tenth of the run, where the world has cells."""
        if statistics.visits.shape[1]:
            with replacing(self.folder / MAPS) as file:
                np.savez_compressed(file, visits=statistics.visits, pay=statistics.pay)

    def close(self) -> None:
        self.lines.close()
        self.events.close()


def event(step: int, **content: Any) -> bytes:
    """A record of TensorBoard's file format."""
    record = io.BytesIO()
    RecordWriter(record).write(
        Event(wall_time=time.time(), step=step, **content).SerializeToString()
    )
    return record.getvalue()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log in order; a last line that was cut short by a crash is left
    out.
    """
    lines = (folder / METRICS).read_bytes().splitlines()
    entries = []
    for number, line in enumerate(lines):
        try:
            entries.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:
                raise ValueError(
                    f"{folder / METRICS} line {number + 1} is damaged ({error}); remove the line"
                ) from error
    return entries


HEADLINES = (
    "reached/R1",
    "reached/R2",
    "reached/R3",
    "reached/R4",
    "episode/rooms",
    "episode/cells",
    "episode/return",
)


def headline(entry: dict[str, float]) -> dict[str, str]:
    """What a progress bar shows of a log entry: at most four numbers."""
    return {
        name.split("/")[1]: f"{entry[name]:.2f}"
        for name in [h for h in HEADLINES if h in entry][:4]
    }


TAIL = 1 << 16  # bytes; the last entry of a log lies within


def last_entry(folder: Path) -> dict[str, Any] | None:
    """The last whole entry of a run's log, without reading the rest; None if there is none."""
    path = folder / METRICS
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # being written, or cut off by a crash
            continue
        if not isinstance(entry, dict) or type(entry.get("agent_steps")) is not int:
            raise ValueError(
                f"{path} has {short(entry)} in its last line, which is no entry of a log; remove"
                " the line"
            )
        return entry
    return None
