"""What a frozen network knows of the world: probes of the state, by category.

Two modes. `probe_game` repeats AtariARI (Anand et al., 2019, arXiv 1906.08226) on a game, for its
columns that need no training and for encoders of your own. `probe_run` asks a run's checkpoint, on
the frames and rules that the run was trained with: its numbers do not compare with published ones.
Nothing of the run is changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from afterwit.agents.agent import Agent
from afterwit.envs.arrays import Array
from afterwit.envs.atari_config import AtariConfig
from afterwit.runs.configs.run_config import RunConfig, read_config, to_dict
from afterwit.runs.evaluation.evaluate import evaluation_env
from afterwit.runs.output.files import checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.representation.encoders import (
    Encode,
    NatureCNN,
    Read,
    frames_reader,
    perceive,
    random_encoder,
    random_torso,
)
from afterwit.runs.representation.frame_log import FrameLog, log_game, read_log, save_log
from afterwit.runs.representation.linear_probe import (
    HOUSE,
    ProbeConfig,
    majority,
    probe,
    standardised,
)
from afterwit.runs.representation.log_split import Parts, split, usable_targets
from afterwit.runs.representation.published_log import STREAMS, published_log
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run
from afterwit.world_models.registry import world_model_name

NAME, PICTURE = "state-probe.json", "state-probe.png"
PUBLISHED_STEPS, PUBLISHED_SEED = 50_000, 42
MAJORITY, SUPERVISED, RANDOM_CNN = "majority", "supervised", "random CNN"
Who = Literal["agent", "random"]
# Majority and random CNN with a random agent's frames, in the paper's table 2.
PUBLISHED = {
    "Breakout": (0.17, 0.51),
    "Freeway": (0.01, 0.50),
    "Frostbite": (0.08, 0.57),
    "Hero": (0.22, 0.75),
    "MontezumaRevenge": (0.08, 0.68),
    "MsPacman": (0.10, 0.49),
    "Pitfall": (0.07, 0.34),
    "Pong": (0.10, 0.17),
    "PrivateEye": (0.23, 0.70),
    "Qbert": (0.29, 0.49),
    "Seaquest": (0.29, 0.57),
    "Venture": (0.09, 0.36),
}


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
      ValueError: the log has too few episodes, or its labels hardly vary.
    """
    config = config or ProbeConfig()
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


def probe_game(
    game: str,
    out: Path,
    steps: int,
    seed: int,
    supervised_epochs: int = 0,
    encoders: Mapping[str, Encode] | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Repeat AtariARI on a game, and write OUT/state-probe.json and OUT/state-probe.png.

    Args:
      game: such as "MontezumaRevenge".
      out: the folder OUT.
      steps: agent steps of the random agent, in 8 games together. The paper has 50,000.
      seed: of games, agent, weights and probes. The authors' is 42.
      supervised_epochs: epochs of the supervised encoder at most; 0: leave it out, as it is slow.
      encoders: more encoders by name, of frames uint8 [n, 1, 210, 160].
      tell: takes a line of progress.

    Returns:
      What is written to state-probe.json.

    Raises:
      ValueError: the game has no labels, or too few steps were asked for.
    """
    if steps < STREAMS:
        raise ValueError(f"steps is {steps}; it must be at least {STREAMS}, one for each game")
    check_epochs(supervised_epochs)
    readers = {RANDOM_CNN: frames_reader(NatureCNN(seed))}
    readers |= {name: frames_reader(encode) for name, encode in (encoders or {}).items()}
    network = NatureCNN(seed + 1)
    supervised = Supervised(network, 256, supervised_epochs) if supervised_epochs else None
    with checked_outputs(out / NAME, out / PICTURE), tempfile.TemporaryDirectory() as folder:
        tell(f"playing {game}")
        log = published_log(game, seed, Path(folder), steps)
        result = score_features(log, readers, seed, supervised=supervised, tell=tell)
        result = {"mode": "published", "game": game, "seed": seed, "steps": steps, **result}
        if game in PUBLISHED:
            result["published"] = dict(zip((MAJORITY, RANDOM_CNN), PUBLISHED[game], strict=True))
        return finish(result, out)


def probe_run(
    run: Path,
    steps: int,
    seed: int,
    policy: Who = "agent",
    supervised_epochs: int = 10,
    out: Path | None = None,
    frames: Path | None = None,
    save_frames: Path | None = None,
    name: str = checkpoint.NAME,
    tell: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Probe a run's checkpoint, and write OUT/state-probe.json and OUT/state-probe.png.

    Columns: majority; embedding and belief of a network of the same architecture with random
    weights; embedding and belief of the run's; the same encoder trained on the labels.

    Args:
      run: the run folder.
      steps: agent steps to play, over all environments.
      seed: of environments, draws, random weights and probes.
      policy: who plays: the run's agent, or random actions.
      supervised_epochs: epochs of the supervised encoder at most; 0: leave it out.
      out: the folder OUT. Unset: the run folder.
      frames: a log to read instead of playing, to compare runs on the same frames.
      save_frames: where to keep the log.
      name: the checkpoint's file, or best.
      tell: takes a line of progress.

    Returns:
      What is written to state-probe.json.

    Raises:
      ValueError: an argument is wrong, the run has no checkpoint, or its world has no labels.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")
    check_epochs(supervised_epochs)
    if save_frames is not None and save_frames.exists():
        raise ValueError(f"{save_frames} exists; choose another --save-frames")
    config = read_config(run)
    saved = checkpoint.load(run, config, name)
    config = replace(config.alone(), env=evaluation_env(config.env, video=False), seed=seed)
    target = run if out is None else out
    with (
        checked_outputs(target / NAME, target / PICTURE),
        tempfile.TemporaryDirectory() as folder,
        closing(Run(config)) as loaded,
    ):
        learner = loaded.learner
        learner.load_state(saved["learner"])
        if frames is None:
            tell(f"playing {loaded.spec.name}")
            log = play(config, loaded, steps, seed, policy, Path(folder))
        else:
            log = fitting_log(frames, loaded)
        if save_frames is not None:
            save_log(log, save_frames)
        torso = (learner.own_torso or learner.policy.torso).eval()
        known = perceive(torso, log)
        blank = perceive(random_torso(torso.config, log, seed), log)
        readers: dict[str, Read] = {
            "random embedding": lambda _: blank.embeddings,
            "embedding": lambda _: known.embeddings,
            "random belief": lambda _: blank.beliefs,
            "belief": lambda _: known.beliefs,
        }
        supervised = None
        if supervised_epochs:
            encoder = random_encoder(torso.config, log, seed)
            supervised = Supervised(encoder, torso.config.embedding, supervised_epochs)
        # The views of small worlds recur by nature: there all test frames are known.
        apart = isinstance(config.env, AtariConfig)
        result = score_features(log, readers, seed, HOUSE, apart, supervised, tell)
        head = {
            "mode": "house",
            "run": str(run),
            "checkpoint": name,
            "environment": loaded.spec.name,
            "world_model": world_model_name(config.learner.world_model),
            "trained_agent_steps": saved["agent_steps"],
            "policy": log.meta.get("policy"),
            "seed": seed,
        }
        return finish(head | result | {"config": to_dict(config)}, target)


def check_epochs(supervised_epochs: int) -> None:
    if supervised_epochs < 0:
        raise ValueError(
            f"supervised epochs are {supervised_epochs}; they must be at least 0 (0: no supervised"
            " encoder)"
        )


def play(
    config: RunConfig, loaded: Run, steps: int, seed: int, policy: Who, folder: Path
) -> FrameLog:
    """Log a run's environments with its agent, or with random actions."""
    batch = loaded.spec.num_envs
    learner = loaded.learner
    choose = None
    if policy == "agent":
        agent = Agent(learner.policy, batch, seed, learner.device)
        agent.set_weights(learner.acting, learner.version)

        def choose(observation: Array, first: Array) -> Array:
            return agent.choose(observation, first)[0]

    return log_game(config.env, -(-steps // batch), seed, choose, folder, {"policy": policy})


def fitting_log(path: Path, loaded: Run) -> FrameLog:
    """Read a log and check that a run's networks can read its frames."""
    log = read_log(path)
    shape, number = tuple(log.obs.shape[2:]), log.num_actions
    if shape != loaded.spec.observation_shape or number != loaded.spec.num_actions:
        raise ValueError(
            f"{path} has frames of shape {shape} and {number} actions; the run reads"
            f" {loaded.spec.observation_shape} and has {loaded.spec.num_actions}: log frames of its"
            " own environment"
        )
    return log


def finish(result: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write numbers and picture."""
    # late import: it needs matplotlib, which is slow to import
    from afterwit.runs.representation.state_probe_figure import draw

    result = result | {"provenance": provenance()}
    draw(result, out)
    write_json(out / NAME, result)
    return result


def table(result: Mapping[str, Any]) -> str:
    """Return the numbers as text: a row for each category."""
    columns = result["columns"]
    names = [*next(iter(columns.values()))["categories"]]
    counts = {name: list(result["categories"].values()).count(name) for name in names}
    lines = [f"{'weighted F1':<36}" + "".join(f"{name:>18}" for name in columns)]
    for name in names:
        values = "".join(f"{column['categories'][name]:>18.2f}" for column in columns.values())
        lines.append(f"{f'{name} ({counts[name]})':<36}{values}")
    lines.append(f"{'mean over categories':<36}" + row(columns))
    if "published" in result:
        known = result["published"]
        values = "".join(f"{known[name]:>18.2f}" if name in known else " " * 18 for name in columns)
        lines.append(f"{'published (Anand et al., 2019)':<36}{values}")
    if result["dropped"]:
        lines.append(f"hardly vary, so not scored: {', '.join(result['dropped'])}")
    return "\n".join(lines)


def row(columns: Mapping[str, Any]) -> str:
    return "".join(f"{column['mean']:>18.2f}" for column in columns.values())
