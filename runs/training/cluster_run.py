"""A run whose actors and learners are processes on a Ray cluster; the training loop, logs and
checkpoints stay here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch

from afterwit.agents.learner import Learner
from afterwit.agents.pipeline import Pipeline
from afterwit.agents.ray_pipeline import Cluster, Plan
from afterwit.envs.arrays import Array
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.training.closing import quietly
from afterwit.runs.training.run import Run


class ClusterRun(Run):
    """Its checkpoints are a local run's: any of the two goes on with the other's, in new episodes
    where their environments differ.
    """

    def __init__(self, config: RunConfig):
        self.config = config
        self.cluster = Cluster(plan(config))
        self.learner, self.pipeline = (
            cast(Learner, self.cluster.learner),
            cast(Pipeline, self.cluster.pipeline),
        )
        self._start(replace(self.cluster.spec, num_envs=config.num_actors * config.envs_per_actor))

    def _resume(self, state: dict[str, Any]) -> list[Array]:
        return self.cluster.pipeline.load_state(state, self.agent_steps)

    def close(self) -> None:
        quietly(self.cluster.close, "the cluster")


def plan(config: RunConfig) -> Plan:
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
