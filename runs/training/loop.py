"""The training loop: act, learn, log, save. One process; on CPU a seed gives the same run bit for
bit.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from afterwit.agents.malloc_settings import keep_memory
from afterwit.agents.pipeline import LearnerLost
from afterwit.envs.specs import EnvironmentFault
from afterwit.runs.configs.run_config import RunConfig, read_config, write_config
from afterwit.runs.output.files import Unwritable, discard_temporaries, locked_folder, replacing
from afterwit.runs.output.provenance import RECORDED_STEPS, record, record_losses
from afterwit.runs.output.streams import print_notice
from afterwit.runs.output.text import quoted
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run, discard_unstarted, refuse_existing
from afterwit.runs.training.run_log import Log, headline
from afterwit.runs.training.stop_signals import Watch
from afterwit.world_models.callers import own_modes
from afterwit.world_models.instruments import ALARM, alarm


def make_run(config: RunConfig) -> Run:
    """The run, in this process or on a cluster. Raises ValueError where the cluster cannot be
    had.
    """
    if config.cluster is None:
        return Run(config)
    try:
        from afterwit.runs.training.cluster_run import ClusterRun  # imports ray
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
    with locked_folder(folder, patience=0):
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
    with locked_folder(folder, patience=0):
        if line:
            print_notice(line)
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
            print_notice(f"{error}; going on from the last checkpoint, at {reached:,} agent steps")
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
        print_notice(line)
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
        if run.learner.steps == len(run.first_losses) == RECORDED_STEPS:
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
