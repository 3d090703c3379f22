"""Actors and learners as processes on a Ray cluster. The only file that imports ray.

`Cluster.learner` and `Cluster.pipeline` take the places of Learner and Pipeline, so the training
loop does not know where they run. The loop handles references. Observations go from actors to
learners through Ray's object store, as arrays that are not pickled.

Each actor steps `actor_envs` environments. A learner step takes `num_envs` environments: those of
the next actors in turn. Each learner has an equal share of these actors. Learner step n learns from
what was acted with the weights after n - lag steps, whichever side is faster. So the lag is exact,
and at most lag + 1 batches exist at a time. With one learner, on CPUs and with one thread for an
actor's operations, this is the local run, bit for bit.

The price is that the slowest actor sets the pace. Give all actors cores of the same speed.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor

from afterwit.agents.pipeline import LearnerLost, Turns
from afterwit.agents.processes import (
    ActorProcess,
    Arrays,
    LearnerProcess,
    Plan,
    empty_fields,
    summarise,
    to_arrays,
    to_trajectory,
)
from afterwit.envs.arrays import Array
from afterwit.envs.specs import EnvironmentFault, EnvSpec
from afterwit.world_models.trajectory import Trajectory, join_trajectories

MAX_REPLACEMENTS = 3  # an actor is replaced this often in a row before the run stops


@dataclass(frozen=True)
class RemoteTrajectory(Trajectory):
    """A batch in Ray's object store. Here, the fields that statistics do not read are empty."""

    parts: tuple[Any, ...] = ()  # references to the actors' trajectories, in order


@dataclass
class Unroll:
    """A trajectory that an actor was asked for.

    A trajectory from a checkpoint has no weights, and is never acted again.
    """

    actor: int
    weights: Any
    version: int
    whole: Any = None
    summary: Any = None
    known: Arrays | None = None  # the summary, when it has arrived


class Cluster:
    """The processes on Ray, from their start to `close`.

    Args:
      plan: What runs where.
      stand_ins: For simulated actors: a recorded trajectory, its environments' spec and a period in
          seconds (see SimulatedActors).

    Raises:
      ValueError: The cluster does not answer, or a process cannot start.
    """

    def __init__(self, plan: Plan, stand_ins: tuple[Trajectory, EnvSpec, float] | None = None):
        self.started_here = not ray.is_initialized()
        if self.started_here:
            connect(plan)
        try:
            gpu = (
                plan.device.type == "cuda"
                if plan.device
                else ray.cluster_resources().get("GPU", 0) >= plan.learners
            )
            self.group = make_placement_group(plan, gpu) if plan.placement == "pairs" else None
            if stand_ins is None:
                self.pipeline = RemotePipeline(plan, self.group)
                self.spec: EnvSpec = wait_for([self.pipeline.actors[0].spec.remote()], "an actor")[
                    0
                ]
            else:
                recorded, self.spec, period = stand_ins
                self.pipeline = SimulatedActors(plan, recorded, period)
            self.learner = RemoteLearner(
                plan,
                replace(self.spec, num_envs=plan.actor_envs * self.pipeline.per_batch),
                gpu,
                self.group,
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes, and the connection if it was opened here."""
        # the connection is closed already; any call of Ray would start a new cluster
        if not ray.is_initialized():
            return
        for part in (getattr(self, "pipeline", None), getattr(self, "learner", None)):
            if part is not None:
                part.close()
        if getattr(self, "group", None) is not None:
            remove_placement_group(self.group)
        if self.started_here:
            ray.shutdown()


def connect(plan: Plan) -> None:
    """Connect to the cluster that the plan names, or start one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {
        "logging_level": "ERROR",
        "log_to_driver": False,
        "include_dashboard": False,
    }
    try:
        if plan.address == "local":  # claim the CPUs that are asked for; they may share cores
            ray.init(address="local", num_cpus=plan.actors + plan.learners * plan.threads, **quiet)
        else:
            del quiet["include_dashboard"]
            if plan.address != "auto":
                host, _, port = plan.address.rpartition(":")
                # Ray itself would try for many minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=plan.address, **quiet)
    # Ray raises exceptions of many types here, plain Exception too: there is no cluster
    except Exception as error:
        line = str(error).strip().splitlines()[0][:200] if str(error) else type(error).__name__
        if plan.address == "local":
            raise ValueError(
                f"Ray could not start on this machine: {line}; is it short of memory, or"
                " overloaded?"
            ) from error
        raise ValueError(
            f"cluster {plan.address!r} does not answer: {line}; start one with 'ray start --head'"
            " here (--cluster auto), or use --cluster local"
        ) from error


def make_placement_group(plan: Plan, gpu: bool) -> Any:
    """A bundle of resources for each learner with its actors."""
    bundle = {"CPU": plan.threads + plan.actors // plan.learners} | ({"GPU": 1} if gpu else {})
    return placement_group([bundle] * plan.learners, strategy="SPREAD")


def start_process(
    kind: type, group: Any, bundle: int, cpus: int, gpus: int, *arguments: Any
) -> Any:
    """Start a process of class `kind` with these resources."""
    strategy = PlacementGroupSchedulingStrategy(group, bundle) if group is not None else "SPREAD"
    options = {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
    }
    return ray.remote(kind).options(**options).remote(*arguments)


def wait_for(references: list[Any], what: str) -> list[Any]:
    """Wait for references and return what they hold.

    If the cluster has no room yet, a line on stderr says so.

    Args:
      references: The references.
      what: What they are, for messages.

    Raises:
      ValueError: A process could not start.
    """
    while True:
        _, missing = ray.wait(references, num_returns=len(references), timeout=30)
        if not missing:
            break
        free = {
            name: amount
            for name, amount in ray.available_resources().items()
            if name in ("CPU", "GPU")
        }
        print(
            f"waiting for {what}: {len(missing)} of {len(references)} have no place yet; the"
            f" cluster has free: {free}",
            file=sys.stderr,
        )
    try:
        return ray.get(references)
    except (RayActorError, RayTaskError) as error:
        raise ValueError(f"{what} could not start: {last_line(error)}") from error


def last_line(error: BaseException) -> str:
    """The last line of an error's message, where Ray puts the cause.

    If a process is gone, Ray lists many possible causes. They are summed up.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = (lines or [type(error).__name__])[-1]
    return (
        "its process has ended (killed, or out of memory?)"
        if "Worker exit type" in line
        else line[:300]
    )


class RemotePipeline:
    """The batches of trajectories from actors on the cluster. It takes the place of Pipeline."""

    def __init__(self, plan: Plan, group: Any):
        self.plan, self.group = plan, group
        self.per_batch = plan.per_batch
        self.lives = [0] * plan.actors
        self.actors = [self._start(index) for index in range(plan.actors)]
        self.ahead: deque[list[Unroll]] = deque()
        self.turns = Turns(plan.actors, plan.actor_envs)
        self.environments = self.turns.environments_of(range(self.per_batch))
        # environments of the actors that were replaced since the last call of `replaced`
        self.lost: list[Array] = []

    def _start(self, index: int) -> Any:
        place = index % self.per_batch * self.plan.learners // self.per_batch
        return start_process(
            ActorProcess, self.group, place, 1, 0, self.plan, index, self.lives[index]
        )

    def next(self, weights: Any, version: int) -> RemoteTrajectory:
        """The batch to learn from now.

        An actor that died, raised an exception or did not answer in time is replaced and asked
        again.

        Args:
          weights: A reference to the weights for the batch that is `lag` batches later.
          version: Number of these weights.

        Raises:
          EnvironmentFault: An actor was replaced MAX_REPLACEMENTS times in a row.
        """
        while len(self.ahead) <= self.plan.lag:
            self.ahead.append(
                [
                    self._ask(Unroll(self.turns.next_actor(), weights, version))
                    for _ in range(self.per_batch)
                ]
            )
        # The batch stays in `ahead` until all of it is received: if an actor is replaced, all of
        # its pending trajectories are asked for again.
        batch = self.ahead[0]
        known = [self._receive(unroll) for unroll in batch]
        self.ahead.popleft()
        self.environments = self.turns.environments_of([unroll.actor for unroll in batch])
        values = join_trajectories([to_trajectory(part | empty_fields(part)) for part in known])
        return RemoteTrajectory(**values.state(), parts=tuple(unroll.whole for unroll in batch))

    def _ask(self, unroll: Unroll) -> Unroll:
        method = self.actors[unroll.actor].unroll.options(num_returns=2)
        unroll.whole, unroll.summary = method.remote(unroll.weights, unroll.version)
        return unroll

    def _receive(self, unroll: Unroll) -> Arrays:
        for _ in range(MAX_REPLACEMENTS):
            try:
                unroll.known = ray.get(unroll.summary, timeout=self.plan.patience)
                return unroll.known
            except GetTimeoutError:
                reason = f"gave nothing for {self.plan.patience:g} seconds"
            # the actor died or raised an exception, or the trajectory's node is gone
            except RayError as error:
                reason = last_line(error)
            print(f"actor {unroll.actor} is replaced: {reason}", file=sys.stderr)
            self._replace(unroll.actor)
        raise EnvironmentFault(
            f"actor {unroll.actor} was replaced {MAX_REPLACEMENTS} times in a row, the last time"
            f" because: {reason}"
        )

    def _replace(self, index: int) -> None:
        with suppress(RayError):
            ray.kill(self.actors[index])
        self.lives[index] += 1
        self.actors[index] = self._start(index)
        self.lost.append(self.turns.environments_of([index]))
        for batch in self.ahead:
            for unroll in batch:
                if unroll.actor == index and unroll.known is None and unroll.weights is not None:
                    self._ask(unroll)

    def replaced(self) -> list[Array]:
        """Environments whose episodes were lost since the last call."""
        lost, self.lost = self.lost, []
        return lost

    def state(self) -> dict[str, Any]:
        """The states of all actors, and the trajectories that are not learned from yet.

        The trajectories are saved only if the environments can be saved.
        """
        states = []
        for actor in self.actors:
            try:
                states.append(ray.get(actor.state.remote(), timeout=self.plan.patience))
            except RayError:  # it will be replaced when its next trajectory is due
                states.append({})
        ahead: list[list[dict[str, Any]]] = []
        if all("env" in state for state in states):
            with suppress(RayError):
                ahead = [
                    [to_trajectory(ray.get(unroll.whole)).state() for unroll in batch]
                    for batch in self.ahead
                ]
        return {
            "actors": states,
            "ahead": ahead,
            "turn": self.turns.actor_before(len(ahead) * self.per_batch),
        }

    def load_state(self, state: dict[str, Any], resumed: int) -> list[Array]:
        """Continue from `state` as far as it fits.

        Args:
          state: What `state` returned, or an empty dict.
          resumed: Agent steps of the run so far.

        Returns:
          The environments that start new episodes.
        """
        self.ahead.clear()
        self.turns.turn = 0
        states = self.turns.fitting(state.get("actors", []))
        wait_for(
            [
                actor.resume.remote(each, resumed)
                for actor, each in zip(self.actors, states, strict=True)
            ],
            "the actors",
        )
        if not all("env" in each for each in states):
            return [self.turns.environments_of(range(len(self.actors)))]
        self.turns.turn = state["turn"]
        for batch in state["ahead"]:
            unrolls = [Unroll(self.turns.next_actor(), None, 0) for _ in batch]
            for unroll, values in zip(unrolls, batch, strict=True):
                whole = to_arrays(Trajectory(**values))
                unroll.whole, unroll.summary = ray.put(whole), ray.put(summarise(whole))
            self.ahead.append(unrolls)
        return []

    def close(self) -> None:
        for actor in self.actors:
            with suppress(RayError):
                ray.kill(actor)


class RemoteLearner:
    """One or several learners, which average their gradients. It takes the place of Learner.

    All methods raise LearnerLost if a learner is gone.
    """

    def __init__(self, plan: Plan, spec: EnvSpec, gpu: bool, group: Any):
        device, ranks = torch.device("cuda" if gpu else "cpu"), range(plan.learners)
        self.learners = [
            start_process(
                LearnerProcess, group, rank, plan.threads, int(gpu), plan, device, spec, rank
            )
            for rank in ranks
        ]
        wait_for([learner.state.remote() for learner in self.learners[:1]], "a learner")
        address = ray.get(self.learners[0].__ray_call__.remote(lambda process: find_free_address()))
        wait_for([learner.join.remote(address) for learner in self.learners], "the learners")
        self.device = torch.device("cpu")  # where the metrics are
        self.steps = self.version = 0
        # a reference, so that each version of the weights goes to each node once
        self.acting = self.learners[0].weights.remote()

    def update(self, trajectory: RemoteTrajectory) -> dict[str, Tensor]:
        """Make one optimiser step (see Learner.update).

        Metrics are means over the learners. `bonus` [T, B] is that of all environments.
        """
        results = self._all("update", self._shares(trajectory))
        names, _, _, self.steps, version = results[0]
        values = torch.from_numpy(np.mean([result[1] for result in results], 0))
        if version != self.version:
            self.version, self.acting = version, self.learners[0].weights.remote()
        bonus = torch.from_numpy(np.concatenate([result[2] for result in results], 1))
        return {**dict(zip(names, values, strict=True)), "bonus": bonus}

    def inspect(self, trajectory: RemoteTrajectory) -> dict[str, Tensor]:
        """The instruments (see Learner.inspect): means over the learners' shares of the batch."""
        results = self._all("inspect", self._shares(trajectory))
        return {
            name: torch.tensor(np.mean([result[name] for result in results])) for name in results[0]
        }

    def _shares(self, trajectory: RemoteTrajectory) -> list[tuple[Any, ...]]:
        size = len(trajectory.parts) // len(self.learners)
        return [
            trajectory.parts[rank * size : (rank + 1) * size] for rank in range(len(self.learners))
        ]

    def _all(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers of all learners.

        If one fails, the others wait for it until they time out. The first cause is raised.
        """
        pending = [
            getattr(learner, method).remote(*each)
            for learner, each in zip(self.learners, arguments, strict=True)
        ]
        waiting, failed = list(pending), False
        while waiting and not failed:
            done, waiting = ray.wait(waiting)
            failed = self._failure(done[0]) is not None
        if not failed:
            return ray.get(pending)
        # the other learners fail soon after
        done, _ = ray.wait(pending, num_returns=len(pending), timeout=10)
        errors = {
            pending.index(each): error
            for each in done
            if (error := self._failure(each)) is not None
        }
        dead = [rank for rank, error in errors.items() if isinstance(error, RayActorError)]
        rank = dead[0] if dead else min(errors)
        raise LearnerLost(f"learner {rank} failed: {last_line(errors[rank])}") from errors[rank]

    @staticmethod
    def _failure(reference: Any) -> RayError | None:
        try:
            ray.get(reference)
        except RayError as error:
            return error
        return None

    def state(self) -> dict[str, Any]:
        """The state of the first learner. All learners have the same."""
        try:
            state: dict[str, Any] = ray.get(self.learners[0].state.remote())
        except RayError as error:
            raise LearnerLost(f"learner 0 failed: {last_line(error)}") from error
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        shared = ray.put(state)
        self.steps, self.version = wait_for(
            [learner.load_state.remote(shared) for learner in self.learners], "the learners"
        )[0]
        self.acting = self.learners[0].weights.remote()

    def close(self) -> None:
        for learner in self.learners:
            with suppress(RayError):
                ray.kill(learner)


def find_free_address() -> str:
    """A free address of this node ("host:port"), where the learners can meet."""
    with socket.socket() as free:
        free.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


class SimulatedActors(RemotePipeline):
    """Processes in the actors' places, which replay a recorded trajectory.

    They measure how much the learners and the object store can handle, with more actors than there
    are cores.

    Args:
      plan: What runs where.
      recorded: The trajectory.
      period: Seconds between two trajectories of one actor.
    """

    def __init__(self, plan: Plan, recorded: Trajectory, period: float):
        whole = to_arrays(recorded)
        self.recorded, self.period = ray.put((whole, summarise(whole))), period
        super().__init__(plan, None)

    def _start(self, index: int) -> Any:
        return start_process(
            make_simulated_actor_class(),
            None,
            0,
            1,
            0,
            self.recorded,
            self.period,
            index / self.plan.actors,
        )


def make_simulated_actor_class() -> type:
    """The class of a simulated actor.

    It is made in a function so that Ray sends its code. A process that imported this package would
    take 100 MiB more.
    """

    class SimulatedActor:
        def __init__(self, recorded: tuple[Arrays, Arrays], period: float, phase: float):
            import time

            self.time, self.recorded, self.period = time, recorded, period
            self.due = time.monotonic() + phase * period

        def unroll(self, weights: dict[str, Array], version: int) -> tuple[Arrays, Arrays]:
            """The recorded trajectory, when it is due.

            It is copied into the object store each time.
            """
            self.time.sleep(max(0.0, self.due - self.time.monotonic()))
            self.due = max(self.due, self.time.monotonic()) + self.period
            return self.recorded

    return SimulatedActor
