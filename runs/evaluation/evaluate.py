"""Evaluation: play episodes with a checkpoint's acting policy, and write numbers and rules."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from afterwit.agents.actor import Actor
from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.gym import GymConfig
from afterwit.envs.make import EnvConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.comparison import SETTINGS, check_result
from afterwit.runs.configs.overrides import changed
from afterwit.runs.configs.run_config import read_config, to_dict
from afterwit.runs.evaluation.evaluation_result import (
    HUMAN,
    HUMAN_RANDOM,
    NAME,
    VIDEO,
    human_normalised,
    summaries,
    table,
)
from afterwit.runs.evaluation.video import Recorder, check_video_support
from afterwit.runs.output.files import Unwritable, checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.training import checkpoint
from afterwit.runs.training.episode_statistics import Statistics
from afterwit.runs.training.run import Run
from afterwit.runs.training.stop_signals import SilenceNotice
from afterwit.world_models.callers import own_modes


def evaluate(
    folder: Path,
    episodes: int,
    greedy: bool,
    seed: int,
    video: bool,
    progress: bool = True,
    changes: Mapping[str, Any] | None = None,
    out: Path | None = None,
    name: str = checkpoint.NAME,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    resources: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Play whole episodes and write OUT/evaluation.json, and OUT/video.mp4 of the first episode.

    Nothing is learnt. The episodes are divided evenly among the environments, and the first ones of
    each environment count, so that short episodes are not preferred.

    Args:
      folder: the run folder.
      episodes: how many to play.
      greedy: take the likeliest action instead of drawing one.
      seed: of environments and draws; it should differ from every training seed.
      video: whether to write the video.
      progress: whether to show a progress bar.
      changes: environment fields that differ from training, such as {"sticky": 0.0}.
      out: the folder OUT. Unset: the run folder.
      name: the checkpoint's file, or best.
      max_steps: agent steps of each environment after which to stop (or a few more: unrolls are
        complete). The result's `limit` then says what is missing.
      max_seconds: seconds of play after which to stop, likewise (when the unroll is complete).
      resources: RESOURCES of the config that differ from training, such as {"device": "cpu"}.

    Returns:
      What is written to evaluation.json.

    Raises:
      ValueError: an argument is wrong, OUT cannot be written, or it has an evaluation with other
        settings. Raised before anything is played.
    """
    for what, value in (("episodes", episodes), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{what} is {value}; at least one is needed")
    config = read_config(folder)
    saved = checkpoint.load(folder, config, name)
    env_config = changed(evaluation_env(config.env, video), changes or {})
    if greedy and config.learner.policy.uniform:
        raise ValueError(f"{folder} acts at random: no action is the likeliest; leave out --greedy")
    config = replace(config.alone(), env=env_config, seed=seed, **(resources or {}))
    if video:
        check_video_support()
    target = folder if out is None else out
    video_path = target / VIDEO
    settings = {
        "run": None if out is None else str(folder),
        "checkpoint": name,
        "episodes": episodes,
        "max_steps": max_steps,
        "greedy": greedy,
        "seed": seed,
        "changes": dict(changes or {}),
    }
    check_result(target / NAME, settings)
    with (
        checked_outputs(target / NAME, *([video_path] if video else [])),
        closing(Run(config)) as run,
    ):
        try:
            run.learner.load_state(saved["learner"])
        except ValueError as error:
            raise ValueError(f"{folder} cannot play here: {error}") from error
        env = Recorder(run.actors[0].env) if video else run.actors[0].env
        actor = Actor(
            env, run.learner.policy, config.unroll_length, seed, run.learner.device, greedy
        )
        actor.set_weights(run.learner.acting, run.learner.version)
        played, limit = play(run, actor, episodes, progress, max_steps, max_seconds)
        result: dict[str, Any] = {
            "run": str(folder),
            "checkpoint": name,
            "episodes": len(played),
            "policy": "greedy" if greedy else "stochastic",
            "seed": seed,
            "trained_agent_steps": saved["agent_steps"],
            "trained_frames": saved["agent_steps"] * env.spec.frames_per_step,
            "results": summaries(played),
        } | ({"limit": limit} if limit else {})
        game = getattr(config.env, "game", None)
        if game in HUMAN_RANDOM and played:
            result[HUMAN] = human_normalised(game, result["results"]["return"])
        result |= {"changes": dict(changes or {})}
        result |= {
            "environment": dict(env.spec.semantics),
            "config": to_dict(config),
            SETTINGS: settings,
            "provenance": provenance(),
        }
        failure = write_video(env, video_path) if isinstance(env, Recorder) else None
        try:
            write_json(
                target / NAME, result | ({"video": VIDEO} if video and failure is None else {})
            )
        except Unwritable:
            print(table(result))  # so that the numbers are not lost
            raise
    if failure is not None:
        raise ValueError(
            f"{video_path} could not be made ({failure}); the scores are in {target / NAME}"
        ) from failure
    return result


def write_video(env: Recorder, path: Path) -> Exception | None:
    """Write the video. Returns the error if that fails."""
    try:
        env.write(path)
    except (OSError, RuntimeError, ValueError) as error:  # ffmpeg raises any of these
        return error
    return None


def evaluation_env(config: EnvConfig, video: bool) -> EnvConfig:
    """Return the environments of an evaluation.

    They are as many as in training, because the contrastive models' negatives come from them. Their
    first episodes are whole. A game of Atari is over when all lives are lost, as the scores of
    humans are of whole games. For a video they render frames.
    """
    if isinstance(config, MazeConfig):
        return replace(config, stagger=False)
    if isinstance(config, AtariConfig):
        return replace(config, episodic_life=False)
    return replace(config, render=True) if video and isinstance(config, GymConfig) else config


def play(
    run: Run,
    actor: Actor,
    episodes: int,
    progress: bool,
    max_steps: int | None,
    max_seconds: float | None = None,
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Play until each environment has its share of whole episodes, or a limit is reached.

    Returns:
      The episodes that ended, and what is missing (empty if nothing is).
    """
    batch = actor.env.spec.num_envs
    missing = np.full(batch, episodes // batch) + (np.arange(batch) < episodes % batch)
    statistics, played, steps = Statistics(actor.env.spec, 1), list[dict[str, float]](), 0
    most, end = max_steps or math.inf, time.monotonic() + (max_seconds or math.inf)

    def message(silence: float) -> str:
        return (
            f"no episode has ended for {silence:.0f} s; {len(played)} of {episodes} have, and each"
            f" environment took {steps:,} agent steps; Ctrl-C ends this without a result,"
            " --max-steps ends it with the episodes so far"
        )

    with (
        tqdm(
            total=episodes,
            unit="episode",
            desc="evaluation",
            disable=not progress,
            dynamic_ncols=True,
            file=sys.stdout,
        ) as bar,
        SilenceNotice(message) as waiting,
    ):
        while missing.any() and steps < most:
            trajectory = actor.unroll()
            with own_modes():
                appraised, bonus = run.learner.appraise(trajectory, remember=True)
            statistics.add(trajectory, bonus, 0)
            steps += len(trajectory.action)
            if isinstance(actor.env, Recorder):
                actor.env.explain(
                    trajectory,
                    {name: part[:, 0] for name, part in appraised.parts.items()},
                    run.learner.intrinsic.deviation,
                )
            for env, episode in statistics.episodes:
                if missing[env]:
                    missing[env] -= 1
                    played.append(episode)
                    bar.update()
                    waiting.progress()
            statistics.episodes.clear()
            if time.monotonic() >= end:
                break
    if not missing.any():
        return played, {}
    unfinished = [
        {name: float(value[env]) for name, value in statistics.running.items()}
        for env in np.flatnonzero(missing)
    ]
    limit = {
        "max_steps": max_steps,
        "max_seconds": max_seconds,
        "agent_steps": steps,
        "asked": episodes,
        "unfinished": summaries(unfinished),
    }
    return played, limit
