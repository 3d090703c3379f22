"""A study as it is read: its runs, a row of numbers for each, and a mean for each cell."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from afterwit.envs.make import EnvConfig
from afterwit.runs.configs.comparison import flat
from afterwit.runs.configs.run_config import config_of, to_dict
from afterwit.runs.evaluation.intervals import Estimate, estimate
from afterwit.runs.reports.groups import MEASURES, Group
from afterwit.runs.reports.run_results import RunLog, read_run
from afterwit.runs.studies.definitions import STUDIES
from afterwit.runs.studies.run_numbers import INSTRUMENTS, measured, numbers
from afterwit.runs.studies.run_study import NAME, Manifest, read_manifest
from afterwit.runs.training.run_log import last_entry

SILENT = "none"  # the noise of a world without noise
NOISE_FIELDS = ("noise", "dose", "density", "walk")  # how the fields of a noise begin

Key = tuple[str, str]  # world, method


@dataclass(frozen=True)
class Knob:
    """A config field in which a study's methods differ, one at a time."""

    path: str
    settings: tuple[tuple[Any, str], ...]  # value and method, ordered by value; the base among them
    base: str


@dataclass(frozen=True)
class StudyLog:
    """A study, as read from its folder or its ledger."""

    home: Path
    manifest: Manifest
    groups: dict[Key, Group]  # the runs that have logged something
    waiting: tuple[str, ...]  # folders of the others
    ledger: Path | None = None  # where it was read from, if not from run folders
    recorded: tuple[dict[str, Any], ...] = ()  # the ledger's rows

    @property
    def worlds(self) -> list[str]:
        return [
            world
            for world in self.manifest.worlds
            if any((world, method) in self.groups for method in self.manifest.methods)
        ]

    @property
    def methods(self) -> list[str]:
        return [
            method
            for method in self.manifest.methods
            if any((world, method) in self.groups for world in self.manifest.worlds)
        ]

    def members(self, world: str) -> list[tuple[str, Group]]:
        """Return the methods that have runs in `world`, with these runs."""
        return [
            (method, self.groups[world, method])
            for method in self.methods
            if (world, method) in self.groups
        ]

    def narrowed(
        self, worlds: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
    ) -> StudyLog:
        """Return the part with these worlds, methods and seeds. Empty: all.

        Raises:
          ValueError: there are no such runs.
        """
        groups = {
            key: replace(group, runs=kept)
            for key, group in self.groups.items()
            if (not worlds or key[0] in worlds)
            and (not methods or key[1] in methods)
            and (kept := tuple(r for r in group.runs if not seeds or r.config.seed in seeds))
        }
        if not groups:
            raise ValueError("no such runs are there yet; leave out --worlds, --methods or --seeds")
        rows = tuple(
            row
            for row in self.recorded
            if (row["world"], row["method"]) in groups and (not seeds or row["seed"] in seeds)
        )
        return replace(self, groups=groups, recorded=rows)

    @cached_property
    def quiet(self) -> dict[str, str]:
        """Each world with noise -> the world that is the same without it, if the study has it."""
        envs = {world: self.members(world)[0][1].runs[0].config.env for world in self.worlds}
        silent = {without_noise(env): world for world, env in envs.items() if env.noise == SILENT}
        return {
            world: silent[without_noise(env)]
            for world, env in envs.items()
            if env.noise != SILENT and without_noise(env) in silent
        }

    @cached_property
    def unfinished(self) -> list[RunLog]:
        return [run for group in self.groups.values() for run in group.runs if not run.finished]

    def relative(self, run: RunLog) -> str:
        """Return a run's folder as in the manifest."""
        return run.folder.relative_to(self.home).as_posix()

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row per run: where it belongs, and all its numbers."""
        if self.ledger is not None:
            return list(self.recorded)
        return [
            {
                "world": world,
                "method": method,
                "seed": run.config.seed,
                "folder": self.relative(run),
            }
            | numbers(run)
            for (world, method), group in self.groups.items()
            for run in group.runs
        ]

    @cached_property
    def estimates(self) -> dict[Key, dict[str, Estimate]]:
        """Every number of every cell over its finished runs; over all while none is finished.

        The score of half a run is another number.
        """
        result = {}
        for key in self.groups:
            cell = [row for row in self.rows if (row["world"], row["method"]) == key]
            rows = [row for row in cell if row["finished"]] or cell
            names = [
                name
                for name in dict.fromkeys(name for row in rows for name in row)
                if isinstance(rows[0].get(name, 0.0), float)
            ]
            values = np.array(
                [[row.get(name, math.nan) for name in names] for row in rows], np.float64
            )
            result[key] = dict(zip(names, estimate(values), strict=True))
        return result

    def get(self, world: str, method: str, name: str) -> Estimate:
        """Return an estimate. It is over no runs if there are none."""
        return self.estimates.get((world, method), {}).get(name, Estimate())

    @cached_property
    def measures(self) -> list[str]:
        """The numbers that judge the study, the main one first.

        They are the score and the trackers, or cells, rooms and return.
        """
        found = dict.fromkeys(
            name for group in self.groups.values() for run in group.runs for name in measured(run)
        )
        trackers = [name for name in found if name not in MEASURES]
        return trackers or [name for name in MEASURES if name in found]

    @cached_property
    def instruments(self) -> list[str]:
        return [
            name for name in INSTRUMENTS if any(group.names(name) for group in self.groups.values())
        ]

    @cached_property
    def knobs(self) -> list[Knob]:
        """The fields that methods change one at a time, with all their settings.

        One method must be the preset itself, and all others that model with changes. A study that
        also has other models compares methods, and not settings.
        """
        methods = {
            name: variant for name, variant in self.manifest.methods.items() if name in self.methods
        }
        base = next((name for name, variant in methods.items() if not variant["overrides"]), None)
        if base is None or any(
            variant["arguments"] != methods[base]["arguments"] for variant in methods.values()
        ):
            return []
        varied: dict[str, list[tuple[Any, str]]] = {}
        for name, variant in methods.items():
            if len(variant["overrides"]) == 1:
                ((path, value),) = variant["overrides"].items()
                varied.setdefault(path, []).append((value, name))
        config = flat(
            to_dict(
                next(
                    group.runs[0].config for (_, name), group in self.groups.items() if name == base
                )
            )
        )
        return [
            Knob(path, tuple(sorted([*found, (config[path], base)], key=rank)), base)
            for path, found in varied.items()
            if path in config
        ]


def without_noise(env: EnvConfig) -> str:
    """Return what a world is but for its noise, as text."""
    fields = to_dict(env).items()
    kept = {n: v for n, v in fields if not n.startswith(NOISE_FIELDS)}
    return json.dumps([type(env).__name__, kept], sort_keys=True)


def rank(setting: tuple[Any, str]) -> tuple[bool, Any]:
    """Return a sort key: numbers by size, then words."""
    value, _ = setting
    return (False, value) if isinstance(value, int | float) else (True, str(value))


def read_study(home: Path) -> StudyLog:
    """Return what the runs of a study have left so far.

    Raises:
      ValueError: there is no study, or no run has logged anything.
    """
    manifest = in_order(read_manifest(home))
    groups: dict[Key, list[RunLog]] = {}
    waiting = []
    order = {(world, method): None for world in manifest.worlds for method in manifest.methods}
    for cell in sorted(
        manifest.cells,
        key=lambda cell: (list(order).index((cell["world"], cell["method"])), cell["seed"]),
    ):
        if last_entry(home / cell["folder"]) is None:
            waiting.append(cell["folder"])
        else:
            groups.setdefault((cell["world"], cell["method"]), []).append(
                read_run(home / cell["folder"])
            )
    if not groups:
        first = config_of(home / manifest.cells[0]["folder"]).log_interval
        raise ValueError(
            f"no run of the study in {home / NAME} has logged anything yet (its first entry comes"
            f" after {first:,} steps)"
        )
    named = {key: Group(key[1], key[0], tuple(runs), 0) for key, runs in groups.items()}
    return StudyLog(home, manifest, named, tuple(waiting))


def in_order(manifest: Manifest) -> Manifest:
    """Return a manifest with worlds and methods in the order of the study's definition.

    The first method is the one that others are compared with, whichever was trained first. A study
    of another version keeps its own order, as do worlds and methods that this version lacks.
    """
    if manifest.study not in STUDIES:
        return manifest
    whole = STUDIES[manifest.study]()
    found = []
    for there, known in (
        (manifest.worlds, (*whole.worlds, *whole.more_worlds)),
        (manifest.methods, (*whole.methods, *whole.more_methods)),
    ):
        names = [variant.name for variant in known if variant.name in there]
        names += [name for name in there if name not in names]
        found.append({name: there[name] for name in names})
    return replace(manifest, worlds=found[0], methods=found[1])
