"""Acting and learning at the same time, in one process, with a fixed policy lag.

Trajectory n is acted with the weights that the learner had after n - lag learner steps, whichever
side is faster. A lag of 0 is lockstep: act, learn, act, .... With a lag of 1 the next trajectory is
acted while the learner trains on this one. In both cases a seed gives the same run every time.

Several actors have environments and a thread of their own each. While the emulator steps the
environments of one actor, the policy chooses for another. A batch holds the trajectories of the
next actors in turn. A cluster does the same with processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.actor import Actor
from afterwit.envs.arrays import Array
from afterwit.world_models.trajectory import Trajectory, join_trajectories

PendingTrajectory = tuple[int, Future[Trajectory]]  # an actor's trajectory, by the actor's number


class LearnerLost(RuntimeError):
    """A learner is gone, and what it learned since the last checkpoint is lost."""


class Turns:
    """Which actor's trajectory is next: that of actor 0, 1, ..., 0, 1, ....

    Args:
      actors: Number of actors.
      actor_envs: Environments per actor. Each actor has consecutive ones of the run's.
    """

    def __init__(self, actors: int, actor_envs: int):
        self.actors, self.actor_envs, self.turn = actors, actor_envs, 0

    def next_actor(self) -> int:
        """The next actor. The turn moves on."""
        actor, self.turn = self.turn, (self.turn + 1) % self.actors
        return actor

    def actor_before(self, count: int) -> int:
        """The actor whose turn it was `count` trajectories ago."""
        return (self.turn - count) % self.actors

    def fitting(self, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The states to restore, one per actor.

        They are empty if the number of actors or of their environments has changed, or if only some
        states hold environments.
        """
        fits = len(states) == self.actors and len({"env" in state for state in states}) == 1
        fits = fits and all(
            len(state["first"]) == self.actor_envs for state in states if "env" in state
        )
        return states if fits else [{}] * self.actors

    def environments_of(self, actors: Sequence[int]) -> Array:
        """The numbers of these actors' environments among those of the run."""
        return np.concatenate(
            [np.arange(self.actor_envs) + actor * self.actor_envs for actor in actors]
        )


class Pipeline:
    """The batches of trajectories to learn from.

    With a lag, or with several actors, each actor has a thread of its own. On a GPU it also has a
    stream of its own. Do not use the actors between `next()` and the following `state()` or
    `close()`.

    Args:
      actors: The actors.
      per_batch: Trajectories per learner step.
      lag: Learner steps between the weights that act and the newest ones.
      threads: Threads of a torch operation in an actor's thread.
    """

    def __init__(self, actors: Sequence[Actor], per_batch: int, lag: int, threads: int):
        self.actors, self.per_batch, self.lag = actors, per_batch, lag
        self.turns = Turns(len(actors), actors[0].num_envs)
        # the environments of the last batch, among those of the run
        self.environments = self.turns.environments_of(range(per_batch))
        # pending batches, oldest first: `lag` of them between two calls of `next`
        self.ahead: deque[list[PendingTrajectory]] = deque()
        use_threads = lag > 0 or len(actors) > 1
        self.workers = (
            [ThreadPoolExecutor(1, "actor", torch.set_num_threads, (threads,)) for _ in actors]
            if use_threads
            else []
        )
        self.streams = [
            torch.cuda.Stream(actor.device) if use_threads and actor.device.type == "cuda" else None
            for actor in actors
        ]

    def next(self, weights: Mapping[str, Tensor], version: int) -> Trajectory:
        """The batch to learn from now.

        Args:
          weights: Weights for the batch that is `lag` batches later.
          version: Number of these weights.

        Raises:
          Exception: Any exception that acting raised.
        """
        if not self.workers:
            return self._act(0, weights, version)
        ready = torch.cuda.current_stream().record_event() if self.streams[0] is not None else None
        while len(self.ahead) <= self.lag:
            batch = [self.turns.next_actor() for _ in range(self.per_batch)]
            self.ahead.append(
                [
                    (actor, self.workers[actor].submit(self._act, actor, weights, version, ready))
                    for actor in batch
                ]
            )
        pending = self.ahead.popleft()
        self.environments = self.turns.environments_of([actor for actor, _ in pending])
        return join_trajectories([acted.result() for _, acted in pending])

    def _act(
        self,
        index: int,
        weights: Mapping[str, Tensor],
        version: int,
        ready: torch.cuda.Event | None = None,
    ) -> Trajectory:
        actor, stream = self.actors[index], self.streams[index]
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            if ready is not None:
                ready.wait()  # the learner's stream has written the weights
            actor.set_weights(weights, version)
            return actor.unroll()

    def wait(self) -> None:
        """Wait until all pending trajectories are acted."""
        for batch in self.ahead:
            for _, acted in batch:
                acted.result()

    def replaced(self) -> list[Array]:
        """Environments whose episodes were lost since the last call.

        There are none in one process: the run would have ended.
        """
        return []

    def state(self) -> dict[str, Any]:
        """The states of all actors, and the trajectories that are not learned from yet.

        Waits until these are acted. They are saved only if the environments can be saved.
        """
        self.wait()
        states = [actor.state() for actor in self.actors]
        # Actors whose environments cannot be saved start new episodes after a resume. Trajectories
        # of the old episodes are dropped.
        kept = self.ahead if all("env" in state for state in states) else ()
        ahead = [[acted.result().state() for _, acted in batch] for batch in kept]
        return {
            "actors": states,
            "ahead": ahead,
            "turn": self.turns.actor_before(len(ahead) * self.per_batch),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with the trajectories and the turn of `state`.

        The actors themselves must be resumed before.
        """
        self.turns.turn = state["turn"]
        for batch in state["ahead"]:
            self.ahead.append(
                [(self.turns.next_actor(), completed(Trajectory(**fields))) for fields in batch]
            )

    def close(self) -> None:
        """Wait for what is being acted, and drop it."""
        for wait in (False, True):  # first let no actor start a new trajectory
            for worker in self.workers:
                worker.shutdown(wait=wait, cancel_futures=True)


def completed(trajectory: Trajectory) -> Future[Trajectory]:
    """A future that already holds this trajectory."""
    future: Future[Trajectory] = Future()
    future.set_result(trajectory)
    return future
