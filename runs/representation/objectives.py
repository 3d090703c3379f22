"""Objectives compared: one table of what encoders know after the same frames and updates.

Each row is one encoder: an objective, a game and a seed. Rows go to a CSV file, so a comparison
goes on where it stopped, and new objectives are added without training the others again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afterwit.envs.checks import check_counts
from afterwit.envs.make import EnvConfig
from afterwit.runs.configs.overrides import changed
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.output.files import checked_outputs, sole_writer, write_csv
from afterwit.runs.output.provenance import commit
from afterwit.runs.representation.encoders import frames_reader
from afterwit.runs.representation.feature_scores import score_features
from afterwit.runs.representation.frame_log import FrameLog, log_game
from afterwit.runs.representation.linear_probe import HOUSE
from afterwit.runs.representation.pretrain import check_objective, pretrain
from afterwit.world_models.instruments import effective_rank, spread

# Fewer and larger steps than AtariARI's, so that a row takes seconds. The same for all rows.
PROBE = replace(HOUSE, batch=256, epochs=30, patience=8, min_episode=64)
PLACE = ("environment", "objective", "seed")
NUMBERS = ("steps", "updates")
MEASURES = ("mean", "rank", "spread", "seconds_per_1000")
READ = 4096  # frames whose embeddings give rank and spread


def log_for(config: EnvConfig, steps: int) -> FrameLog:
    """The frames that all encoders of a world learn from and are judged on: a random policy's.

    Raises:
      ValueError: `steps` is below 1, or the world has no labels.
    """
    check_counts(steps=steps)
    return log_game(config, max(2, steps // config.num_envs), seed=0)


def world_name(config: EnvConfig) -> str:
    """The game's name, or the kind of world."""
    return str(getattr(config, "game", type(config).__name__.removesuffix("Config").lower()))


def compare(
    config: RunConfig,
    games: Sequence[str],
    objectives: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    updates: int,
    out: Path,
    progress: bool = True,
    tell: Callable[[str], None] = lambda words: None,
) -> list[dict[str, Any]]:
    """Train and probe what is not yet in the CSV file `out`. Returns all of its rows.

    Args:
      config: A run whose environment and torso are used; its game is replaced.
      games: Names of games. Empty: the config's own world.
      objectives: Names in OBJECTIVES.
      seeds: One encoder each.
      steps: Agent steps that are logged, over all environments.
      updates: Optimiser steps of each encoder.
      out: The file.
      progress: Whether to show bars.
      tell: Takes a line of progress.

    Raises:
      ValueError: A name is unknown, the file is not such a table, or it was made with other numbers
        of steps or updates.
    """
    for objective in objectives:
        check_objective(objective, updates)
    envs = [changed(config, "env.game", game).env for game in games] if games else [config.env]
    torch.set_num_threads(config.threads)
    rows = read_table(out)
    with checked_outputs(out):
        for row in rows:
            wrong = [n for n, v in (("steps", steps), ("updates", updates)) if row[n] != str(v)]
            if wrong:
                raise ValueError(
                    f"{out} has rows with {wrong[0]} {row[wrong[0]]}; use the same, or another file"
                )
        for env in envs:
            log: FrameLog | None = None
            for seed in seeds:
                for objective in objectives:
                    place = dict(zip(PLACE, (world_name(env), objective, str(seed)), strict=True))
                    if is_in(read_table(out), place):  # another process may have added it
                        continue
                    tell(f"{place['environment']}, {objective}, seed {seed}")
                    if log is None:
                        log = log_for(env, steps)
                    row = judged(objective, log, config, updates, seed, progress)
                    with sole_writer(out):
                        rows = read_table(out)
                        if not is_in(rows, place):
                            rows.append({**place, "steps": steps, "updates": updates, **row})
                            write_table(out, rows)
        return read_table(out)


def is_in(rows: Sequence[Mapping[str, Any]], place: Mapping[str, str]) -> bool:
    return any(all(row[name] == value for name, value in place.items()) for row in rows)


def judged(
    objective: str, log: FrameLog, config: RunConfig, updates: int, seed: int, progress: bool
) -> dict[str, Any]:
    """Train one encoder and probe it."""
    trained = pretrain(objective, log, config.learner.torso, updates, seed, progress=progress)
    encoder = trained.encoder.eval()
    features = frames_reader(encoder)(log)
    result = score_features(log, {objective: lambda _: features}, seed, PROBE)
    embeddings = features[:: max(1, len(features) // READ)][None]
    everywhere = torch.ones(embeddings.shape[:2], dtype=torch.bool)
    column = result["columns"][objective]
    categories = {f"F1 {name}": value for name, value in column["categories"].items()}
    return {
        "mean": column["mean"],
        "majority": result["columns"]["majority"]["mean"],
        "rank": float(effective_rank(embeddings, everywhere)),
        "spread": float(spread(embeddings, everywhere)),
        "seconds_per_1000": 1000 * trained.seconds / updates,
        **categories,
        "commit": commit() or "",
    }


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a table of objectives. None if the file is missing.

    Raises:
      ValueError: It is no such table.
    """
    if not path.is_file():
        return []
    try:
        reader = csv.DictReader(io.StringIO(path.read_text("utf-8"), newline=""), strict=True)
        rows, head = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table ({error}); name another") from error
    missing = [name for name in (*PLACE, *NUMBERS, *MEASURES) if name not in head]
    if missing:
        raise ValueError(
            f"{path} has no column {missing[0]!r}, so it is no table of objectives; name another"
            " file"
        )
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; numbers have four digits."""
    rounded = [
        {n: f"{v:.4g}" if isinstance(v, float) else v for n, v in row.items()} for row in rows
    ]
    write_csv(path, rounded)


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean F1 over seeds: objective -> environment -> mean, in the order of the rows."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        by_world = found.setdefault(row["objective"], {})
        by_world.setdefault(row["environment"], []).append(float(row["mean"]))
    return {
        objective: {world: float(np.mean(values)) for world, values in worlds.items()}
        for objective, worlds in found.items()
    }


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The means as text: a line per objective, a column per world."""
    table = means(rows)
    worlds = list(dict.fromkeys(row["environment"] for row in rows))
    lines = ["weighted F1".ljust(18) + "".join(world[:16].rjust(18) for world in worlds)]
    for objective, by_world in table.items():
        cells = [f"{by_world[world]:.2f}" if world in by_world else "-" for world in worlds]
        lines.append(objective.ljust(18) + "".join(cell.rjust(18) for cell in cells))
    return "\n".join(lines)
