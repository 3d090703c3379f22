"""A run on a Ray cluster. The training loop, logs and checkpoints stay in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch

from afterwit.agents.cluster.cluster import Cluster
from afterwit.agents.learner import Learner
from afterwit.agents.pipeline import Pipeline
from afterwit.agents.processes import Plan
from afterwit.envs.arrays import Array
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.training.closing import close_safely
from afterwit.runs.training.run import Run


class ClusterRun(Run):
    """A run whose actors and learners are processes on a Ray cluster.

    Its checkpoints and those of a local run are interchangeable. If their environments differ, new
    episodes begin.
    """

    def __init__(self, config: RunConfig):
        self.config = config
        self.cluster = Cluster(plan(config))
        self.learner = cast(Learner, self.cluster.learner)
        self.pipeline = cast(Pipeline, self.cluster.pipeline)
        self._reset_counters(
            replace(self.cluster.spec, num_envs=config.num_actors * config.envs_per_actor)
        )

    def _resume_actors(self, state: dict[str, Any]) -> list[Array]:
        return self.cluster.pipeline.load_state(state, self.agent_steps)

    def close(self) -> None:
        close_safely(self.cluster.close, "the cluster")


def plan(config: RunConfig) -> Plan:
    """Return the cluster's part of a run config."""
    assert config.cluster is not None
    return Plan(
        address=config.cluster,
        env=config.env,
        learner=config.learner,
        seed=config.seed,
        unroll_length=config.unroll_length,
        lag=config.policy_lag,
        actors=config.num_actors,
        actor_envs=config.envs_per_actor,
        learners=config.learners,
        device=None if config.device == "auto" else torch.device(config.device),
        threads=config.threads,
        acting_threads=config.acting_threads,
        compile=config.compile,
        placement=config.placement,
        patience=config.actor_patience,
    )
