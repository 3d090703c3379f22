"""The training loop: act, learn, log, save. One process; on CPU a seed gives the same run bit for
bit.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from afterwit.agents.actor import Actor, actor_seed
from afterwit.agents.learner import Learner
from afterwit.agents.memory import keep_memory
from afterwit.agents.pipeline import LearnerLost, Pipeline
from afterwit.envs.make import make_env
from afterwit.envs.specs import Array, EnvironmentFault, EnvSpec, VectorEnv
from afterwit.runs import checkpoint
from afterwit.runs.closing import closing_quietly
from afterwit.runs.config import RunConfig, read_config, to_dict, write_config
from afterwit.runs.files import LOCK, Unwritable, discard_temporaries, occupied, replacing
from afterwit.runs.logging import Log
from afterwit.runs.provenance import FIRST, record, record_losses
from afterwit.runs.reading import quoted
from afterwit.runs.statistics import Statistics, indifferent
from afterwit.runs.watch import Watch, say
from afterwit.world_models.callers import own_modes
from afterwit.world_models.instruments import ALARM, alarm
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
        # of the run's first FIRST learner steps, as far as this session took them
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
        if self.learner.steps <= FIRST:
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
    with occupied(folder, patience=0):
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


def make_run(config: RunConfig) -> Run:
    """The run, in this process or on a cluster. Raises ValueError where the cluster cannot be
    had.
    """
    if config.cluster is None:
        return Run(config)
    try:
        from afterwit.runs.cluster import ClusterRun  # imports ray
    except ModuleNotFoundError as error:
        raise ValueError(
            f"cluster is {config.cluster!r}, but {error.name} is not installed; pip install"
            " 'afterwit[ray]'"
        ) from error
    return ClusterRun(config)


ERROR = "error.txt"  # the traceback of an environment


def start(config: RunConfig, folder: Path, progress: bool = True) -> bool:
    """Train a new run in a new folder, as `train` does. Of two processes that start one in the same
    folder, one gets it.

    What could not be set up leaves no folder behind. Raises ValueError where the folder exists or
    is being made.
    """
    refuse_existing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be made ({error.strerror}); choose another --out"
        ) from error
    with occupied(folder, patience=0):
        refuse_existing(folder)  # another process may have made it since
        try:
            write_config(config, folder)
            return _train_in(folder, progress)
        except BaseException:
            discard_unstarted(folder)
            raise


def train(folder: Path, progress: bool = True) -> bool:
    """Train the run whose config lies in `folder`, from its checkpoint if there is one. False if it
    was interrupted.

    Where a learner of a cluster is lost, goes on from the last checkpoint, as long as there is a
    newer one each time. Raises ValueError, in one line with the remedy, where another process
    trains it, and where it had to stop: for an environment, a loss that is not finite, or a disk
    without room. Then nothing is lost but the steps since its last checkpoint.
    """
    line = checkpoint.restore_config(folder)
    read_config(folder)  # no lock is left in a folder that is none of a run
    with occupied(folder, patience=0):
        if line:
            say(line)
        return _train_in(folder, progress)


def _train_in(folder: Path, progress: bool) -> bool:
    """Train in a folder that this process holds."""
    config = read_config(folder)
    discard_temporaries(folder)
    keep_memory()
    reached = -1
    while True:
        run = make_run(config)
        try:
            return _train(run, folder, progress)
        except LearnerLost as error:
            before, reached = reached, last_checkpoint(folder, config)
            if reached <= before:
                raise ValueError(
                    f"{error}, twice after {reached:,} agent steps; go on with --resume once that"
                    " is mended"
                ) from error
            say(f"{error}; going on from the last checkpoint, at {reached:,} agent steps")
        except (FloatingPointError, EnvironmentFault, Unwritable) as error:
            raise ValueError(stop_line(error, run, folder)) from error
        finally:
            run.close()


def last_checkpoint(folder: Path, config: RunConfig) -> int:
    """Agent steps of the newest intact checkpoint; 0 where there is none."""
    state, _ = checkpoint.resume(folder, config)
    return state["agent_steps"] if state is not None else 0


def _train(run: Run, folder: Path, progress: bool) -> bool:
    config, pending, saved = run.config, list[dict[str, Tensor]](), -1
    state, line = checkpoint.resume(folder, config)
    if line:
        say(line)
    if state is not None:
        run.load_state(state)
        pending, saved = unstacked(state.get("pending", {}), run.learner.device), run.agent_steps
    say_what_is_seen(run)
    record(folder)
    log = Log(folder, run.agent_steps)
    bar = tqdm(
        total=config.total_steps,
        initial=run.agent_steps,
        unit="step",
        unit_scale=True,
        desc=config.title,
        disable=not progress,
        dynamic_ncols=True,
        file=sys.stdout,
    )
    try:
        with Watch(folder) as watch:
            saved = _loop(run, folder, log, bar, watch, pending, saved)
            if saved != run.agent_steps:
                save(run, folder, log, pending)
    finally:
        log.close()
        bar.close()
    return run.agent_steps >= config.total_steps


def say_what_is_seen(run: Run) -> None:
    """What was made of a person's observations, and what reads them, where that was chosen for
    them.
    """
    seen, torso = run.spec.semantics.get("observations"), run.config.learner.torso
    if seen and torso.encoder == "auto":
        print(
            f"observations: {seen}; encoder: {torso.resolved(run.spec.observation_shape).encoder}",
            flush=True,
        )


def stop_line(
    error: FloatingPointError | EnvironmentFault | Unwritable, run: Run, folder: Path
) -> str:
    """What stopped a run, what is kept of it, and what to do."""
    saved = (
        "its last checkpoint is intact" if checkpoint.kept(folder) else "it had no checkpoint yet"
    )
    if isinstance(error, FloatingPointError):
        return (
            f"{error}; the run stopped and {saved}: start again with a lower"
            f" --learner.learning-rate{magnitudes(run)}"
        )
    said, wanted = str(error), "the environment is mended"
    if isinstance(error, Unwritable):
        said, wanted = f"{error.filename} cannot be written: {error.strerror}", "there is room"
    elif error.__cause__ is not None:
        with suppress(OSError), replacing(folder / ERROR) as file:
            file.write(
                "".join(traceback.format_exception(error.__cause__)).encode(
                    errors="backslashreplace"
                )
            )
            said += f" (traceback in {folder / ERROR})"
    command = f"afterwit train --resume {quoted(folder)}"
    return (
        f"{said}; the run stopped after {run.agent_steps:,} agent steps and {saved}; when {wanted}:"
        f" {command}"
    )


def magnitudes(run: Run) -> str:
    """What the networks were fed when a loss was not finite, where that may be why."""
    if run.trajectory is None:
        return ""
    largest = {"observations": run.trajectory.obs, "rewards": run.trajectory.reward}
    large = [
        f"{name} up to {float(values.abs().max()):g}"
        for name, values in largest.items()
        if float(values.abs().max()) > 1e4
    ]
    return f", or scale what the environment returns: {' and '.join(large)}" if large else ""


def _loop(
    run: Run,
    folder: Path,
    log: Log,
    bar: Any,
    watch: Watch,
    pending: list[dict[str, Tensor]],
    saved: int,
) -> int:
    """Train to the end, or until a signal comes. `pending`: the metrics since the last log entry,
    which a checkpoint holds, too. `saved`, and what is returned: the agent steps of the newest
    checkpoint."""
    config, started = run.config, time.perf_counter()
    last_steps, alarmed = run.agent_steps, False
    watch.alive(run.agent_steps)
    while run.agent_steps < config.total_steps and not watch.stop:
        before = run.agent_steps
        pending.append(run.step())
        if run.learner.steps == len(run.first_losses) == FIRST:
            record_losses(folder, run.first_losses)
        watch.alive(run.agent_steps)
        bar.update(run.agent_steps - before)
        done = run.agent_steps >= config.total_steps
        if crossed(before, run.agent_steps, config.log_interval) or done:
            now = time.perf_counter()
            run.seconds += now - started
            entry = log_entry(run, pending, (run.agent_steps - last_steps) / (now - started))
            log.write(entry)
            if entry[ALARM] and not alarmed:
                bar.write(
                    f"collapse alarm at {run.agent_steps:,} agent steps: {'; '.join(alarm(entry))}",
                    file=sys.stderr,
                )
            alarmed = bool(entry[ALARM])
            bar.set_postfix(headline(entry))
            pending.clear()
            started, last_steps = now, run.agent_steps
        if crossed(before, run.agent_steps, config.checkpoint_interval) and not done:
            save(run, folder, log, pending)
            saved = run.agent_steps
    return saved


HEADLINES = (
    "reached/R1",
    "reached/R2",
    "reached/R3",
    "reached/R4",
    "episode/rooms",
    "episode/cells",
    "episode/return",
)


def headline(entry: dict[str, float]) -> dict[str, str]:
    """What a progress bar shows of a log entry: at most four numbers."""
    return {
        name.split("/")[1]: f"{entry[name]:.2f}"
        for name in [h for h in HEADLINES if h in entry][:4]
    }


def crossed(before: int, after: int, interval: int) -> bool:
    return before // interval < after // interval


def log_entry(run: Run, pending: list[dict[str, Tensor]], rate: float) -> dict[str, float]:
    """Means over the learner steps since the last entry, what the episodes did, instruments, and
    time in its several units.
    """
    assert run.trajectory is not None
    means = {
        name: torch.stack([m[name].float() for m in pending]).mean().item() for name in pending[0]
    }
    with own_modes():
        readings = {
            name: value.item() for name, value in run.learner.inspect(run.trajectory).items()
        }
    return {
        "agent_steps": run.agent_steps,
        "frames": run.agent_steps * run.spec.frames_per_step,
        "learner_steps": run.learner.steps,
        "seconds": round(run.seconds, 3),
        "agent_steps_per_second": rate,
        **run.statistics.pop(),
        **{f"learner/{name}": value for name, value in means.items()},
        **{name: value for name, value in readings.items() if math.isfinite(value)},
        ALARM: float(bool(alarm(readings))),
    }


def save(run: Run, folder: Path, log: Log, pending: list[dict[str, Tensor]]) -> None:
    """A checkpoint, when log and maps are on disk.

    Its score, by which the best one is kept, is what `Statistics.score` gives for the episodes
    since the last checkpoint.
    """
    log.sync()
    log.write_maps(run.statistics)
    score = run.statistics.score()
    checkpoint.save(folder, run.state() | {"score": score, "pending": stacked(pending)})


def stacked(pending: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The metrics of n learner steps as one tensor [n] for each name."""
    return (
        {name: torch.stack([metrics[name] for metrics in pending]) for name in pending[0]}
        if pending
        else {}
    )


def unstacked(metrics: dict[str, Tensor], device: torch.device) -> list[dict[str, Tensor]]:
    """What `stacked` was given, on `device`."""
    metrics = {name: values.to(device) for name, values in metrics.items()}
    number = len(next(iter(metrics.values()))) if metrics else 0
    return [{name: values[index] for name, values in metrics.items()} for index in range(number)]
