"""The training loop: act, learn, log, save. One process; on CPU a seed gives the same run bit for bit."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from afterwit.agents.actor import Actor
from afterwit.agents.learner import Learner
from afterwit.agents.memory import keep_memory
from afterwit.agents.pipeline import LearnerLost, Pipeline
from afterwit.envs.make import make_env
from afterwit.envs.seeds import stream
from afterwit.envs.specs import Array, EnvSpec
from afterwit.runs import checkpoint
from afterwit.runs.config import RunConfig, read_config, to_dict, write_config
from afterwit.runs.logging import Log
from afterwit.runs.provenance import record
from afterwit.runs.statistics import Statistics, indifferent
from afterwit.world_models.instruments import ALARM, alarm
from afterwit.world_models.torso import compile_encoders
from afterwit.world_models.trajectory import Trajectory


class Run:
    """Environments, actor, learner and counters of one run, in this process: what is trained, saved, evaluated and measured."""

    def __init__(self, config: RunConfig):
        device = config.torch_device()
        torch.set_num_threads(config.threads)
        self.config = config
        self.env = make_env(config.env, config.seed)
        self.learner = Learner(config.learner, self.env.spec, config.seed, device)
        self.actor = Actor(self.env, self.learner.policy, config.unroll_length, config.seed, device)
        if config.compile:
            compile_encoders(self.learner)
            compile_encoders(self.actor.policy)
        self.pipeline = Pipeline(self.actor, config.policy_lag, config.acting_threads)
        self._start(self.env.spec)

    def _start(self, spec: EnvSpec) -> None:
        """Count from nothing; `spec` is of all environments that the run has."""
        self.spec = spec
        self.statistics = Statistics(spec, self.config.total_steps, indifferent(self.config.env, spec))
        self.trajectory: Trajectory | None = None  # of the last step, for instruments
        self.agent_steps = 0
        self.seconds = 0.0

    def step(self) -> dict[str, Tensor]:
        """One trajectory and one learner step. Raises FloatingPointError, before anything is saved, if the loss is not finite."""
        trajectory = self.trajectory = self.pipeline.next(self.learner.acting, self.learner.version)
        metrics = self.learner.update(trajectory)
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(float(metrics[name])):
                raise FloatingPointError(f"the {name.replace('_', ' ')} is {float(metrics[name])} after {self.agent_steps} agent steps")
        for environments in self.pipeline.replaced():
            self.statistics.abandon_episodes(environments)
        self.statistics.add(trajectory, metrics.pop("bonus"), self.agent_steps, self.pipeline.environments)
        self.agent_steps += trajectory.action.numel()
        return metrics

    def state(self) -> dict[str, Any]:
        return {"config": to_dict(self.config), "learner": self.learner.state(), "actor": self.pipeline.state(),
                "statistics": self.statistics.state(), "agent_steps": self.agent_steps, "seconds": self.seconds}  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state["learner"])
        self.statistics.load_state(state["statistics"])
        self.agent_steps, self.seconds = state["agent_steps"], state["seconds"]
        for environments in self._resume(state["actor"]):
            self.statistics.abandon_episodes(environments)

    def _resume(self, state: dict[str, Any]) -> list[Array]:
        """The actors go on where `state` was taken; gives the environments whose episodes are new."""
        if "env" in state:
            self.pipeline.load_state(state)
            return []
        # These environments cannot be saved, or were a cluster's: new episodes, other than the run's first ones.
        self.env.close()
        self.env = self.actor.env = make_env(self.config.env, stream(self.config.seed, "resumed", self.agent_steps))
        if "random" in state:
            self.pipeline.load_state(state)
        return [np.arange(self.spec.num_envs)]

    def close(self) -> None:
        self.pipeline.close()
        self.env.close()


def new_folder(config: RunConfig, folder: Path) -> None:
    """Make a run folder. Raises ValueError where it exists: no run is ever overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"run folder {folder} exists; go on with: afterwit train --resume {folder}; or choose another --out")
    write_config(config, folder)


def discard_unstarted(folder: Path) -> None:
    """Remove the folder of a run that could not be set up, so that the corrected command finds its place free."""
    if [path.name for path in folder.iterdir()] == ["config.json"]:
        (folder / "config.json").unlink()
        folder.rmdir()


def make_run(config: RunConfig) -> Run:
    """The run, in this process or on a cluster. Raises ValueError where the cluster cannot be had."""
    if config.cluster is None:
        return Run(config)
    try:
        from afterwit.runs.cluster import ClusterRun  # imports ray
    except ModuleNotFoundError as error:
        raise ValueError(f"cluster is {config.cluster!r}, but {error.name} is not installed; pip install 'afterwit[ray]'") from error
    return ClusterRun(config)


def train(folder: Path, progress: bool = True) -> bool:
    """Train the run whose config lies in `folder`, from its checkpoint if there is one. False if it was interrupted.

    Where a learner of a cluster is lost, goes on from the last checkpoint, as long as there is a newer one each time.
    """
    before = -1
    while True:
        try:
            return _train(folder, progress)
        except LearnerLost as error:
            there = (folder / checkpoint.NAME).exists()
            reached = checkpoint.load(folder, read_config(folder))["agent_steps"] if there else 0
            if reached <= before:
                raise ValueError(
                    f"{error}, for the second time after {reached:,} agent steps; go on with --resume once that is mended"
                ) from error
            print(f"{error}; going on from the last checkpoint, at {reached:,} agent steps", file=sys.stderr)
            before = reached


def _train(folder: Path, progress: bool) -> bool:
    config = read_config(folder)
    keep_memory()
    run = make_run(config)
    if (folder / checkpoint.NAME).exists():
        run.load_state(checkpoint.load(folder, config))
    record(folder)
    log = Log(folder, run.agent_steps)
    bar = tqdm(total=config.total_steps, initial=run.agent_steps, unit="step", unit_scale=True, desc=config.title,
               disable=not progress, dynamic_ncols=True, file=sys.stdout)  # fmt: skip
    try:
        with stop_signals() as stop:
            _loop(run, folder, log, bar, stop)
            finished = run.agent_steps >= config.total_steps
            save(run, folder, log)
    except FloatingPointError as error:
        saved = "its last checkpoint is intact" if (folder / checkpoint.NAME).exists() else "it had no checkpoint yet"
        raise ValueError(f"{error}; the run stopped and {saved}: start again with a lower --learner.learning-rate") from error
    finally:
        log.close()
        bar.close()
        run.close()
    return finished


def _loop(run: Run, folder: Path, log: Log, bar: Any, stop: list[int]) -> None:
    config, pending, started = run.config, [], time.perf_counter()
    last_steps, alarmed = run.agent_steps, False
    while run.agent_steps < config.total_steps and not stop:
        before = run.agent_steps
        pending.append(run.step())
        bar.update(run.agent_steps - before)
        done = run.agent_steps >= config.total_steps
        if crossed(before, run.agent_steps, config.log_interval) or done:
            now = time.perf_counter()
            run.seconds += now - started
            entry = log_entry(run, pending, (run.agent_steps - last_steps) / (now - started))
            log.write(entry)
            if entry[ALARM] and not alarmed:
                bar.write(f"collapse alarm at {run.agent_steps:,} agent steps: {'; '.join(alarm(entry))}", file=sys.stderr)
            alarmed = bool(entry[ALARM])
            bar.set_postfix(headline(entry))
            pending, started, last_steps = [], now, run.agent_steps
        if crossed(before, run.agent_steps, config.checkpoint_interval) and not done:
            save(run, folder, log)


HEADLINES = ("reached/R1", "reached/R2", "reached/R3", "reached/R4", "episode/rooms", "episode/return")


def headline(entry: dict[str, float]) -> dict[str, str]:
    """What a progress bar shows of a log entry: at most four numbers."""
    return {name.split("/")[1]: f"{entry[name]:.2f}" for name in [h for h in HEADLINES if h in entry][:4]}


def crossed(before: int, after: int, interval: int) -> bool:
    return before // interval < after // interval


def log_entry(run: Run, pending: list[dict[str, Tensor]], rate: float) -> dict[str, float]:
    """Means over the learner steps since the last entry, what the episodes did, instruments, and time in its several units."""
    assert run.trajectory is not None
    means = {name: torch.stack([m[name].float() for m in pending]).mean().item() for name in pending[0]}
    readings = {name: value.item() for name, value in run.learner.inspect(run.trajectory).items()}
    return {
        "agent_steps": run.agent_steps, "frames": run.agent_steps * run.spec.frames_per_step, "learner_steps": run.learner.steps,
        "seconds": round(run.seconds, 3), "agent_steps_per_second": rate,
        **run.statistics.pop(), **{f"learner/{name}": value for name, value in means.items()},
        **{name: value for name, value in readings.items() if math.isfinite(value)}, ALARM: float(bool(alarm(readings))),
    }  # fmt: skip


def save(run: Run, folder: Path, log: Log) -> None:
    checkpoint.save(folder, run.state())
    log.write_maps(run.statistics)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them: the loop ends after its learner step, and saves."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])  # a second one is not waited for

    previous: dict[int, Any] = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
