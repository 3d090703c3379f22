"""A scene of the drill: one run folder, random moments, and what happened in the fault."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from afterwit.agents.learner_config import LearnerConfig
from afterwit.envs.gym import GymConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.run_config import RunConfig, write_config
from afterwit.runs.drills.child import Child, begin, lines
from afterwit.runs.drills.plants import MOMENTS
from afterwit.runs.training import checkpoint
from afterwit.runs.training.checkpoint import NAME
from afterwit.runs.training.run_log import last_entry
from afterwit.world_models.models.rnd import RNDConfig
from afterwit.world_models.torso import TorsoConfig

T, B = 5, 4
STEP = T * B  # agent steps of a learner step; each has a log entry
LEARNER_STEPS = 12
TORSO = TorsoConfig(hidden=16, embedding=16, belief=16)
MAZE = RunConfig(
    env=MazeConfig(num_envs=B, noise="pixel", episode_steps=17),
    learner=LearnerConfig(world_model=RNDConfig(), torso=TORSO),
    total_steps=LEARNER_STEPS * STEP,
    unroll_length=T,
    log_interval=STEP,
    checkpoint_interval=3 * STEP,
)


# float observations; its state cannot be saved, so a resumed run differs
CARTPOLE = replace(MAZE, env=GymConfig(id="CartPole-v1", num_envs=B))


@dataclass
class Scene:
    """A run folder, random moments, and what is recorded of the fault."""

    folder: Path
    random: np.random.Generator
    closing: ExitStack  # called back after the verdict
    config: RunConfig = MAZE
    code: int | None = None  # the exit code after the fault
    stderr_lines: list[str] = field(default_factory=list)  # the lines on stderr
    stdout_lines: list[str] = field(default_factory=list)  # the lines on stdout
    # exit code, and a part of the message on stderr ("": no message)
    expected: tuple[int, str] = (0, "")
    max_lines: int = 1  # lines on stderr that are allowed
    moment: str = ""
    lost: int | None = None  # agent steps that must be repeated
    allowed: int = MAZE.checkpoint_interval  # agent steps that may be lost
    children: int = 0

    def start(self, plant: str = "", at: int = 0, choice: int = 0) -> Child:
        """Start the run in a new process, from its beginning or its checkpoint."""
        if self.children == 0:
            write_config(self.config, self.folder)
        self.children += 1
        output = self.folder.with_name(f"{self.folder.name}-{self.children}")
        child = begin([str(self.folder)], output, plant, at, choice)
        self.closing.callback(child.end)
        return child

    def finish(self, child: Child, code: int, message: str) -> None:
        """Wait for the end. Record how the run ended and how it should have ended."""
        self.code = child.wait()
        self.stderr_lines = child.errors()
        self.stdout_lines = lines(child.output)
        self.expected = (code, message)
        if self.lost is None:
            self.lost = self.steps_to_repeat()

    def steps_to_repeat(self) -> int:
        """Return the logged agent steps after the newest intact checkpoint."""
        return max(0, self.logged() - checkpoint.newest_steps(self.folder))

    def learner_step(self) -> int:
        """Return a random learner step."""
        return int(self.random.integers(1, LEARNER_STEPS + 1))

    def at_learner_step(self, plant: str, code: int, message: str) -> None:
        """Run with a fault planted at a random learner step."""
        at = self.learner_step()
        self.moment = f"learner step {at}"
        self.finish(self.start(plant, at), code, message)

    def at_environment_step(self, plant: str, code: int, message: str) -> None:
        """Run with a fault planted at a random step of the environments.

        If the fault has variants, one of them is drawn.
        """
        at = int(self.random.integers(1, LEARNER_STEPS * T + 1))
        choice = int(self.random.integers(0, 1 << 16))
        self.moment = f"environment step {at}"
        self.finish(self.start(plant, at, choice), code, message)

    def at_checkpoint(self, plant: str, code: int, message: str) -> None:
        """Run with a fault planted in the writing of a checkpoint.

        The checkpoint is neither the first nor the last, and the moment within it is random.
        """
        last = LEARNER_STEPS * STEP // self.config.checkpoint_interval
        at, choice = int(self.random.integers(2, last)), int(self.random.integers(len(MOMENTS)))
        self.moment = f"checkpoint {at}, {MOMENTS[choice]}"
        self.finish(self.start(plant, at, choice), code, message)

    def start_and_wait(self, least: int = 1) -> Child:
        """Return a slowed run that has logged a random number of learner steps.

        Some more milliseconds have passed since then.
        """
        steps = int(self.random.integers(least, LEARNER_STEPS - 2))
        pause = float(self.random.uniform(0, 0.1))
        child = self.start("slow")
        wait_until(lambda: self.logged() >= steps * STEP, child)
        time.sleep(pause)
        self.moment = f"{pause * 1000:.0f} ms after learner step {steps}"
        return child

    def start_and_stop(self) -> Path:
        """Stop a run by SIGTERM after its first checkpoint.

        Returns:
          The path of its newest checkpoint.
        """
        child = self.start_and_wait(least=4)
        child.signal(signal.SIGTERM)
        if child.wait() != 130:
            raise RuntimeError(f"a run could not be stopped: {child.errors()}")
        return self.folder / NAME

    def logged(self) -> int:
        """Return the agent steps of the last log entry."""
        entry = last_entry(self.folder)
        return int(entry["agent_steps"]) if entry else 0


def wait_until(true: Callable[[], bool], child: Child) -> None:
    """Wait until `true()`. Raises RuntimeError if the run ends before."""
    while not true():
        if child.process.exitcode is not None:
            raise RuntimeError(
                f"the run ended too early, with code {child.process.exitcode}: {child.errors()}"
            )
        time.sleep(0.005)
