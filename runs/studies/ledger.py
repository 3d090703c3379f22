"""A study's ledger: a CSV file with a row per finished run, small enough for git.

Run folders are large. A ledger lets a study go on elsewhere, and its report be made, without them.
A row has the run's place in the study, a digest of its config, its numbers as in runs.csv, and the
mean of its main measures in each tenth of training. An empty field is a missing number.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afterwit.runs.configs.contents import as_noted
from afterwit.runs.configs.run_config import RunConfig, to_dict
from afterwit.runs.output.files import checked_outputs, read_json, sole_writer, write_csv
from afterwit.runs.output.text import quoted
from afterwit.runs.reports.groups import MEASURES
from afterwit.runs.reports.run_results import RunLog, read_run
from afterwit.runs.studies.run_numbers import INSTRUMENTS, SOUGHT, measured, numbers
from afterwit.runs.studies.run_study import plain
from afterwit.runs.studies.study import Cell, Study
from afterwit.runs.training.episode_statistics import NUM_WINDOWS

Row = dict[str, Any]
Place = tuple[str, str, int]  # world, method, seed
WORDS = ("study", "world", "method", "commit", "torch", "digest", "contents")
COUNTS = ("seed", "agent_steps", "total_steps", "episodes")
FLAGS = ("finished", "alarm")
PARTS = ("overrides", "curve")  # JSON
NEEDED = (*WORDS[:3], "seed", "digest", "overrides", "finished", "agent_steps", "total_steps")
FLOATS = {*INSTRUMENTS, *SOUGHT.values(), "alarm_share", "noise_time", "noise_pay", "noise_ratio"}
FLOATS |= {"reward_left", "seconds"}
PATTERN = re.compile(rf"(score|human|R\d+|{'|'.join(MEASURES)})_(all|best|last|drop)|first/\w+")
# what a row has beside the columns of runs.csv
OWN = ("study", "commit", "torch", "digest", "contents", *PARTS)


# Fields that are newer than the first ledger, at the values that change nothing. They are left out
# of digests, so that older rows still belong to their configs.
NEUTRAL: dict[tuple[str, ...], Any] = {
    ("contents",): "",
    ("env", "labels"): False,
    ("learner", "intrinsic_discount"): 0.99,
    ("learner", "micro_batches"): 1,
    ("learner", "return_lambda"): 1.0,
    ("learner", "policy", "two_values"): False,
    ("learner", "torso", "init"): None,
    ("learner", "vmpo", "weights"): "exponential",
    ("learner", "world_model", "dispersion_weight"): 0.0,
    ("learner", "world_model", "brownian_weight"): 0.0,
    ("learner", "world_model", "centroid"): 0.0,
    ("learner", "world_model", "expected_rate"): 10.0,
    ("learner", "world_model", "expected_takes"): "all",
    ("learner", "world_model", "predictor"): "mlp",
    ("learner", "world_model", "predictor_decay"): 0.3,
    ("learner", "world_model", "predictor_floor"): 0.1,
    ("learner", "world_model", "predictor_every"): 1,
    ("learner", "world_model", "pull_weight"): 0.0,
    ("learner", "world_model", "stride"): 1,
    ("learner", "world_model", "predictor_isotropic"): False,
    ("learner", "world_model", "target_view"): "frame",
    ("learner", "world_model", "weight_decay"): 0.0,
}


def digest(config: RunConfig) -> str:
    """Return 12 hexadecimal digits that change with any field of a run's config."""
    values = to_dict(config)
    for (*path, name), value in NEUTRAL.items():
        inner = values
        for part in path:
            inner = inner[part]
        if name in inner and inner[name] == value:
            del inner[name]
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def place(row: Row) -> Place:
    return row["world"], row["method"], row["seed"]


def run_row(study: str, overrides: Any, world: str, method: str, folder: Path) -> Row:
    """Return the row of a finished run, as read from its folder."""
    run = read_run(folder)
    path = folder / "provenance.json"
    session = read_json(path, "restore a copy")[-1] if path.is_file() else {}
    row = {
        "study": study,
        "world": world,
        "method": method,
        "seed": run.config.seed,
        "commit": session.get("commit") or "",
        "torch": (session.get("packages") or {}).get("torch") or "",
        "digest": digest(run.config),
        **({"contents": run.config.contents} if run.config.contents else {}),
        "overrides": plain(overrides),
        **numbers(run),
        "curve": curve(run),
    }
    return {k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)}


def curve(run: RunLog) -> dict[str, list[float | None]]:
    """Return the episodes and the mean of each main measure in every tenth, to four digits."""
    logged = [name for names in measured(run).values() for name in names]
    result: dict[str, list[float | None]] = {
        "episode/count": [
            float(run.episodes[run.tenth == index].sum()) for index in range(NUM_WINDOWS)
        ]
    }
    for name in dict.fromkeys(logged):
        means = [run.mean(name, run.tenth == index) for index in range(NUM_WINDOWS)]
        result[name] = [float(f"{mean:.4g}") if math.isfinite(mean) else None for mean in means]
    return result


def read_ledger(path: Path) -> list[Row]:
    """Return the rows of a ledger.

    Raises:
      ValueError: the file is missing or wrong. The message names line, column and remedy.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {quoted(path)}; name a ledger of a study") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text ({error}); restore a copy") from error
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file ({error}); restore a copy") from error
    if not lines:
        raise ValueError(f"{path} is empty; remove it, or restore a copy")
    head, rows, seen = lines[0], list[Row](), dict[Place, int]()
    for name in head:
        if name not in {*WORDS, *COUNTS, *FLAGS, *PARTS, *FLOATS} and not PATTERN.fullmatch(name):
            raise ValueError(f"{path} line 1: unknown column {name!r}; remove the column")
        if head.count(name) > 1:
            raise ValueError(f"{path} line 1: column {name!r} is there twice; remove one")
    missing = [name for name in NEEDED if name not in head]
    if missing:
        raise ValueError(f"{path} line 1: column {missing[0]!r} is missing; restore a copy")
    for number, values in enumerate(lines[1:], 2):
        where = f"{path} line {number}"
        if len(values) != len(head):
            raise ValueError(
                f"{where} has {len(values)} fields instead of {len(head)}; mend or remove the line"
            )
        row = {name: parsed(name, v, where) for name, v in zip(head, values, strict=True) if v}
        empty = [name for name in NEEDED if name not in row]
        if empty:
            raise ValueError(f"{where}, column {empty[0]}: empty; mend or remove the line")
        if not row["finished"] or row["study"] != (rows[0] if rows else row)["study"]:
            raise ValueError(f"{where} is unfinished or of another study; remove the line")
        if place(row) in seen:
            raise ValueError(
                f"{where} is the same run as line {seen[place(row)]}; remove one of the two"
            )
        seen[place(row)] = number
        rows.append(row)
    return rows


def parsed(name: str, text: str, where: str) -> Any:
    """Return a field's value. ValueError if it is of the wrong kind."""
    try:
        if name in WORDS:
            return text
        if name in COUNTS:
            value = int(text)
            if value < 0 or (name.endswith("_steps") and not value):
                raise ValueError
            return value
        if name in FLAGS:
            return {"True": True, "False": False}[text]
        if name in PARTS:
            data = json.loads(text)
            if not isinstance(data, dict) or (
                name == "curve" and not all(map(tenths, data.items()))
            ):
                raise ValueError
            return data
        number = float(text)
        if not math.isfinite(number):
            raise ValueError
        return number
    except (ValueError, KeyError) as error:
        kind = "True or False" if name in FLAGS else "JSON" if name in PARTS else "a finite number"
        raise ValueError(
            f"{where}, column {name}: {text[:40]!r} is not {kind}; mend it, or leave a missing"
            " number empty"
        ) from error


def tenths(item: tuple[str, Any]) -> bool:
    values = item[1]
    return (
        isinstance(values, list)
        and len(values) == NUM_WINDOWS
        and all(v is None or (type(v) in (int, float) and math.isfinite(v)) for v in values)
    )


def append(path: Path, new: Sequence[Row]) -> None:
    """Add rows to a ledger, all or none. It is read again first, and made if it is missing.

    Several processes may share a ledger: each takes its turn.

    Raises:
      ValueError: a row is of another study than the ledger, or was made with other settings for
        every run. Nothing is written.
    """
    with sole_writer(path):
        rows = read_ledger(path) if path.exists() else []
        for row in new:
            problem = other_study((rows or new)[0], row["study"], row["overrides"])
            if problem:
                raise ValueError(f"{path}: {problem}; choose another --ledger")
        known = {place(row) for row in rows}
        rows += [row for row in new if place(row) not in known]
        rows.sort(key=place)  # two ledgers of one study then merge line by line
        names = list(dict.fromkeys(name for row in rows for name in row if name not in PARTS))
        compact = [
            row | {k: json.dumps(row[k], separators=(",", ":")) for k in PARTS if k in row}
            for row in rows
        ]
        write_csv(path, compact, [*names, *PARTS])


def check_writable(path: Path) -> None:
    """Check that rows can be added to a ledger, which need not exist yet.

    Raises:
      ValueError: it cannot be written. The message names it.
    """
    with checked_outputs(path, option="--ledger"):
        pass


def recorded(path: Path, study: Study, cells: Sequence[Cell]) -> set[Path]:
    """Return the folders of the cells that the ledger has.

    Raises:
      ValueError: the ledger is of another study, its runs have other settings, or a row's config
        is not the cell's.
    """
    rows = {place(row): row for row in read_ledger(path)} if path.exists() else {}
    for there in rows.values():
        problem = other_study(there, study.name, plain(study.overrides))
        if problem:
            raise ValueError(
                f"{path}: {problem}; give the same options, or choose another --ledger"
            )
    found = set()
    for cell in cells:
        row = rows.get((cell.world, cell.method, cell.seed))
        if row is not None:
            problem = difference(row, study, cell)
            if problem:
                raise ValueError(
                    f"{path}: {cell.folder.as_posix()}: {problem}; give the same options, or"
                    " choose another --ledger"
                )
            found.add(cell.folder)
    return found


def other_study(row: Row, name: str, overrides: Any) -> str:
    """Return how a ledger's row is of another study, empty if it is of this one.

    Args:
      row: the row.
      name: the study's name.
      overrides: what it changes for every run, as JSON gives it.
    """
    if row["study"] != name:
        return f"it is of study {row['study']}, not {name}"
    there = row["overrides"]
    for path in sorted({*there, *overrides}):
        if there.get(path) != overrides.get(path):
            return f"{path} is {there.get(path)!r} in the ledger, {overrides.get(path)!r} now"
    return ""


def difference(row: Row, study: Study, cell: Cell) -> str:
    """Return how a row's config differs from the cell's, empty if it does not."""
    noted = row.get("contents", "")
    config = as_noted(cell.config, noted)
    if row["digest"] == digest(config):
        return ""
    if noted != config.contents:
        return f"the run was made with {noted}, and there is {config.contents} now"
    return f"the config has changed since commit {row.get('commit', 'unknown')}"
