"""The batches of trajectories from actors on a Ray cluster."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from afterwit.agents.cluster.calls import last_line, start_process, wait_for
from afterwit.agents.pipeline import Turns
from afterwit.agents.processes import (
    ActorProcess,
    Arrays,
    Plan,
    empty_fields,
    summarise,
    to_arrays,
    to_trajectory,
)
from afterwit.envs.arrays import Array
from afterwit.envs.specs import EnvironmentFault
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
