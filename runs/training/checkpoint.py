"""Checkpoints: written whole or not at all, checked before anything in them is used, read without
running any pickled code.

A run folder holds `checkpoint.pt`, the newest; `checkpoint.1.pt`, the one before it, and so on up
to the run's keep_checkpoints; and `best.pt`. A file is one line, with the format and a SHA-256 of
all else, and then what torch.save writes. Format 1, without the line, is still read; it has no
checksum, only that of the zip file that it is.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import torch

from afterwit.runs.configs.run_config import RESOURCES, RunConfig, from_dict, to_dict, write_config
from afterwit.runs.output.files import link_or_copy, replacing, sync, sync_folder
from afterwit.runs.output.text import quoted

NAME, BEST = "checkpoint.pt", "best.pt"
FORMAT = 2
HEADER = re.compile(rb"(afterwit checkpoint, format (\d{1,9})), sha256 ([0-9a-f]{64})\n")
FREE = ("total_steps", *RESOURCES)  # may change when a run goes on


class Damaged(ValueError):
    """A checkpoint that is not what was written: cut short, changed, or never one."""


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write RUN/checkpoint.pt: to a temporary file, synced, then renamed over the old one, which
    has moved up to checkpoint.1.pt.

    `state["score"]` (None: too few episodes to tell) decides about best.pt: the newest takes its
    place unless that is better. Raises Unwritable where there is no room; then what was there is as
    it was.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    start = b"afterwit checkpoint, format %d" % FORMAT
    header = b"%s, sha256 %s\n" % (start, digest(start, content))
    with replacing(folder / NAME) as file:
        file.write(header)
        file.write(content)
        sync(file)
        move_up(folder, state["config"]["keep_checkpoints"])
    if state.get("score") is not None and state["score"] >= best_score(folder):
        # a file of its own: what damages the newest leaves it alone
        with replacing(folder / BEST) as file:
            file.write(header)
            file.write(content)


def digest(start: bytes, content: bytes | memoryview) -> bytes:
    total = hashlib.sha256(start)
    total.update(content)
    return total.hexdigest().encode()


def older(folder: Path, age: int) -> Path:
    """The checkpoint that is `age` checkpoints older than the newest."""
    return folder / (f"checkpoint.{age}.pt" if age else NAME)


def kept(folder: Path) -> list[Path]:
    """The run's checkpoints that there are, newest first, `best.pt` aside."""
    aged = [
        int(match[1])
        for path in folder.iterdir()
        if (match := re.fullmatch(r"checkpoint\.([1-9]\d*)\.pt", path.name))
    ]
    return [path for path in (older(folder, age) for age in (0, *sorted(aged))) if path.is_file()]


def move_up(folder: Path, keep: int) -> None:
    """Make room for a new one: each becomes one older, the newest keeps its name as well, and more
    than `keep` are removed.
    """
    for age in range(keep - 1, 0, -1):
        if older(folder, age - 1).is_file():
            (os.replace if age > 1 else link_or_copy)(older(folder, age - 1), older(folder, age))
    for path in kept(folder)[1:]:
        if int(path.name.split(".")[1]) >= keep:
            path.unlink()


def best_score(folder: Path) -> float:
    try:
        return float(read(folder / BEST)["score"])
    except (OSError, ValueError):  # there is none, or it is damaged: any is better
        return -float("inf")


def read(path: Path) -> dict[str, Any]:
    """What was saved in a file, on the CPU. Raises Damaged, or ValueError where a newer version of
    afterwit wrote it.
    """
    data = path.read_bytes()
    header = HEADER.match(data)
    content = memoryview(data)
    if header:
        content = content[header.end() :]
        if digest(header[1], content) != header[3]:
            raise Damaged(
                f"{path} is damaged ({len(data)} bytes): it was cut short or changed after it was"
                " written"
            )
        if int(header[2]) > FORMAT:
            raise ValueError(
                f"{path} has format {int(header[2])}; this version of afterwit reads formats 1 to"
                f" {FORMAT}: read it with the version that wrote it, which RUN/provenance.json"
                " names, or a newer one"
            )
    elif not data.startswith(b"PK\3\4"):  # no zip file, so not format 1
        raise Damaged(f"{path} is damaged, or no checkpoint of afterwit ({len(data)} bytes)")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; all mean that the file is unreadable
        raise Damaged(
            f"{path} is damaged, or no checkpoint of afterwit ({len(data)} bytes)"
        ) from error
    if (
        not isinstance(state, dict)
        or "learner" not in state
        or "config" not in state
        or (not header and state.get("format") != 1)
    ):
        raise Damaged(f"{path} is no checkpoint of afterwit, but another file of torch")
    return state


def load(folder: Path, config: RunConfig, name: str = NAME) -> dict[str, Any]:
    """A checkpoint of a run folder; `name` is its file, or `best`. Raises ValueError, naming the
    remedy, where it is missing, damaged, of a newer format, or of another config. Only `resume`
    goes on from an older one where the newest is damaged.

    Config fields that did not exist when it was written count as their defaults.
    """
    path = folder / (BEST if name == "best" else name)
    if not path.is_file():
        there = (
            [other.name for other in (*kept(folder), folder / BEST) if other.is_file()]
            if folder.is_dir()
            else []
        )
        if there:
            raise ValueError(f"{folder} has no {path.name}; it has {', '.join(there)}")
        raise ValueError(
            f"{folder} has no checkpoint yet ({path.name}); train it first: afterwit train --resume"
            f" {quoted(folder)}"
        )
    try:
        return checked(read(path), path, config)
    except Damaged as error:
        intact = next((other for other in kept(folder) if other != path and is_intact(other)), None)
        remedy = (
            f"{intact.name} is intact: choose it with --checkpoint {intact.name}"
            if intact
            else "put a copy back"
        )
        again = (
            f", or go on from it with: afterwit train --resume {quoted(folder)}"
            if intact and name == NAME
            else ""
        )
        raise Damaged(f"{error}; {remedy}{again}") from error


def is_intact(path: Path) -> bool:
    try:
        read(path)
    except ValueError:
        return False
    return True


def checked(state: dict[str, Any], path: Path, config: RunConfig) -> dict[str, Any]:
    """The state, if it belongs to `config`; else raises ValueError."""
    try:
        written = from_dict(state["config"])
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; read it with the version that wrote it, which RUN/provenance.json"
            " names"
        ) from error
    fixed = [
        {name: value for name, value in to_dict(data).items() if name not in FREE}
        for data in (written, config)
    ]
    different = differences(fixed[0], fixed[1])
    if different:
        raise ValueError(
            f"{path} belongs to another config: {different[0]}; restore"
            f" {path.parent / 'config.json'}, or start a new run"
        )
    return state


def resume(folder: Path, config: RunConfig) -> tuple[dict[str, Any] | None, str]:
    """What a run goes on from, and a line for the user where that is not its newest checkpoint.
    None: it has none yet.

    Where the newest is damaged or gone, the newest intact one takes its name, and the damaged file
    is kept beside it as checkpoint.pt.damaged. Only the process that trains the run may call this.
    Raises ValueError where none is intact.
    """
    paths, faults = kept(folder), []
    for path in paths:
        try:
            state = checked(read(path), path, config)
        except Damaged as error:
            faults.append(str(error))
            continue
        newest = folder / NAME
        if path == newest:
            return state, ""
        line = (
            f"{faults[0]}, and is now {NAME}.damaged" if newest.is_file() else f"{newest} is gone"
        )
        if newest.is_file():
            os.replace(newest, folder / f"{NAME}.damaged")
        os.replace(path, newest)
        sync_folder(folder)
        return (
            state,
            f"{line}; going on from the one before, at {state['agent_steps']:,} agent steps",
        )
    if faults:
        names = " and ".join(path.name for path in paths)
        raise Damaged(
            f"{faults[0]}; put a copy back, or remove {names} to start this run from the beginning"
        )
    return None, ""


def restore_config(folder: Path) -> str:
    """Write a config.json that is gone anew from the newest intact checkpoint; a line that says so,
    or nothing to say.
    """
    if folder.is_dir() and not (folder / "config.json").exists():
        for path in filter(is_intact, kept(folder)):
            write_config(from_dict(read(path)["config"]), folder)
            return f"{folder / 'config.json'} is gone; written anew from {path.name}"
    return ""


SIDES = ("in the checkpoint", "in config.json")


def differences(
    saved: Any, wanted: Any, where: str = "", sides: tuple[str, str] = SIDES
) -> list[str]:
    """Where two configs differ, as `field is a in the checkpoint, b in config.json`; `sides` are
    the words for the two.
    """
    if isinstance(saved, dict) and isinstance(wanted, dict):
        names = sorted(saved.keys() | wanted.keys())
        return [
            line
            for name in names
            for line in differences(
                saved.get(name), wanted.get(name), f"{where}.{name}".lstrip("."), sides
            )
        ]
    if (
        isinstance(saved, list | tuple)
        and isinstance(wanted, list | tuple)
        and list(saved) == list(wanted)
    ):
        return []
    return [] if saved == wanted else [f"{where} is {saved!r} {sides[0]}, {wanted!r} {sides[1]}"]


def same(left: Any, right: Any) -> bool:
    """Are two states, or parts of them, equal bit for bit, whatever is nested in what?"""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
