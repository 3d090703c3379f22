"""Acting and learning at the same time, in one process, with a policy lag that is part of the config.

Trajectory n is acted with the weights that the learner had after n - lag of its steps, whoever is faster. So a lag of 0 is
lockstep (act, learn, act, ...), a lag of 1 acts the next trajectory while the learner trains on this one, and with either a
seed means the same run every time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from afterwit.agents.actor import Actor
from afterwit.envs.specs import Array
from afterwit.world_models.trajectory import Trajectory


class LearnerLost(RuntimeError):
    """A learner is gone, and with it what was learnt since the last checkpoint."""


class Pipeline:
    """The trajectories of `actor`, one for each learner step.

    With a lag the actor has a thread of its own, in which a torch operation takes `threads` threads, and on a GPU a stream of
    its own; between `next` and `state` or `close` it must not be touched.
    """

    def __init__(self, actor: Actor, lag: int, threads: int):
        self.actor, self.lag = actor, lag
        self.ahead: deque[Future[Trajectory]] = deque()  # acted or being acted, oldest first: `lag` of them between two calls of `next`
        self.worker = ThreadPoolExecutor(1, "actor", torch.set_num_threads, (threads,)) if lag else None
        self.environments: Array | None = None  # which of the run's environments a trajectory is from: all
        self.stream = torch.cuda.Stream(actor.device) if lag and actor.device.type == "cuda" else None

    def next(self, weights: Mapping[str, Tensor], version: int) -> Trajectory:
        """The trajectory to learn from now; `weights` are for the one `lag` after it. Raises what acting raised."""
        if self.worker is None:
            return self._act(weights, version)
        ready = torch.cuda.current_stream().record_event() if self.stream is not None else None
        while len(self.ahead) <= self.lag:
            self.ahead.append(self.worker.submit(self._act, weights, version, ready))
        return self.ahead.popleft().result()

    def _act(self, weights: Mapping[str, Tensor], version: int, ready: torch.cuda.Event | None = None) -> Trajectory:
        with torch.cuda.stream(self.stream) if self.stream is not None else nullcontext():
            if ready is not None:
                ready.wait()  # the learner's stream has written the weights
            self.actor.set_weights(weights, version)
            return self.actor.unroll()

    def replaced(self) -> list[Array]:
        """Environments whose episodes were lost since the last call: none in one process, where the run would have ended."""
        return []

    def state(self) -> dict[str, Any]:
        """The actor's state, and the trajectories that nobody has learnt from yet. Waits until these are acted."""
        ahead = [future.result().state() for future in self.ahead]
        state = self.actor.state()
        # Environments that cannot be saved begin new episodes after a resume; what was acted in the old ones goes with them.
        return state | {"ahead": ahead} if "env" in state else state

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.actor.load_state(state)
        for fields in state.get("ahead", ()):
            acted: Future[Trajectory] = Future()
            acted.set_result(Trajectory(**fields))
            self.ahead.append(acted)

    def close(self) -> None:
        """Wait for what is being acted, and drop it."""
        if self.worker is not None:
            self.worker.shutdown(cancel_futures=True)
