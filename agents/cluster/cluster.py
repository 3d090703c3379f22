"""Actors and learners as processes on a Ray cluster. Only this package imports ray.

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
from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from afterwit.agents.cluster.calls import wait_for
from afterwit.agents.cluster.remote_learner import RemoteLearner
from afterwit.agents.cluster.remote_pipeline import RemotePipeline
from afterwit.agents.cluster.simulated_actors import SimulatedActors
from afterwit.agents.processes import Plan
from afterwit.envs.specs import EnvSpec
from afterwit.world_models.trajectory import Trajectory


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
