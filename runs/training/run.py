"""A run: environments, actors, learner and counters of one training run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.actor import Actor, actor_seed
from afterwit.agents.learner import Learner
from afterwit.agents.pipeline import Pipeline
from afterwit.envs.arrays import Array
from afterwit.envs.make import make_env
from afterwit.envs.specs import EnvSpec, VectorEnv
from afterwit.runs.configs.run_config import RunConfig, to_dict, write_config
from afterwit.runs.output.files import LOCK, locked_folder
from afterwit.runs.output.provenance import RECORDED_STEPS
from afterwit.runs.output.text import quoted
from afterwit.runs.training.closing import closing_quietly
from afterwit.runs.training.episode_statistics import Statistics, indifferent
from afterwit.world_models.callers import own_modes
from afterwit.world_models.torso import compile_encoders
from afterwit.world_models.trajectory import Trajectory


class Run:
    """Environments, actors, learner and counters of one run, in this process: what is trained,
    saved, evaluated and measured.
    """

    def __init__(self, config: RunConfig):
        device = config.torch_device()
        torch.set_num_threads(config.threads)
        self.config = config
        seeds = [actor_seed(config.seed, index) for index in range(config.num_actors)]
        envs = [self._environments(seed) for seed in seeds]
        with own_modes():  # an environment's package may have set its own
            self.learner = Learner(
                config.learner,
                replace(envs[0].spec, num_envs=config.env.num_envs),
                config.seed,
                device,
            )
        self.actors = [
            Actor(env, self.learner.policy, config.unroll_length, seed, device)
            for env, seed in zip(envs, seeds, strict=True)
        ]
        if config.compile:
            compile_encoders(self.learner)
            for actor in self.actors:
                compile_encoders(actor.policy)
            if len(self.actors) > 1:
                self.actors[0].warm_up()  # in threads that start together, each would compile anew
        self.pipeline = Pipeline(
            self.actors, config.actors_per_batch, config.policy_lag, config.acting_threads
        )
        self._start(replace(envs[0].spec, num_envs=config.num_actors * config.envs_per_actor))

    def _environments(self, seed: int) -> VectorEnv:
        """Those of one actor."""
        return closing_quietly(make_env(self.config.actor_env, seed))

    def _start(self, spec: EnvSpec) -> None:
        """Count from nothing; `spec` is of all environments that the run has."""
        self.spec = spec
        self.statistics = Statistics(
            spec,
            self.config.total_steps,
            indifferent(self.config.env, spec),
            self.config.learner.extrinsic_weight > 0,
        )
        self.trajectory: Trajectory | None = None  # of the last step, for instruments
        # of the run's first RECORDED_STEPS learner steps, as far as this session took them
        self.first_losses: list[float] = []
        self.agent_steps = 0
        self.seconds = 0.0

    def step(self) -> dict[str, Tensor]:
        """One trajectory and one learner step. Raises FloatingPointError, before anything is saved,
        if the loss is not finite.
        """
        trajectory = self.trajectory = self.pipeline.next(self.learner.acting, self.learner.version)
        with own_modes():
            metrics = self.learner.update(trajectory)
        if self.learner.steps <= RECORDED_STEPS:
            self.first_losses.append(float(metrics["loss"]))
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(float(metrics[name])):
                raise FloatingPointError(
                    f"the {name.replace('_', ' ')} is {float(metrics[name])} after"
                    f" {self.agent_steps} agent steps"
                )
        for environments in self.pipeline.replaced():
            self.statistics.abandon_episodes(environments)
        self.statistics.add(
            trajectory, metrics.pop("bonus"), self.agent_steps, self.pipeline.environments
        )
        self.agent_steps += trajectory.action.numel()
        return metrics

    def state(self) -> dict[str, Any]:
        return {
            "config": to_dict(self.config),
            "learner": self.learner.state(),
            "actor": self.pipeline.state(),
            "statistics": self.statistics.state(),
            "agent_steps": self.agent_steps,
            "seconds": self.seconds,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state["learner"])
        self.statistics.load_state(state["statistics"])
        self.agent_steps, self.seconds = state["agent_steps"], state["seconds"]
        for environments in self._resume(state["actor"]):
            self.statistics.abandon_episodes(environments)

    def _resume(self, state: dict[str, Any]) -> list[Array]:
        """The actors go on where `state` was taken; gives the environments whose episodes are
        new.
        """
        if "random" in state:  # a checkpoint of November 2026, of the one actor that there was
            state = {
                "actors": [state],
                "ahead": [[each] for each in state.get("ahead", ())],
                "turn": 0,
            }
        states = self.pipeline.turns.fitting(state.get("actors", []))
        for actor, saved in zip(self.actors, states, strict=True):
            actor.resume(saved, self._environments, self.agent_steps)
        if not all("env" in saved for saved in states):
            return [np.arange(self.spec.num_envs)]
        self.pipeline.load_state(state)
        return []

    def close(self) -> None:
        self.pipeline.close()
        for actor in self.actors:
            actor.env.close()


def new_folder(config: RunConfig, folder: Path) -> None:
    """Make a run folder. Raises ValueError where it exists: no run is ever overwritten."""
    refuse_existing(folder)
    with locked_folder(folder, patience=0):
        refuse_existing(folder)  # another process may have made it since
        write_config(config, folder)


def refuse_existing(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --out for the run's folder")
    if folder.exists() and {path.name for path in folder.iterdir()} - {LOCK}:
        raise ValueError(
            f"run folder {folder} exists; go on with: afterwit train --resume {quoted(folder)}; or"
            " choose another --out"
        )


def discard_unstarted(folder: Path) -> bool:
    """Remove the folder of a run that could not be set up, so that the corrected command finds its
    place free. True if it is gone. Only the process that holds the folder may do that."""
    if {path.name for path in folder.iterdir()} - {"config.json", LOCK}:
        return False
    for name in ("config.json", LOCK):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()
    return True
