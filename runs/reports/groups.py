"""Groups of runs that differ only in their seed, and how they are named and measured.

A group's number is the plain mean over its runs.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.atari import AtariConfig
from afterwit.envs.maze import MazeConfig
from afterwit.envs.noise import LAYERS
from afterwit.runs.configs.comparison import compared, label, world_name
from afterwit.runs.reports.run_results import RunLog


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    label: str  # the method, and what else distinguishes it in its world
    world: str
    runs: tuple[RunLog, ...]
    index: int  # among the groups of its method in its world

    @property
    def method(self) -> str:
        return self.runs[0].method

    def names(self, prefix: str) -> list[str]:
        return sorted({name for run in self.runs for name in run.names(prefix)})

    def over_runs(self, value: Callable[[RunLog], float]) -> list[float]:
        """Return a number of every run that has it."""
        return [number for number in map(value, self.runs) if math.isfinite(number)]

    def last(self, name: str) -> float:
        return mean(self.over_runs(lambda run: run.last(name)))

    def best(self, name: str) -> float:
        return mean(self.over_runs(lambda run: run.best(name)))

    def maps(self, name: str, window: int | None = None) -> Array | None:
        """Return visits or pay, float [H * W], summed over runs.

        Args:
          name: visits or pay.
          window: the tenth. Unset: the last tenth of each run that has any.
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


def make_groups(runs: Iterable[RunLog]) -> list[Group]:
    """Return the runs in groups, ordered by world and then as given."""
    alike: dict[tuple[str, str, str], list[RunLog]] = defaultdict(list)
    for run in runs:
        shared = json.dumps(compared(run.config), sort_keys=True)
        alike[world_name(run.config), run.method, shared].append(run)
    together: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for world, method, shared in alike:
        together[world, method].append(json.loads(shared))
    groups = []
    for (world, method, shared), members in alike.items():
        others, this = together[world, method], json.loads(shared)
        name = label(method, this, others)
        groups.append(Group(name, world, tuple(members), others.index(this)))
    worlds = list(dict.fromkeys(group.world for group in groups))
    return sorted(groups, key=lambda group: worlds.index(group.world))


def noise_of(group: Group) -> tuple[str, str] | None:
    """Return the logged share of a world's noisy steps, and words for them: "time {words}".

    None if the share was not logged.
    """
    env = group.runs[0].config.env
    name, words = "noise", "with noise"
    if isinstance(env, MazeConfig):
        name, words = "block_in_view", "with a bouncing block in view"
        if env.noise in LAYERS:
            name = "noise_on"
            words = (
                f"with {'the fixed layer of' if env.noise == 'frozen' else 'random'} pixels on"
                " the view"
            )
        elif env.noise == "sticky":
            name, words = "noise_on", "with the action overridden"
        elif env.noise == "brownian" and env.resolved_dose > 0:
            words = "with a random block in view"
    elif isinstance(env, AtariConfig):
        name, words = "noise_on", f"with {env.noise} noise on the frame"
    return (name, words) if group.names(f"share_of_time/{name}") else None


def result_names(group: Group) -> list[str]:
    """Return the numbers by which a group is judged.

    They are trackers, return, rooms and cells, and the shares of noise. With trackers, the return
    counts only if it was ever paid.
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


# The numbers that judge worlds without trackers, the main one first: name -> logged name, words.
MEASURES = {
    "cells": ("episode/cells", "Cells seen per episode"),
    "explored": ("explored/cells", "Cells seen so far, all episodes"),
    "rooms": ("episode/rooms", "Rooms seen per episode"),
    "return": ("episode/return", "Return per episode"),
}
