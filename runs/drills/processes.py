"""What processes hold, as Linux's /proc tells: memory, threads, files, shared memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROC, SHM = Path("/proc"), Path("/dev/shm")


@dataclass(frozen=True)
class Sample:
    """All processes of a run at a moment."""

    seconds: float
    memory: int  # bytes resident, what processes share counted once for each
    processes: int
    threads: int
    files: int  # open file descriptors
    segments: int  # files in /dev/shm, of all processes of the machine
    shared: int  # bytes in them
    # memory, processes, threads and files by `title`
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


# of a sample, that must not grow
NUMBERS = ("memory", "processes", "threads", "files", "segments", "shared")


def family(pid: int) -> list[int]:
    """The process and all its descendants that are alive; empty when it is gone."""
    parents = {}
    for path in PROC.glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended meanwhile
            continue
        if state != "Z":
            parents[int(path.name)] = int(parent)
    found = [pid] if pid in parents else []
    for each in found:  # grows while it is read
        found += [child for child, parent in parents.items() if parent == each]
    return found


def title(pid: int) -> str:
    """What a process is called: raylet, dashboard.py, ray::ActorProcess."""
    words = (
        (PROC / str(pid) / "cmdline")
        .read_bytes()
        .rstrip(b"\0 ")
        .decode(errors="replace")
        .split("\0")
    )
    if words[0].startswith("ray::"):
        return words[0].partition(".")[0]
    return Path(next((word for word in words if word.endswith(".py")), words[0])).name


def resources_by_process(pid: int) -> dict[str, Counter[str]]:
    """Memory (bytes resident), processes, threads and files of `pid` and its descendants, by what
    they are called.
    """
    found: dict[str, Counter[str]] = {}
    for each in family(pid):
        try:
            status = dict(
                line.split(":", 1)
                for line in (PROC / str(each) / "status").read_text().splitlines()
            )
            files, name = len(os.listdir(PROC / str(each) / "fd")), title(each)
        except OSError:  # it has ended meanwhile
            continue
        memory = int(status.get("VmRSS", "0 kB").split()[0]) * 1024
        found.setdefault(name, Counter()).update(
            memory=memory, processes=1, threads=int(status["Threads"]), files=files
        )
    return found


def sample(pid: int, seconds: float) -> Sample:
    """What the process `pid` and its descendants hold now."""
    parts = resources_by_process(pid)
    sizes = (
        [path.stat().st_size for path in SHM.iterdir() if path.is_file()] if SHM.is_dir() else []
    )
    memory, processes, threads, files = (
        sum(part[name] for part in parts.values()) for name in NUMBERS[:4]
    )
    return Sample(
        round(seconds, 2), memory, processes, threads, files, len(sizes), sum(sizes), parts
    )


def workers(pid: int, name: str) -> list[int]:
    """The processes of a run on a local cluster that are a `name`, such as ActorProcess."""
    found = []
    for each in family(pid):
        with suppress(OSError):  # it has ended meanwhile
            found += [each] if title(each) == f"ray::{name}" else []
    return found
