"""A run's log over agent steps: a JSON line per entry, and the same numbers for TensorBoard."""

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
from afterwit.runs.output.files import AppendOnlyFile, atomic_write
from afterwit.runs.training.episode_statistics import Statistics

METRICS, MAPS, EVENTS = "metrics.jsonl", "maps.npz", "tensorboard"


class Log:
    """Appends entries to RUN/metrics.jsonl and RUN/tensorboard.

    On resume, entries after `agent_steps` are dropped first. An entry is in both files when `write`
    returns, so a killed process loses none. torch's SummaryWriter is not used: its thread holds
    entries back for minutes, and on a full disk it dies with a traceback.
    """

    def __init__(self, folder: Path, agent_steps: int):
        self.folder = folder
        path, events = folder / METRICS, folder / EVENTS
        kept = (
            [entry for entry in read_metrics(folder) if entry["agent_steps"] <= agent_steps]
            if path.exists()
            else []
        )
        with atomic_write(path) as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in kept).encode())
        self.lines = AppendOnlyFile(path)
        events.mkdir(exist_ok=True)
        session = len(list(events.iterdir()))
        # TensorBoard reads a run's files in the order of their names. At a START event it forgets
        # all numbers at or after its step.
        self.events = AppendOnlyFile(
            events / f"events.out.tfevents.{int(time.time()):010d}.{session:04d}.afterwit"
        )
        self.events.write(event(0, file_version="brain.Event:2"))
        self.events.write(event(agent_steps + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, entry: dict[str, float]) -> None:
        """Write one entry, which must hold `agent_steps`.

        Raises:
          Unwritable: there is no room.
        """
        values = [
            Summary.Value(tag=name if "/" in name else f"time/{name}", simple_value=value)
            for name, value in entry.items()
        ]
        self.lines.write((json.dumps(entry) + "\n").encode())
        self.events.write(event(int(entry["agent_steps"]), summary=Summary(value=values)))

    def sync(self) -> None:
        """Write everything to disk. Done before a checkpoint, which relies on the log."""
        self.lines.sync()
        self.events.sync()

    def write_maps(self, statistics: Statistics) -> None:
        """Write visits and pay per cell for each tenth of the run, if the world has cells."""
        if statistics.visits.shape[1]:
            with atomic_write(self.folder / MAPS) as file:
                np.savez_compressed(file, visits=statistics.visits, pay=statistics.pay)

    def close(self) -> None:
        self.lines.close()
        self.events.close()


def event(step: int, **content: Any) -> bytes:
    """Return a record of TensorBoard's file format."""
    record = io.BytesIO()
    RecordWriter(record).write(
        Event(wall_time=time.time(), step=step, **content).SerializeToString()
    )
    return record.getvalue()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return a run's log entries in order, without a last line that a crash cut short."""
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
    """Return what a progress bar shows of a log entry: at most four numbers."""
    return {
        name.split("/")[1]: f"{entry[name]:.2f}"
        for name in [h for h in HEADLINES if h in entry][:4]
    }


TAIL = 1 << 16  # bytes at the end of a log, which hold its last entry


def last_entry(folder: Path) -> dict[str, Any] | None:
    """Return the last complete log entry, without reading the others; None if there is none."""
    path = folder / METRICS
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # being written now, or cut off by a crash
            continue
        if not isinstance(entry, dict) or type(entry.get("agent_steps")) is not int:
            raise ValueError(
                f"{path} has {short(entry)} in its last line, which is not a log entry; remove"
                " the line"
            )
        return entry
    return None
