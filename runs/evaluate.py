"""Evaluation: N episodes of a checkpoint's acting policy, with every rule written beside the numbers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from afterwit.agents.actor import Actor
from afterwit.envs.gym import GymConfig
from afterwit.envs.make import EnvConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs import checkpoint
from afterwit.runs.config import read_config, to_dict
from afterwit.runs.provenance import provenance
from afterwit.runs.statistics import Statistics, section
from afterwit.runs.train import Run
from afterwit.runs.video import Recorder

NAME, VIDEO = "evaluation.json", "video.mp4"

# Human and random scores: papers.md's table, from Badia et al. (2020) and earlier; human-normalised = (score - random) / (human - random).
HUMAN_RANDOM = {
    "Alien": (7127.7, 227.8), "BankHeist": (753.1, 14.2), "Freeway": (29.6, 0.0), "Gravitar": (3351.4, 173.0),
    "Hero": (30826.4, 1027.0), "MontezumaRevenge": (4753.3, 0.0), "Pitfall": (6463.7, -229.4), "PrivateEye": (69571.3, 24.9),
    "Qbert": (13455.0, 163.9), "Solaris": (12326.7, 1236.3), "Venture": (1187.5, 0.0),
}  # fmt: skip


def evaluate(folder: Path, episodes: int, greedy: bool, seed: int, video: bool, progress: bool = True) -> dict[str, Any]:
    """Play `episodes` whole episodes and write RUN/evaluation.json (and video.mp4 of the first). Nothing is learnt.

    Episodes are shared out evenly over the environments, and of each environment the first ones count, so that short
    episodes are not preferred. The environment's seed differs from every training seed.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; at least 1 episode must be played")
    config = read_config(folder)
    saved = checkpoint.load(folder, to_dict(config))
    config = replace(config, env=evaluation_env(config.env, video), seed=seed)
    run = Run(config)
    run.learner.load_state(saved["learner"])
    env = Recorder(run.env) if video else run.env
    actor = Actor(env, run.learner.policy, config.unroll_length, seed, run.learner.device, greedy)
    actor.set_weights(run.learner.acting, run.learner.version)
    played = play(run, actor, episodes, progress)
    names = sorted({name for episode in played for name in episode}, key=lambda name: (section(name) != "reached", name))
    result: dict[str, Any] = {
        "run": str(folder), "episodes": episodes, "policy": "greedy" if greedy else "stochastic", "seed": seed,
        "trained_agent_steps": saved["agent_steps"], "trained_frames": saved["agent_steps"] * env.spec.frames_per_step,
        "results": {name: summarise(np.array([episode[name] for episode in played])) for name in names},
    }  # fmt: skip
    game = getattr(config.env, "game", None)
    if game in HUMAN_RANDOM:
        human, random = HUMAN_RANDOM[game]
        result["human_normalised"] = (result["results"]["return"]["mean"] - random) / (human - random)
    result |= {"environment": dict(env.spec.semantics), "config": to_dict(config), "provenance": provenance()}
    if isinstance(env, Recorder):
        env.write(folder / VIDEO)
        result["video"] = VIDEO
    env.close()
    (folder / NAME).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def evaluation_env(config: EnvConfig, video: bool) -> EnvConfig:
    """As many environments as in training (the reward's negatives come from them), whole first episodes, and frames for a video."""
    if isinstance(config, MazeConfig):
        return replace(config, stagger=False)
    return replace(config, render=True) if video and isinstance(config, GymConfig) else config


def play(run: Run, actor: Actor, episodes: int, progress: bool) -> list[dict[str, float]]:
    """Unroll until each environment has given its share of whole episodes."""
    batch = actor.env.spec.num_envs
    missing = np.full(batch, episodes // batch) + (np.arange(batch) < episodes % batch)
    statistics, played = Statistics(actor.env.spec, 1), []
    with tqdm(total=episodes, unit="episode", desc="evaluation", disable=not progress, dynamic_ncols=True, file=sys.stdout) as bar:
        while missing.any():
            trajectory = actor.unroll()
            seen = run.learner.appraise(trajectory)
            statistics.add(trajectory, run.learner.intrinsic(seen.reward, trajectory.real.to(seen.reward.device)), 0)
            if isinstance(actor.env, Recorder):
                actor.env.explain(trajectory, {name: part[:, 0] for name, part in seen.parts.items()}, run.learner.intrinsic.deviation)
            for env, episode in statistics.episodes:
                if missing[env]:
                    missing[env] -= 1
                    played.append(episode)
                    bar.update()
            statistics.episodes.clear()
    return played


def summarise(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean with a 95% bootstrap interval over episodes, median and spread."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return {"mean": float(values.mean()), "low": float(low), "high": float(high), "median": float(np.median(values)),
            "deviation": float(values.std()), "min": float(values.min()), "max": float(values.max())}  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The evaluation as text: one row a number."""
    trained = f"{result['trained_agent_steps']:,} agent steps ({result['trained_frames']:,} frames)"
    head = f"{result['episodes']} episodes, {result['policy']} policy, after {trained}"
    rows = [f"{'':<12}{'mean':>10}{'95% interval':>22}{'median':>10}{'min':>10}{'max':>10}"]
    for name, value in result["results"].items():
        interval = f"{value['low']:.2f} .. {value['high']:.2f}"
        rows.append(f"{name:<12}{value['mean']:>10.2f}{interval:>22}{value['median']:>10.2f}{value['min']:>10.2f}{value['max']:>10.2f}")
    if "human_normalised" in result:
        rows.append(f"human-normalised score {result['human_normalised']:.3f}")
    return "\n".join([head, *rows])
