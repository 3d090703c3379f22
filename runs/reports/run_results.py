"""What a run has left in its folder: config, log, maps, evaluation and video.

A tenth is a tenth of the agent steps in the config, as in maps.npz. Numbers per episode are
weighted by episodes, all others by agent steps.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.maze import MazeConfig, build_map
from afterwit.runs.configs.overrides import short
from afterwit.runs.configs.run_config import RunConfig, config_of
from afterwit.runs.evaluation.evaluation_result import VIDEO, is_number, is_unicode, read_evaluation
from afterwit.runs.training.episode_statistics import NUM_WINDOWS
from afterwit.runs.training.run_log import MAPS, METRICS, read_metrics


@dataclass(frozen=True)
class RunLog:
    """One run, as read from its folder."""

    folder: Path
    config: RunConfig
    entries: list[dict[str, Any]]
    maps: dict[str, Array] | None  # visits and pay: [10, H * W]; None where they cannot be drawn
    evaluation: dict[str, Any] | None
    video: Path | None
    notes: tuple[str, ...]  # notes for the reader about missing parts

    @property
    def method(self) -> str:
        return self.config.method

    @cached_property
    def steps(self) -> Array:
        """int [n]: agent steps at each entry."""
        return np.array([entry["agent_steps"] for entry in self.entries], np.int64)

    @cached_property
    def tenth(self) -> Array:
        """int [n]: the tenth of the run in which each entry lies."""
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
        """The last tenth in which an episode ended. If none ended, the last that has begun."""
        return int(
            self.tenth[self.episodes > 0].max(initial=-1) if self.episodes.any() else self.tenth[-1]
        )

    def names(self, prefix: str) -> list[str]:
        """Return the logged names that start with `prefix`, sorted."""
        return sorted({name for entry in self.entries for name in entry if name.startswith(prefix)})

    def column(self, name: str) -> Array:
        """Return a number at each entry, float [n], NaN where it was not logged."""
        return np.array(
            [np.nan if entry.get(name) is None else entry[name] for entry in self.entries],
            np.float64,
        )

    def mean(self, name: str, where: Array) -> float:
        """Return the weighted mean over the entries in `where`, NaN if there are none.

        `ratio/x` is x's share of pay over its share of time.
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
        """Return the mean over the last tenth."""
        return self.mean(name, self.tenth == self.last_tenth)

    def best(self, name: str) -> float:
        """Return the highest of the means of the ten tenths."""
        means = [self.mean(name, self.tenth == index) for index in range(NUM_WINDOWS)]
        return max((mean for mean in means if math.isfinite(mean)), default=math.nan)


def read_run(folder: Path) -> RunLog:
    """Return what a run has left in its folder.

    Raises:
      ValueError: a file is missing or damaged. The message names it and the remedy.
    """
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
            problem = f"{bad!r} with {short(entry[bad])}, which is not a named number"
            raise ValueError(f"{folder / METRICS} line {number + 1} has {problem}; remove the line")
    maps = read_maps(folder, config)
    notes: tuple[str, ...] = ()
    env = config.env
    cells = build_map(env.layout).walls.size if isinstance(env, MazeConfig) else 0
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
        folder, config, entries, maps, read_evaluation(folder), _path_if_file(folder / VIDEO), notes
    )


def _path_if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def read_maps(folder: Path, config: RunConfig) -> dict[str, Array] | None:
    """Return visits and pay by tenth, None if the run has no maps of a maze."""
    if not (folder / MAPS).is_file() or not isinstance(config.env, MazeConfig):
        return None
    try:
        with np.load(folder / MAPS) as archive:
            maps = {name: archive[name] for name in ("visits", "pay")}
        if (
            any(array.dtype.kind not in "iuf" or array.ndim != 2 for array in maps.values())
            or maps["visits"].shape != maps["pay"].shape
        ):
            raise ValueError("not two tables of numbers")
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
