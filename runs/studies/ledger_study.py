"""A study as read from its ledger alone, and a ledger checked against run folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from afterwit.runs.reports.groups import Group
from afterwit.runs.reports.run_results import RunLog
from afterwit.runs.studies.definitions import STUDIES
from afterwit.runs.studies.ledger import (
    OWN,
    Row,
    difference,
    other_study,
    place,
    read_ledger,
    run_row,
)
from afterwit.runs.studies.results import Key, StudyLog
from afterwit.runs.studies.run_numbers import INSTRUMENTS, SOUGHT
from afterwit.runs.studies.run_study import Manifest, described, plain
from afterwit.runs.training.episode_statistics import NUM_WINDOWS
from afterwit.runs.training.many_runs import finished


def ledger_study(path: Path, home: Path) -> StudyLog:
    """Return the study in a ledger. Its curves have a point per tenth; it has no maps.

    Worlds and methods are in the order of the study's definition. A bonus of a user's own,
    `module:Class`, is not imported, so the digests of its rows are not checked here.

    Args:
      path: the ledger.
      home: the folder that the report goes to.

    Raises:
      ValueError: the ledger is wrong, or was made with other configs than this version's.
    """
    rows = read_ledger(path)
    if not rows:
        raise ValueError(f"{path} has no runs yet; add some with afterwit study --ledger {path}")
    for row in rows:
        problem = other_study(rows[0], row["study"], row["overrides"])
        if problem:
            raise ValueError(
                f"{path}: {'/'.join(map(str, place(row)))}: {problem}; give these rows a ledger of"
                " their own"
            )
    if rows[0]["study"] not in STUDIES:
        raise ValueError(f"{path}: unknown study {rows[0]['study']!r}; use the version that has it")
    whole = STUDIES[rows[0]["study"]]()
    foreign = dict.fromkeys(row["method"] for row in rows if ":" in row["method"])
    stand_ins = [replace(whole.methods[0], name=name) for name in foreign]
    whole = replace(whole, more_methods=(*whole.more_methods, *stand_ins))
    orders = [
        [variant.name for variant in (*own, *more)]
        for own, more in ((whole.worlds, whole.more_worlds), (whole.methods, whole.more_methods))
    ]
    names = [
        [name for name in order if any(row[what] == name for row in rows)]
        + list(dict.fromkeys(row[what] for row in rows if row[what] not in order))
        for what, order in zip(("world", "method"), orders, strict=True)
    ]
    seeds = sorted({row["seed"] for row in rows})
    study = whole.select(names[0], names[1], seeds, rows[0]["overrides"])  # unknown name: raises
    cells = {(cell.world, cell.method, cell.seed): cell for cell in study.cells(noting=False)}
    groups: dict[Key, list[RunLog]] = {}
    ordered = []
    rank = {key: index for index, key in enumerate((w, m) for w in names[0] for m in names[1])}
    for row in sorted(rows, key=lambda row: (rank[row["world"], row["method"]], row["seed"])):
        cell = cells[place(row)]
        # the files themselves need not be here
        cell = replace(cell, config=replace(cell.config, contents=row.get("contents", "")))
        problem = "" if cell.method in foreign else difference(row, study, cell)
        if row["total_steps"] != cell.config.total_steps:
            problem = f"it has {row['total_steps']:,} steps, not {cell.config.total_steps:,}"
        if problem:
            raise ValueError(
                f"{path}: {cell.folder.as_posix()}: {problem}; use the version that made it"
            )
        log = RunLog(home / cell.folder, cell.config, entries(row), None, None, None, ())
        groups.setdefault((cell.world, cell.method), []).append(log)
        where = {"world": cell.world, "method": cell.method, "seed": cell.seed}
        where["folder"] = cell.folder.as_posix()
        ordered.append(where | {k: v for k, v in row.items() if k not in (*where, *OWN)})
    manifest = Manifest(
        study.name,
        study.preset,
        plain(study.overrides),
        {world.name: described(world) for world in study.worlds},
        {method.name: described(method) for method in study.methods},
        [{k: row[k] for k in ("world", "method", "seed", "folder")} for row in ordered],
        [{"commit": c} for c in dict.fromkeys(r["commit"] for r in rows if r.get("commit"))],
    )
    named = {key: Group(key[1], key[0], tuple(runs), 0) for key, runs in groups.items()}
    return StudyLog(home, manifest, named, (), path, tuple(ordered))


def entries(row: Row) -> list[dict[str, Any]]:
    """Return a log with an entry per tenth of training. The last one has the row's numbers."""
    curve = row.get("curve", {})
    result = [
        {"agent_steps": max(1, row["total_steps"] * (index + 1) // NUM_WINDOWS)}
        | {name: values[index] for name, values in curve.items()}
        for index in range(NUM_WINDOWS)
    ]
    result[-1]["agent_steps"] = row["agent_steps"]
    kept = ("seconds", *INSTRUMENTS, *SOUGHT.values())
    result[-1] |= {name: row[name] for name in kept if name in row}
    return result


def check_ledger(path: Path, home: Path) -> tuple[list[str], bool]:
    """Compare each row with its run in `home`, and its digest with the study as defined now.

    Returns:
      A line per row, and whether no row differs. A row without a run does not differ.
    """
    ledger_study(path, home)
    lines, good = [], True
    for row in read_ledger(path):
        name = f"{row['world']}/{row['method']}/s{row['seed']}"
        folder = home / name
        if not (folder / "config.json").is_file() or not finished(folder):
            lines.append(f"{name}: no finished run")
            continue
        again = run_row(row["study"], row["overrides"], row["world"], row["method"], folder)
        wrong = [
            f"{key} is {row.get(key)!r} in the ledger, {again.get(key)!r} in the run"
            for key in dict.fromkeys((*row, *again))
            if row.get(key) != again.get(key) and not (key not in row and key in again)
        ]
        good = good and not wrong
        lines.append(f"{name}: " + (f"differs: {'; '.join(wrong)}" if wrong else "agrees"))
    return lines, good
