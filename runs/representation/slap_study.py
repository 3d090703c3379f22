"""What SLAP learns from Atari's pixels and sound: losses, retrieval, modality gap, collapse.

`python -m afterwit.runs.representation.slap_study --out slap.csv` plays random games, trains one
model for each game, seed and weight between the modalities, and measures it on environments that it
was not trained on. One model has slower targets, and one the BatchNorm that our SLAP leaves out.
There are two controls: a model without updates, and one that learned shuffled pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from afterwit.envs.arrays import Array
from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.atari_sound import silent_share, spectrum
from afterwit.envs.seeds import stream
from afterwit.runs.output.provenance import commit
from afterwit.runs.representation.frame_log import FrameLog, log_game
from afterwit.runs.representation.objectives import write_table
from afterwit.world_models.draws import draws_of
from afterwit.world_models.instruments import effective_rank, spread
from afterwit.world_models.objectives.micro_batches import accumulate
from afterwit.world_models.objectives.slap import (
    SLAP,
    SLAPConfig,
    centroid_distance,
    recall,
    separability,
)
from afterwit.world_models.torso import Encoder, TorsoConfig

TORSO = TorsoConfig(encoder="small", channels=(16, 32, 32), embedding=128)
ENVS, HELD_OUT, SIZE = 8, 2, 42  # environments of a log, those that are judged, pixels
JUDGED, AMONG = 2048, 128  # held-out pairs, and candidates of a retrieval
WEIGHTS = (0.0, 0.2, 0.5, 0.8, 1.0)
NORMED = "true, BatchNorm"
SLOWER = 0.99  # decay of a slower copy than the published 0.95


class Pairs(NamedTuple):
    """Observations and what was heard on the way to them."""

    pixels: Array  # uint8 [n, C, H, W]
    sound: Array  # float32 [n, D]

    def at(self, chosen: Array) -> tuple[Tensor, Tensor]:
        """Some of the pairs as tensors."""
        return torch.from_numpy(self.pixels[chosen]), torch.from_numpy(self.sound[chosen])


def add_batch_norm(model: SLAP) -> None:
    """Put BatchNorm after each hidden layer but the encoder's, as published for the predictors.

    Gradients are then no longer exact over parts of a batch.
    """

    def normed(layers: nn.Module) -> nn.Sequential:
        parts: list[nn.Module] = []
        for layer in layers.children():
            if isinstance(layer, nn.ReLU):
                width = parts[-1].out_features
                assert isinstance(width, int)
                parts.append(nn.BatchNorm1d(width))
            parts.append(layer)
        return nn.Sequential(*parts)

    model.pixels[1], model.sound = normed(model.pixels[1]), normed(model.sound)
    model.predict = nn.ModuleList([normed(each) for each in model.predict])
    model.slow = nn.ModuleList([deepcopy(model.pixels), deepcopy(model.sound)])
    model.slow.requires_grad_(False)


def learn_slap(
    pairs: Pairs,
    encoder: Encoder,
    size: int,
    config: SLAPConfig,
    steps: int,
    batch: int,
    micro_batches: int,
    seed: int,
    learning_rate: float,
    progress: bool = True,
    batch_norm: bool = False,
) -> SLAP:
    """Train an encoder of pixels, beside one of sound, on random batches.

    Args:
      pairs: What is learned from.
      encoder: Of pixels. It is trained in place.
      size: N, size of its embedding.
      config: SLAP's settings.
      steps: Optimiser steps. 0 trains nothing.
      batch: Pairs of a step, drawn with replacement.
      micro_batches: Parts that a batch goes through in. They need less memory and change nothing.
      seed: Of the other networks' weights, and of the draws.
      learning_rate: Adam's step size.
      progress: Whether to show a bar.
      batch_norm: Whether to use `add_batch_norm`.

    Returns:
      The trained objective, in evaluation mode.

    Raises:
      ValueError: No frame has any sound, or a batch has fewer pairs than parts.
    """
    if not pairs.sound.any():
        raise ValueError(
            f"all {len(pairs.sound)} sounds are silent, and SLAP learns from sound; choose another"
            " game, or log more steps"
        )
    with draws_of(seed, "slap", "heads"):
        model = SLAP(config, encoder, size, pairs.sound.shape[-1])
    if batch_norm:
        add_batch_norm(model)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], learning_rate)
    random = np.random.default_rng(stream(seed, "slap", "draws"))
    bar = tqdm(
        range(steps),
        desc="slap",
        unit="update",
        disable=not progress,
        delay=5,
        dynamic_ncols=True,
        file=sys.stdout,
        leave=False,
    )
    for _ in bar:
        optimiser.zero_grad(set_to_none=True)
        chosen = pairs.at(random.integers(0, len(pairs.sound), batch))
        accumulate(lambda *part: model(*part)[0], chosen, micro_batches)
        optimiser.step()
        model.after_step()
    return model.eval()


def split(log: FrameLog, held_out: int = HELD_OUT) -> tuple[Pairs, Pairs]:
    """Pairs of a log to learn from, and those of its last `held_out` environments.

    Steps that only reset are left out: nothing was heard on the way to them.

    Raises:
      ValueError: The log has no sound.
    """
    if log.sound is None:
        raise ValueError("the log has no sound; play with AtariConfig(backend='sound')")
    heard = spectrum(log.sound).reshape(*log.first.shape, -1)
    played, later = ~log.first, np.arange(log.first.shape[1]) >= log.first.shape[1] - held_out
    both = [played & ~later, played & later]
    learned, judged = (Pairs(log.obs[chosen], heard[chosen]) for chosen in both)
    return learned, judged


@torch.no_grad()
def judge(model: SLAP, pairs: Pairs, count: int = JUDGED) -> dict[str, float]:
    """Measure a model on `count` pairs in random order, so that neighbours in time lie apart.

    Returns:
      `loss`, `inter` and `intra`: as in training. `recall pixels` and `recall sound`: R@1 among 128
      by q, from pixels to sound, and back. `best recall`: what different sounds and frames allow,
      since equal ones cannot be told apart. `distance ...`, `accuracy ...`: the modality gap of
      unit q and z. `rank ...`, `spread ...`: of the encoder's embedding and of both q
      (world_models/instruments.py). All vectors point the same way if a spread is 0; a rank does
      not see that.
    """
    order = np.random.default_rng(0).permutation(len(pairs.sound))[:count]
    pixels, sound = pairs.at(order)
    q = model.embed(pixels, sound)
    z = [F.normalize(net(x), dim=-1) for net, x in zip(model.online, (pixels, sound), strict=True)]
    vectors = {"embedding": model.encoder(pixels), "pixels": q[0], "sound": q[1]}
    everything = torch.ones(len(order), dtype=torch.bool)
    loss, parts = model(pixels, sound)
    whole = len(order) // AMONG * AMONG
    groups = zip(*(x.flatten(1)[:whole].split(AMONG) for x in (pixels, sound)), strict=True)
    different = [min(len(x.unique(dim=0)) for x in group) for group in groups]
    return {
        "loss": float(loss),
        **{name: float(value) for name, value in parts.items()},
        "recall pixels": recall(*q, AMONG),
        "recall sound": recall(q[1], q[0], AMONG),
        "best recall": float(np.mean(different)) / AMONG,
        "distance q": centroid_distance(*q),
        "distance z": centroid_distance(z[0], z[1]),
        "accuracy q": separability(*q),
        "accuracy z": separability(z[0], z[1]),
        **{f"rank {n}": float(effective_rank(x, everything)) for n, x in vectors.items()},
        **{f"spread {n}": float(spread(x, everything)) for n, x in vectors.items()},
    }


def study_game(
    game: str,
    seed: int,
    steps: int,
    updates: int,
    batch: int,
    micro_batches: int,
    learning_rate: float,
) -> Iterator[dict[str, Any]]:
    """Play a game, then train and measure one model after another. Yields a row for each."""
    config = AtariConfig(game, num_envs=ENVS, image_size=SIZE, backend="sound")
    log = log_game(config, max(1, steps // ENVS), seed, labelled=False)
    assert log.sound is not None
    learned, judged = split(log)
    mixed = np.random.default_rng(seed).permutation(len(learned.sound))
    shuffled = learned._replace(sound=learned.sound[mixed])
    models = [("true", SLAPConfig(inter_weight=weight), learned, updates) for weight in WEIGHTS]
    models += [
        ("true", SLAPConfig(target_decay=SLOWER), learned, updates),
        (NORMED, SLAPConfig(), learned, updates),
        ("shuffled", SLAPConfig(), shuffled, updates),
        ("untrained", SLAPConfig(), learned, 0),
    ]
    for pairs, model_config, source, count in models:
        with draws_of(seed, "weights"):
            encoder = Encoder(TORSO, log.obs.shape[2:])
        model = learn_slap(
            source,
            encoder,
            TORSO.embedding,
            model_config,
            count,
            batch,
            1 if pairs == NORMED else micro_batches,
            seed,
            learning_rate,
            progress=sys.stdout.isatty(),
            batch_norm=pairs == NORMED,
        )
        yield {
            "game": game,
            "seed": seed,
            "pairs": pairs,
            "inter_weight": model_config.inter_weight,
            "target_decay": model_config.target_decay,
            "steps": steps,
            "updates": count,
            "batch": batch,
            "silent": silent_share(log.sound[~log.first]),
            **judge(model, judged),
        }


def main(
    out: Path,
    games: tuple[str, ...] = ("PrivateEye", "Freeway"),
    seeds: tuple[int, ...] = (0,),
    steps: int = 20_000,
    updates: int = 600,
    batch: int = 128,
    micro_batches: int = 1,
    learning_rate: float = 1e-3,
) -> None:
    """Train and measure all models, and write the table after each.

    Args:
      out: CSV file. It is written anew.
      games: Names of Atari games.
      seeds: Of games, weights and draws.
      steps: Agent steps that are logged, over all environments.
      updates: Optimiser steps of each model.
      batch: Pairs of an update.
      micro_batches: Parts that a batch goes through in; 1 with BatchNorm.
      learning_rate: Adam's step size.
    """
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    made_by = commit() or ""
    for seed in seeds:
        for game in games:
            sizes = (steps, updates, batch, micro_batches, learning_rate)
            for row in study_game(game, seed, *sizes):
                rows.append({**row, "commit": made_by})
                write_table(out, rows)
                shown = ", ".join(f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float))
                print(f"{game}, seed {seed}, {row['pairs']}: {shown}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
