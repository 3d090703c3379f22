"""An actor and a learner as processes of their own.

They take and return plain values and NumPy arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.actor import Actor, actor_seed
from afterwit.agents.learner import Learner
from afterwit.agents.learner_config import LearnerConfig
from afterwit.agents.malloc_settings import keep_memory
from afterwit.agents.policy import Policy
from afterwit.envs.arrays import Array
from afterwit.envs.make import EnvConfig, make_env
from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.callers import own_modes
from afterwit.world_models.torso import compile_encoders
from afterwit.world_models.trajectory import Trajectory, join_trajectories

Arrays = dict[str, Any]  # a trajectory's fields as NumPy arrays; `info` is a dict of them
SUMMARY_FIELDS = ("first", "action", "reward", "terminal", "info")  # what statistics read
EXCHANGE_TIMEOUT = 300.0  # seconds that a learner waits for the other learners


@dataclass(frozen=True)
class Plan:
    """What runs where: the part of a run's config that its processes need."""

    address: str  # "local", "auto" or an address
    env: EnvConfig  # of a whole batch
    learner: LearnerConfig
    seed: int
    unroll_length: int
    lag: int
    actors: int
    actor_envs: int
    learners: int
    device: torch.device | None  # the learners' device; None: a GPU if there is one for each
    threads: int
    acting_threads: int
    compile: bool
    placement: Literal["spread", "pairs"]
    patience: float  # seconds without an answer after which an actor is replaced

    @property
    def actor_env(self) -> EnvConfig:
        return replace(self.env, num_envs=self.actor_envs)

    @property
    def per_batch(self) -> int:
        return self.env.num_envs // self.actor_envs


class ActorProcess:
    """One actor with its environments.

    Args:
      plan: What runs where.
      index: Number of the actor.
      life: How often the actor was replaced. Each life has other seeds.
    """

    def __init__(self, plan: Plan, index: int, life: int):
        keep_memory()
        torch.set_num_threads(plan.acting_threads)
        self.plan = plan
        seed = actor_seed(plan.seed, index, life)
        env = make_env(plan.actor_env, seed)
        with own_modes():  # the environment may have changed torch's modes
            policy = Policy(plan.learner.policy, plan.learner.torso, env.spec)
        self.actor = Actor(env, policy, plan.unroll_length, seed, torch.device("cpu"), number=index)
        self.version: int | None = None
        if plan.compile:
            compile_encoders(self.actor.policy)

    def spec(self) -> EnvSpec:
        return self.actor.env.spec

    def unroll(self, weights: Mapping[str, Array], version: int) -> tuple[Arrays, Arrays]:
        """The next trajectory, and its summary for statistics."""
        if version != self.version:
            self.actor.set_weights(to_tensors(weights), version)
            self.version = version
        whole = to_arrays(self.actor.unroll())
        return whole, summarise(whole)

    def state(self) -> dict[str, Any]:
        return self.actor.state()

    def resume(self, state: dict[str, Any], resumed: int) -> None:
        """Continue from a saved state.

        Environments that cannot be saved start new episodes, which belong to agent step `resumed`.
        """
        self.actor.resume(state, partial(make_env, self.plan.actor_env), resumed)


class LearnerProcess:
    """One of one or several learners.

    Args:
      plan: What runs where.
      device: Where to train.
      spec: The environments of a whole batch.
      rank: Number of the learner.
    """

    def __init__(self, plan: Plan, device: torch.device, spec: EnvSpec, rank: int):
        keep_memory()
        torch.set_num_threads(plan.threads)
        self.plan, self.rank = plan, rank
        self.learner = Learner(plan.learner, spec, plan.seed, device)
        if plan.compile:
            compile_encoders(self.learner)

    def join(self, address: str) -> None:
        """Meet the other learners at `address`."""
        if self.plan.learners > 1:
            data_parallel.join(address, self.rank, self.plan.learners, EXCHANGE_TIMEOUT)

    def update(self, *parts: Arrays) -> tuple[list[str], Array, Array, int, int]:
        """Make one optimiser step.

        Returns:
          Names of the metrics, their values, bonus [T, B], learner steps, version of the acting
          policy.
        """
        metrics = self.learner.update(join_parts(parts))
        bonus = metrics.pop("bonus").cpu().numpy()
        values = torch.stack([value.float() for value in metrics.values()]).cpu().numpy()
        return list(metrics), values, bonus, self.learner.steps, self.learner.version

    def inspect(self, *parts: Arrays) -> dict[str, float]:
        readings = self.learner.inspect(join_parts(parts))
        return {name: float(value) for name, value in readings.items()}

    def weights(self) -> dict[str, Array]:
        return {name: value.cpu().numpy() for name, value in self.learner.acting.items()}

    def state(self) -> dict[str, Any]:
        return self.learner.state()

    def load_state(self, state: dict[str, Any]) -> tuple[int, int]:
        self.learner.load_state(state)
        return self.learner.steps, self.learner.version


def to_arrays(trajectory: Trajectory) -> Arrays:
    """A trajectory's fields as NumPy arrays."""
    info = {name: value.numpy() for name, value in trajectory.info.items()}
    tensors = {name: value for name, value in trajectory.state().items() if name != "info"}
    return {name: value.numpy() for name, value in tensors.items() if value is not None} | {
        "info": info
    }


def summarise(whole: Arrays) -> Arrays:
    """The fields of a trajectory that statistics read."""
    return {name: whole[name] for name in SUMMARY_FIELDS}


def empty_fields(summary: Arrays) -> Arrays:
    """Empty arrays for the fields that a summary leaves out."""
    length, batch = summary["action"].shape
    rows = np.empty((length + 1, batch, 0), np.float32)
    return {
        "obs": rows,
        "behaviour": rows[1:],
        "core": rows[0],
        "prev_action": np.zeros(batch, np.int64),
    }


def to_tensors(values: Mapping[str, Array]) -> dict[str, Tensor]:
    """Tensors over the same memory.

    The memory may be read-only: trajectories are never written to.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {name: torch.from_numpy(value) for name, value in values.items()}


def to_trajectory(values: Arrays) -> Trajectory:
    """The trajectory with these fields."""
    return Trajectory(
        **to_tensors({name: value for name, value in values.items() if name != "info"}),
        info=to_tensors(values["info"]),
    )


def join_parts(parts: Sequence[Arrays]) -> Trajectory:
    """The trajectories of several actors as one."""
    return join_trajectories([to_trajectory(part) for part in parts])
