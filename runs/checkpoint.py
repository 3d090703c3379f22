"""Checkpoints: written whole or not at all, read without running any pickled code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from afterwit.runs.config import RunConfig, from_dict, to_dict

NAME = "checkpoint.pt"
FORMAT = 1
FREE = (
    "total_steps",
    "device",
    "threads",
    "acting_threads",
    "compile",
    "cluster",
    "actors",
    "actor_envs",
    "learners",
    "placement",
    "actor_patience",
    "log_interval",
    "checkpoint_interval",
)  # may change when a run goes on


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write RUN/checkpoint.pt: to a temporary file, synced, then renamed over the old one."""
    with replacing(folder / NAME) as file:
        torch.save({"format": FORMAT, **state}, file)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is whole and on disk; until then `path` stays as it is."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(folder: Path, config: RunConfig) -> dict[str, Any]:
    """The checkpoint of a run folder, on the CPU. Raises ValueError where it is missing, cut short, or of another config.

    Config fields that did not exist when it was written count as their defaults.
    """
    path = folder / NAME
    if not path.is_file():
        raise ValueError(f"{folder} has no checkpoint yet ({NAME}); train it first: afterwit train --resume {folder}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; all mean that the file is unreadable
        raise ValueError(
            f"{path} cannot be read ({path.stat().st_size} bytes; cut short or no checkpoint): {str(error).splitlines()[0][:120]}; "
            f"put a copy back, or remove the file to start this run from the beginning"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} has format {found!r}; this version of afterwit reads format {FORMAT}")
    try:
        written = from_dict(state["config"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; read it with the version that wrote it, which RUN/provenance.json names") from error
    fixed = [{name: value for name, value in to_dict(data).items() if name not in FREE} for data in (written, config)]
    different = differences(fixed[0], fixed[1])
    if different:
        raise ValueError(f"{path} belongs to another config: {different[0]}; restore {folder / 'config.json'}, or start a new run")
    return state


SIDES = ("in the checkpoint", "in config.json")


def differences(saved: Any, wanted: Any, where: str = "", sides: tuple[str, str] = SIDES) -> list[str]:
    """Where two configs differ, as `field is a in the checkpoint, b in config.json`; `sides` are the words for the two."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        names = sorted(saved.keys() | wanted.keys())
        return [line for name in names for line in differences(saved.get(name), wanted.get(name), f"{where}.{name}".lstrip("."), sides)]
    if isinstance(saved, list | tuple) and isinstance(wanted, list | tuple) and list(saved) == list(wanted):
        return []
    return [] if saved == wanted else [f"{where} is {saved!r} {sides[0]}, {wanted!r} {sides[1]}"]
