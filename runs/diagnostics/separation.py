"""Do world models pay for news and not for noise? Each learns from logs for some seconds, no policy
in the loop, and is judged.

`separation_worlds.py` has the worlds and says what is familiar, noisy and novel in them. A model is
trained and judged through `IntrinsicReward` alone, so a config that does well here does the same in
anybody's agent. Judged is the unclipped reward in units of the running deviation (prioritise off:
clipping ties everything below the mean at 0, and medians and the AUC of ties say little). A
positive factor changes neither AUC nor ratios, so raw rewards give the same verdicts; the deviation
only makes models comparable. Held-out logs mix the three kinds; nothing is learnt from them.
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

from afterwit.envs.arrays import Array
from afterwit.envs.checks import check_numbers
from afterwit.runs.diagnostics.separation_worlds import (
    ACTIONS,
    CHANNELS,
    KINDS,
    NOISY,
    NOVEL,
    VIEW,
    WORLDS,
    Log,
    World,
)
from afterwit.runs.output.files import checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.world_models import IntrinsicReward, ModelConfig
from afterwit.world_models.intrinsic_reward import LEARNING_RATE
from afterwit.world_models.registry import WORLD_MODELS, find_model

# AUC: from here on news stands out from noise; up to here noise pays as much as news or more
SEPARATED, TRAPPED = 0.98, 0.5
LEAKS = 0.02  # ratio: noise that pays more than this share of what news pays still draws an agent
UNSEEN = 1 / 3  # share of held-out environments that start among never-seen places
JUDGED = 8  # held-out logs
DOTS = 120  # rewards of each kind that a result keeps for the picture


@dataclass(frozen=True)
class SeparationConfig:
    """World models on logged transitions: is news paid more than noise?"""

    models: tuple[str, ...] = tuple(WORLD_MODELS)
    """World models to judge."""
    worlds: tuple[str, ...] = tuple(WORLDS)
    """Worlds to judge them in."""
    seeds: int = 3
    """Repetitions, each with a map, logs and weights of its own."""
    updates: int = 600
    """Optimiser steps of each training."""
    steps: int = 10
    """Agent steps of each environment in one update (T)."""
    batch: int = 64
    """Environments in one update (B). For BYOL-Hindsight also the number of z that the critic tells
    apart.
    """
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
        """The config of a model by its name, unclipped; of one of your own, its default."""
        config = self.configs[name] if name in self.configs else find_model(name).Config()
        return replace(config, prioritise=False)


def benchmark_separation(
    config: SeparationConfig, jobs: int, out: Path | None, progress: bool = True
) -> dict[str, Any]:
    """Judge every model in every world with every seed, `jobs` at a time; write JSON to `out` and a
    picture beside it.
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
    """All `tasks` (world, model, seed), judged and written."""
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
        "summary": summarise(config, runs),
        "runs": runs,
        "wall_seconds": time.perf_counter() - start,
        "config": asdict(config),
        "provenance": provenance(),
    }
    if out is not None:
        # imports matplotlib, which the table need not wait for
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
    """The results of all tasks in the order in which they end. One process: here; more: in
    processes of one thread each.
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word; the parent speaks


def separate(config: SeparationConfig, world: str, model: str, seed: int) -> dict[str, Any]:
    """Train `model` on familiar and noisy transitions of `world`, and judge it on held-out ones of
    all three kinds.
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
    random = np.random.default_rng([seed, 2])
    return [world.log(config.steps, config.batch, UNSEEN, random) for _ in range(JUDGED)]


def judge(rewards: Sequence[Array]) -> dict[str, Any]:
    """Numbers from the rewards [n] of each kind, in the order of KINDS. `ratio` is of medians,
    noisy to novel.
    """
    medians = [float(np.median(values)) for values in rewards]
    return {
        "median": dict(zip(KINDS, medians, strict=True)),
        "mean": {kind: float(values.mean()) for kind, values in zip(KINDS, rewards, strict=True)},
        "count": {kind: len(values) for kind, values in zip(KINDS, rewards, strict=True)},
        "auc": auc(rewards[NOVEL], rewards[NOISY]),
        "ratio": medians[NOISY] / medians[NOVEL] if medians[NOVEL] > 0 else float("inf"),
        "rewards": {
            kind: values[:: max(1, len(values) // DOTS)][:DOTS].tolist()
            for kind, values in zip(KINDS, rewards, strict=True)
        },
    }


def auc(news: Array, noise: Array) -> float:
    """The probability that a draw from `news` [n] is above one from `noise` [m], ties half:
    Mann-Whitney's U / (n m), exact.
    """
    ordered = np.sort(noise)
    below, up_to = np.searchsorted(ordered, news, "left"), np.searchsorted(ordered, news, "right")
    return float((below + up_to).sum() / (2 * len(news) * len(noise)))


def summarise(config: SeparationConfig, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a world and model: over seeds, medians of the numbers, lowest and highest AUC, and
    the verdict.
    """
    entries = []
    for world in config.worlds:
        for model in config.models:
            own = [run for run in runs if (run["world"], run["model"]) == (world, model)]
            aucs, ratio = (
                [run["auc"] for run in own],
                float(np.median([run["ratio"] for run in own])),
            )
            entries.append(
                {
                    "world": world,
                    "model": model,
                    "median": {
                        kind: float(np.median([run["median"][kind] for run in own]))
                        for kind in KINDS
                    },
                    "auc": float(np.median(aucs)),
                    "auc_lowest": min(aucs),
                    "auc_highest": max(aucs),
                    "ratio": ratio,
                    "spread": spread_of(own, "spread/target"),
                    "spread_of_embeddings": spread_of(own, "spread/embedding"),
                    "verdict": verdict(float(np.median(aucs)), ratio),
                    "cpu_seconds": float(np.median([run["cpu_seconds"] for run in own])),
                }
            )
    return entries


def spread_of(runs: Sequence[dict[str, Any]], name: str) -> float | None:
    """Median over runs of an instrument; None for models that do not have it."""
    found = [run["instruments"][name] for run in runs if name in run["instruments"]]
    return float(np.median(found)) if found else None


def verdict(auc: float, ratio: float) -> str:
    """ok, leaks, unclear or trapped, as VERDICTS says."""
    if auc <= TRAPPED:
        return "trapped"
    if auc < SEPARATED:
        return "unclear"
    return "ok" if ratio <= LEAKS else "leaks"


VERDICTS = {
    "ok": f"news stands out (AUC at least {SEPARATED}) and noise pays at most {LEAKS:.0%} of it",
    "leaks": "news stands out, but noise pays more than that",
    "unclear": "news and noise overlap",
    "trapped": f"noise pays as much as news, or more (AUC at most {TRAPPED})",
}


def table(result: dict[str, Any]) -> str:
    """The verdicts as text: a block a world, a row a model."""
    rows = [
        f"{'median reward of':<18}{'familiar':>9}{'noisy':>9}{'novel':>9}   AUC novel/noisy  "
        " noisy/novel  spread"
    ]
    blocks = dict.fromkeys(entry["world"] for entry in result["summary"])
    for world in blocks:
        relevant = WORLDS[world].relevant
        rows += [
            "",
            (
                f"{world}: noise that"
                f" {'decides what follows' if relevant else 'means nothing for what follows'}"
            ),
        ]
        for entry in (entry for entry in result["summary"] if entry["world"] == world):
            paid = "".join(f"{entry['median'][kind]:>9.3f}" for kind in KINDS)
            area = f"{entry['auc']:.3f} ({entry['auc_lowest']:.2f}-{entry['auc_highest']:.2f})"
            ratio = f"{entry['ratio']:.1%}" if np.isfinite(entry["ratio"]) else "-"
            wide = "-" if entry["spread"] is None else f"{entry['spread']:.3f}"
            rows.append(
                f"  {entry['model']:<16}{paid}   {area:<17}{ratio:>11}{wide:>8}  {entry['verdict']}"
            )
    rows += ["", *(f"  {word:<8} {meaning}" for word, meaning in VERDICTS.items())]
    config = result["config"]
    slowest = max(run["cpu_seconds"] for run in result["runs"])
    seeds = f"{config['seeds']} seed{'s' * (config['seeds'] > 1)}"
    rows.append(
        f"{config['updates']:,} updates of {config['steps']} steps x {config['batch']}"
        f" environments, medians of {seeds}"
    )
    rows.append(
        f"{result['wall_seconds']:,.0f} s in all; the slowest training took {slowest:.0f} s of one"
        " core"
    )
    return "\n".join(rows)
