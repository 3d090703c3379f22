"""The one shape of data: T agent steps of B environments, and the masks that follow from it.

Time first, then batch. Index t is the t-th action. Observations have one row more. `reward[t]`,
`terminal[t]` and `info[...][t]` belong to the transition that `action[t]` started, into `obs[t +
1]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from afterwit.world_models import data_parallel


@dataclass(frozen=True)
class Trajectory:
    """T agent steps of B environments, with next-step autoreset.

    The step after an ending only resets.
    """

    obs: Tensor  #: uint8 or float32 [T+1, B, ...]: action[t] was chosen on obs[t]
    first: Tensor  #: bool [T+1, B]: obs[t] opens an episode
    action: Tensor  #: int64 [T, B]; if continuous, float32 [T, B, A]
    behaviour: Tensor  #: float32 [T, B, A]: log-probabilities of the acting policy
    reward: Tensor  #: float32 [T, B]: received on reaching obs[t+1]; the environment's own
    terminal: Tensor  #: bool [T, B]: obs[t+1] ends the task (never a time limit)
    core: Tensor  #: float32 [B, M]: recurrent state before obs[0]
    prev_action: Tensor  #: int64 [B] or float32 [B, A]: the action before obs[0]
    #: [T, B, ...]: the declared entries of the environment's `info` about obs[t+1]
    info: Mapping[str, Tensor] = field(default_factory=dict)
    #: int64 [B]: which environments of the run these are. None: 0, 1, ..., B - 1
    environments: Tensor | None = None
    #: bool [T+1, B]: rows past the end of an environment's steps. They are `first` too, and no
    #: memory takes them in. None: there are none
    padding: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """int64 [B]: the numbers of these environments among those of the run."""
        if self.environments is None:
            return torch.arange(self.action.shape[1], device=self.action.device)
        return self.environments

    @cached_property
    def rows_needed(self) -> int:
        """How many rows a table must have that has one for each of these environments.

        It is read on the host, before `to` moves the data.
        """
        return int(self.rows.max()) + 1

    @cached_property
    def real(self) -> Tensor:
        """bool [T, B]: steps that happened. All others only reset.

        Steps that only reset have no reward, no loss and no statistics.
        """
        return ~self.first[1:]

    @cached_property
    def resets(self) -> tuple[int, ...]:
        """Times t > 0 at which an environment opens an episode.

        They are read on the host, before `to` moves the data.
        """
        return tuple(t + 1 for t, opens in enumerate(self.first[1:].any(1).tolist()) if opens)

    @property
    def previous_actions(self) -> Tensor:
        """[T+1, B, ...]: the action before each observation (without meaning where `first`)."""
        return torch.cat([self.prev_action[None], self.action])

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, ...]]:
        """What a torso or policy reads, in the order of its arguments."""
        return self.obs, self.first, self.previous_actions, self.core, self.resets

    def state(self) -> dict[str, Any]:
        """The fields as a dict: `Trajectory(**state)` makes the same trajectory."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def to(self, device: torch.device) -> Trajectory:
        """The same steps on `device`. `info` stays on the host, where it is logged."""
        on_host = {name: value for name, value in self.state().items() if isinstance(value, Tensor)}
        # copies from pinned memory do not wait for each other, or for the GPU's work
        if device.type == "cuda":
            on_host = {
                name: value if value.is_cuda else value.pin_memory()
                for name, value in on_host.items()
            }
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in on_host.items()
        }
        result = replace(self, **moved)
        result.__dict__.update(resets=self.resets, rows_needed=self.rows_needed)
        return result


# the axis of environments in fields without an axis of time
BATCH_AXIS = {"core": 0, "prev_action": 0, "environments": 0}


def cut_trajectory(whole: Trajectory, parts: int) -> list[Trajectory]:
    """Parts of as many environments each, in order. The inverse of `join_trajectories`.

    Raises:
      ValueError: The environments do not divide into so many parts.
    """
    if whole.action.shape[1] % parts:
        raise ValueError(f"{whole.action.shape[1]} environments do not divide into {parts} parts")
    fields_ = {**whole.state(), "environments": whole.rows}
    pieces = {
        name: value.chunk(parts, BATCH_AXIS.get(name, 1))
        for name, value in fields_.items()
        if isinstance(value, Tensor)
    }
    info = {name: value.chunk(parts, 1) for name, value in whole.info.items()}
    cut = []
    for index in range(parts):
        part = Trajectory(
            **{name: piece[index] for name, piece in pieces.items()},
            info={name: piece[index] for name, piece in info.items()},
        )
        part.__dict__.update(resets=whole.resets, rows_needed=whole.rows_needed)
        cut.append(part)
    return cut


def join_trajectories(parts: Sequence[Trajectory]) -> Trajectory:
    """Join the environments of several trajectories that have the same T."""
    if len(parts) == 1:
        return parts[0]
    states = [part.state() for part in parts]
    info = {name: torch.cat([part.info[name] for part in parts], 1) for name in parts[0].info}
    names = [name for name, value in states[0].items() if isinstance(value, Tensor)]
    return Trajectory(
        **{
            name: torch.cat([state[name] for state in states], BATCH_AXIS.get(name, 1))
            for name in names
        },
        info=info,
    )


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where mask. It is 0 (with gradient 0) if the mask is empty.

    With several learners each gets its contribution: their average is the mean over the whole
    batch.

    Args:
      values: [T, B, ...].
      mask: bool [T, B].

    Returns:
      The mean [...].
    """
    kept = torch.where(mask.view(*mask.shape, *[1] * (values.dim() - mask.dim())), values, 0.0)
    return kept.flatten(0, mask.dim() - 1).sum(0) / data_parallel.mean_count(mask)
