"""An actor and a learner as processes of their own: what they are asked for and what they answer
are plain values and arrays.
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
from afterwit.agents.learner import Learner, LearnerConfig
from afterwit.agents.malloc_settings import keep_memory
from afterwit.agents.policy import Policy
from afterwit.envs.arrays import Array
from afterwit.envs.make import EnvConfig, make_env
from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.callers import own_modes
from afterwit.world_models.torso import compile_encoders
from afterwit.world_models.trajectory import Trajectory, joined

Arrays = dict[str, Any]  # a trajectory's fields as NumPy arrays; `info` is a dict of them
BRIEF = ("first", "action", "reward", "terminal", "info")  # what statistics read
EXCHANGE = 300.0  # seconds that a learner waits for the others


@dataclass(frozen=True)
class Plan:
    """What runs where: a run's config as far as its processes need it."""

    address: str  # "local", "auto" or an address
    env: EnvConfig  # of a whole batch
    learner: LearnerConfig
    seed: int
    unroll_length: int
    lag: int
    actors: int
    actor_envs: int
    learners: int
    device: torch.device | None  # of the learners; None: a GPU if there is one for each
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
    """The actor `index` with its environments; a replacement has another `life`, and so other
    seeds.
    """

    def __init__(self, plan: Plan, index: int, life: int):
        keep_memory()
        torch.set_num_threads(plan.acting_threads)
        self.plan = plan
        seed = actor_seed(plan.seed, index, life)
        env = make_env(plan.actor_env, seed)
        with own_modes():  # the environment may have set its own
            policy = Policy(plan.learner.policy, plan.learner.torso, env.spec)
        self.actor = Actor(env, policy, plan.unroll_length, seed, torch.device("cpu"))
        self.version: int | None = None
        if plan.compile:
            compile_encoders(self.actor.policy)

    def spec(self) -> EnvSpec:
        return self.actor.env.spec

    def unroll(self, weights: Mapping[str, Array], version: int) -> tuple[Arrays, Arrays]:
        """The next trajectory, and what of it statistics need."""
        if version != self.version:
            self.actor.set_weights(tensors(weights), version)
            self.version = version
        whole = arrays(self.actor.unroll())
        return whole, brief(whole)

    def state(self) -> dict[str, Any]:
        return self.actor.state()

    def resume(self, state: dict[str, Any], resumed: int) -> None:
        """Go on where `state` was taken; where environments cannot be saved, in new episodes that
        belong to the step `resumed`.
        """
        self.actor.resume(state, partial(make_env, self.plan.actor_env), resumed)


class LearnerProcess:
    """The learner `rank` of one or several."""

    def __init__(self, plan: Plan, device: torch.device, spec: EnvSpec, rank: int):
        keep_memory()
        torch.set_num_threads(plan.threads)
        self.plan, self.rank = plan, rank
        self.learner = Learner(plan.learner, spec, plan.seed, device)
        if plan.compile:
            compile_encoders(self.learner)

    def join(self, address: str) -> None:
        if self.plan.learners > 1:
            data_parallel.join(address, self.rank, self.plan.learners, EXCHANGE)

    def update(self, *parts: Arrays) -> tuple[list[str], Array, Array, int, int]:
        """Names and values of the metrics, bonus [T, B], learner steps, version of the acting
        policy.
        """
        metrics = self.learner.update(together(parts))
        bonus = metrics.pop("bonus").cpu().numpy()
        values = torch.stack([value.float() for value in metrics.values()]).cpu().numpy()
        return list(metrics), values, bonus, self.learner.steps, self.learner.version

    def inspect(self, *parts: Arrays) -> dict[str, float]:
        return {name: float(value) for name, value in self.learner.inspect(together(parts)).items()}

    def weights(self) -> dict[str, Array]:
        return {name: value.cpu().numpy() for name, value in self.learner.acting.items()}

    def state(self) -> dict[str, Any]:
        return self.learner.state()

    def load_state(self, state: dict[str, Any]) -> tuple[int, int]:
        self.learner.load_state(state)
        return self.learner.steps, self.learner.version


def arrays(trajectory: Trajectory) -> Arrays:
    info = {name: value.numpy() for name, value in trajectory.info.items()}
    return {name: value.numpy() for name, value in trajectory.state().items() if name != "info"} | {
        "info": info
    }


def brief(whole: Arrays) -> Arrays:
    """Of a trajectory what statistics read."""
    return {name: whole[name] for name in BRIEF}


def blank(brief: Arrays) -> Arrays:
    """Empty fields for what a brief leaves out."""
    length, batch = brief["action"].shape
    rows = np.empty((length + 1, batch, 0), np.float32)
    return {
        "obs": rows,
        "behaviour": rows[1:],
        "core": rows[0],
        "prev_action": np.zeros(batch, np.int64),
    }


def tensors(values: Mapping[str, Array]) -> dict[str, Tensor]:
    """Over the same memory, which may be read-only: nobody writes to a trajectory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {name: torch.from_numpy(value) for name, value in values.items()}


def trajectory(values: Arrays) -> Trajectory:
    return Trajectory(
        **tensors({name: value for name, value in values.items() if name != "info"}),
        info=tensors(values["info"]),
    )


def together(parts: Sequence[Arrays]) -> Trajectory:
    return joined([trajectory(part) for part in parts])
