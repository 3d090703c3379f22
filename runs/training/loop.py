"""The training loop: act, learn, log and save. On CPU the same seed gives the same run."""

from __future__ import annotations

import math
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from afterwit.agents.malloc_settings import keep_memory
from afterwit.agents.metrics import PendingMetrics
from afterwit.agents.pipeline import LearnerLost
from afterwit.envs.specs import EnvironmentFault
from afterwit.runs.configs.contents import changed_modules, check_contents, with_contents
from afterwit.runs.configs.run_config import RunConfig, read_config, write_config
from afterwit.runs.output.files import (
    Unwritable,
    atomic_write,
    discard_temporaries,
    locked_folder,
    remove_empty,
)
from afterwit.runs.output.provenance import RECORDED_STEPS, record, record_losses
from afterwit.runs.output.streams import print_notice
from afterwit.runs.output.text import quoted
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run, raise_if_exists, remove_unstarted
from afterwit.runs.training.run_log import Log, headline
from afterwit.runs.training.stop_signals import StopSignals
from afterwit.world_models.callers import own_modes
from afterwit.world_models.instruments import ALARM, alarm
from afterwit.world_models.registry import world_model_name


def make_run(config: RunConfig) -> Run:
    """Return the run, in this process or on a cluster.

    Raises:
      ValueError: the cluster cannot be used.
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


ERROR = "error.txt"  # the traceback of an error in an environment


def start(config: RunConfig, folder: Path, progress: bool = True) -> bool:
    """Train a new run in a new folder, as `train` does.

    If two processes start one in the same folder, one of them gets it. If the run cannot be set up,
    the folder is removed again.

    Raises:
      ValueError: the folder exists, or another process is making it. Also as in `train`.
    """
    raise_if_exists(folder)
    config = with_contents(config)
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remove_empty(missing)
        raise ValueError(
            f"cannot make {folder} ({error.strerror}); choose another --out"
        ) from error
    with locked_folder(folder, patience=0):
        raise_if_exists(folder)  # another process may have made it in the meantime
        try:
            write_config(config, folder)
            return _train_in(folder, progress)
        except BaseException:
            remove_unstarted(folder)
            remove_empty(missing)
            raise


def train(folder: Path, progress: bool = True, total_steps: int | None = None) -> bool:
    """Train the run whose config is in `folder`, from its checkpoint if there is one.

    If a learner on a cluster is lost, training goes on from the last checkpoint, as long as there
    is a newer one each time.

    Args:
      folder: the run folder.
      progress: show a progress bar.
      total_steps: agent steps that the run is to have in all, written into its config. None: as
        many as before.

    Returns:
      True if the run is finished, False if it was interrupted.

    Raises:
      ValueError: another process trains the run, or it had to stop: because of an environment, a
        loss that is not finite, or a full disk; or it has had `total_steps` already. The message
        is one line with the remedy. Only the steps since the last checkpoint are lost.
    """
    notice = checkpoint.restore_config(folder)
    read_config(folder)  # before the lock, which would stay in a folder that is not a run folder
    with locked_folder(folder, patience=0):
        if notice:
            print_notice(notice)
        if total_steps is not None:
            set_total_steps(folder, total_steps)
        return _train_in(folder, progress)


def set_total_steps(folder: Path, total_steps: int) -> None:
    """Write into the config of the run in `folder` how many agent steps it is to have in all.

    Raises:
      ValueError: it has had so many already.
    """
    done = checkpoint.newest_steps(folder)
    if total_steps <= done:
        raise ValueError(
            f"--total-steps is {total_steps:,}, but {quoted(folder)} has had {done:,} agent steps;"
            " name more"
        )
    write_config(replace(read_config(folder), total_steps=total_steps), folder)


def _train_in(folder: Path, progress: bool) -> bool:
    """Train in a folder that this process has locked."""
    config = read_config(folder)
    discard_temporaries(folder)
    keep_memory()
    last_saved = -1
    while True:
        run = make_run(config)
        try:
            return _train(run, folder, progress)
        except LearnerLost as error:
            before, last_saved = last_saved, checkpoint.newest_steps(folder)
            if last_saved <= before:
                raise ValueError(
                    f"{error}, twice after {last_saved:,} agent steps; go on with --resume once"
                    " that is fixed"
                ) from error
            print_notice(
                f"{error}; going on from the last checkpoint, at {last_saved:,} agent steps"
            )
        except (FloatingPointError, EnvironmentFault, Unwritable) as error:
            raise ValueError(stop_message(error, run, folder)) from error
        finally:
            run.close()


def _train(run: Run, folder: Path, progress: bool) -> bool:
    config, pending, saved = run.config, PendingMetrics(), -1
    state, notice = checkpoint.resume(folder, config)
    if notice:
        print_notice(notice)
    if state is not None:
        run.load_state(state)
        pending.load_state(state.get("pending", {}), run.learner.device)
        saved = run.agent_steps
        for name in changed_modules(config):
            print_notice(f"{name} has changed since this run was made; going on with it as it is")
    else:
        check_contents(config)
        if config.learner.torso.init is not None:
            run.learner.adopt_encoder(config.learner.torso.init)
    print_observations(run)
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
        with StopSignals(folder) as signals:
            saved = _loop(run, folder, log, bar, signals, pending, saved)
            if saved != run.agent_steps:
                save(run, folder, log, pending)
    finally:
        log.close()
        bar.close()
    return run.agent_steps >= config.total_steps


def print_observations(run: Run) -> None:
    """Print how observations were converted and encoded, if Afterwit chose that by itself."""
    seen, torso = run.spec.semantics.get("observations"), run.config.learner.torso
    if seen and torso.encoder == "auto":
        print(
            f"observations: {seen}; encoder: {torso.resolved(run.spec.observation_shape).encoder}",
            flush=True,
        )


def stop_message(
    error: FloatingPointError | EnvironmentFault | Unwritable, run: Run, folder: Path
) -> str:
    """Return what stopped a run, what is saved, and what to do."""
    saved = (
        "its last checkpoint is intact"
        if checkpoint.list_checkpoints(folder)
        else "it had no checkpoint yet"
    )
    if isinstance(error, FloatingPointError):
        own = world_model_name(run.config.learner.world_model)
        look = f", and look at the loss and the reward of {own}" if ":" in own else ""
        return (
            f"{error}; the run stopped and {saved}: start again with a lower"
            f" --learner.learning-rate{large_inputs(run)}{look}"
        )
    message, condition = str(error), "the environment is fixed"
    if isinstance(error, Unwritable):
        message = f"{error.filename} cannot be written: {error.strerror}"
        condition = "there is room"
    elif error.__cause__ is not None:
        lines = traceback.format_exception(error.__cause__)
        with suppress(OSError), atomic_write(folder / ERROR) as file:
            file.write("".join(lines).encode(errors="backslashreplace"))
            message += f" (traceback in {folder / ERROR})"
    command = f"afterwit train --resume {quoted(folder)}"
    return (
        f"{message}; the run stopped after {run.agent_steps:,} agent steps and {saved}; when"
        f" {condition}:"
        f" {command}"
    )


def large_inputs(run: Run) -> str:
    """Return a hint if large observations or rewards may explain a loss that is not finite."""
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
    signals: StopSignals,
    pending: PendingMetrics,
    saved: int,
) -> int:
    """Train to the end, or until a signal comes.

    Args:
      pending: the metrics since the last log entry. A checkpoint holds them too.
      saved: the agent steps of the newest checkpoint.

    Returns:
      The agent steps of the newest checkpoint now.
    """
    config, started = run.config, time.perf_counter()
    counted = started  # until then, time is in run.seconds
    last_steps, alarmed = run.agent_steps, False
    signals.step_ended(run.agent_steps)
    while run.agent_steps < config.total_steps and not signals.received:
        before = run.agent_steps
        pending.add(run.step())
        if run.learner.steps == len(run.first_losses) == RECORDED_STEPS:
            record_losses(folder, run.first_losses)
        signals.step_ended(run.agent_steps)
        bar.update(run.agent_steps - before)
        now = time.perf_counter()
        run.seconds, counted = run.seconds + now - counted, now
        done = run.agent_steps >= config.total_steps
        if crossed(before, run.agent_steps, config.log_interval) or done:
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
    """Return whether a multiple of `interval` lies in (before, after]."""
    return before // interval < after // interval


def log_entry(run: Run, pending: PendingMetrics, rate: float) -> dict[str, float]:
    """Return one log entry.

    It has the means over the learner steps since the last entry, the episodes' numbers, the
    instruments' readings, and the time in all its units.
    """
    assert run.trajectory is not None
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
        **{f"learner/{name}": value for name, value in pending.means().items()},
        **{name: value for name, value in readings.items() if math.isfinite(value)},
        ALARM: float(bool(alarm(readings))),
    }


def save(run: Run, folder: Path, log: Log, pending: PendingMetrics) -> None:
    """Write log and maps to disk, then a checkpoint.

    Its score decides which checkpoint is kept as the best: `Statistics.score` of the episodes since
    the last checkpoint.
    """
    log.sync()
    log.write_maps(run.statistics)
    score = run.statistics.score()
    checkpoint.save(folder, run.state() | {"score": score, "pending": pending.state()})
