"""The contract every environment meets: what it is (EnvSpec) and what a step returns (TimeStep).

Autoreset is next-step, as in Gymnasium's and EnvPool's defaults: the step that ends an episode
returns the true last observation; the step after it ignores its action, has reward 0 and returns
the first observation of the next episode with `first` set.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gymnasium.error import Error as GymnasiumError

from afterwit.envs.arrays import Array
from afterwit.envs.interface import Interface


@dataclass(frozen=True)
class EnvSpec:
    """Facts about a batch of environments. Shapes are channels first; lengths are in agent
    steps.
    """

    name: str
    num_envs: int
    observation_shape: tuple[int, ...]
    observation_dtype: str  # "uint8" (0..255) or "float32"
    num_actions: int
    frames_per_step: int = 1  # emulator frames that one agent step takes
    max_episode_steps: int | None = None  # agent steps, reset step not counted; None: no limit
    action_names: tuple[str, ...] = ()
    semantics: Mapping[str, Any] = field(default_factory=dict)  # recorded with every result
    tells: tuple[str, ...] = ()  # the entries of `info` that are read (envs/infos.py)
    interface: Interface | None = None  # to environments of a person's own; None: as networks


@dataclass(frozen=True)
class TimeStep:
    """What B environments returned. Every array has B rows; `info` holds arrays of B rows, too."""

    observation: Array  # uint8 or float32 [B, ...]
    first: Array  # bool [B]: the observation opens an episode
    reward: Array  # float32 [B]: raw, unclipped
    terminal: Array  # bool [B]: the task ended (never a time limit)
    truncated: Array  # bool [B]: a limit ended the episode, the task did not
    info: dict[str, Array]  # at least what the spec tells


class EnvironmentFault(RuntimeError):
    """An environment raised, or returned what its spec rules out. The message is one line that
    names environment and value.
    """


def words(error: BaseException, most: int = 500) -> str:
    """What an exception of anybody's says, in one line of at most `most` characters; those that
    cannot say it say nothing."""
    try:
        return " ".join(str(error).split())[:most]
    except Exception:
        return "(an exception that cannot be written)"


def reason(error: BaseException) -> str:
    """What an exception says, in one line. Of kinds that a person reads without their name, the
    words alone."""
    said = words(error)
    plain = isinstance(error, ValueError | ImportError | GymnasiumError) and said
    return said if plain else f"{type(error).__name__}: {said}".removesuffix(": ")


@contextmanager
def blamed(
    what: str, kind: type[Exception] = EnvironmentFault, where: bool = False
) -> Iterator[None]:
    """Around what calls a person's code: whatever that raises, SystemExit too, becomes a `kind` in
    one line, `what`: the reason. With `where`, `what`, name of the exception, reason, file, line.

    KeyboardInterrupt passes: it is not the code's. So does EnvironmentFault, which is such a line.
    """
    try:
        yield
    except (KeyboardInterrupt, EnvironmentFault):
        raise
    except BaseException as error:  # a person's code may raise anything
        if not where:
            raise kind(f"{what}: {reason(error)}") from error
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {words(error, 200)}".removesuffix(": ")
        raise kind(f"{what} {said} ({Path(place.filename).name} line {place.lineno})") from error


class VectorEnv(Protocol):
    """B environments stepped together."""

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self) -> TimeStep:
        """Start new episodes everywhere."""
        ...

    def step(self, action: Array) -> TimeStep:
        """Take one agent step with integer actions [B]. Raises ValueError for a bad action
        array.
        """
        ...

    def render(self) -> Array:
        """What a person would look at, for environment 0: uint8 [height, width, 3]."""
        ...

    def close(self) -> None: ...


def check_action(action: Array, spec: EnvSpec) -> Array:
    """Return `action` as int64 [B], or raise a ValueError that names what is wrong with it."""
    action = np.asarray(action)
    if action.shape != (spec.num_envs,):
        raise ValueError(
            f"actions have shape {action.shape}; {spec.name} with {spec.num_envs} environments"
            f" needs ({spec.num_envs},)"
        )
    if not np.issubdtype(action.dtype, np.integer):
        raise ValueError(
            f"actions have dtype {action.dtype}; {spec.name} needs integers"
            f" 0..{spec.num_actions - 1}"
        )
    if action.size and not (action.min() >= 0 and action.max() < spec.num_actions):
        raise ValueError(
            f"actions span {action.min()}..{action.max()}; {spec.name} takes"
            f" 0..{spec.num_actions - 1}"
        )
    return action.astype(np.int64, copy=False)
