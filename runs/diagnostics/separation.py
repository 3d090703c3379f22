"""The separation benchmark: do world models pay for news and not for noise?

Each model learns from logs for some seconds, without a policy, and is then judged on held-out logs
with all three kinds of transitions (`separation_worlds.py`). It is trained and judged through
`IntrinsicReward` alone, so a config that does well here behaves the same in anybody's agent. The
reward is unclipped, in units of its running deviation. `prioritise` is off, because clipping makes
everything below the mean 0, and medians and AUC of ties say little. A positive factor changes
neither AUC nor ratios. The deviation only makes models comparable.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box, Discrete
from tqdm import tqdm

from afterwit.envs.checks import check_numbers
from afterwit.runs.diagnostics.separation_verdicts import judge, summarise
from afterwit.runs.diagnostics.separation_world import ACTIONS, CHANNELS, KINDS, VIEW, Log, World
from afterwit.runs.diagnostics.separation_worlds import WORLDS
from afterwit.runs.output.files import checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.world_models import IntrinsicReward, ModelConfig
from afterwit.world_models.intrinsic_reward import LEARNING_RATE
from afterwit.world_models.registry import WORLD_MODELS, find_model

UNSEEN = 1 / 3  # share of held-out environments that start in never-seen places
JUDGED = 8  # held-out logs


@dataclass(frozen=True)
class SeparationConfig:
    """World models on logged transitions: is news paid more than noise?"""

    models: tuple[str, ...] = tuple(WORLD_MODELS)
    """World models to judge."""
    worlds: tuple[str, ...] = tuple(WORLDS)
    """Worlds in which to judge them."""
    seeds: int = 3
    """Repetitions, each with its own map, logs and weights."""
    updates: int = 600
    """Optimiser steps of each training."""
    steps: int = 10
    """Agent steps of each environment in one update (T)."""
    batch: int = 64
    """Environments in one update (B). The critic of BYOL-Hindsight compares B z."""
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
        unknown = [world for world in self.worlds if world not in WORLDS]
        if unknown:
            raise ValueError(f"unknown world {unknown[0]!r}; choose from {', '.join(WORLDS)}")
        for name, least in (("seeds", 1), ("updates", 1), ("steps", 1), ("batch", 3)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")
        for name in self.models:
            config = self.model(name)
            try:
                config.check_batch(self.steps, self.batch)
            except ValueError as error:
                sizes = f"steps is {self.steps}, batch is {self.batch}"
                raise ValueError(f"{name}: {error} ({sizes})") from error

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
    bar = tqdm(
        run_all(config, tasks, jobs),
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
    config: SeparationConfig, tasks: Sequence[tuple[str, str, int]], jobs: int
) -> Iterator[dict[str, Any]]:
    """Yield the results of all tasks in the order in which they end.

    With one job they run in this process, with more in processes of one thread each.
    """
    if jobs == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for task in tasks:
                yield separate(config, *task)
        finally:
            torch.set_num_threads(threads)
        return
    with ProcessPoolExecutor(
        min(jobs, len(tasks)), multiprocessing.get_context("spawn"), start_worker
    ) as pool:
        futures = [pool.submit(separate, config, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def start_worker() -> None:
    torch.set_num_threads(1)  # networks this small only lose time to a second thread
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it silently; the parent prints


def separate(config: SeparationConfig, world: str, model: str, seed: int) -> dict[str, Any]:
    """Train `model` on familiar and noisy transitions of `world`, and judge it on held-out ones.

    The held-out transitions are of all three kinds.
    """
    start = time.process_time()
    place = WORLDS[world](seed)
    views, actions = Box(0, 255, (len(CHANNELS), VIEW, VIEW), np.uint8), Discrete(ACTIONS)
    curiosity = IntrinsicReward(
        config.model(model), views, actions, seed=seed, learning_rate=config.learning_rate
    )
    random = np.random.default_rng([seed, 1])
    try:
        for _ in range(config.updates):
            log = place.log(config.steps, config.batch, 0.0, random)
            metrics = curiosity.update(log.obs, log.action, log.done)
    except FloatingPointError as error:
        raise ValueError(f"{model} in {world}, seed {seed}: {error}") from error
    trained = time.process_time() - start
    logs = held_out(place, config, seed)
    rewards = np.stack([curiosity.reward(log.obs, log.action, log.done) for log in logs])
    kinds = np.stack([log.kind for log in logs])
    verdicts = judge([rewards[kinds == kind] for kind in range(len(KINDS))])
    instruments = curiosity.inspect(logs[0].obs, logs[0].action, logs[0].done)
    return {
        "world": world,
        "model": model,
        "seed": seed,
        **verdicts,
        "instruments": instruments,
        "metrics": metrics,
        "cpu_seconds": trained,
    }


def held_out(world: World, config: SeparationConfig, seed: int) -> list[Log]:
    """Return held-out logs of a world."""
    random = np.random.default_rng([seed, 2])
    return [world.log(config.steps, config.batch, UNSEEN, random) for _ in range(JUDGED)]
