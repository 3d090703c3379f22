"""From a caller's steps to a trajectory. A last observation that is given apart gets a row.

Trajectories have next-step autoreset: a step that only resets follows each ending. With same-step
autoreset there is none, and obs[t+1] opens the next episode. If the last observation a3 of the old
one is known, it and a step that only resets are put in between:

    the caller's       obs  a0  a1  a2  b0  b1        final_observations[2] = a3
    the trajectory's   obs  a0  a1  a2  a3  b0  b1    the step from a3 to b0 only resets

If it is not known, the step from a2 to b0 only resets. Environments in which fewer episodes end
have fewer rows, and are padded at the end. An ending in the last step needs no row: a3 is then the
last observation, and the next call begins with b0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.envs.arrays import Array
from afterwit.envs.specs import EnvSpec
from afterwit.world_models.caller_spaces import Reading, stack
from afterwit.world_models.callers import as_array, read_final
from afterwit.world_models.stream_state import StreamState
from afterwit.world_models.trajectory import Trajectory


@dataclass(frozen=True)
class Final:
    """The last observations of episodes."""

    known: Array  #: bool [T, B]: the step ended an episode, and what it led to is known
    obs: Array  #: [N, ...] as networks read them, in the order of `known`


@dataclass(frozen=True)
class CallerTrajectory:
    """The trajectory of a caller's steps, and where they are in it."""

    trajectory: Trajectory
    rows: Tensor  #: int64 [T, B]: the time of the trajectory at which each step is

    def of_steps(self, values: Tensor) -> Tensor:
        """The rows of the caller's steps: [T' or more, B, ...] to [T, B, ...]."""
        return values[self.rows, torch.arange(self.rows.shape[1], device=self.rows.device)]

    def to(self, device: torch.device) -> CallerTrajectory:
        """The same on `device`."""
        return CallerTrajectory(self.trajectory.to(device), self.rows.to(device))


def read_finals(spec: EnvSpec, reading: Reading, given: Any, dones: Array) -> Final | None:
    """Read a caller's `final_observations`. None: nothing is known.

    Args:
      spec: The caller's environment.
      reading: How observations become one array.
      given: [T, B, ...] as the observation space says; or an object array [T, B] of observations,
          None where there is none, as Gymnasium has it.
      dones: bool [T, B]. Other steps' observations are not read.

    Raises:
      ValueError: They have a wrong shape or type, or are not finite or too large.
    """
    if isinstance(given, np.ndarray) and given.dtype == object:
        if given.shape != dones.shape:
            raise ValueError(
                f"final_observations is an object array of shape {given.shape}; it must be"
                f" {dones.shape}, like dones"
            )
        known = dones & np.array([each is not None for each in given.flat]).reshape(dones.shape)
        try:
            found = stack([reading.trim(each) for each in given[known]]) if known.any() else None
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"final_observations differ in kind or shape: {' '.join(str(error).split())[:200]}"
            ) from error
    else:
        found, known = where(reading.trim(given), dones), dones
    if not known.any():
        return None
    read = reading.read(stack([found]), "final_observations")[0]
    return Final(known, read_final(spec, read))


def where(values: Any, mask: Array) -> Any:
    """Observations [T, B, ...] where `mask`, [N, ...]; or a dict or tuple of such arrays.

    Raises:
      ValueError: They are not [T, B, ...].
    """
    if isinstance(values, Mapping):
        return {key: where(value, mask) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(where(value, mask) for value in values)
    array = as_array("final_observations", values)
    if array.shape[:2] != mask.shape:
        raise ValueError(
            f"final_observations has shape {array.shape}; it must begin with {mask.shape}, the"
            " shape of dones"
        )
    return array[mask]


def make_trajectory(
    obs: Array,
    action: Array,
    dones: Array,
    state: StreamState,
    final: Final | None,
    ended: Array | None = None,
) -> CallerTrajectory:
    """The trajectory of T steps of B environments.

    Args:
      obs: uint8 or float32 [T+1, B, ...].
      action: int64 [T, B].
      dones: bool [T, B].
      state: The state before these steps. It knows the autoreset.
      final: The last observations of episodes, if some are known. With same-step only.
      ended: bool [B]: the step before these ended an episode. None: the state knows. With next-step
          only.
    """
    if state.autoreset == "next-step":
        return _next_step(
            obs, action, dones, state, state.ended.numpy() if ended is None else ended
        )
    return _same_step(obs, action, dones, state, final)


def _next_step(
    obs: Array, action: Array, dones: Array, state: StreamState, ended: Array
) -> CallerTrajectory:
    """The caller's steps as they are. One environment, whose step 1 ends an episode in a2:

    step     0   1   2   3
    obs      a0  a1  a2  b0  b1
    dones    0   1   0   0
    first    0   0   0   1   0   step 2, from a2 to b0, only resets
    """
    length, batch = dones.shape
    first = np.empty((length + 1, batch), bool)
    first[0], first[1], first[2:] = state.opens.numpy(), ended, dones[:-1]
    rows = np.arange(length)[:, None].repeat(batch, 1)
    return _trajectory(obs, first, action, None, state, rows)


def _same_step(
    obs: Array, action: Array, dones: Array, state: StreamState, final: Final | None
) -> CallerTrajectory:
    """A row is put in for each last observation that is known.

    One environment, whose step 1 ends an episode in a2, and step 3 one in what is not known:

    step     0   1   2   3   4
    obs      a0  a1  b0  b1  c0  c1
    dones    0   1   0   1   0
    known    0   1   0   0   0
    added    0   0   1   1   1           rows that are put in before the step
    rows     0   1   3   4   5           the time of the step in the trajectory; that of c1 is 6

    time     0   1   2   3   4   5   6   7
    obs      a0  a1  a2  b0  b1  c0  c1  -
    first    0   0   0   1   0   1   0   1
    padding  0   0   0   0   0   0   0   1   if another environment has one row more
    """
    length, batch = dones.shape
    columns = np.arange(batch)
    known = np.zeros_like(dones) if final is None else final.known
    added = np.zeros((length, batch), np.int64)
    added[1:] = known[:-1].cumsum(0)
    rows = np.arange(length)[:, None] + added
    end = rows[-1] + 1  # [B]: where obs[T] is, or what the last step led to if it ended an episode
    total = int(end.max())
    first = np.zeros((total + 1, batch), bool)
    first[0] = state.opens.numpy()
    first[rows[1:], columns] = dones[:-1]
    first[end, columns] = dones[-1] & ~known[-1]
    if final is None:
        return _trajectory(obs, first, action, None, state, rows)
    long_obs = np.zeros((total + 1, *obs.shape[1:]), obs.dtype)
    long_obs[rows, columns] = obs[:-1]
    long_obs[end, columns] = obs[-1]
    time, column = known.nonzero()
    long_obs[rows[time, column] + 1, column] = final.obs
    long_action = np.zeros((total, *action.shape[1:]), action.dtype)
    long_action[rows, columns] = action
    padding = np.arange(total + 1)[:, None] > end
    return _trajectory(
        long_obs, first | padding, long_action, padding if padding.any() else None, state, rows
    )


def _trajectory(
    obs: Array, first: Array, action: Array, padding: Array | None, state: StreamState, rows: Array
) -> CallerTrajectory:
    floats = torch.zeros(action.shape[:2])
    trajectory = Trajectory(
        obs=torch.from_numpy(obs),
        first=torch.from_numpy(first),
        action=torch.from_numpy(action),
        behaviour=floats[..., None],
        reward=floats,
        terminal=torch.zeros(action.shape[:2], dtype=torch.bool),
        core=state.core,
        prev_action=state.action,
        padding=None if padding is None else torch.from_numpy(padding),
    )
    return CallerTrajectory(trajectory, torch.from_numpy(rows))
