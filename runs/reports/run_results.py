"""Runs compared: the numbers, from what the runs left in their folders.

A tenth is a tenth of the agent steps that the config asks for, the same windows as in maps.npz.
What was counted per episode is weighted by episodes, everything else by agent steps; a group's
number is the plain mean over its runs.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.atari import AtariConfig
from afterwit.envs.gym import GymConfig
from afterwit.envs.maze import MazeConfig, build_map
from afterwit.envs.noise import LAYERS
from afterwit.runs.configs.overrides import short
from afterwit.runs.configs.run_config import RESOURCES, RunConfig, config_of, to_dict
from afterwit.runs.evaluation.evaluation_result import VIDEO, is_number, is_unicode, read_evaluation
from afterwit.runs.training.episode_statistics import NUM_WINDOWS
from afterwit.runs.training.run_log import MAPS, METRICS, read_metrics

NOT_COMPARED = ("seed", "preset", *RESOURCES)  # of alike runs


@dataclass(frozen=True)
class RunLog:
    """One run, as its folder tells it."""

    folder: Path
    config: RunConfig
    entries: list[dict[str, Any]]
    maps: dict[str, Array] | None  # visits and pay: [10, H * W]; None where they cannot be drawn
    evaluation: dict[str, Any] | None
    video: Path | None
    notes: tuple[str, ...]  # what the reader should know about what is missing

    @property
    def method(self) -> str:
        return self.config.method

    @cached_property
    def steps(self) -> Array:
        """int [n]: agent steps done at each entry."""
        return np.array([entry["agent_steps"] for entry in self.entries], np.int64)

    @cached_property
    def tenth(self) -> Array:
        """int [n]: the tenth of the run that each entry lies in."""
        return np.minimum(
            NUM_WINDOWS - 1, (self.steps - 1) * NUM_WINDOWS // self.config.total_steps
        )

    @cached_property
    def finished(self) -> bool:
        return bool(self.steps[-1] >= self.config.total_steps)

    @cached_property
    def episodes(self) -> Array:
        """float [n]: episodes that ended within each entry."""
        return np.asarray(np.nan_to_num(self.column("episode/count")))

    @cached_property
    def last_tenth(self) -> int:
        """The last tenth in which an episode ended (the last one begun, if none has)."""
        return int(
            self.tenth[self.episodes > 0].max(initial=-1) if self.episodes.any() else self.tenth[-1]
        )

    def names(self, prefix: str) -> list[str]:
        """The logged names that start with `prefix`, each once, sorted."""
        return sorted({name for entry in self.entries for name in entry if name.startswith(prefix)})

    def column(self, name: str) -> Array:
        """float [n]: a number at each entry, NaN where it was not logged."""
        return np.array(
            [np.nan if entry.get(name) is None else entry[name] for entry in self.entries],
            np.float64,
        )

    def mean(self, name: str, where: Array) -> float:
        """Weighted mean over the entries in `where`; NaN if there are none. `ratio/x` is x's share
        of pay by its share of time.
        """
        if name.startswith("ratio/"):
            pay, time = (self.column(f"share_of_{unit}/{name[6:]}") for unit in ("pay", "time"))
            where = where & np.isfinite(pay) & np.isfinite(time)
            over = self.mean(f"share_of_time/{name[6:]}", where)
            return self.mean(f"share_of_pay/{name[6:]}", where) / over if over > 0 else math.nan
        values = self.column(name)
        per_episode = name.startswith(("reached/", "episode/"))
        weights = self.episodes if per_episode else np.diff(self.steps, prepend=0)
        where = where & np.isfinite(values) & (weights > 0)
        return float(np.average(values[where], weights=weights[where])) if where.any() else math.nan

    def last(self, name: str) -> float:
        """Mean over the last tenth."""
        return self.mean(name, self.tenth == self.last_tenth)

    def best(self, name: str) -> float:
        """The highest of the ten means."""
        means = [self.mean(name, self.tenth == index) for index in range(NUM_WINDOWS)]
        return max((mean for mean in means if math.isfinite(mean)), default=math.nan)


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed."""

    label: str  # the method, with what else tells it from other groups in the same world
    world: str
    runs: tuple[RunLog, ...]
    index: int  # among the groups of its method in its world

    @property
    def method(self) -> str:
        return self.runs[0].method

    def names(self, prefix: str) -> list[str]:
        return sorted({name for run in self.runs for name in run.names(prefix)})

    def over_runs(self, value: Callable[[RunLog], float]) -> list[float]:
        """A number of every run that has it."""
        return [number for number in map(value, self.runs) if math.isfinite(number)]

    def last(self, name: str) -> float:
        return mean(self.over_runs(lambda run: run.last(name)))

    def best(self, name: str) -> float:
        return mean(self.over_runs(lambda run: run.best(name)))

    def maps(self, name: str, window: int | None = None) -> Array | None:
        """float [H * W]: visits or pay of one tenth, or of the last tenth of each run that has any,
        summed over runs.
        """
        total = None
        for run in self.runs:
            if run.maps is not None:
                begun = np.flatnonzero(run.maps["visits"].any(1))
                chosen = window if window is not None else begun[-1] if len(begun) else 0
                total = run.maps[name][chosen] + (0 if total is None else total)
        return total


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def read_run(folder: Path) -> RunLog:
    """What a run left in its folder. Raises ValueError naming the folder and a remedy."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} is no run folder: it has no config.json; name a folder that `afterwit train`"
            " wrote"
        )
    config = config_of(folder)
    entries = read_metrics(folder) if (folder / METRICS).is_file() else []
    if not entries:
        raise ValueError(
            f"{folder} has logged nothing yet; leave it out, or let it train past its first log"
            f" entry ({config.log_interval:,} agent steps)"
        )
    for number, entry in enumerate(entries):
        if (
            not isinstance(entry, dict)
            or type(entry.get("agent_steps")) is not int
            or not 1 <= entry["agent_steps"] < 2**63
        ):
            raise ValueError(
                f"{folder / METRICS} line {number + 1} has no agent_steps; remove the line"
            )
        bad = next(
            (
                name
                for name, value in entry.items()
                if not is_unicode(name) or (value is not None and not is_number(value))
            ),
            None,
        )
        if bad is not None:
            problem = f"{bad!r} with {short(entry[bad])}, which is no named number"
            raise ValueError(f"{folder / METRICS} line {number + 1} has {problem}; remove the line")
    maps = read_maps(folder, config)
    notes: tuple[str, ...] = ()
    cells = build_map().walls.size
    if maps is not None and maps["visits"].shape != (NUM_WINDOWS, cells):
        problem = f"{maps['visits'].shape[-1]} cells instead of {cells}"
        notes = (
            (
                f"{folder.name} has maps of another version of the maze ({problem}); they are left"
                " out."
            ),
        )
        maps = None
    return RunLog(
        folder, config, entries, maps, read_evaluation(folder), _if_there(folder / VIDEO), notes
    )


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def read_maps(folder: Path, config: RunConfig) -> dict[str, Array] | None:
    """Visits and pay by tenth, where the run wrote them for a maze."""
    if not (folder / MAPS).is_file() or not isinstance(config.env, MazeConfig):
        return None
    try:
        with np.load(folder / MAPS) as archive:
            maps = {name: archive[name] for name in ("visits", "pay")}
        if (
            any(array.dtype.kind not in "iuf" or array.ndim != 2 for array in maps.values())
            or maps["visits"].shape != maps["pay"].shape
        ):
            raise ValueError("no two tables of numbers")
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        EOFError,
        KeyError,
        ValueError,
        OSError,
    ) as error:
        raise ValueError(
            f"{folder / MAPS} is damaged ({error}); remove it, and the report comes without maps of"
            " this run"
        ) from error
    return maps


def make_groups(runs: Iterable[RunLog]) -> list[Group]:
    """Runs that differ only in their seed, together; ordered by world, then as given."""
    alike: dict[tuple[str, str, str], list[RunLog]] = defaultdict(list)
    for run in runs:
        compared = {
            name: value
            for name, value in flat(to_dict(run.config)).items()
            if name not in NOT_COMPARED
        }
        alike[world_name(run.config), run.method, json.dumps(compared, sort_keys=True)].append(run)
    together: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for world, method, compared_json in alike:
        together[world, method].append(json.loads(compared_json))
    groups = []
    for (world, method, compared_json), members in alike.items():
        others, this = together[world, method], json.loads(compared_json)
        differing = [
            name for name in this if any(other.get(name) != this[name] for other in others)
        ]
        label = ", ".join(
            [method, *(f"{name.split('.')[-1]} {this[name]}" for name in differing[:2])]
        )
        groups.append(Group(label, world, tuple(members), others.index(this)))
    worlds = list(dict.fromkeys(group.world for group in groups))
    return sorted(groups, key=lambda group: worlds.index(group.world))


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict as {"learner.torso.hidden": 128, …}."""
    result: dict[str, Any] = {}
    for name, value in data.items():
        result |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return result


def world_name(config: RunConfig) -> str:
    """What the agents live in, as a sentence has it after "On"."""
    env = config.env
    if isinstance(env, MazeConfig):
        dose = "" if env.dose is None else f" (dose {env.dose:g})"
        return (
            "the maze without noise"
            if env.noise == "none"
            else f"the maze with {env.noise} noise{dose}"
        )
    if isinstance(env, AtariConfig):
        return env.game if env.noise == "none" else f"{env.game} with {env.noise} noise"
    return env.label if isinstance(env, GymConfig) else type(env).__name__


def noise_of(group: Group) -> tuple[str, str] | None:
    """The logged share that tells the noisy steps of a group's world, and the words for them: "time
    {words}".
    """
    env = group.runs[0].config.env
    name, words = "noise", "with noise"
    if isinstance(env, MazeConfig):
        name, words = "block_in_view", "with a bouncing block in view"
        if env.noise in LAYERS:
            name, words = (
                "noise_on",
                (
                    f"with {'the fixed layer of' if env.noise == 'frozen' else 'random'} pixels on"
                    " the view"
                ),
            )
        elif env.noise == "sticky":
            name, words = "noise_on", "with the action overridden"
        elif env.noise == "brownian" and env.resolved_dose > 0:
            words = "with a random block in view"
    elif isinstance(env, AtariConfig):
        name, words = "noise_on", f"with {env.noise} noise on the frame"
    return (name, words) if group.names(f"share_of_time/{name}") else None


def result_names(group: Group) -> list[str]:
    """What a group is judged by: trackers, return (where the world has trackers: if it ever paid),
    rooms and cells, noise's shares.
    """
    trackers = group.names("reached/")
    paid = any(np.nan_to_num(run.column("episode/return")).any() for run in group.runs)
    measures = [
        logged
        for name, (logged, _) in MEASURES.items()
        if not trackers or (paid and name in ("rooms", "return"))
    ]
    names = trackers + [logged for logged in measures if group.names(logged)]
    noise = noise_of(group)
    return names + (
        [f"{kind}/{noise[0]}" for kind in ("share_of_time", "share_of_pay", "ratio")]
        if noise
        else []
    )


# What worlds without trackers are judged by, the main one first: name -> what is logged, and in
# words.
MEASURES = {
    "cells": ("episode/cells", "Cells seen per episode"),
    "explored": ("explored/cells", "Cells seen so far, all episodes"),
    "rooms": ("episode/rooms", "Rooms seen per episode"),
    "return": ("episode/return", "Return per episode"),
}
