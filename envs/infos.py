"""What environments tell beside what they show: the entries of `info` that are read, and who may
write them.

An environment's `info` is its own. Read are only entries that it declares, and that are in ENTRIES:
in `EnvSpec.tells`, and a Gymnasium environment in its metadata,

    metadata = {"render_modes": [], "afterwit_tells": ("room", "trackers")}

which wrappers and vectors pass on. One that tells `cell` says, too, how many there are:
{"afterwit_cells": 400}. A declared entry has to be there on every step but resets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

import gymnasium
import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.checks import SIZE
from afterwit.envs.specs import EnvironmentFault

TELLS, CELLS = "afterwit_tells", "afterwit_cells"  # of an environment's metadata
ROOMS = 256
MANY = 256  # trackers


@dataclass(frozen=True)
class Entry:
    """One entry of an environment's `info`, about the step that led to an observation."""

    meaning: str
    flag: bool = False  # True or False; 0 and 1 stand for them
    below: int | None = None  # integers from 0 to below this; None: any
    many: bool = False  # one axis, of the same length in every step


ENTRIES = {
    "noise_on": Entry(
        "noise lies on the observation, or the chosen action was overridden", flag=True
    ),
    "block_in_view": Entry("a block is seen, which may move at random", flag=True),
    "trackers": Entry("which goals the episode has reached, up to 256", flag=True, many=True),
    "room": Entry("the room that the agent is in, 0 to 255", below=ROOMS),
    "cell": Entry("the place that the agent is in, below the number of cells"),
    "executed_action": Entry("the action that was executed, counted from 0", below=SIZE),
    "lives": Entry("lives that are left"),
    "episode_frames": Entry("emulator frames since the game began"),
}


def declared(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What the environment with this metadata tells. Raises a ValueError that names what is no such
    entry."""
    names = metadata.get(TELLS, ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"metadata[{TELLS!r}] is {brief(names)}; it must be a tuple of names, such as ('room',)"
        )
    for name in names:
        if name not in ENTRIES:
            raise ValueError(
                f"metadata[{TELLS!r}] has {brief(name)}; what can be told is {', '.join(ENTRIES)}"
            )
    if "cell" in names:
        cells(metadata)
    return tuple(dict.fromkeys(names))


def cells(metadata: Mapping[str, Any]) -> int:
    """How many there are. Raises a ValueError where the metadata does not say."""
    number = metadata.get(CELLS)
    if type(number) is not int or not 1 <= number <= SIZE:
        raise ValueError(
            f"metadata[{CELLS!r}] is {brief(number)}; who tells `cell` says how many there are, 1"
            f" to {SIZE:,}"
        )
    return number


def with_declared(metadata: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The metadata of an environment that tells `names`, too."""
    return {**metadata, TELLS: tuple(dict.fromkeys((*declared(metadata), *names)))}


@np.errstate(all="ignore")
def checked(
    name: str, key: str, value: Any, rows: int | None, number_of_cells: int | None = None
) -> Array:
    """A declared entry as bools or int64: of one environment [] or [n], or [rows] or [rows, n].

    Raises an EnvironmentFault that names environment `name`, `key` and the value.
    """
    entry = ENTRIES[key]
    below = number_of_cells if key == "cell" else entry.below

    def fault(wanted: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the environment {name} told {key}: {' '.join(brief(value).split())}; it must be"
            f" {wanted}"
        )

    wanted = (
        "True or False"
        if entry.flag
        else "an integer from 0" + (f" to {below - 1}" if below is not None else "")
    )
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        raise fault(wanted) from None
    lead = () if rows is None else (rows,)
    if entry.many:
        if (
            array.ndim != len(lead) + 1
            or array.shape[:-1] != lead
            or not 1 <= array.shape[-1] <= MANY
        ):
            raise fault(f"one axis of 1 to {MANY} bools")
    elif array.size != (1 if rows is None else rows):
        raise fault(wanted)
    else:
        array = array.reshape(lead)
    kinds = "biuf" if entry.flag else "iuf"
    if array.dtype.kind not in kinds:
        raise fault(wanted)
    usable = (
        (array == 0) | (array == 1)
        if entry.flag
        else (array >= 0) & (array < (2**53 if below is None else below))
    )
    if not usable.all() or not (array == np.floor(array)).all():
        raise fault(wanted)
    return array.astype(bool if entry.flag else np.int64)


class Declared(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose infos, mappings all, hold what it declares, checked, and nothing else:
    the rest may be anything.

    It goes below a vector, since Gymnasium puts the infos of several environments into arrays,
    which not all survive. `sizes`, shared by all environments of a vector, keeps how many trackers
    there are.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str, sizes: dict[str, int]):
        super().__init__(env)
        self.name, self.sizes = name, sizes
        self.tells = declared(env.metadata)
        self.cells = cells(env.metadata) if "cell" in self.tells else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._kept(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminal, truncated, info = self.env.step(action)
        return observation, reward, terminal, truncated, self._kept(info)

    def _kept(self, info: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key in self.tells:
            if key in info:
                value = info[key]
                if ENTRIES[key].flag and type(value) is bool:  # the way of most, and quick
                    result[key] = value
                    continue
                value = checked(self.name, key, value, None, self.cells)
                if value.ndim and self.sizes.setdefault(key, len(value)) != len(value):
                    raise EnvironmentFault(
                        f"the environment {self.name} told {len(value)} {key}, and before"
                        f" {self.sizes[key]}"
                    )
                result[key] = value if value.ndim else value.item()
        return result
