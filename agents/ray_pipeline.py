"""The same Actor and Learner as processes on a Ray cluster. The only file that imports ray.

`Cluster.learner` and `Cluster.pipeline` stand in for Learner and Pipeline: the training loop does
not know where they run. It handles references; observations go from actors to learners through
Ray's object store, as arrays that are not pickled.

Each actor steps `actor_envs` environments. A learner step takes `num_envs` environments: those of
the next actors in turn, and each learner has an equal share of these actors. Learner step n learns
from what was acted with the weights after n - lag steps, whoever is faster: so the lag is exact, at
most lag + 1 batches exist at a time, and with one learner this is the local run, bit for bit (on
CPUs, with one thread for an actor's operations). The price: the slowest actor sets the pace, so
give all of them like cores.
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
    arrays,
    blank,
    brief,
    trajectory,
)
from afterwit.envs.arrays import Array
from afterwit.envs.specs import EnvironmentFault, EnvSpec
from afterwit.world_models.trajectory import Trajectory, joined

TRIES = 3  # times that an actor is replaced in a row before the run stops


@dataclass(frozen=True)
class RemoteTrajectory(Trajectory):
    """A batch that lies elsewhere: all but what statistics read is empty here."""

    parts: tuple[Any, ...] = ()  # references to the actors' trajectories, in order


@dataclass
class Unroll:
    """A trajectory that an actor was asked for; from a checkpoint it comes without weights, and
    nobody has to act it again.
    """

    actor: int
    weights: Any
    version: int
    whole: Any = None
    brief: Any = None
    known: Arrays | None = None  # the brief, when it is here


class Cluster:
    """Processes on Ray, from their start to `close`. Raises ValueError where they cannot be had.

    `stand_ins`: a trajectory, its environments' spec and a period, for StandIns in the actors'
    place.
    """

    def __init__(self, plan: Plan, stand_ins: tuple[Trajectory, EnvSpec, float] | None = None):
        self.ours = not ray.is_initialized()
        if self.ours:
            connect(plan)
        try:
            gpu = (
                plan.device.type == "cuda"
                if plan.device
                else ray.cluster_resources().get("GPU", 0) >= plan.learners
            )
            self.group = pairs(plan, gpu) if plan.placement == "pairs" else None
            if stand_ins is None:
                self.pipeline = RemotePipeline(plan, self.group)
                self.spec: EnvSpec = patient([self.pipeline.actors[0].spec.remote()], "an actor")[0]
            else:
                recorded, self.spec, period = stand_ins
                self.pipeline = StandIns(plan, recorded, period)
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
        """End all processes, and the connection if it is this one's own."""
        # whoever connected has left already; any call would start a new cluster
        if not ray.is_initialized():
            return
        for part in (getattr(self, "pipeline", None), getattr(self, "learner", None)):
            if part is not None:
                part.close()
        if getattr(self, "group", None) is not None:
            remove_placement_group(self.group)
        if self.ours:
            ray.shutdown()


def connect(plan: Plan) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {
        "logging_level": "ERROR",
        "log_to_driver": False,
        "include_dashboard": False,
    }
    try:
        if plan.address == "local":  # as many as are asked for: the cores are shared
            ray.init(address="local", num_cpus=plan.actors + plan.learners * plan.threads, **quiet)
        else:
            del quiet["include_dashboard"]
            if plan.address != "auto":
                host, _, port = plan.address.rpartition(":")
                # Ray itself would try for many minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=plan.address, **quiet)
    # Ray raises many kinds here, plain Exception among them; all mean that there is no cluster
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


def pairs(plan: Plan, gpu: bool) -> Any:
    """A bundle for each learner with its actors."""
    bundle = {"CPU": plan.threads + plan.actors // plan.learners} | ({"GPU": 1} if gpu else {})
    return placement_group([bundle] * plan.learners, strategy="SPREAD")


def start(kind: type, group: Any, bundle: int, cpus: int, gpus: int, *arguments: Any) -> Any:
    strategy = PlacementGroupSchedulingStrategy(group, bundle) if group is not None else "SPREAD"
    options = {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
    }
    return ray.remote(kind).options(**options).remote(*arguments)


def patient(references: list[Any], what: str) -> list[Any]:
    """What the references hold; says on stderr what is waited for where the cluster has no room
    yet. Raises ValueError where a process could not start."""
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
        raise ValueError(f"{what} could not start: {told(error)}") from error


def told(error: BaseException) -> str:
    """The last line of what an error says, which is where Ray puts the cause; where a process is
    gone, Ray knows of many causes.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = (lines or [type(error).__name__])[-1]
    return (
        "its process has ended (killed, or out of memory?)"
        if "Worker exit type" in line
        else line[:300]
    )


class RemotePipeline:
    """Pipeline's place: the batches of trajectories, one for each learner step."""

    def __init__(self, plan: Plan, group: Any):
        self.plan, self.group = plan, group
        self.per_batch = plan.per_batch
        self.lives = [0] * plan.actors
        self.actors = [self._start(index) for index in range(plan.actors)]
        self.ahead: deque[list[Unroll]] = deque()
        self.turns = Turns(plan.actors, plan.actor_envs)
        self.environments = self.turns.columns(range(self.per_batch))
        # environments of actors that were replaced since they were last read
        self.lost: list[Array] = []

    def _start(self, index: int) -> Any:
        place = index % self.per_batch * self.plan.learners // self.per_batch
        return start(ActorProcess, self.group, place, 1, 0, self.plan, index, self.lives[index])

    def next(self, weights: Any, version: int) -> RemoteTrajectory:
        """The batch to learn from now; `weights`, a reference, are for the one `lag` after it.
        Actors that died, raised or gave nothing for too long are replaced and asked again; raises
        EnvironmentFault where that does not help."""
        while len(self.ahead) <= self.plan.lag:
            self.ahead.append(
                [
                    self._ask(Unroll(self.turns.take(), weights, version))
                    for _ in range(self.per_batch)
                ]
            )
        # stays there until all is received: where an actor is replaced, all that it owes is asked
        # again
        batch = self.ahead[0]
        known = [self._receive(unroll) for unroll in batch]
        self.ahead.popleft()
        self.environments = self.turns.columns([unroll.actor for unroll in batch])
        values = joined([trajectory(part | blank(part)) for part in known])
        return RemoteTrajectory(**values.state(), parts=tuple(unroll.whole for unroll in batch))

    def _ask(self, unroll: Unroll) -> Unroll:
        method = self.actors[unroll.actor].unroll.options(num_returns=2)
        unroll.whole, unroll.brief = method.remote(unroll.weights, unroll.version)
        return unroll

    def _receive(self, unroll: Unroll) -> Arrays:
        for _ in range(TRIES):
            try:
                unroll.known = ray.get(unroll.brief, timeout=self.plan.patience)
                return unroll.known
            except GetTimeoutError:
                reason = f"gave nothing for {self.plan.patience:g} seconds"
            # it died, it raised, or the node that held the trajectory is gone
            except RayError as error:
                reason = told(error)
            print(f"actor {unroll.actor} is replaced: {reason}", file=sys.stderr)
            self._replace(unroll.actor)
        raise EnvironmentFault(
            f"actor {unroll.actor} was replaced {TRIES} times in a row, the last time because:"
            f" {reason}"
        )

    def _replace(self, index: int) -> None:
        with suppress(RayError):
            ray.kill(self.actors[index])
        self.lives[index] += 1
        self.actors[index] = self._start(index)
        self.lost.append(self.turns.columns([index]))
        for batch in self.ahead:
            for unroll in batch:
                if unroll.actor == index and unroll.known is None and unroll.weights is not None:
                    self._ask(unroll)

    def replaced(self) -> list[Array]:
        """Environments whose episodes were lost since the last call."""
        lost, self.lost = self.lost, []
        return lost

    def state(self) -> dict[str, Any]:
        """All actors' states, and, where environments can be saved, the trajectories that nobody
        has learnt from yet.
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
                    [trajectory(ray.get(unroll.whole)).state() for unroll in batch]
                    for batch in self.ahead
                ]
        return {
            "actors": states,
            "ahead": ahead,
            "turn": self.turns.before(len(ahead) * self.per_batch),
        }

    def load_state(self, state: dict[str, Any], resumed: int) -> list[Array]:
        """Go on where `state` was taken, as far as it fits; gives the environments whose episodes
        are new.
        """
        self.ahead.clear()
        self.turns.turn = 0
        states = self.turns.fitting(state.get("actors", []))
        patient(
            [
                actor.resume.remote(each, resumed)
                for actor, each in zip(self.actors, states, strict=True)
            ],
            "the actors",
        )
        if not all("env" in each for each in states):
            return [self.turns.columns(range(len(self.actors)))]
        self.turns.turn = state["turn"]
        for batch in state["ahead"]:
            unrolls = [Unroll(self.turns.take(), None, 0) for _ in batch]
            for unroll, values in zip(unrolls, batch, strict=True):
                whole = arrays(Trajectory(**values))
                unroll.whole, unroll.brief = ray.put(whole), ray.put(brief(whole))
            self.ahead.append(unrolls)
        return []

    def close(self) -> None:
        for actor in self.actors:
            with suppress(RayError):
                ray.kill(actor)


class RemoteLearner:
    """Learner's place: one or several, which average their gradients. All raise LearnerLost where
    one is gone.
    """

    def __init__(self, plan: Plan, spec: EnvSpec, gpu: bool, group: Any):
        device, ranks = torch.device("cuda" if gpu else "cpu"), range(plan.learners)
        self.learners = [
            start(LearnerProcess, group, rank, plan.threads, int(gpu), plan, device, spec, rank)
            for rank in ranks
        ]
        patient([learner.state.remote() for learner in self.learners[:1]], "a learner")
        address = ray.get(self.learners[0].__ray_call__.remote(lambda process: meeting_place()))
        patient([learner.join.remote(address) for learner in self.learners], "the learners")
        self.device = torch.device("cpu")  # of metrics, here
        self.steps = self.version = 0
        # a reference: weights go to each node once for each version
        self.acting = self.learners[0].weights.remote()

    def update(self, trajectory: RemoteTrajectory) -> dict[str, Tensor]:
        """As Learner.update: metrics are means over learners, `bonus` [T, B] is of all
        environments.
        """
        results = self._all("update", self._shares(trajectory))
        names, _, _, self.steps, version = results[0]
        values = torch.from_numpy(np.mean([result[1] for result in results], 0))
        if version != self.version:
            self.version, self.acting = version, self.learners[0].weights.remote()
        bonus = torch.from_numpy(np.concatenate([result[2] for result in results], 1))
        return {**dict(zip(names, values, strict=True)), "bonus": bonus}

    def inspect(self, trajectory: RemoteTrajectory) -> dict[str, Tensor]:
        """As Learner.inspect: means over learners, each of which looks at its own share."""
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
        """The answers of all learners. Where one fails, the others wait for it in vain: each is
        heard, and the first cause told.
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
        # the others hear of it soon
        done, _ = ray.wait(pending, num_returns=len(pending), timeout=10)
        errors = {
            pending.index(each): error
            for each in done
            if (error := self._failure(each)) is not None
        }
        dead = [rank for rank, error in errors.items() if isinstance(error, RayActorError)]
        rank = dead[0] if dead else min(errors)
        raise LearnerLost(f"learner {rank} failed: {told(errors[rank])}") from errors[rank]

    @staticmethod
    def _failure(reference: Any) -> RayError | None:
        try:
            ray.get(reference)
        except RayError as error:
            return error
        return None

    def state(self) -> dict[str, Any]:
        """Of the first: the others have the same."""
        try:
            state: dict[str, Any] = ray.get(self.learners[0].state.remote())
        except RayError as error:
            raise LearnerLost(f"learner 0 failed: {told(error)}") from error
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        shared = ray.put(state)
        self.steps, self.version = patient(
            [learner.load_state.remote(shared) for learner in self.learners], "the learners"
        )[0]
        self.acting = self.learners[0].weights.remote()

    def close(self) -> None:
        for learner in self.learners:
            with suppress(RayError):
                ray.kill(learner)


def meeting_place() -> str:
    """A free port of this node, where learners can meet."""
    with socket.socket() as free:
        free.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


class StandIns(RemotePipeline):
    """Actors' places taken by processes that replay a recorded trajectory, one every `period`
    seconds each: what do learners and the object store bear, with more actors than there are cores?
    """

    def __init__(self, plan: Plan, recorded: Trajectory, period: float):
        whole = arrays(recorded)
        self.recorded, self.period = ray.put((whole, brief(whole))), period
        super().__init__(plan, None)

    def _start(self, index: int) -> Any:
        return start(
            stand_in(), None, 0, 1, 0, self.recorded, self.period, index / self.plan.actors
        )


def stand_in() -> type:
    """Made here, so that Ray sends its code: a process that imported this package would take a
    hundred MiB more.
    """

    class StandIn:
        def __init__(self, recorded: tuple[Arrays, Arrays], period: float, phase: float):
            import time

            self.time, self.recorded, self.period = time, recorded, period
            self.due = time.monotonic() + phase * period

        def unroll(self, weights: dict[str, Array], version: int) -> tuple[Arrays, Arrays]:
            """The recorded trajectory when it is due; it is copied into the object store each
            time.
            """
            self.time.sleep(max(0.0, self.due - self.time.monotonic()))
            self.due = max(self.due, self.time.monotonic()) + self.period
            return self.recorded

    return StandIn
