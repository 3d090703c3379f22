"""A run: environments, actors, learner and counters."""

from __future__ import annotations

import math
import reprlib
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
from afterwit.runs.configs.run_config import RunConfig, to_dict
from afterwit.runs.output.files import LOCK
from afterwit.runs.output.provenance import RECORDED_STEPS
from afterwit.runs.output.text import quoted
from afterwit.runs.training.closing import with_safe_close
from afterwit.runs.training.episode_statistics import Statistics, uniform_noise_share
from afterwit.world_models.callers import own_modes
from afterwit.world_models.torso import compile_encoders
from afterwit.world_models.trajectory import Trajectory


class Run:
    """A training run in this process: environments, actors, learner and counters.

    It is what is trained, saved, evaluated and measured.
    """

    def __init__(self, config: RunConfig):
        device = config.torch_device()
        torch.set_num_threads(config.threads)
        self.config = config
        seeds = [actor_seed(config.seed, index) for index in range(config.num_actors)]
        envs = [self._make_env(seed) for seed in seeds]
        with own_modes():  # an environment's package may have set its own
            self.learner = Learner(
                config.learner,
                replace(envs[0].spec, num_envs=config.env.num_envs),
                config.seed,
                device,
            )
        self.actors = [
            Actor(env, self.learner.policy, config.unroll_length, seed, device, number=number)
            for number, (env, seed) in enumerate(zip(envs, seeds, strict=True))
        ]
        if config.compile:
            compile_encoders(self.learner)
            for actor in self.actors:
                compile_encoders(actor.policy)
            if len(self.actors) > 1:
                self.actors[0].warm_up()  # otherwise each actor thread would compile for itself
        self.pipeline = Pipeline(
            self.actors, config.actors_per_batch, config.policy_lag, config.acting_threads
        )
        self._reset_counters(
            replace(envs[0].spec, num_envs=config.num_actors * config.envs_per_actor)
        )

    def _make_env(self, seed: int) -> VectorEnv:
        """Return the environments of one actor."""
        return with_safe_close(make_env(self.config.actor_env, seed))

    def _reset_counters(self, spec: EnvSpec) -> None:
        """Set all counters to zero. `spec` describes all environments of the run together."""
        self.spec = spec
        self.statistics = Statistics(
            spec,
            self.config.total_steps,
            uniform_noise_share(self.config.env, spec),
            self.config.learner.extrinsic_weight > 0,
        )
        self.trajectory: Trajectory | None = None  # of the last step; the instruments read it
        # of the first RECORDED_STEPS learner steps of the run, if this session took them
        self.first_losses: list[float] = []
        self.agent_steps = 0
        self.seconds = 0.0

    def step(self) -> dict[str, Tensor]:
        """Act one trajectory and take one learner step. Returns the learner's metrics.

        Raises:
          FloatingPointError: the loss or gradient norm is not finite. Nothing has been saved since.
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
        """Return everything that a checkpoint holds."""
        return {
            "config": to_dict(self.config),
            "learner": self.learner.state(),
            "actor": self.pipeline.state(),
            "statistics": self.statistics.state(),
            "agent_steps": self.agent_steps,
            "seconds": self.seconds,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.learner.load_state(state["learner"])
        self.statistics.load_state(state["statistics"])
        self.agent_steps, self.seconds = state["agent_steps"], state["seconds"]
        for environments in self._resume_actors(state["actor"]):
            self.statistics.abandon_episodes(environments)

    def _resume_actors(self, state: dict[str, Any]) -> list[Array]:
        """Restore the actors from `state`.

        Returns:
          Arrays with the numbers of environments whose episodes begin anew.
        """
        if "random" in state:  # a checkpoint of November 2026, when a run had one actor
            state = {
                "actors": [state],
                "ahead": [[each] for each in state.get("ahead", ())],
                "turn": 0,
            }
        states = self.pipeline.turns.fitting(state.get("actors", []))
        for actor, saved in zip(self.actors, states, strict=True):
            actor.resume(saved, self._make_env, self.agent_steps)
        if not all("env" in saved for saved in states):
            return [np.arange(self.spec.num_envs)]
        self.pipeline.load_state(state)
        return []

    def close(self) -> None:
        self.pipeline.close()
        for actor in self.actors:
            actor.env.close()


def raise_if_exists(folder: Path) -> None:
    """Raise ValueError if `folder` is a file, or a folder that is not empty."""
    try:
        exists = folder.exists()
    except OSError as error:
        name = reprlib.repr(str(folder))  # it may be too long
        raise ValueError(f"cannot make {name} ({error.strerror}); choose another --out") from error
    if exists and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --out for the run's folder")
    if exists and {path.name for path in folder.iterdir()} - {LOCK}:
        raise ValueError(
            f"run folder {folder} exists; go on with: afterwit train --resume {quoted(folder)}; or"
            " choose another --out"
        )


def remove_unstarted(folder: Path) -> None:
    """Remove the folder of a run that could not be set up.

    The corrected command can then use the same path. Only the process that has locked the folder
    may do that. A folder with other files in it stays.
    """
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - {"config.json", LOCK}:
        return
    for name in ("config.json", LOCK):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()
