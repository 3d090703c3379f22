"""The entries of `info` that Afterwit reads, and how an environment declares them.

An environment may put anything into its `info`. Afterwit reads only entries that are in ENTRIES and
that the environment declares. Afterwit's own environments declare them in `EnvSpec.tells`. A
Gymnasium environment declares them in its metadata:

    metadata = {"render_modes": [], "afterwit_tells": ("room", "trackers")}

Wrappers and vectors pass the metadata on. An environment that declares `cell` also states the
number of cells: {"afterwit_cells": 400}. A declared entry must be present on each step. On resets
it may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short_repr
from typing import Any

import gymnasium
import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.checks import MAX_SIZE
from afterwit.envs.specs import EnvironmentFault

TELLS, CELLS = "afterwit_tells", "afterwit_cells"  # keys of an environment's metadata
ROOMS = 256
STATES = 256
MAX_TRACKERS = 256
DOORS = 12


@dataclass(frozen=True)
class Entry:
    """One entry of an environment's `info`. It describes the step that led to an observation."""

    meaning: str
    flag: bool = False  #: True or False, or 1 or 0
    below: int | None = None  #: the entry is an integer from 0 to below this; None: no limit
    many: bool = False  #: the entry has one axis, of the same length in every step
    most: int = MAX_TRACKERS  #: length of that axis, at most


ENTRIES = {
    "noise_on": Entry(
        "noise lies on the observation, or the chosen action was overridden", flag=True
    ),
    "block_in_view": Entry("a block, which may move at random, is in view", flag=True),
    "trackers": Entry("which goals the episode has reached, up to 256", flag=True, many=True),
    "room": Entry("the room that the agent is in, 0 to 255", below=ROOMS),
    "cell": Entry("the cell that the agent is in, below the number of cells"),
    "state": Entry(
        "what the agent cannot see, such as which doors are open, 0 to 255", below=STATES
    ),
    "x": Entry("the column that the agent is in", below=ROOMS),
    "y": Entry("the row that the agent is in", below=ROOMS),
    "direction": Entry("where the agent looks, 0 to 3", below=4),
    "carrying": Entry("what the agent carries, 0 for nothing", below=STATES),
    "doors": Entry("states of up to 12 doors, 0 for none", below=STATES, many=True, most=DOORS),
    "executed_action": Entry("the action that was executed, counted from 0", below=MAX_SIZE),
    "lives": Entry("remaining lives"),
    "episode_frames": Entry("emulator frames since the game began"),
}


def declared_entries(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The entries that an environment with this metadata declares.

    Raises:
      ValueError: The declaration is not a tuple of names in ENTRIES.
    """
    names = metadata.get(TELLS, ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"metadata[{TELLS!r}] is {short_repr(names)}; it must be a tuple of names, such as"
            " ('room',)"
        )
    for name in names:
        if name not in ENTRIES:
            raise ValueError(
                f"metadata[{TELLS!r}] has {short_repr(name)}; choose from {', '.join(ENTRIES)}"
            )
    if "cell" in names:
        read_number_of_cells(metadata)
    return tuple(dict.fromkeys(names))


def read_number_of_cells(metadata: Mapping[str, Any]) -> int:
    """The number of cells that the metadata states.

    Raises:
      ValueError: The metadata does not state it.
    """
    number = metadata.get(CELLS)
    if type(number) is not int or not 1 <= number <= MAX_SIZE:
        raise ValueError(
            f"metadata[{CELLS!r}] is {short_repr(number)}; an environment that declares `cell` must"
            f" state the number of cells there, 1 to {MAX_SIZE:,}"
        )
    return number


def with_declared(metadata: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The metadata of an environment that also declares `names`."""
    return {**metadata, TELLS: tuple(dict.fromkeys((*declared_entries(metadata), *names)))}


@np.errstate(all="ignore")
def check_entry(
    name: str, key: str, value: Any, rows: int | None, number_of_cells: int | None = None
) -> Array:
    """Check a declared entry and convert it to bools or int64.

    Args:
      name: The environment's name, for messages.
      key: The entry's name.
      value: The entry, of one environment: [] or [n]; of several: [rows] or [rows, n].
      rows: Number of environments. None: one environment, without an axis.
      number_of_cells: Number of cells, for the entry `cell`.

    Returns:
      The entry as a bool or int64 array.

    Raises:
      EnvironmentFault: The entry has another shape or type, or is out of range.
    """
    entry = ENTRIES[key]
    below = number_of_cells if key == "cell" else entry.below

    def make_fault(expected: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the environment {name} returned {key}: {' '.join(short_repr(value).split())}; it must"
            f" be {expected}"
        )

    expected = (
        "True or False"
        if entry.flag
        else "an integer from 0" + (f" to {below - 1}" if below is not None else "")
    )
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        raise make_fault(expected) from None
    lead = () if rows is None else (rows,)
    if entry.many:
        if (
            array.ndim != len(lead) + 1
            or array.shape[:-1] != lead
            or not 1 <= array.shape[-1] <= entry.most
        ):
            kind = "bools" if entry.flag else "integers"
            raise make_fault(f"one axis of 1 to {entry.most} {kind}")
    elif array.size != (1 if rows is None else rows):
        raise make_fault(expected)
    else:
        array = array.reshape(lead)
    kinds = "biuf" if entry.flag else "iuf"
    if array.dtype.kind not in kinds:
        raise make_fault(expected)
    usable = (
        (array == 0) | (array == 1)
        if entry.flag
        else (array >= 0) & (array < (2**53 if below is None else below))
    )
    if not usable.all() or not (array == np.floor(array)).all():
        raise make_fault(expected)
    return array.astype(bool if entry.flag else np.int64)


class DeclaredInfos(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose `info` holds the declared entries, checked, and nothing else.

    It must be applied before environments are put into a vector: Gymnasium converts the infos of a
    vector into arrays, which fails for some types of entries.

    Args:
      env: The environment. Its infos are mappings.
      name: Its name, for messages.
      sizes: Lengths of entries with an axis. All environments of a vector share this dict.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str, sizes: dict[str, int]):
        super().__init__(env)
        self.name, self.sizes = name, sizes
        self.tells = declared_entries(env.metadata)
        self.cells = read_number_of_cells(env.metadata) if "cell" in self.tells else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._declared_only(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminal, truncated, info = self.env.step(action)
        return observation, reward, terminal, truncated, self._declared_only(info)

    def _declared_only(self, info: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key in self.tells:
            if key in info:
                value = info[key]
                if ENTRIES[key].flag and type(value) is bool:  # the usual case, made fast
                    result[key] = value
                    continue
                value = check_entry(self.name, key, value, None, self.cells)
                if value.ndim and self.sizes.setdefault(key, len(value)) != len(value):
                    raise EnvironmentFault(
                        f"the environment {self.name} returned {len(value)} {key}, and before"
                        f" {self.sizes[key]}"
                    )
                result[key] = value if value.ndim else value.item()
        return result
