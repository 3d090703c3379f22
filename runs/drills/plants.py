"""PLANTS: faults that are planted inside a run's own process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afterwit.agents.learner import Learner
from afterwit.envs.make import EnvConfig
from afterwit.envs.specs import TimeStep, VectorEnv
from afterwit.runs.output.files import TEMPORARY
from afterwit.runs.training import run, stop_signals
from afterwit.runs.training.checkpoint import NAME


class Planted:
    """An environment that applies `change` to its step number `at` (0: to every step)."""

    def __init__(self, env: VectorEnv, at: int, change: Callable[[TimeStep], TimeStep]):
        self.env, self.at, self.change, self.count = env, at, change, 0

    def step(self, action: Any) -> TimeStep:
        self.count += 1
        step = self.env.step(action)
        return self.change(step) if self.at in (0, self.count) else step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


def in_environment(*changes: Callable[[TimeStep], TimeStep]) -> Callable[[int, int], None]:
    """Return a function that plants one of `changes`, by `choice`."""

    def plant(at: int, choice: int) -> None:
        make = run.make_env

        def planted(config: EnvConfig, seed: int) -> Any:
            return Planted(make(config, seed), at, changes[choice % len(changes)])

        run.make_env = planted

    return plant


def kill(step: TimeStep) -> TimeStep:
    os.kill(os.getpid(), signal.SIGKILL)
    return step


def wait(step: TimeStep) -> TimeStep:
    time.sleep(0.02)
    return step


def hang(step: TimeStep) -> TimeStep:
    stop_signals.SILENCE_SECONDS = 0.5  # instead of a minute, to shorten the drill
    time.sleep(3600)
    return step


def fail(step: TimeStep) -> TimeStep:
    raise RuntimeError("the game crashed")


def changed(name: str, value: float) -> Callable[[TimeStep], TimeStep]:
    """Return a change that sets one number of one environment to `value`."""

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
    """Kill the process when gradients exist but the weights have not changed yet."""
    backward, count = torch.Tensor.backward, iter(range(1, 1 << 62))

    def planted(self: torch.Tensor, *arguments: Any, **options: Any) -> None:
        backward(self, *arguments, **options)
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.Tensor.backward = planted  # type: ignore[method-assign]


def nan_in_loss(at: int, choice: int) -> None:
    """Set a weight of the policy to NaN before learner step `at`."""
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
    """Return a function that plants a signal in the writing of checkpoint number `at`.

    The process sends it to itself at the moment MOMENTS[choice].
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
                if half > 1000:  # not the header line
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
            if not (self.name.startswith(NAME) and self.name.endswith(TEMPORARY)):
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


# name -> a function (at, choice) that plants the fault in its own process. `at` is an environment
# step, a learner step or a checkpoint, from 1.
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
