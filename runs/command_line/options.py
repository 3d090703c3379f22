"""The options of each command, with what `--help` says of them. tyro makes command lines of
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tyro

from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.diagnostics.separation import SeparationConfig
from afterwit.runs.output.provenance import cores
from afterwit.runs.training.checkpoint import NAME

OUT = Path("runs/out")
T = TypeVar("T")


def at_home(value: T) -> T:
    """A path, or options with paths in them, with a leading ~ or ~user as that home folder. Raises
    ValueError for an unknown user.
    """
    found: Any = value
    if isinstance(value, Path):
        try:
            found = value.expanduser()
        except RuntimeError as error:
            raise ValueError(
                f"{str(value)!r} begins with an unknown user's home; write ./{value} for a folder"
                " of that name"
            ) from error
    elif isinstance(value, tuple):
        found = tuple(map(at_home, value))
    elif is_dataclass(value) and not isinstance(value, type):
        paths = {
            name: at_home(getattr(value, name))
            for name in (f.name for f in fields(value))
            if holds_paths(getattr(value, name))
        }
        found = replace(value, **paths)
    return cast(T, found)


def holds_paths(value: Any) -> bool:
    return isinstance(value, Path) or (
        isinstance(value, tuple) and any(isinstance(item, Path) for item in value)
    )


@dataclass(frozen=True)
class Train:
    """A run and where it goes."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    out: Path | None = None
    """New folder for the run. Unset: a name made of preset, method, game or id, noise, and seed, in
    runs/out.
    """
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class Evaluate:
    """Play whole episodes with a trained agent, learning nothing; writes RUN/evaluation.json."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    episodes: int = 100
    """Episodes to play."""
    greedy: bool = False
    """Always take the likeliest action, instead of drawing it."""
    seed: int = 1_000_000
    """Seed of environments and draws; training uses small ones."""
    video: bool = False
    """Also write RUN/video.mp4: the first episode above a strip of its intrinsic reward."""
    set: tuple[str, ...] = ()
    """Rules other than training's, as field=value of the environment: --set sticky=0 noop_max=1.
    The result says so.
    """
    out: Path | None = None
    """Folder for evaluation.json and video.mp4. Unset: the run folder."""
    checkpoint: str = NAME
    """Which checkpoint: the name of its file, or best."""
    max_steps: int | None = None
    """Agent steps of each environment after which to stop, though not all episodes have ended: what
    was played is the result then, which says so. Unset: no limit."""


@dataclass(frozen=True)
class Scores:
    """Aggregate the evaluations of runs: interquartile mean, median and mean with intervals, the
    probability that one method beats another, and performance profiles. A method is a world model
    or the random policy, a task a game with its noise; runs of one task are seeds."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, each with an evaluation.json (afterwit evaluate RUN)."""
    measure: str | None = None
    """What is compared: a number of the evaluations, such as return, cells or R4. Unset: the
    human-normalised score, or the return.
    """
    out: Path = OUT / "scores"
    """Folder for scores.json and scores.png."""


@dataclass(frozen=True)
class Probe:
    """What would have happened? Keep place and action of a transition, give the model the z of
    others, and look at the real observation nearest to what it imagines. Where z carries the noise
    and nothing else, the noise changes and the place stays. For runs of byol-hindsight; learns
    nothing, writes probe.json and probe.png."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    queries: int = 6
    """Transitions in the picture: half of them with noise in view, where the environment tells."""
    swaps: int = 6
    """Other transitions whose z is put in, for each transition of the picture and of the numbers.
    """
    steps: int = 16_000
    """Agent steps to play first, over all environments: what is looked at, and looked for, comes
    from them.
    """
    seed: int = Evaluate.seed
    """Seed of environments and draws; training uses small ones."""
    out: Path | None = None
    """Folder for probe.json and probe.png. Unset: the run folder."""


@dataclass(frozen=True)
class Report:
    """Compare runs side by side: a self-contained HTML page, and its pictures."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path = OUT / "report"
    """Folder for report.html and the PNGs."""


@dataclass(frozen=True)
class Benchmark:
    """Measure stepping, acting, learning and the whole loop, and what a learner step is spent
    on.
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    seconds: float = 5.0
    """Seconds for each measurement."""
    grow: bool = False
    """Also measure learning with the other world models, other horizons K, and half and twice the
    environments.
    """
    baseline: bool = False
    """Also measure a plain synchronous PPO + RND, as single-file implementations write it, on the
    same environments.
    """
    stand_ins: tuple[int, ...] = ()
    """Instead: the real learner on the cluster with so many simulated actors each time, which
    replay a trajectory; and what follows from the costs of each part for 10 to 400 real ones. For
    example --cluster local --actor-envs 8 --stand-ins 10 50 100."""
    stand_in_rate: float = 113.0
    """Agent steps per second of a simulated actor. (One of the 400 of the published runs: 11
    learner steps/s of 32 x 128.)
    """
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Separation:
    """Do world models pay for news and not for noise? No policy: they learn from logs, for some
    seconds each.
    """

    config: Annotated[SeparationConfig, tyro.conf.arg(name="")] = field(
        default_factory=SeparationConfig
    )
    jobs: int = field(default_factory=cores)
    """Trainings at a time, one core each."""
    out: Path | None = None
    """JSON file for all numbers, with a picture beside it. Unset: only the table is printed."""


@dataclass(frozen=True)
class Demo:
    """Train BYOL-Explore and BYOL-Hindsight side by side on the Brownian maze, and write a
    report.
    """

    out: Path = OUT / "demo"
    """Folder for the two runs and the report. If it holds an unfinished demo, that one goes on."""
    steps: int = 1_500_000
    """Agent steps of each agent."""
    seed: int = 0
    """Seed of both agents. Seeds differ: docs/results/maze-study.md has five of them."""


@dataclass(frozen=True)
class StudyOptions:
    """Which part of the study to run, and how."""

    worlds: tuple[str, ...] = ()
    """Only these of the study's worlds."""
    methods: tuple[str, ...] = ()
    """Only these of its methods."""
    seeds: tuple[int, ...] = ()
    """These seeds instead of the study's own."""
    jobs: int = field(default_factory=cores)
    """Runs at a time, one process each. Unset: as many as there are cores."""
    out: Path | None = None
    """The study's folder. Unset: runs/out/study-NAME. What it holds of the same study is kept:
    finished cells are not run again, others go on where they stopped, and new worlds, methods and
    seeds are added."""
    total_steps: int | None = None
    """Agent steps of each cell, over all environments. Unset: the preset's."""
    set: tuple[str, ...] = ()
    """Further changes to every cell, as path=value: --set learner.learning_rate=3e-4
    env.num_envs=16. The paths are those that afterwit train PRESET --help lists, with underscores;
    values are JSON or words."""
    report_only: bool = False
    """Train nothing; write the report of all that the folder holds, finished or not."""


@dataclass(frozen=True)
class Drill:
    """Try faults on tiny runs, for real: kill and interrupt them, fill their disk, break their
    environment, damage their files, each at a random moment. Each run is brought to its end
    afterwards and must be, bit for bit, the run that nothing happened to."""

    times: int = 5
    """Moments at which each fault is tried."""
    faults: tuple[str, ...] = ()
    """Only these faults."""
    seed: int = 0
    """Seed of the moments."""
    soak: float | None = None
    """Instead of the faults: train the maze for so many minutes, and see whether memory, threads,
    files or processes grow.
    """
    cluster: bool = False
    """The soak runs on a local Ray cluster, and an actor of it is killed every minute."""
    out: Path = OUT / "drill"
    """Folder for drill.md and drill.json (or soak.csv and soak.png), and for runs that a fault cost
    more than the promise.
    """
