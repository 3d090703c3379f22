"""Checkpoints: written atomically, checked before use, read without running pickled code.

A run folder holds `checkpoint.pt`, the newest; `checkpoint.1.pt`, the one before it, and so on up
to the run's keep_checkpoints; and `best.pt`. A file is one line with the format and a SHA-256 of
everything else, followed by the output of torch.save. Format 1, without the line, can still be
read; its only checksum is that of the zip file.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from afterwit.runs.configs.comparison import differences
from afterwit.runs.configs.contents import as_noted
from afterwit.runs.configs.run_config import RESOURCES, RunConfig, from_dict, to_dict, write_config
from afterwit.runs.output.files import atomic_write, link_or_copy, sync, sync_folder
from afterwit.runs.output.text import quoted

NAME, BEST = "checkpoint.pt", "best.pt"
FORMAT = 2
HEADER = re.compile(rb"(afterwit checkpoint, format (\d{1,9})), sha256 ([0-9a-f]{64})\n")
CHANGEABLE = ("total_steps", *RESOURCES)  # fields that may change when a run goes on


class Damaged(ValueError):
    """A checkpoint file that was cut short or changed, or that never was a checkpoint."""


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write RUN/checkpoint.pt. The one before becomes checkpoint.1.pt.

    The new file is written under a temporary name, synced, and renamed. It also replaces best.pt,
    unless that has a higher score of the same kind.

    Args:
      folder: the run folder.
      state: what `Run.state` returns, and `score` (None: too few episodes).

    Raises:
      Unwritable: there is no room. The files are as before.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    start = b"afterwit checkpoint, format %d" % FORMAT
    header = b"%s, sha256 %s\n" % (start, digest(start, content))
    with atomic_write(folder / NAME) as file:
        file.write(header)
        file.write(content)
        sync(file)
        rotate(folder, state["config"]["keep_checkpoints"])
    if state.get("score") is not None and state["score"] >= best_score(folder, counted(state)):
        # not a link: damage to the newest must not damage the best
        with atomic_write(folder / BEST) as file:
            file.write(header)
            file.write(content)


def digest(start: bytes, content: bytes | memoryview) -> bytes:
    """Return the SHA-256 of a file's first line and content."""
    total = hashlib.sha256(start)
    total.update(content)
    return total.hexdigest().encode()


def checkpoint_path(folder: Path, age: int) -> Path:
    """Return the path of the checkpoint that is `age` checkpoints older than the newest."""
    return folder / (f"checkpoint.{age}.pt" if age else NAME)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the run's checkpoints, newest first, without `best.pt`. None if the folder is gone."""
    if not folder.is_dir():
        return []
    aged = [
        int(match[1])
        for path in folder.iterdir()
        if (match := re.fullmatch(r"checkpoint\.([1-9]\d*)\.pt", path.name))
    ]
    return [
        path
        for path in (checkpoint_path(folder, age) for age in (0, *sorted(aged)))
        if path.is_file()
    ]


def rotate(folder: Path, keep: int) -> None:
    """Rename each checkpoint to the next older name, and remove those beyond `keep`.

    The newest keeps its name as well.
    """
    for age in range(keep - 1, 0, -1):
        if checkpoint_path(folder, age - 1).is_file():
            (os.replace if age > 1 else link_or_copy)(
                checkpoint_path(folder, age - 1), checkpoint_path(folder, age)
            )
    for path in list_checkpoints(folder)[1:]:
        if int(path.name.split(".")[1]) >= keep:
            path.unlink()


def counted(state: dict[str, Any]) -> set[str]:
    """Return which places a checkpoint counts: they decide what its score is a number of."""
    arrays = state.get("statistics", {}).get("arrays", {})
    return {name for name in arrays if name.startswith("explored_")}


def best_score(folder: Path, places: set[str]) -> float:
    """Return the score of best.pt, -infinity if there is none, or if it counts other places.

    A run goes on with a version of Afterwit that counts more: cells are no better than a return.
    """
    try:
        best = read(folder / BEST)
    except (OSError, ValueError):  # missing or damaged: any other is better
        return -float("inf")
    return float(best["score"]) if counted(best) == places else -float("inf")


def read(path: Path) -> dict[str, Any]:
    """Return what a checkpoint file holds, on the CPU.

    Raises:
      Damaged: the file is damaged or is not a checkpoint.
      ValueError: a newer version of afterwit wrote it.
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
    elif not data.startswith(b"PK\3\4"):  # not a zip file, so not format 1
        raise Damaged(f"{path} is damaged, or not a checkpoint of afterwit ({len(data)} bytes)")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; all mean that the file is unreadable
        raise Damaged(
            f"{path} is damaged, or not a checkpoint of afterwit ({len(data)} bytes)"
        ) from error
    if (
        not isinstance(state, dict)
        or "learner" not in state
        or "config" not in state
        or (not header and state.get("format") != 1)
    ):
        raise Damaged(f"{path} is not a checkpoint of afterwit but another file of torch")
    return state


def load(folder: Path, config: RunConfig, name: str = NAME) -> dict[str, Any]:
    """Return a checkpoint of a run folder.

    Config fields that are newer than the checkpoint have their defaults. A damaged checkpoint is
    never replaced by an older one here; only `resume` does that.

    Args:
      folder: the run folder.
      config: the run's config.
      name: a file name, or `best`.

    Raises:
      ValueError: the name has a folder, or the checkpoint is missing, damaged, of a newer format,
        or of another config. The message names the remedy.
    """
    if not name or Path(name).name != name:
        raise ValueError(
            f"the checkpoint is {name!r}; it must be the name of a file in {folder}, without a"
            f" folder: {NAME}, or best"
        )
    path = folder / (BEST if name == "best" else name)
    if not path.is_file():
        listed = (*list_checkpoints(folder), folder / BEST)
        available = [other.name for other in listed if other.is_file()]
        if available:
            raise ValueError(f"{folder} has no {path.name}; it has {', '.join(available)}")
        raise ValueError(
            f"{folder} has no checkpoint yet ({path.name}); train it first: afterwit train --resume"
            f" {quoted(folder)}"
        )
    try:
        return checked(read(path), path, config)
    except Damaged as error:
        intact = next(
            (other for other in list_checkpoints(folder) if other != path and is_intact(other)),
            None,
        )
        remedy = (
            f"{intact.name} is intact: choose it with --checkpoint {intact.name}"
            if intact
            else "restore a copy"
        )
        again = (
            f", or go on from it with: afterwit train --resume {quoted(folder)}"
            if intact and name == NAME
            else ""
        )
        raise Damaged(f"{error}; {remedy}{again}") from error


def is_intact(path: Path) -> bool:
    """Return whether a file can be read as a checkpoint."""
    try:
        read(path)
    except ValueError:
        return False
    return True


def checked(state: dict[str, Any], path: Path, config: RunConfig) -> dict[str, Any]:
    """Return the state.

    Raises:
      ValueError: the state belongs to another config.
    """
    try:
        written = as_noted(from_dict(state["config"]), config.contents)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; read it with the version that wrote it, which RUN/provenance.json"
            " names"
        ) from error
    fixed = [
        {name: value for name, value in to_dict(data).items() if name not in CHANGEABLE}
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
    """Return the state that a run goes on from, and a notice if it is not the newest checkpoint.

    The state is None if there is no checkpoint yet. If the newest is damaged or missing, the newest
    intact one takes its name, and the damaged file stays beside it as checkpoint.pt.damaged. Only
    the process that trains the run may call this.

    Raises:
      ValueError: no checkpoint is intact.
    """
    paths, faults = list_checkpoints(folder), []
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
            f"{faults[0]}, and is now {NAME}.damaged"
            if newest.is_file()
            else f"{newest} is missing"
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
            f"{faults[0]}; restore a copy, or remove {names} to start this run from the beginning"
        )
    return None, ""


def newest_intact(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that can be read, with what it holds.

    No file is moved: `resume` puts damaged ones aside, and says so.
    """
    for path in list_checkpoints(folder):
        with suppress(ValueError):
            return path, read(path)
    return None


def newest_steps(folder: Path) -> int:
    """Return the agent steps of the newest intact checkpoint, 0 if there is none."""
    newest = newest_intact(folder)
    return 0 if newest is None else int(newest[1]["agent_steps"])


def restore_config(folder: Path) -> str:
    """Restore a missing config.json from the newest intact checkpoint.

    Returns:
      A notice about it, empty if there was nothing to do.
    """
    if folder.is_dir() and not (folder / "config.json").exists():
        newest = newest_intact(folder)
        if newest is not None:
            path, state = newest
            write_config(from_dict(state["config"]), folder)
            return f"{folder / 'config.json'} is missing; written again from {path.name}"
    return ""


def equal_states(left: Any, right: Any) -> bool:
    """Return whether two nested states are equal bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            equal_states(left[key], right[key]) for key in left
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal_states, left, right))
    return bool(left == right)
