"""A drill's scene: one run folder, random moments, and what is noted of the fault."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from afterwit.agents.learner import LearnerConfig
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


# float observations; cannot be saved, so not exact
CARTPOLE = replace(MAZE, env=GymConfig(id="CartPole-v1", num_envs=B))


@dataclass
class Scene:
    """A run folder of its own, random moments, and what is written down of the fault."""

    folder: Path
    random: np.random.Generator
    closing: ExitStack  # undone after the verdict
    config: RunConfig = MAZE
    code: int | None = None  # the exit code that the fault ended in
    stderr_lines: list[str] = field(default_factory=list)  # the lines on stderr
    stdout_lines: list[str] = field(default_factory=list)  # the lines on stdout
    # exit code, and a part of what must be said; "": nothing is said
    expected: tuple[int, str] = (0, "")
    most: int = 1  # lines that may be said
    moment: str = ""
    lost: int | None = None  # agent steps that have to be done again
    allowed: int = MAZE.checkpoint_interval  # agent steps that may be lost
    children: int = 0

    def start(self, plant: str = "", at: int = 0, choice: int = 0) -> Child:
        """The run in a new process: from its beginning, or from its checkpoint."""
        if self.children == 0:
            write_config(self.config, self.folder)
        self.children += 1
        output = self.folder.with_name(f"{self.folder.name}-{self.children}")
        child = begin([str(self.folder)], output, plant, at, choice)
        self.closing.callback(child.end)
        return child

    def ended(self, child: Child, code: int, says: str) -> None:
        """Wait for the end, and note how it ended and how it should have."""
        self.code, self.stderr_lines, self.stdout_lines, self.expected = (
            child.wait(),
            child.errors(),
            lines(child.output),
            (code, says),
        )
        if self.lost is None:
            self.lost = self.steps_to_repeat()

    def steps_to_repeat(self) -> int:
        """Agent steps that were logged, and are after the newest intact checkpoint."""
        intact = next(filter(checkpoint.is_intact, checkpoint.list_checkpoints(self.folder)), None)
        return max(
            0, self.logged() - (int(checkpoint.read(intact)["agent_steps"]) if intact else 0)
        )

    def learner_step(self) -> int:
        return int(self.random.integers(1, LEARNER_STEPS + 1))

    def at_learner_step(self, plant: str, code: int, says: str) -> None:
        """The run with a plant at a random learner step."""
        at = self.learner_step()
        self.moment = f"learner step {at}"
        self.ended(self.start(plant, at), code, says)

    def at_environment_step(self, plant: str, code: int, says: str) -> None:
        """The run with a plant at a random step of its environments; where a plant has variants,
        one of them.
        """
        at, choice = (
            int(self.random.integers(1, LEARNER_STEPS * T + 1)),
            int(self.random.integers(0, 1 << 16)),
        )
        self.moment = f"environment step {at}"
        self.ended(self.start(plant, at, choice), code, says)

    def at_checkpoint(self, plant: str, code: int, says: str) -> None:
        """The run with a plant in one of its checkpoints, neither the first nor the last, at one of
        the moments of writing it.
        """
        last = LEARNER_STEPS * STEP // self.config.checkpoint_interval
        at, choice = int(self.random.integers(2, last)), int(self.random.integers(len(MOMENTS)))
        self.moment = f"checkpoint {at}, {MOMENTS[choice]}"
        self.ended(self.start(plant, at, choice), code, says)

    def running(self, least: int = 1) -> Child:
        """A run, slowed a little, that has logged a random number of learner steps, and some
        milliseconds on.
        """
        steps, pause = (
            int(self.random.integers(least, LEARNER_STEPS - 2)),
            float(self.random.uniform(0, 0.1)),
        )
        child = self.start("slow")
        wait_until(lambda: self.logged() >= steps * STEP, child)
        time.sleep(pause)
        self.moment = f"{pause * 1000:.0f} ms after learner step {steps}"
        return child

    def stopped(self) -> Path:
        """Stop a run by SIGTERM between two checkpoints or after it was saved twice; the path of
        its newest checkpoint.
        """
        child = self.running(least=4)
        child.signal(signal.SIGTERM)
        if child.wait() != 130:
            raise RuntimeError(f"a run could not be stopped: {child.errors()}")
        return self.folder / NAME

    def logged(self) -> int:
        """Agent steps of the last entry of the log."""
        entry = last_entry(self.folder)
        return int(entry["agent_steps"]) if entry else 0


def wait_until(true: Callable[[], bool], child: Child) -> None:
    while not true():
        if child.process.exitcode is not None:
            raise RuntimeError(
                f"the run ended too early, with code {child.process.exitcode}: {child.errors()}"
            )
        time.sleep(0.005)
