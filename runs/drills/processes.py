"""Resources of processes, from Linux's /proc: memory, threads, files and shared memory."""

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
    """Resources of all processes of a run at one moment."""

    seconds: float
    memory: int  # resident bytes; shared memory counts once per process
    processes: int
    threads: int
    files: int  # open file descriptors
    segments: int  # files in /dev/shm, from all processes of the machine
    shared: int  # bytes in them
    # memory, processes, threads and files by process title
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


# numbers of a sample that must not grow
NUMBERS = ("memory", "processes", "threads", "files", "segments", "shared")


def family(pid: int) -> list[int]:
    """Return the process and its living descendants; empty if it has ended."""
    parents = {}
    for path in PROC.glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state != "Z":
            parents[int(path.name)] = int(parent)
    found = [pid] if pid in parents else []
    for each in found:  # the list grows during the loop
        found += [child for child, parent in parents.items() if parent == each]
    return found


def title(pid: int) -> str:
    """Return what a process is called: raylet, dashboard.py, ray::ActorProcess."""
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
    """Return the resources of `pid` and its descendants by process title.

    They are memory (resident bytes), processes, threads and files.
    """
    found: dict[str, Counter[str]] = {}
    for each in family(pid):
        try:
            status = dict(
                line.split(":", 1)
                for line in (PROC / str(each) / "status").read_text().splitlines()
            )
            files, name = len(os.listdir(PROC / str(each) / "fd")), title(each)
        except OSError:  # it has just ended
            continue
        memory = int(status.get("VmRSS", "0 kB").split()[0]) * 1024
        found.setdefault(name, Counter()).update(
            memory=memory, processes=1, threads=int(status["Threads"]), files=files
        )
    return found


def sample(pid: int, seconds: float) -> Sample:
    """Return the resources of `pid` and its descendants now."""
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
    """Return the processes of a run on a local cluster called `name`, such as ActorProcess."""
    found = []
    for each in family(pid):
        with suppress(OSError):  # it has just ended
            found += [each] if title(each) == f"ray::{name}" else []
    return found
