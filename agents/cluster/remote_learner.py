"""Learners on a Ray cluster, in the place of one Learner."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayActorError, RayError
from torch import Tensor

from afterwit.agents.cluster.calls import last_line, start_process, wait_for
from afterwit.agents.cluster.remote_pipeline import RemoteTrajectory
from afterwit.agents.metrics import mean_of_each
from afterwit.agents.pipeline import LearnerLost
from afterwit.agents.processes import LearnerProcess, Plan
from afterwit.envs.specs import EnvSpec


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
        *_, self.steps, version = results[0]
        means = mean_of_each(dict(zip(names, values, strict=True)) for names, values, *_ in results)
        if version != self.version:
            self.version, self.acting = version, self.learners[0].weights.remote()
        bonus = torch.from_numpy(np.concatenate([result[2] for result in results], 1))
        return {**{name: torch.tensor(mean) for name, mean in means.items()}, "bonus": bonus}

    def inspect(self, trajectory: RemoteTrajectory) -> dict[str, Tensor]:
        """The instruments (see Learner.inspect): means over the learners' shares of the batch."""
        results = self._all("inspect", self._shares(trajectory))
        return {name: torch.tensor(mean) for name, mean in mean_of_each(results).items()}

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
