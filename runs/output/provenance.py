"""Provenance of results: commit, versions, machine and command. Stored beside every result."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from afterwit.runs.output.files import atomic_write, read_json

NAME = "provenance.json"
REMEDY = "restore a copy, or remove it: the run then forgets its earlier sessions"
CODE = ("agents", "envs", "world_models", "runs", "examples", "setup.py", "pyproject.toml")
PACKAGES = ("afterwit", "torch", "numpy", "gymnasium", "envpool", "ale-py")


def record(folder: Path) -> None:
    """Add this session to RUN/provenance.json.

    The file is a list with one entry for each time that the run was started or resumed.
    """
    path = folder / NAME
    sessions = read_json(path, REMEDY) if path.exists() else []
    if not isinstance(sessions, list):
        raise ValueError(f"{path} is not a list of sessions; {REMEDY}")
    with atomic_write(path) as file:
        file.write((json.dumps([*sessions, provenance()], indent=2) + "\n").encode())


RECORDED_STEPS = 10  # the first learner steps, whose losses are recorded


def record_losses(folder: Path, losses: Sequence[float]) -> None:
    """Add the losses of the first learner steps, and their digest, to this session's entry.

    Two machines with equal configs and equal digests do the same arithmetic: later results may be
    compared bit for bit. If the digests differ but the losses agree to five digits, the machines
    round differently. If the losses differ too, the code differs.

    Args:
      folder: the run folder.
      losses: one loss per learner step.
    """
    path = folder / NAME
    *earlier, session = read_json(path, REMEDY)
    bits = struct.pack(f"<{len(losses)}d", *losses)
    session |= {
        "first_losses": list(losses),
        "first_losses_sha256": hashlib.sha256(bits).hexdigest()[:16],
    }
    with atomic_write(path) as file:
        file.write((json.dumps([*earlier, session], indent=2) + "\n").encode())


def provenance() -> dict[str, Any]:
    """Return commit, versions, machine, date and command as plain values, for JSON."""
    return {
        "command": " ".join(["afterwit", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
        "processor": processor(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:  # it may be importable from a folder without being installed
        return None


def commit() -> str | None:
    """Return the commit of the checkout, with `+changes` if its code differs.

    A ledger that grows with each run is no code. None for an installed package.
    """
    source = Path(__file__).resolve().parents[2]
    if not (source / "setup.py").is_file():
        return None
    git = ["git", "-C", str(source)]
    try:
        name = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", *CODE],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+changes" if changed else "")


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
