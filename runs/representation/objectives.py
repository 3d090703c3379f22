"""Objectives compared: one table of what encoders know after the same frames and updates.

Each row is one encoder: an objective, a world and a seed. Rows go to a CSV file, so a comparison
goes on where it stopped, and new objectives are added without training the others again. A row has
the settings of its environment and torso: a file has one kind of rows for each world.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.checks import check_counts, reading_only
from afterwit.envs.make import ENVS, EnvConfig
from afterwit.runs.configs.comparison import (
    NOT_COMPARED,
    SETTINGS,
    THERE_AND_NOW,
    differences,
    flat,
    short_name,
)
from afterwit.runs.configs.contents import encoder_content
from afterwit.runs.configs.overrides import changed
from afterwit.runs.configs.run_config import RunConfig, to_dict
from afterwit.runs.output.files import checked_outputs, sole_writer, write_csv
from afterwit.runs.output.provenance import commit
from afterwit.runs.representation.encoders import frames_reader
from afterwit.runs.representation.feature_scores import score_features
from afterwit.runs.representation.frame_log import FrameLog, log_game
from afterwit.runs.representation.linear_probe import HOUSE
from afterwit.runs.representation.log_split import has_recurring_views
from afterwit.runs.representation.pretrain import check_objective, pretrain
from afterwit.world_models.instruments import effective_rank, spread
from afterwit.world_models.torso import TorsoConfig

# Fewer and larger steps than AtariARI's, so that a row takes seconds. The same for all rows.
PROBE = replace(HOUSE, batch=256, epochs=30, patience=8, min_episode=64)
PLACE = ("environment", "objective", "seed")
NUMBERS = ("steps", "updates")
MEASURES = ("mean", "rank", "spread", "seconds_per_1000")
GAMES = ("MontezumaRevenge", "PrivateEye", "Freeway")
READ = 4096  # frames whose embeddings give rank and spread


def log_for(config: EnvConfig, steps: int, labelled: bool = True) -> FrameLog:
    """The frames that all encoders of a world learn from and are judged on: a random policy's.

    Raises:
      ValueError: `steps` is below 1, or the world has no labels and these are wanted.
    """
    check_counts(steps=steps)
    return log_game(config, max(2, steps // config.num_envs), seed=0, labelled=labelled)


def compare(
    config: RunConfig,
    games: Sequence[str] | None,
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
      games: Names of games. Empty: the config's own world. Unset: GAMES, or the config's own world
        if that is not Atari.
      objectives: Names in OBJECTIVES.
      seeds: One encoder each.
      steps: Agent steps that are logged, over all environments.
      updates: Optimiser steps of each encoder.
      out: The file.
      progress: Whether to show bars.
      tell: Takes a line of progress.

    Raises:
      ValueError: No objective or seed is named, a name is unknown, an objective lacks the world's
        sound, the file is not such a table, or it has rows of other numbers of steps or updates, or
        rows of one of the worlds with other settings.
    """
    for name, given in (("objectives", objectives), ("seeds", seeds)):
        if not given:
            raise ValueError(f"{name} is empty; name at least one")
    for objective in objectives:
        check_objective(objective, updates, config.env)
    if games is None:
        games = GAMES if isinstance(config.env, AtariConfig) else ()
    envs = [changed(config, {"env.game": game}).env for game in games] if games else [config.env]
    torch.set_num_threads(config.threads)
    asked = {short_name(env): settings(env, config.learner.torso) for env in envs}

    def rows_so_far() -> list[dict[str, Any]]:  # another process may have added some
        return fitting(read_table(out), out, {"steps": steps, "updates": updates}, asked)

    rows_so_far()
    with checked_outputs(out):
        for env in envs:
            log: FrameLog | None = None
            for seed in seeds:
                for objective in objectives:
                    place = dict(zip(PLACE, (short_name(env), objective, str(seed)), strict=True))
                    if is_in(rows_so_far(), place):
                        continue
                    tell(f"{place['environment']}, {objective}, seed {seed}")
                    if log is None:
                        log = log_for(env, steps)
                    row = judged(objective, log, config, updates, seed, progress)
                    made_with = json.dumps(asked[place["environment"]], separators=(",", ":"))
                    numbers = {"steps": steps, "updates": updates}
                    with sole_writer(out):
                        rows = rows_so_far()
                        if not is_in(rows, place):
                            rows.append({**place, **numbers, **row, SETTINGS: made_with})
                            write_table(out, rows)
        return read_table(out)


def settings(env: EnvConfig, torso: TorsoConfig) -> dict[str, Any]:
    """What decides a world's rows beside steps and updates: dotted path -> value."""
    fields = flat({"env": to_dict(env), "learner": {"torso": to_dict(torso)}})
    content = {"contents": encoder_content(torso)} if torso.init is not None else {}
    return {name: value for name, value in fields.items() if name not in NOT_COMPARED} | content


def fitting(
    rows: list[dict[str, Any]],
    path: Path,
    numbers: Mapping[str, int],
    asked: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the rows of a table.

    Args:
      rows: Its rows.
      path: The table.
      numbers: Steps and updates that all rows must have.
      asked: Environment -> the settings that its rows must have. Fields that are newer than a row
        have their defaults there. Rows of other environments may have any settings.

    Raises:
      ValueError: Rows do not fit. The message names the field.
    """
    for row in rows:
        wrong = [name for name, value in numbers.items() if row[name] != str(value)]
        if wrong:
            raise ValueError(
                f"{path} has rows with {wrong[0]} {row[wrong[0]]}; use the same, or another file"
            )
        world = row["environment"]
        if world not in asked:
            continue
        if not row.get(SETTINGS):
            raise ValueError(
                f"{path} has rows of {world} that do not say their settings, as earlier versions"
                " wrote them; name another --out"
            )
        unlike = differences(settings_of(row, path), dict(asked[world]), sides=THERE_AND_NOW)
        if unlike:
            raise ValueError(
                f"{path} has rows of {world} with other settings: {unlike[0]}; give the same, or"
                " another --out"
            )
    return rows


def settings_of(row: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings of a row, with the defaults of fields that are newer.

    Raises:
      ValueError: They cannot be read.
    """
    try:
        found = json.loads(row[SETTINGS])
        kind, _ = ENVS[found["env.name"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has a row of {row['environment']} whose settings are damaged; remove the row,"
            " or restore a copy"
        ) from error
    with reading_only():
        return settings(kind(), TorsoConfig()) | found


def is_in(rows: Sequence[Mapping[str, Any]], place: Mapping[str, str]) -> bool:
    return any(all(row[name] == value for name, value in place.items()) for row in rows)


def judged(
    objective: str, log: FrameLog, config: RunConfig, updates: int, seed: int, progress: bool
) -> dict[str, Any]:
    """Train one encoder and probe it."""
    trained = pretrain(objective, log, config.learner.torso, updates, seed, progress=progress)
    encoder = trained.encoder.eval()
    features = frames_reader(encoder)(log)
    apart = not has_recurring_views(config.env)
    result = score_features(log, {objective: lambda _: features}, seed, PROBE, apart)
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
    widths = {world: max(18, len(world) + 2) for world in worlds}
    lines = ["weighted F1".ljust(18) + "".join(world.rjust(widths[world]) for world in worlds)]
    for objective, by_world in table.items():
        cells = {world: f"{value:.2f}" for world, value in by_world.items()}
        lines.append(
            objective.ljust(18)
            + "".join(cells.get(world, "-").rjust(width) for world, width in widths.items())
        )
    return "\n".join(lines)
