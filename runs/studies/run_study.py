"""A study's folder: its manifest OUT/study.json, and runs in OUT/<world>/<method>/s<seed>.

The manifest says what belongs to the study and how far it is. The runs are ordinary ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from afterwit.runs.configs.comparison import THERE_AND_NOW, differences
from afterwit.runs.configs.contents import as_noted
from afterwit.runs.configs.overrides import checked
from afterwit.runs.configs.run_config import read_config, to_dict, write_config
from afterwit.runs.output.files import (
    PAGE,
    SUMMARY,
    atomic_write,
    check_ours,
    locked_folder,
    read_json,
)
from afterwit.runs.output.provenance import provenance
from afterwit.runs.output.text import quoted
from afterwit.runs.studies.study import Cell, Study, Variant
from afterwit.runs.training.exit_codes import STOPPED
from afterwit.runs.training.many_runs import PATIENCE, finished, train_all
from afterwit.runs.training.run_log import last_entry

NAME, FORMAT = "study.json", 1
RUNS, CELLS, DIFFERENCES = "runs.csv", "cells.csv", "differences.csv"
STANDINGS = "standings.md"
# what the report of a ledger may have left in a folder without runs
REPORT = (PAGE, SUMMARY, RUNS, CELLS, DIFFERENCES, STANDINGS, "study-*.png")


@dataclass(frozen=True)
class Manifest:
    """The content of OUT/study.json. Later sessions may add worlds, methods and seeds."""

    study: str
    preset: str
    overrides: dict[str, Any]
    worlds: dict[str, dict[str, Any]]  # name -> arguments and overrides
    methods: dict[str, dict[str, Any]]
    cells: list[dict[str, Any]]  # world, method, seed, folder, status, agent_steps, total_steps
    sessions: list[dict[str, Any]]  # provenance of each time the study was started or went on

    def folders(self, home: Path) -> list[Path]:
        return [home / cell["folder"] for cell in self.cells]


def run_study(
    study: Study,
    home: Path,
    jobs: int,
    skip: Collection[Path] = (),
    collect: Callable[[Sequence[Cell]], None] = lambda cells: None,
) -> None:
    """Train all cells of `study` that are not finished.

    Other cells in the folder's manifest are left alone.

    Args:
      study: what to run.
      home: the study's folder.
      jobs: runs at a time.
      skip: folders of cells that are done elsewhere, relative to the study's.
      collect: called with the finished cells at the start, and with each that finishes.

    Raises:
      ValueError: `home` holds another study, or a page of another origin. Raised before anything
        is written.
      RunsFailed: some cells failed. All others are finished first.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; at least 1 run must go at a time")
    cells = [cell for cell in study.cells() if cell.folder not in skip]
    if not cells:
        return
    cells[0].config.torch_device()
    if home.exists():
        check_ours(home)
        merge_manifest(study, cells, home)  # raises before anything is written, also the lock
    with locked_folder(home, PATIENCE) as lock:
        manifest = merge_manifest(study, cells, home)
        for cell in cells:
            if not (home / cell.folder / "config.json").exists():
                write_config(cell.config, home / cell.folder)
        folders = [home / cell.folder for cell in cells]
        states = {home / entry["folder"]: entry for entry in manifest.cells}
        manifest.sessions.append(provenance() | {"jobs": jobs, "cells": len(cells)})

        def note(folder: Path, code: int) -> None:
            states[folder] |= progress(folder) | (
                {"status": "failed"} if code not in (0, STOPPED) else {}
            )
            write_manifest(manifest, home)
            if states[folder]["status"] == "finished":
                collect([cell for cell in cells if home / cell.folder == folder])

        for folder, state in states.items():
            state |= progress(folder)
        write_manifest(manifest, home)
        collect([c for c in cells if states[home / c.folder]["status"] == "finished"])
        train_all(folders, jobs, lock, note)


def progress(folder: Path) -> dict[str, Any]:
    """Return a cell's status and its agent steps, as read from its folder."""
    entry = last_entry(folder)
    status = "finished" if finished(folder) else "unfinished" if entry else "waiting"
    return {
        "status": status,
        "agent_steps": int(entry["agent_steps"]) if entry else 0,
        "total_steps": read_config(folder).total_steps,
    }


def merge_manifest(study: Study, cells: Sequence[Cell], home: Path) -> Manifest:
    """Return the manifest of `home` with `study` added.

    Raises:
      ValueError: the two differ. The message says where.
    """
    new = Manifest(
        study.name,
        study.preset,
        plain(study.overrides),
        {world.name: described(world) for world in study.worlds},
        {method.name: described(method) for method in study.methods},
        [
            {
                "world": cell.world,
                "method": cell.method,
                "seed": cell.seed,
                "folder": cell.folder.as_posix(),
            }
            for cell in cells
        ],
        [],
    )
    if not (home / NAME).exists():
        strangers = sorted(
            path.name
            for path in home.iterdir()
            if not path.name.startswith(".") and not any(map(path.match, REPORT))
        )
        if strangers:
            raise ValueError(
                f"{home} holds other things ({', '.join(strangers[:3])}) and no {NAME}; choose"
                " another --out"
            )
        return new
    old = read_manifest(home)
    pairs: list[tuple[str, Any, Any]] = [
        ("study", old.study, new.study),
        ("preset", old.preset, new.preset),
    ]
    pairs.append(("overrides", old.overrides, new.overrides))
    for what, there, here in (
        ("world", old.worlds, new.worlds),
        ("method", old.methods, new.methods),
    ):
        pairs += [(f"{what} {name}", there[name], here[name]) for name in here if name in there]
    for what, there, here in pairs:
        raise_if_different(home, differences(there, here, what, THERE_AND_NOW))
    for cell in cells:
        raise_if_different(home, config_differences(home / cell.folder, cell))
    known = {entry["folder"] for entry in old.cells}
    return Manifest(
        old.study,
        old.preset,
        old.overrides,
        old.worlds | new.worlds,
        old.methods | new.methods,
        old.cells + [entry for entry in new.cells if entry["folder"] not in known],
        old.sessions,
    )


def config_differences(folder: Path, cell: Cell) -> list[str]:
    if not (folder / "config.json").exists():
        return []
    there = read_config(folder)
    now = as_noted(cell.config, there.contents)
    return [
        f"{cell.folder}: {line}"
        for line in differences(to_dict(there), to_dict(now), sides=THERE_AND_NOW)
    ]


def raise_if_different(home: Path, lines: Sequence[str]) -> None:
    if lines:
        raise ValueError(
            f"{home} holds another study: {lines[0]}; choose another --out, or give the same"
            " options"
        )


def described(variant: Variant) -> dict[str, Any]:
    return {"arguments": plain(variant.arguments), "overrides": plain(variant.overrides)}


def plain(values: Any) -> Any:
    """Return values as JSON gives them back: tuples become lists."""
    return json.loads(json.dumps(dict(values)))


def read_manifest(home: Path) -> Manifest:
    """Return the manifest of a study's folder.

    Raises:
      ValueError: there is none that this version can read.
    """
    path = home / NAME
    if not path.is_file():
        raise ValueError(
            f"{home} holds no study: it has no {NAME}; start one with: afterwit study NAME --out"
            f" {quoted(home)}"
        )
    data = read_json(path, "restore a copy")
    if (
        not isinstance(data, dict)
        or data.pop("format", None) != FORMAT
        or data.keys() != get_type_hints(Manifest).keys()
    ):
        raise ValueError(
            f"{path} is not a manifest that this version of afterwit reads (format {FORMAT})"
        )
    manifest = Manifest(
        **{
            name: checked(data[name], hint, f"{path}: {name}")
            for name, hint in get_type_hints(Manifest).items()
        }
    )
    for name, described in (manifest.worlds | manifest.methods).items():
        for part in ("arguments", "overrides"):
            checked(described.get(part), dict[str, Any], f"{path}: {part} of {name}")
    for number, cell in enumerate(manifest.cells):
        for name, kind in (("world", str), ("method", str), ("seed", int), ("folder", str)):
            checked(cell.get(name), kind, f"{path}: {name} of cell {number}")
        if cell["world"] not in manifest.worlds or cell["method"] not in manifest.methods:
            raise ValueError(
                f"{path}: cell {number} is of {cell['world']} and {cell['method']}, which the study"
                " does not have"
            )
        if Path(cell["folder"]).is_absolute() or ".." in Path(cell["folder"]).parts:
            raise ValueError(
                f"{path}: folder of cell {number} is {cell['folder']!r}; it must lie in the study's"
                " own folder"
            )
    if not manifest.cells:
        raise ValueError(f"{path} has no cells; restore a copy")
    return manifest


def write_manifest(manifest: Manifest, home: Path) -> None:
    with atomic_write(home / NAME) as file:
        file.write((json.dumps({"format": FORMAT, **vars(manifest)}, indent=1) + "\n").encode())
