"""What a frozen network knows of the world: probes of the state, by category.

Two modes. `probe_game` repeats AtariARI (Anand et al., 2019, arXiv 1906.08226) on a game, for its
columns that need no training and for encoders of your own. `probe_run` asks a run's checkpoint, on
the frames and rules that the run was trained with: its numbers do not compare with published ones.
Nothing of the run is changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from afterwit.agents.agent import Agent
from afterwit.envs.arrays import Array
from afterwit.runs.configs.comparison import SETTINGS, check_result
from afterwit.runs.configs.run_config import RunConfig, read_config, to_dict
from afterwit.runs.evaluation.evaluate import evaluation_env
from afterwit.runs.output.files import checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.representation.encoders import (
    Encode,
    NatureCNN,
    Read,
    already_read,
    check_shapes,
    frames_reader,
    perceive,
    random_encoder,
    random_torso,
    read_encoders,
)
from afterwit.runs.representation.feature_scores import (
    MAJORITY,
    SUPERVISED,
    Supervised,
    score_features,
)
from afterwit.runs.representation.frame_log import FrameLog, log_game, read_log, save_log
from afterwit.runs.representation.linear_probe import HOUSE
from afterwit.runs.representation.log_split import has_recurring_views
from afterwit.runs.representation.published_log import STREAMS, published_log
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run
from afterwit.world_models.registry import world_model_name

NAME, PICTURE = "state-probe.json", "state-probe.png"
PUBLISHED_STEPS, PUBLISHED_SEED = 50_000, 42
RANDOM_CNN = "random CNN"
OWN = ("random embedding", "embedding", "random belief", "belief")  # columns of a run
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
      ValueError: the game has no labels, too few steps were asked for, or OUT has a result with
        other settings.
    """
    if steps < STREAMS:
        raise ValueError(f"steps is {steps}; it must be at least {STREAMS}, one for each game")
    check_epochs(supervised_epochs)
    settings = {
        "published": game,
        "steps": steps,
        "seed": seed,
        "encoders": list(encoders or ()),
        "supervised_epochs": supervised_epochs,
    }
    check_result(out / NAME, settings)
    if RANDOM_CNN in (encoders or {}):
        raise ValueError(f"an encoder is called {RANDOM_CNN!r}, as a column beside it; rename it")
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
        return finish(result | {SETTINGS: settings}, out)


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
    encoders: Sequence[Path] = (),
    tell: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Probe a run's checkpoint, and write OUT/state-probe.json and OUT/state-probe.png.

    Columns: majority; embedding and belief of a network of the same architecture with random
    weights; embedding and belief of the run's; encoders from files; the run's encoder trained on
    the labels.

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
      encoders: files of `afterwit pretrain`, a column each.
      tell: takes a line of progress.

    Returns:
      What is written to state-probe.json.

    Raises:
      ValueError: an argument is wrong, the run has no checkpoint, its world has no labels, an
        encoder reads other observations, or OUT has a result with other settings. Nothing was
        played then.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")
    check_epochs(supervised_epochs)
    if save_frames is not None and save_frames.exists():
        raise ValueError(f"{save_frames} exists; choose another --save-frames")
    read = read_encoders(encoders, (MAJORITY, *OWN, SUPERVISED))
    config = read_config(run)
    saved = checkpoint.load(run, config, name)
    config = replace(config.alone(), env=evaluation_env(config.env, video=False), seed=seed)
    target = run if out is None else out
    settings = {
        "run": None if out is None else str(run),
        "checkpoint": name,
        "steps": steps,
        "seed": seed,
        "policy": policy,
        "supervised_epochs": supervised_epochs,
        "frames": None if frames is None else str(frames),
        "encoders": list(map(str, encoders)),
    }
    check_result(target / NAME, settings)
    with (
        checked_outputs(target / NAME, target / PICTURE),
        tempfile.TemporaryDirectory() as folder,
        closing(Run(config)) as loaded,
    ):
        check_shapes(read, loaded.spec.observation_shape)
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
        features = (blank.embeddings, known.embeddings, blank.beliefs, known.beliefs)
        readers: dict[str, Read] = {
            column: already_read(values) for column, values in zip(OWN, features, strict=True)
        }
        readers |= {column: frames_reader(encoder) for column, encoder in read.items()}
        supervised = None
        if supervised_epochs:
            encoder = random_encoder(torso.config, log, seed)
            supervised = Supervised(encoder, torso.config.embedding, supervised_epochs)
        apart = not has_recurring_views(config.env)
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
            "encoders": list(map(str, encoders)),
        }
        return finish(head | result | {"config": to_dict(config), SETTINGS: settings}, target)


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
    played = log.meta.get("environment", loaded.spec.name)
    if played != loaded.spec.name:
        raise ValueError(
            f"{path} has frames of {played}, and the run lives in {loaded.spec.name}; log frames of"
            " its own environment"
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
