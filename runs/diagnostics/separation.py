"""The separation benchmark: do world models pay for news and not for noise?

Each model learns from logs for some seconds, without a policy, and is then judged on held-out logs
with all three kinds of transitions. The logs are of small made-up worlds (`separation_worlds.py`),
or of random play of an Atari game (`separation_atari.py`). It is trained and judged through
`IntrinsicReward` alone, so a config that does well here behaves the same in anybody's agent. The
reward is unclipped, in units of its running deviation. `prioritise` is off, because clipping makes
everything below the mean 0, and medians and AUC of ties say little. A positive factor changes
neither AUC nor ratios. The deviation only makes models comparable.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from afterwit.envs.arrays import Array
from afterwit.envs.checks import check_numbers
from afterwit.runs.diagnostics.separation_atari import ATARI_WORLDS, AtariLogs
from afterwit.runs.diagnostics.separation_play import ENVIRONMENTS, draw, keep, read
from afterwit.runs.diagnostics.separation_verdicts import judge, judge_parts, summarise
from afterwit.runs.diagnostics.separation_world import KINDS, Sizes, World
from afterwit.runs.diagnostics.separation_worlds import WORLDS
from afterwit.runs.output.files import check_kind, checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.world_models import IntrinsicReward, ModelConfig
from afterwit.world_models.intrinsic_reward import LEARNING_RATE
from afterwit.world_models.registry import WORLD_MODELS, find_model


@dataclass(frozen=True)
class SeparationConfig:
    """World models on logged transitions: is news paid more than noise?"""

    models: tuple[str, ...] = tuple(WORLD_MODELS)
    """World models to judge."""
    worlds: tuple[str, ...] = tuple(WORLDS)
    """Worlds in which to judge them. Those of Atari, such as private-eye-on-demand, are judged only
    where they are named here."""
    seeds: int = 3
    """Repetitions, each with its own map, logs and weights."""
    updates: int | None = None
    """Optimiser steps of each training. Unset: 600, and 240 in a world of Atari."""
    steps: int | None = None
    """Agent steps of each environment in one update (T). Unset: 10, and 20 in a world of Atari."""
    batch: int | None = None
    """Environments in one update (B). The critic of BYOL-Hindsight compares B z. Unset: 64, and 16
    in a world of Atari."""
    log_steps: int = 64_000
    """Agent steps of the log of an Atari world, over its 16 environments."""
    learning_rate: float = LEARNING_RATE
    """Adam's learning rate."""
    configs: Annotated[dict[str, ModelConfig], tyro.conf.arg(name="")] = field(
        default_factory=lambda: {name: model.Config() for name, model in WORLD_MODELS.items()}
    )
    """The config of each model."""

    def __post_init__(self) -> None:
        check_numbers(self)
        for name, chosen in (("model", self.models), ("world", self.worlds)):
            if not chosen or len(set(chosen)) < len(chosen):
                raise ValueError(
                    f"{name}s is {' '.join(chosen)!r}; name at least one {name}, each once"
                )
        known = [*WORLDS, *ATARI_WORLDS]
        unknown = [world for world in self.worlds if world not in known]
        if unknown:
            raise ValueError(f"unknown world {unknown[0]!r}; choose from {', '.join(known)}")
        leasts = {"seeds": 1, "updates": 1, "steps": 1, "batch": 3, "log_steps": ENVIRONMENTS}
        for name, least in leasts.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")
        for name, world in itertools.product(self.models, self.worlds):
            sizes = self.sizes(world)
            try:
                self.model(name).check_batch(sizes.steps, sizes.batch)
            except ValueError as error:
                text = f"steps is {sizes.steps}, batch is {sizes.batch}"
                raise ValueError(f"{name}: {error} ({text})") from error

    def sizes(self, world: str) -> Sizes:
        """Return the sizes of a training in a world."""
        kind = ATARI_WORLDS.get(world) or WORLDS[world]
        return Sizes(
            self.updates or kind.sizes.updates,
            self.steps or kind.sizes.steps,
            self.batch or kind.sizes.batch,
        )

    def model(self, name: str) -> ModelConfig:
        """Return the unclipped config of a model by its name; the default of one of your own."""
        config = self.configs[name] if name in self.configs else find_model(name).Config()
        return replace(config, prioritise=False)


def benchmark_separation(
    config: SeparationConfig, jobs: int, out: Path | None, progress: bool = True
) -> dict[str, Any]:
    """Judge every model in every world with every seed.

    Args:
      config: what to judge.
      jobs: trainings at a time.
      out: JSON file; a figure goes beside it. Unset: nothing is written.
      progress: whether to show a progress bar.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; it must be at least 1")
    if out is not None and out.suffix != ".json":
        raise ValueError(
            f"out is {str(out)!r}; it must end in .json (the picture goes beside it, as .png)"
        )
    tasks = [
        (world, model, seed)
        for seed in range(config.seeds)
        for world in config.worlds
        for model in config.models
    ]
    check_kind(out, "wall_seconds")
    with checked_outputs(*([out, out.with_suffix(".png")] if out is not None else [])):
        return judge_all(config, tasks, jobs, out, progress)


def judge_all(
    config: SeparationConfig,
    tasks: Sequence[tuple[str, str, int]],
    jobs: int,
    out: Path | None,
    progress: bool,
) -> dict[str, Any]:
    """Judge all `tasks` (world, model, seed), and write the result."""
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        bar = tqdm(
            run_all(config, tasks, jobs, Path(folder)),
            desc="separation",
            total=len(tasks),
            unit="training",
            disable=not progress,
            file=sys.stdout,
        )
        runs = sorted(bar, key=lambda run: tasks.index((run["world"], run["model"], run["seed"])))
    result = {
        "summary": summarise(config.worlds, config.models, runs),
        "runs": runs,
        "wall_seconds": time.perf_counter() - start,
        "config": asdict(config),
        "provenance": provenance(),
    }
    if out is not None:
        # late import: it needs matplotlib, which is slow to import
        from afterwit.runs.diagnostics.separation_figure import draw

        draw(result, out.with_suffix(".png"))
        kept = result | {
            "runs": [
                {name: value for name, value in run.items() if name != "rewards"} for run in runs
            ]
        }
        write_json(out, kept)
    return result


def run_all(
    config: SeparationConfig, tasks: Sequence[tuple[str, str, int]], jobs: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield the results of all tasks in the order in which they end.

    With one job they run in this process, with more in processes of one thread each. Logs of Atari
    are kept in `folder`.
    """
    if jobs == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for task in tasks:
                yield separate(config, *task, folder)
        finally:
            torch.set_num_threads(threads)
        return
    with ProcessPoolExecutor(
        min(jobs, len(tasks)), multiprocessing.get_context("spawn"), start_worker
    ) as pool:
        drawn = dict.fromkeys((world, seed) for world, _, seed in tasks)
        try:
            # before the trainings, so that no two processes draw the same log
            for ready in [pool.submit(keep_log, config, *each, folder) for each in drawn]:
                ready.result()
            futures = [pool.submit(separate, config, *task, folder) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def start_worker() -> None:
    torch.set_num_threads(1)  # networks this small only lose time to a second thread
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it silently; the parent prints


def separate(
    config: SeparationConfig, world: str, model: str, seed: int, folder: Path
) -> dict[str, Any]:
    """Train `model` on familiar and noisy transitions of `world`, and judge it on held-out ones.

    The held-out transitions are of all three kinds.
    """
    place, sizes = make_place(config, world, seed, folder), config.sizes(world)
    logs = place.judged_logs(sizes.steps, sizes.batch, np.random.default_rng([seed, 2]))
    start = time.process_time()
    curiosity = IntrinsicReward(
        config.model(model),
        place.observations,
        place.actions,
        seed=seed,
        torso=place.torso,
        learning_rate=config.learning_rate,
    )
    random = np.random.default_rng([seed, 1])
    try:
        for _ in range(sizes.updates):
            log = place.training_log(sizes.steps, sizes.batch, random)
            metrics = curiosity.update(log.obs, log.action, log.done)
    except FloatingPointError as error:
        raise ValueError(f"{model} in {world}, seed {seed}: {error}") from error
    trained = time.process_time() - start
    rewards = [curiosity.reward(log.obs, log.action, log.done) for log in logs]
    paid, kinds = flat(rewards), flat([log.kind for log in logs])
    parts = {name: flat([log.parts[name] for log in logs]) for name in logs[0].parts}
    instruments = curiosity.inspect(logs[0].obs, logs[0].action, logs[0].done)
    return {
        "world": world,
        "model": model,
        "seed": seed,
        **asdict(sizes),
        **place.facts,
        **judge([paid[kinds == kind] for kind in range(len(KINDS))]),
        "parts": judge_parts(paid, kinds, parts),
        "instruments": instruments,
        "metrics": metrics,
        "cpu_seconds": trained,
    }


def flat(arrays: Sequence[Array]) -> Array:
    """Return the values of arrays [T, B], whose B may differ, as one row."""
    return np.concatenate([array.ravel() for array in arrays])


def make_place(config: SeparationConfig, world: str, seed: int, folder: Path) -> World | AtariLogs:
    """Return a world with the map or the log of a seed. A log of Atari is kept in `folder`."""
    if world in WORLDS:
        return WORLDS[world](seed)
    keep_log(config, world, seed, folder)
    return AtariLogs(ATARI_WORLDS[world], read(log_folder(config, world, seed, folder)))


def keep_log(config: SeparationConfig, world: str, seed: int, folder: Path) -> None:
    """Draw the log of a seed in `folder`, if `world` is one of Atari and the log is not there."""
    kept = log_folder(config, world, seed, folder)
    if world in ATARI_WORLDS and not kept.exists():
        steps = config.log_steps // ENVIRONMENTS
        keep(draw(ATARI_WORLDS[world].config(), steps, seed), kept)


def log_folder(config: SeparationConfig, world: str, seed: int, folder: Path) -> Path:
    return folder / f"{world}-{seed}-{config.log_steps}"
