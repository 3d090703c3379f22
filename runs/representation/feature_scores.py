"""Scores of features: how well linear probes read a log's labels from each encoder's features.

`score_features` is the place to plug encoders of your own into: it takes any readers of a log
(runs/representation/encoders.py), and puts them beside the majority.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afterwit.envs.arrays import Array
from afterwit.runs.representation.encoders import Read
from afterwit.runs.representation.frame_log import FrameLog
from afterwit.runs.representation.linear_probe import ProbeConfig, majority, probe, standardised
from afterwit.runs.representation.log_split import Parts, split, usable_targets

MAJORITY, SUPERVISED = "majority", "supervised"


@dataclass(frozen=True)
class Supervised:
    """A network that learns the labels end to end, as an upper bound."""

    network: nn.Module  # frames [n, C, H, W], as logged -> features [n, N]
    size: int  # N
    epochs: int  # at most


def score_features(
    log: FrameLog,
    readers: Mapping[str, Read],
    seed: int,
    config: ProbeConfig | None = None,
    deduplicate: bool = True,
    supervised: Supervised | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Probe a log's labels from features of several encoders, beside majority.

    Args:
      log: the frames and their labels.
      readers: name -> reader of features; `frames_reader` makes one of an encoder.
      seed: of the probes.
      config: how they learn. Unset: as published.
      deduplicate: whether test frames that also occur in other parts are removed.
      supervised: a network that learns the labels end to end. Unset: none.
      tell: takes a line of progress.

    Returns:
      Plain values: `columns` holds for each encoder, and majority, the F1 of each label, the mean
      of each category, and the mean over categories.

    Raises:
      ValueError: the log has too few episodes, its labels hardly vary, or an encoder has the name
        of another column.
    """
    config = config or ProbeConfig()
    taken = [name for name in readers if name in (MAJORITY, SUPERVISED)]
    if taken:
        raise ValueError(f"an encoder is called {taken[0]!r}, as a column beside it; rename it")
    parts = split(log, config.min_episode, deduplicate)
    targets = usable_targets(log, parts, config.min_entropy)
    columns = {MAJORITY: majority(targets, parts)}
    for name, read in readers.items():
        tell(f"probing {name}")
        columns[name] = probe_table(read(log), targets, parts, config, seed)
    if supervised is not None:
        tell(f"training {SUPERVISED}")
        columns[SUPERVISED] = probe(
            frames_of(log, supervised.network),
            supervised.size,
            targets,
            parts,
            replace(config, epochs=supervised.epochs),
            seed,
            supervised.network,
        )
    used = {name: log.categories[name] for name in targets}
    return {
        "columns": {name: summary(f1, used) for name, f1 in columns.items()},
        "categories": used,
        "dropped": sorted(set(log.labels) - set(targets)),
        "frames": {
            part: sum(map(len, getattr(parts, part))) for part in ("train", "validation", "test")
        },
        "episodes": sum(len(each) for each in (parts.train, parts.validation, parts.test)),
        "duplicates_removed": parts.duplicates if deduplicate else None,
        "probe": asdict(config) | {"seed": seed},
        "log": log.meta,
    }


def probe_table(
    features: Tensor, targets: Mapping[str, Array], parts: Parts, config: ProbeConfig, seed: int
) -> dict[str, float]:
    """Probe frozen features [T * B, N]. Returns the F1 of each label.

    Raises:
      ValueError: they have another shape, or are not finite.
    """
    rows = len(next(iter(targets.values())))
    if features.dim() != 2 or len(features) != rows:
        raise ValueError(
            f"the encoder returned features of shape {tuple(features.shape)} for {rows} frames;"
            f" they must be ({rows}, N)"
        )
    if not features.isfinite().all():
        raise ValueError("the encoder returned features that are not finite")
    if config.standardise:
        features = standardised(features, parts)
    return probe(lambda frames: features[frames], features.shape[1], targets, parts, config, seed)


def frames_of(log: FrameLog, network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function of frames' numbers that encodes them, with gradient."""
    flat = log.obs.reshape(-1, *log.obs.shape[2:])

    def encode(frames: Tensor) -> Tensor:
        encoded: Tensor = network(torch.from_numpy(flat[frames.numpy()]))
        return encoded

    return encode


def summary(f1: Mapping[str, float], categories: Mapping[str, str]) -> dict[str, Any]:
    """The F1 of each label, the mean of each category, and the mean over categories."""
    names = dict.fromkeys(categories[label] for label in f1)
    means = {
        name: float(np.mean([f1[label] for label in f1 if categories[label] == name]))
        for name in names
    }
    return {"labels": dict(f1), "categories": means, "mean": float(np.mean(list(means.values())))}


def table(result: Mapping[str, Any]) -> str:
    """Return the numbers as text: a row for each category."""
    columns = result["columns"]
    names = [*next(iter(columns.values()))["categories"]]
    counts = {name: list(result["categories"].values()).count(name) for name in names}
    widths = {name: max(18, len(name) + 2) for name in columns}
    lines = [f"{'weighted F1':<36}" + "".join(f"{name:>{width}}" for name, width in widths.items())]
    for name in names:
        values = {column: each["categories"][name] for column, each in columns.items()}
        lines.append(f"{f'{name} ({counts[name]})':<36}" + row(values, widths))
    means = {column: each["mean"] for column, each in columns.items()}
    lines.append(f"{'mean over categories':<36}" + row(means, widths))
    if "published" in result:
        lines.append(f"{'published (Anand et al., 2019)':<36}" + row(result["published"], widths))
    if result["dropped"]:
        lines.append(f"hardly vary, so not scored: {', '.join(result['dropped'])}")
    return "\n".join(lines)


def row(values: Mapping[str, float], widths: Mapping[str, int]) -> str:
    """The cells of a row. Columns without a value are blank."""
    return "".join(
        f"{values[name]:>{width}.2f}" if name in values else " " * width
        for name, width in widths.items()
    )
