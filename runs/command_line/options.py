"""The options of each command and their help. tyro makes command lines of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import tyro

from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.diagnostics.separation import SeparationConfig
from afterwit.runs.output.provenance import cores
from afterwit.runs.training.checkpoint import NAME

OUT = Path("runs/out")
T = TypeVar("T")


def at_home(value: T) -> T:
    """`value` with a leading ~ or ~user of every path in it replaced by that home folder.

    Raises:
      ValueError: there is no such user.
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
    """New folder for the run. Unset: runs/out/ and preset, method, game or id, noise and seed."""
    quiet: bool = False
    """Show no progress bar."""


@dataclass(frozen=True)
class Evaluate:
    """Play whole episodes with a trained agent and write RUN/evaluation.json. Nothing is learnt."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    episodes: int = 100
    """Episodes to play."""
    greedy: bool = False
    """Take the likeliest action instead of drawing one."""
    seed: int = 1_000_000
    """Seed of environments and draws. Training uses small seeds."""
    video: bool = False
    """Also write RUN/video.mp4: the first episode above a strip of its intrinsic reward."""
    set: tuple[str, ...] = ()
    """Rules that differ from training's. On Atari: --set sticky=0 noop_max=1; in the maze: --set
    noise=none. The result names them."""
    out: Path | None = None
    """Folder for evaluation.json and video.mp4. Unset: the run folder. An evaluation with other
    settings is not replaced."""
    checkpoint: str = NAME
    """Which checkpoint: the name of its file, or best."""
    max_steps: int | None = None
    """Stop after so many agent steps of each environment (rounded up to whole unrolls), even if
    episodes go on. The result says what is missing. Unset: no limit."""


@dataclass(frozen=True)
class Watch:
    """Look at a run while it trains: a page on this machine that refreshes itself.

    It has the progress, the curves so far, a film of the newest checkpoint, and the map of where
    the agent was. The run folder is only read.
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    port: int = 0
    """Port of the page on 127.0.0.1. 0: any free one, which is printed."""
    open: bool = False
    """Open the page in a browser."""


@dataclass(frozen=True)
class Scores:
    """Aggregate the evaluations of runs over seeds and games.

    Prints interquartile mean, median and mean with intervals, and the probability that one method
    beats another. A method is a world model or the random policy; a task is a game with its noise.
    Runs that differ in more than their seed are methods or tasks of their own, named by it.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, each with an evaluation.json (afterwit evaluate RUN)."""
    measure: str | None = None
    """The number to compare, such as return, cells or R4. Unset: the human-normalised score, or the
    return."""
    out: Path = OUT / "scores"
    """Folder for scores.json and scores.png."""


@dataclass(frozen=True)
class Probe:
    """Show what would have happened with another z: a picture and numbers, for byol-hindsight.

    Keeps place and action of a transition, gives the model the z of others, and looks up the real
    observation nearest to what it imagines. If z is noise alone, the noise changes and the place
    stays.
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    queries: int = 6
    """Transitions in the picture, half of them with noise in view. At most 20."""
    swaps: int = 6
    """Other z to try for each transition. At most 20."""
    steps: int = 16_000
    """Agent steps to play first, over all environments. All transitions come from these."""
    seed: int = Evaluate.seed
    """Seed of environments and draws. Training uses small seeds."""
    out: Path | None = None
    """Folder for probe.json and probe.png. Unset: the run folder. A result with other settings is
    not replaced."""


@dataclass(frozen=True)
class StateProbe:
    """Probe what a run's networks know of the world's state, by category: numbers and a picture.

    Linear probes read the game's RAM (mazes and grids: what the environment declares) from the
    frozen embeddings and beliefs of a checkpoint, beside majority, random networks of the same
    architecture, and the same encoder trained on the labels. With --published GAME it repeats
    AtariARI (Anand et al., 2019) instead.
    """

    run: tyro.conf.Positional[Path | None] = None
    """Run folder. Leave it out with --published."""
    published: str | None = None
    """Game on which to repeat AtariARI, such as MontezumaRevenge: majority and a random CNN, with a
    random agent and no sticky actions."""
    steps: int | None = None
    """Agent steps to play, over all environments. Unset: 30,000; with --published the paper's
    50,000."""
    policy: Literal["agent", "random"] = "agent"
    """Who plays: the run's agent, or random actions."""
    supervised_epochs: int | None = None
    """Epochs that the encoder is trained on the labels, at most; 0 leaves it out. Unset: 10; with
    --published 0, as it takes hours on a CPU."""
    encoder: tuple[Path, ...] = ()
    """Files of afterwit pretrain, a column each, read on the run's frames."""
    frames: Path | None = None
    """A log of frames to read instead of playing, so that runs compare on the same frames."""
    save_frames: Path | None = None
    """New folder in which to keep the log of frames."""
    checkpoint: str = NAME
    """Which checkpoint: the name of its file, or best."""
    seed: int | None = None
    """Seed of environments, draws, random weights and probes. Unset: 1,000,000; with --published
    the authors' 42."""
    out: Path | None = None
    """Folder for state-probe.json and state-probe.png. Unset: the run folder; with --published
    runs/out/state-probe-GAME. A result with other settings is not replaced."""


@dataclass(frozen=True)
class Pretrain:
    """Log frames of a random policy, train an encoder on them, and write it as safetensors.

    A run starts from it with --learner.torso.init FILE.
    """

    objective: tyro.conf.Positional[str]
    """What it is trained by: random (nothing), byol-explore, byol-hindsight, linear, direct-pred,
    direct-copy, isoloss, isoloss-published, dispersion, brownian, centroid, vididi, vididi-byol,
    vicreg, clips-byol and slap (which needs --set env.backend=sound)."""
    preset: str = "atari-small"
    """The preset whose environment and torso are used."""
    game: str | None = None
    """An Atari game. Unset: the preset's."""
    steps: int = 100_000
    """Agent steps to log, over all environments."""
    updates: int = 4_000
    """Optimiser steps, of 336 frames each."""
    seed: int = 0
    """Seed of weights and draws. The frames are the same for all seeds."""
    set: tuple[str, ...] = ()
    """Changes to env, learner.torso and threads of the preset: --set env.frame_stack=4
    learner.torso.embedding=256."""
    out: Path | None = None
    """The file. Unset: runs/out/OBJECTIVE-WORLD-sSEED.safetensors. One that was made with other
    settings is not replaced."""


@dataclass(frozen=True)
class Objectives:
    """Train one encoder for each objective, game and seed on the same frames, and probe them all.

    Rows go to a CSV file. What is there is not trained again. Rows of one world must have the same
    settings.
    """

    objectives: tuple[str, ...] = ("random", "byol-explore", "direct-pred", "vididi")
    """Objectives, as of afterwit pretrain. All of them see the same frames."""
    games: tuple[str, ...] | None = None
    """Atari games. Unset: MontezumaRevenge, PrivateEye and Freeway, or with a preset of another
    world that world. Without a name after it: the preset's own game."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One encoder each."""
    preset: str = "atari-small"
    """The preset whose environment and torso are used."""
    steps: int = 100_000
    """Agent steps to log for each game, over all environments."""
    updates: int = 4_000
    """Optimiser steps of each encoder."""
    set: tuple[str, ...] = ()
    """Changes to the preset: --set env.frame_stack=4."""
    out: Path = OUT / "objectives.csv"
    """The file of rows. A picture goes beside it."""


@dataclass(frozen=True)
class Report:
    """Compare runs side by side in one self-contained HTML page."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or one ledger of a study (FILE.csv)."""
    out: Path = OUT / "report"
    """Folder for report.html and the PNGs."""


@dataclass(frozen=True)
class Benchmark:
    """Measure a preset's speed: stepping, acting, learning, and the whole loop."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    seconds: float = 5.0
    """Seconds for each measurement."""
    grow: bool = False
    """Also measure the other world models, other horizons K, half and twice the environments."""
    baseline: bool = False
    """Also measure a plain synchronous PPO + RND on the same environments."""
    simulated_actors: tuple[int, ...] = ()
    """Measure the learner with these numbers of simulated actors, e.g. 10 50 100, and predict 10 to
    400 real ones. Needs --cluster."""
    simulated_rate: float = 113.0
    """Agent steps per second of a simulated actor. The default is that of one of the 400 actors of
    the published runs."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Separation:
    """Measure whether world models pay for news and not for noise.

    They learn from logs, without a policy, for some seconds each.
    """

    config: Annotated[SeparationConfig, tyro.conf.arg(name="")] = field(
        default_factory=SeparationConfig
    )
    jobs: int = field(default_factory=cores)
    """Trainings at a time, on one core each."""
    out: Path | None = None
    """JSON file for all numbers; a picture goes beside it. Unset: only print the table."""


@dataclass(frozen=True)
class Demo:
    """Train BYOL-Explore and BYOL-Hindsight in two noisy mazes, and write a report."""

    out: Path = OUT / "demo"
    """Folder for the runs and the report. An unfinished demo in it goes on."""
    steps: int = 1_500_000
    """Agent steps of each of the four runs."""
    seed: int = 0
    """Seed of all runs. One seed shows little: docs/results/maze-mended.md has five."""


@dataclass(frozen=True)
class StudyOptions:
    """Which part of the study to run, and how."""

    worlds: tuple[str, ...] | None = None
    """Only these worlds. Unset: all of the study's."""
    methods: tuple[str, ...] | None = None
    """Only these methods. Unset: all of the study's."""
    seeds: tuple[int, ...] | None = None
    """These seeds instead of the study's own."""
    jobs: int = field(default_factory=cores)
    """Runs at a time, one process each. Unset: one for each core."""
    out: Path | None = None
    """The study's folder. Unset: runs/out/study-NAME. Finished runs in it are kept, others go on,
    and new worlds, methods and seeds are added."""
    total_steps: int | None = None
    """Agent steps of each run, over all environments. Unset: the preset's."""
    set: tuple[str, ...] = ()
    """Changes to every run, as path=value: --set learner.learning_rate=3e-4 env.num_envs=16. The
    paths are the options of a run, with underscores."""
    report_only: bool = False
    """Train nothing. Write the report of what the folder holds, finished or not."""
    ledger: Path | None = None
    """CSV file with a row per finished run. Its runs are not trained again; new ones are added."""
    check: Path | None = None
    """Train nothing. Compare the rows of --ledger with the runs in this study folder."""


@dataclass(frozen=True)
class Drill:
    """Break tiny runs on purpose, each at a random moment, and see what is lost.

    They are killed and interrupted, their disk fills, their environment breaks, their files are
    damaged. Each run is then resumed and must end, bit for bit, as if nothing had happened.
    """

    times: int = 5
    """How many times each fault is tried, at another moment each time."""
    faults: tuple[str, ...] | None = None
    """Only these faults. Unset: all. An unknown name lists them."""
    seed: int = 0
    """Seed of the moments."""
    soak: float | None = None
    """Instead of the faults: train for so many minutes, and see whether memory, threads, files or
    processes grow."""
    cluster: bool = False
    """Soak on a local Ray cluster, and kill one of its actors every minute."""
    out: Path = OUT / "drill"
    """Folder for the tables, and for the runs that lost more than they should. Tables with other
    settings are not replaced."""
