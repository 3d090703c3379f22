"""The processes of the fault drill: `afterwit` as users start it, in a process of its own, with a
fault planted around it.

Nothing in training knows of this. A plant changes, in the child only, what training is given: its
environments, torch's backward, or how files are written.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from afterwit.agents.learner import Learner
from afterwit.envs.make import EnvConfig
from afterwit.envs.specs import TimeStep, VectorEnv
from afterwit.runs import cli, watch
from afterwit.runs import train as training
from afterwit.runs.checkpoint import NAME
from afterwit.runs.files import TEMPORARY

PATIENCE = 120.0  # seconds that a child of a few seconds' work may take
# Children are forked from a server that has imported all this already, and what torch imports when
# an optimiser is made: a new interpreter would take seconds each time.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "torch._dynamo"])


@dataclass(frozen=True)
class Child:
    """A running `afterwit`, and the files that its stdout and stderr go to."""

    process: BaseProcess
    output: Path
    error: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code; minus a signal's number where that killed it. Raises TimeoutError, and
        ends it, after PATIENCE seconds.
        """
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.end()
            raise TimeoutError(
                f"the run did not end within {PATIENCE:.0f} s; it said: {self.errors()}"
            )
        return self.process.exitcode

    def end(self) -> None:
        self.process.kill()
        self.process.join()

    def errors(self) -> list[str]:
        """The lines on stderr so far."""
        return lines(self.error)


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def begin(
    arguments: Sequence[str], output: Path, plant: str = "", at: int = 0, choice: int = 0
) -> Child:
    """Start `afterwit ARGUMENTS`; its output goes to OUTPUT.out and OUTPUT.err. `plant`, `at` and
    `choice`: see PLANTS.
    """
    files = output.with_suffix(".out"), output.with_suffix(".err")
    for path in files:
        path.write_bytes(b"")
    process = CONTEXT.Process(
        target=_run, args=(list(arguments), files, plant, at, choice), daemon=True
    )
    process.start()
    return Child(process, *files)


def _run(arguments: list[str], files: tuple[Path, Path], plant: str, at: int, choice: int) -> None:
    for number, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["afterwit", *arguments]
    # by default a semaphore, which a killed child would leave behind
    tqdm.set_lock(threading.RLock())
    if plant:
        PLANTS[plant](at, choice)
    sys.exit(cli.main(arguments))


class Planted:
    """An environment with `change` made to what step number `at` returns (0: to every step)."""

    def __init__(self, env: VectorEnv, at: int, change: Callable[[TimeStep], TimeStep]):
        self.env, self.at, self.change, self.count = env, at, change, 0

    def step(self, action: Any) -> TimeStep:
        self.count += 1
        step = self.env.step(action)
        return self.change(step) if self.at in (0, self.count) else step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


def in_environment(*changes: Callable[[TimeStep], TimeStep]) -> Callable[[int, int], None]:
    """Plant one of `changes`, by `choice`."""

    def plant(at: int, choice: int) -> None:
        make = training.make_env

        def planted(config: EnvConfig, seed: int) -> Any:
            return Planted(make(config, seed), at, changes[choice % len(changes)])

        training.make_env = planted

    return plant


def kill(step: TimeStep) -> TimeStep:
    os.kill(os.getpid(), signal.SIGKILL)
    return step


def wait(step: TimeStep) -> TimeStep:
    time.sleep(0.02)
    return step


def hang(step: TimeStep) -> TimeStep:
    watch.QUIET = 0.5  # seconds, so that a drill need not wait for a minute
    time.sleep(3600)
    return step


def fail(step: TimeStep) -> TimeStep:
    raise RuntimeError("the game crashed")


def changed(name: str, value: float) -> Callable[[TimeStep], TimeStep]:
    """One number of one environment is `value`."""

    def change(step: TimeStep) -> TimeStep:
        array = getattr(step, name).copy()
        array.reshape(len(array), -1)[1, 0] = value
        return replace(step, **{name: array})

    return change


def misshapen(step: TimeStep) -> TimeStep:
    return replace(step, observation=step.observation[:, :-1])


def beyond_bytes(step: TimeStep) -> TimeStep:
    return replace(step, observation=step.observation.astype(np.int64) + 256)


def kill_in_learning(at: int, choice: int) -> None:
    """Gradients are there, the weights have not moved yet."""
    backward, count = torch.Tensor.backward, iter(range(1, 1 << 62))

    def planted(self: torch.Tensor, *arguments: Any, **options: Any) -> None:
        backward(self, *arguments, **options)
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.Tensor.backward = planted  # type: ignore[method-assign]


def nan_in_loss(at: int, choice: int) -> None:
    """A weight of the policy becomes NaN before learner step `at`."""
    update = Learner.update

    def planted(self: Learner, trajectory: Any) -> dict[str, torch.Tensor]:
        if self.steps + 1 == at:
            next(self.policy.parameters()).data.fill_(torch.nan)
        return update(self, trajectory)

    Learner.update = planted  # type: ignore[method-assign]


MOMENTS = (
    "opened",
    "half written",
    "written",
    "moving the older ones",
    "before its renaming",
    "after its renaming",
)


def in_checkpoint(number: signal.Signals) -> Callable[[int, int], None]:
    """A signal to itself while checkpoint number `at` of the process is written, at the moment
    MOMENTS[choice].
    """

    def plant(at: int, choice: int) -> None:
        moment, saves, done = MOMENTS[choice % len(MOMENTS)], 0, False
        opening, sync, link, rename = Path.open, os.fsync, os.link, os.replace

        def now(here: str) -> None:
            nonlocal done
            if saves == at and here == moment and not done:
                done = True
                os.kill(os.getpid(), number)

        class Halves:
            def __init__(self, file: Any):
                self.file = file

            def write(self, data: Any) -> None:
                half = len(data) // 2
                self.file.write(data[:half])
                self.file.flush()
                if half > 1000:  # not the first line
                    now("half written")
                self.file.write(data[half:])

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

            def __enter__(self) -> Halves:
                return self

            def __exit__(self, *reason: Any) -> None:
                self.file.close()

        def planted_open(self: Path, *arguments: Any, **options: Any) -> Any:
            nonlocal saves
            file = opening(self, *arguments, **options)
            if self.name != NAME + TEMPORARY:
                return file
            saves += 1
            now("opened")
            return Halves(file)

        def planted_sync(file: int) -> None:
            now("written")
            sync(file)

        def planted_link(*arguments: Any) -> None:
            now("moving the older ones")
            link(*arguments)

        def planted_rename(source: Any, target: Any) -> None:
            if Path(target).name == NAME:
                now("before its renaming")
            rename(source, target)
            if Path(target).name == NAME:
                now("after its renaming")

        changes: list[tuple[Any, str, Any]] = [
            (Path, "open", planted_open),
            (os, "fsync", planted_sync),
        ]
        for where, name, planted in [
            *changes,
            (os, "link", planted_link),
            (os, "replace", planted_rename),
        ]:
            setattr(where, name, planted)

    return plant


# name -> what it does to the process that it is called in. `at`: environment step, learner step or
# checkpoint, from 1.
PLANTS: dict[str, Callable[[int, int], None]] = {
    "slow": in_environment(wait),
    "kill in unroll": in_environment(kill),
    "kill in learning": kill_in_learning,
    "kill in checkpoint": in_checkpoint(signal.SIGKILL),
    "terminate in checkpoint": in_checkpoint(signal.SIGTERM),
    "raises": in_environment(fail),
    "hangs": in_environment(hang),
    "nan observation": in_environment(changed("observation", np.nan)),
    "nan reward": in_environment(changed("reward", np.nan), changed("reward", np.inf)),
    "out of range": in_environment(changed("reward", 1e30), misshapen, beyond_bytes),
    "nan in loss": nan_in_loss,
}
