"""Acting and learning at the same time, in one process, with a policy lag that is part of the
config.

Trajectory n is acted with the weights that the learner had after n - lag of its steps, whoever is
faster. So a lag of 0 is lockstep (act, learn, act, ...), a lag of 1 acts the next trajectory while
the learner trains on this one, and with either a seed means the same run every time.

Several actors have environments and a thread of their own each: while the emulator steps those of
one, the policy chooses for another. A batch is what the next actors in turn give, as on a cluster,
where the same actors would be processes.
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
from afterwit.world_models.trajectory import Trajectory, joined

Asked = tuple[int, Future[Trajectory]]  # an actor's trajectory, by the actor's number


class LearnerLost(RuntimeError):
    """A learner is gone, and with it what was learnt since the last checkpoint."""


class Turns:
    """Whose trajectory is asked for next: that of actor 0, 1, ..., 0, 1, ... Each has `actor_envs`
    of the run's environments, in order.
    """

    def __init__(self, actors: int, actor_envs: int):
        self.actors, self.actor_envs, self.turn = actors, actor_envs, 0

    def take(self) -> int:
        actor, self.turn = self.turn, (self.turn + 1) % self.actors
        return actor

    def before(self, count: int) -> int:
        """Whose turn it was `count` trajectories ago."""
        return (self.turn - count) % self.actors

    def fitting(self, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the actors can take back of saved `states`: nothing where these are of other actors,
        of other numbers of environments, or of some with and some without their environments."""
        alike = len(states) == self.actors and len({"env" in state for state in states}) == 1
        alike = alike and all(
            len(state["first"]) == self.actor_envs for state in states if "env" in state
        )
        return states if alike else [{}] * self.actors

    def columns(self, actors: Sequence[int]) -> Array:
        """The environments of `actors`, among those of the run."""
        return np.concatenate(
            [np.arange(self.actor_envs) + actor * self.actor_envs for actor in actors]
        )


class Pipeline:
    """The batches of trajectories that `actors` give, `per_batch` trajectories to each learner
    step.

    With a lag, or with several actors, each actor has a thread of its own, in which a torch
    operation takes `threads` threads, and on a GPU a stream of its own; between `next` and `state`
    or `close` none must be touched.
    """

    def __init__(self, actors: Sequence[Actor], per_batch: int, lag: int, threads: int):
        self.actors, self.per_batch, self.lag = actors, per_batch, lag
        self.turns = Turns(len(actors), actors[0].num_envs)
        # which of the run's environments the last batch is from
        self.environments = self.turns.columns(range(per_batch))
        # batches acted or being acted, oldest first: `lag` of them between two calls of `next`
        self.ahead: deque[list[Asked]] = deque()
        apart = lag > 0 or len(actors) > 1
        self.workers = (
            [ThreadPoolExecutor(1, "actor", torch.set_num_threads, (threads,)) for _ in actors]
            if apart
            else []
        )
        self.streams = [
            torch.cuda.Stream(actor.device) if apart and actor.device.type == "cuda" else None
            for actor in actors
        ]

    def next(self, weights: Mapping[str, Tensor], version: int) -> Trajectory:
        """The batch to learn from now; `weights` are for the one `lag` after it. Raises what acting
        raised.
        """
        if not self.workers:
            return self._act(0, weights, version)
        ready = torch.cuda.current_stream().record_event() if self.streams[0] is not None else None
        while len(self.ahead) <= self.lag:
            batch = [self.turns.take() for _ in range(self.per_batch)]
            self.ahead.append(
                [
                    (actor, self.workers[actor].submit(self._act, actor, weights, version, ready))
                    for actor in batch
                ]
            )
        asked = self.ahead.popleft()
        self.environments = self.turns.columns([actor for actor, _ in asked])
        return joined([acted.result() for _, acted in asked])

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
        """Until all that was asked for is acted."""
        for batch in self.ahead:
            for _, acted in batch:
                acted.result()

    def replaced(self) -> list[Array]:
        """Environments whose episodes were lost since the last call: none in one process, where the
        run would have ended.
        """
        return []

    def state(self) -> dict[str, Any]:
        """All actors' states, and, where environments can be saved, the trajectories that nobody
        has learnt from yet. Waits until these are acted."""
        self.wait()
        states = [actor.state() for actor in self.actors]
        # The others begin new episodes after a resume, and what was acted in the old ones goes.
        kept = self.ahead if all("env" in state for state in states) else ()
        ahead = [[acted.result().state() for _, acted in batch] for batch in kept]
        return {
            "actors": states,
            "ahead": ahead,
            "turn": self.turns.before(len(ahead) * self.per_batch),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the trajectories and the turn of `state`, when the actors themselves have been
        resumed.
        """
        self.turns.turn = state["turn"]
        for batch in state["ahead"]:
            self.ahead.append([(self.turns.take(), done(Trajectory(**fields))) for fields in batch])

    def close(self) -> None:
        """Wait for what is being acted, and drop it."""
        for wait in (False, True):  # first none begins anew
            for worker in self.workers:
                worker.shutdown(wait=wait, cancel_futures=True)


def done(trajectory: Trajectory) -> Future[Trajectory]:
    """As if an actor had been asked for it."""
    future: Future[Trajectory] = Future()
    future.set_result(trajectory)
    return future
