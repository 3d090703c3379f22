"""`afterwit pretrain`: train an encoder on logged frames by one objective, with no policy.

World models learn through `IntrinsicReward`, from pieces of episodes. The others learn from windows
of consecutive observations. Every update shows about the same number of frames to the encoder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor
from tqdm import tqdm

from afterwit.agents.metrics import mean_of_each
from afterwit.envs.arrays import Array
from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.atari_sound import spectrum
from afterwit.envs.checks import check_counts
from afterwit.envs.make import EnvConfig
from afterwit.envs.seeds import read_seed, stream
from afterwit.runs.representation.frame_log import FrameLog
from afterwit.world_models import IntrinsicReward
from afterwit.world_models.base import ModelConfig
from afterwit.world_models.draws import draws_of
from afterwit.world_models.encoder_file import adopt_encoder
from afterwit.world_models.models.byol_config import BYOLConfig
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.objectives.slap import SLAP, SLAPConfig
from afterwit.world_models.objectives.vididi import ViDiDi, ViDiDiConfig
from afterwit.world_models.registry import WORLD_MODELS
from afterwit.world_models.torso import Encoder, Torso, TorsoConfig

LENGTH, SEQUENCES = 20, 16  # agent steps of a piece, and pieces of an update
FRAMES = (LENGTH + 1) * SEQUENCES  # that an update shows to the encoder
RANDOM = "random"
# BYOL-Explore with one idea on embeddings each
VARIANTS: dict[str, Mapping[str, Any]] = {
    "linear": {"predictor": "linear"},
    "direct-pred": {"predictor": "direct-pred"},
    "direct-copy": {"predictor": "direct-copy"},
    "isoloss": {"predictor": "direct-pred", "predictor_isotropic": True},
    "isoloss-published": {
        "predictor": "direct-pred",
        "predictor_isotropic": True,
        "predictor_decay": 0.998,
        "predictor_floor": 0.0,
        "standardise_decay": None,  # its loss is a cosine
    },
    "dispersion": {"dispersion_weight": 1.0},
    "brownian": {"brownian_weight": 0.1},
    "centroid": {"horizon": 4, "centroid": 1.0},
}
CLIPS: dict[str, Mapping[str, Any]] = {
    "vididi": {"loss": "vicreg"},
    "vididi-byol": {"loss": "byol"},
    "vicreg": {"loss": "vicreg", "derivatives": False},
    "clips-byol": {"loss": "byol", "derivatives": False},
}
SOUND = "slap"
NO_SOUND = f"{SOUND} needs the sound of an Atari game, and {{}}"
LOG_SOUND = "log it with --set env.backend=sound"
# The other world models learn in networks of their own, and leave the torso's encoder as it was.
TRAINED = tuple(name for name, kind in WORLD_MODELS.items() if issubclass(kind.Config, BYOLConfig))
OBJECTIVES = (RANDOM, *TRAINED, *VARIANTS, *CLIPS, SOUND)


@dataclass(frozen=True)
class Pretrained:
    """An encoder and how it was trained."""

    encoder: Encoder
    torso: TorsoConfig
    metrics: dict[str, float]  # of the last tenth of the updates, means over those that have them
    seconds: float  # of the updates, without logging


def check_objective(objective: str, updates: int = 1, env: EnvConfig | None = None) -> None:
    """Raise a ValueError if there is no such objective, nothing to do, or a world lacks sound."""
    check_counts(updates=updates)
    if objective in WORLD_MODELS and objective not in TRAINED:
        raise ValueError(
            f"{objective} learns in networks of its own, so it would leave the encoder as it was;"
            f" choose from {', '.join(OBJECTIVES)}"
        )
    if objective not in OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}; choose from {', '.join(OBJECTIVES)}")
    if objective == SOUND and env is not None:
        if not isinstance(env, AtariConfig):
            raise ValueError(NO_SOUND.format("this world has none; choose an Atari game"))
        if env.backend != "sound":
            raise ValueError(NO_SOUND.format(f"env.backend is {env.backend!r}; {LOG_SOUND}"))


def pretrain(
    objective: str,
    log: FrameLog,
    torso: TorsoConfig,
    updates: int,
    seed: int,
    learning_rate: float = 1e-3,
    progress: bool = True,
) -> Pretrained:
    """Train an encoder.

    Args:
      objective: A name in OBJECTIVES.
      log: The frames.
      torso: The form of encoder and memory.
      updates: Optimiser steps.
      seed: Of weights and draws. All objectives start from the same encoder.
      learning_rate: Adam's step size.
      progress: Whether to show a bar.

    Raises:
      ValueError: The objective is unknown, or no piece of the log is long enough.
    """
    check_objective(objective, updates)
    seed = read_seed(seed)
    rng = np.random.default_rng(stream(seed, "pretrain", "draws"))
    if objective in TRAINED or objective in VARIANTS:
        model: ModelConfig = (
            WORLD_MODELS[objective].Config()
            if objective in TRAINED
            else BYOLExploreConfig(**VARIANTS[objective])
        )
        encoder, step = model_step(model, log, torso, seed, learning_rate, rng)
    else:
        encoder = fresh_encoder(log, torso, seed)
        if objective == RANDOM:
            return Pretrained(encoder, torso, {}, 0.0)
        if objective == SOUND:
            step = sound_step(log, encoder, torso, seed, learning_rate, rng)
        else:
            stacked = log.meta.get("semantics", {}).get("stack_num", 1)
            # clips that follow directly upon each other
            config = replace(ViDiDiConfig(**CLIPS[objective]), gap=stacked)
            step = clip_step(config, log, encoder, torso, seed, learning_rate, rng)
    start, losses = time.perf_counter(), list[dict[str, float]]()
    bar = tqdm(
        range(updates),
        desc=objective,
        unit="update",
        disable=not progress,
        dynamic_ncols=True,
        file=sys.stdout,
        leave=False,
    )
    for _ in bar:
        losses.append(step())
    seconds = time.perf_counter() - start
    last = losses[-max(1, updates // 10) :]
    return Pretrained(encoder, torso, mean_of_each(last), seconds)


def fresh_encoder(log: FrameLog, torso: TorsoConfig, seed: int) -> Encoder:
    """The encoder that every objective starts from: that of `torso.init`, or fresh weights."""
    with draws_of(seed, "weights"):
        whole = Torso(torso, log.obs.shape[2:], log.num_actions)
    if torso.init is not None:
        adopt_encoder(whole, torso.init)
    return whole.encoder


def model_step(
    model: ModelConfig,
    log: FrameLog,
    torso: TorsoConfig,
    seed: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> tuple[Encoder, Callable[[], dict[str, float]]]:
    """The encoder, and a function that makes one update of a world model on pieces of the log."""
    uint8 = log.obs.dtype == np.uint8
    space = Box(0, 255, log.obs.shape[2:], np.uint8) if uint8 else Box(-10, 10, log.obs.shape[2:])
    curiosity = IntrinsicReward(
        model, space, Discrete(log.num_actions), seed, torso, learning_rate=learning_rate
    )
    places = draws(log, LENGTH + 2, SEQUENCES, rng, whole=False)

    def step() -> dict[str, float]:
        piece = log.pieces(*next(places))
        return curiosity.update(
            piece.obs, piece.actions, piece.dones, previous_dones=piece.previous_dones
        )

    return curiosity.torso.encoder, step


def clip_step(
    config: ViDiDiConfig,
    log: FrameLog,
    encoder: Encoder,
    torso: TorsoConfig,
    seed: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> Callable[[], dict[str, float]]:
    """A function that makes one update on windows of the log."""
    with draws_of(seed, "pretrain", "heads"):
        objective = ViDiDi(config, encoder, torso.embedding, stream(seed, "pretrain", "orders"))
    update = updater(objective, learning_rate)
    windows = draws(log, config.window, FRAMES // 2, rng, whole=True)

    def step() -> dict[str, float]:
        times, envs = next(windows)
        return update(torch.from_numpy(log.obs[times, envs]))

    return step


def sound_step(
    log: FrameLog,
    encoder: Encoder,
    torso: TorsoConfig,
    seed: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> Callable[[], dict[str, float]]:
    """A function that makes one update on frames of the log and their sound.

    Raises:
      ValueError: The log has no sound, or nothing but silence.
    """
    if log.sound is None:
        raise ValueError(NO_SOUND.format(f"the log has none; {LOG_SOUND}"))
    heard = spectrum(log.sound).reshape(*log.first.shape, -1)
    if not heard.any():
        raise ValueError(f"the log is silent, and {SOUND} learns from sound; choose another game")
    with draws_of(seed, "pretrain", "heads"):
        objective = SLAP(SLAPConfig(), encoder, torso.embedding, heard.shape[-1])
    update = updater(objective, learning_rate)
    times, envs = (~log.first).nonzero()  # nothing was heard on the way to the others

    def step() -> dict[str, float]:
        chosen = rng.integers(0, len(times), FRAMES)
        pixels, sound = (array[times[chosen], envs[chosen]] for array in (log.obs, heard))
        return update(torch.from_numpy(pixels), torch.from_numpy(sound))

    return step


def updater(objective: ViDiDi | SLAP, learning_rate: float) -> Callable[..., dict[str, float]]:
    """A function that makes one update on a batch, and returns the loss and its parts."""
    optimiser = torch.optim.Adam(
        [p for p in objective.parameters() if p.requires_grad], learning_rate
    )

    def update(*batch: Tensor) -> dict[str, float]:
        loss, metrics = objective(*batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        objective.after_step()
        return {"loss": float(loss.detach()), **{k: float(v) for k, v in metrics.items()}}

    return update


def draws(
    log: FrameLog, length: int, count: int, rng: np.random.Generator, whole: bool
) -> Iterator[tuple[Array, Array]]:
    """Random places of `count` windows of the log, for ever: times [length, count], environments.

    Args:
      log: The frames.
      length: Consecutive observations of a window.
      count: Windows at a time.
      rng: Of the draws.
      whole: Whether a window must lie in one episode.

    Raises:
      ValueError: No window fits.
    """
    steps, batch = log.first.shape
    if steps < length:
        raise ValueError(
            f"the log has {steps} steps of each environment, and this objective needs {length} in a"
            " row; log more steps"
        )
    allowed = np.ones((steps - length + 1, batch), bool)
    if whole:
        for later in range(1, length):
            allowed &= ~log.first[later : later + len(allowed)]
    starts, envs = allowed.nonzero()
    if not len(starts):
        raise ValueError(
            f"no episode of the log has {length} observations in a row; this objective needs longer"
            " episodes, or a smaller frame_stack"
        )
    while True:
        chosen = rng.integers(0, len(starts), count)
        yield starts[chosen] + np.arange(length)[:, None], envs[chosen]
