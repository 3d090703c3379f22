"""A study's numbers beside its report: CSV files, JSON, and the standings as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from afterwit.runs.output.files import SUMMARY, atomic_write, finite, write_csv, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.studies.differences import NoiseCost, cost_rows
from afterwit.runs.studies.results import StudyLog
from afterwit.runs.studies.run_study import CELLS, DIFFERENCES, RUNS, STANDINGS
from afterwit.runs.studies.standings import Standings, standings_markdown
from afterwit.runs.studies.verdicts import Claim, Target

# with what the files begin
HEADS = {
    RUNS: b"world,method,seed,folder,",
    CELLS: b"world,method,runs,",
    DIFFERENCES: b"world,method,reference,",
    STANDINGS: b"| method | mean |",
}
WRITTEN = (*HEADS, SUMMARY)


def write_numbers(
    study: StudyLog,
    costs: Sequence[NoiseCost],
    order: Standings | None,
    found_targets: Sequence[Target],
    found_claims: Sequence[Claim],
) -> None:
    """Write runs.csv, cells.csv, differences.csv, summary.json and standings.md.

    runs.csv has a row per run. cells.csv has a row per cell, with mean, low and high.
    differences.csv has a row per noise and method; a study without costs of noise has no such file.
    summary.json has all of these, and the verdicts. standings.md is a table in Markdown; a study
    without standings has no such file.
    """
    cells = []
    for (world, method), found in study.estimates.items():
        row: dict[str, Any] = {
            "world": world,
            "method": method,
            "runs": max((value.runs for value in found.values()), default=0),
        }
        for name, value in found.items():
            row |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        cells.append(row)
    write_csv(study.home / RUNS, finite(study.rows))
    write_csv(study.home / CELLS, finite(cells))
    for name in (STANDINGS, DIFFERENCES):  # of another study, perhaps
        (study.home / name).unlink(missing_ok=True)
    if order is not None:
        with atomic_write(study.home / STANDINGS) as file:
            file.write((standings_markdown(order) + "\n").encode())
    differences = cost_rows(costs)
    if differences:
        write_csv(study.home / DIFFERENCES, finite(differences))
    summary = {
        "study": study.manifest.study,
        "finished": not study.unfinished and not study.waiting,
        "runs_waiting": list(study.waiting),
        "runs": study.rows,
        "cells": cells,
        "differences": differences,
        "targets": [asdict(target) for target in found_targets],
        "claims": [asdict(claim) for claim in found_claims],
        "provenance": provenance(),
    }
    write_json(study.home / SUMMARY, finite(summary), indent=1, allow_nan=False)
