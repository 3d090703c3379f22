"""The contract of every environment: what it is (EnvSpec) and what a step returns (TimeStep).

Autoreset is next-step, as in Gymnasium and EnvPool by default. The step that ends an episode
returns the true last observation. The next step ignores its action, has reward 0 and returns the
first observation of the next episode, with `first` set.
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
    """Facts about a batch of environments.

    Shapes are channels first. Lengths are in agent steps.
    """

    name: str
    num_envs: int
    observation_shape: tuple[int, ...]
    observation_dtype: str  #: "uint8" (0..255) or "float32"
    num_actions: int  #: or, if continuous, the numbers of an action
    frames_per_step: int = 1  #: emulator frames per agent step
    max_episode_steps: int | None = None  #: agent steps without the reset step; None: no limit
    action_names: tuple[str, ...] = ()
    semantics: Mapping[str, Any] = field(default_factory=dict)  #: recorded with every result
    tells: tuple[str, ...] = ()  #: the entries of `info` that are read (envs/infos.py)
    interface: Interface | None = None  #: how an agent acts in a user's environment of this kind
    continuous: bool = False  #: whether an action is `num_actions` numbers, and not one of as many


@dataclass(frozen=True)
class TimeStep:
    """What B environments returned. All arrays have B rows, also those in `info`."""

    observation: Array  #: uint8 or float32 [B, ...]
    first: Array  #: bool [B]: the observation opens an episode
    reward: Array  #: float32 [B]: the environment's own, not clipped
    terminal: Array  #: bool [B]: the task ended (never a time limit)
    truncated: Array  #: bool [B]: a time limit ended the episode
    info: dict[str, Array]  #: at least the entries in EnvSpec.tells


class EnvironmentFault(RuntimeError):
    """An environment raised an exception, or returned something that its spec does not allow.

    The message is one line that names the environment and the value.
    """


def message_of(error: BaseException, most: int = 500) -> str:
    """An exception's message in one line of at most `most` characters."""
    try:
        return " ".join(str(error).split())[:most]
    except Exception:
        return "(an exception without a readable message)"


def describe_error(error: BaseException) -> str:
    """An exception in one line. Its type is left out where the message alone is clear."""
    message = message_of(error)
    without_type = isinstance(error, ValueError | ImportError | GymnasiumError) and message
    return message if without_type else f"{type(error).__name__}: {message}".removesuffix(": ")


@contextmanager
def reraise_as(
    what: str, kind: type[Exception] = EnvironmentFault, where: bool = False
) -> Iterator[None]:
    """Turn any exception of a user's code into a `kind` with a message of one line.

    KeyboardInterrupt and EnvironmentFault pass unchanged.

    Args:
      what: Start of the message, followed by the reason.
      kind: Type of the new exception.
      where: Whether to add the exception's type, the file and the line.
    """
    try:
        yield
    except (KeyboardInterrupt, EnvironmentFault):
        raise
    except BaseException as error:  # a user's code may raise anything, also SystemExit
        if not where:
            raise kind(f"{what}: {describe_error(error)}") from error
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {message_of(error, 200)}".removesuffix(": ")
        raise kind(f"{what} {message} ({Path(place.filename).name} line {place.lineno})") from error


class VectorEnv(Protocol):
    """B environments that are stepped together."""

    @property
    def spec(self) -> EnvSpec:
        """Facts about these environments."""
        ...

    def reset(self) -> TimeStep:
        """Start new episodes in all environments.

        Returns:
          The first observations, with `first` set.
        """
        ...

    def step(self, action: Array) -> TimeStep:
        """Take one agent step.

        Args:
          action: Integers [B], counted from 0.

        Returns:
          What the environments returned.

        Raises:
          ValueError: `action` has another shape or type, or is out of range.
        """
        ...

    def render(self) -> Array:
        """An image of environment 0 for people: uint8 [height, width, 3]."""
        ...

    def close(self) -> None:
        """Release what the environments hold, such as threads and processes."""
        ...


def check_action(action: Array, spec: EnvSpec) -> Array:
    """Check actions.

    Returns:
      The actions as int64 [B].

    Raises:
      ValueError: The actions have another shape or type, or are out of range.
    """
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
