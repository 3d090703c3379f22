"""Evaluation: N episodes of a checkpoint's acting policy, with every rule written beside the
numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from afterwit.agents.actor import Actor
from afterwit.envs.atari_config import Backend
from afterwit.envs.gym import GymConfig
from afterwit.envs.make import EnvConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.overrides import changed, short
from afterwit.runs.configs.run_config import read_config, to_dict
from afterwit.runs.evaluation.video import Recorder, check_film
from afterwit.runs.output.files import Unwritable, checked_outputs, read_json, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.output.text import quoted
from afterwit.runs.training import checkpoint
from afterwit.runs.training.episode_statistics import Statistics, section
from afterwit.runs.training.run import Run
from afterwit.runs.training.stop_signals import SilenceNotice
from afterwit.world_models.callers import own_modes

NAME, VIDEO = "evaluation.json", "video.mp4"

# Human and random scores: papers.md's table, from Badia et al. (2020) and earlier; human-normalised
# = (score - random) / (human - random).
HUMAN_RANDOM = {
    "Alien": (7127.7, 227.8),
    "BankHeist": (753.1, 14.2),
    "Freeway": (29.6, 0.0),
    "Gravitar": (3351.4, 173.0),
    "Hero": (30826.4, 1027.0),
    "MontezumaRevenge": (4753.3, 0.0),
    "Pitfall": (6463.7, -229.4),
    "PrivateEye": (69571.3, 24.9),
    "Qbert": (13455.0, 163.9),
    "Solaris": (12326.7, 1236.3),
    "Venture": (1187.5, 0.0),
}


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
) -> dict[str, Any]:
    """Play `episodes` whole episodes and write OUT/evaluation.json (and video.mp4 of the first).
    Nothing is learnt.

    Episodes are shared out evenly over the environments, and of each environment the first ones
    count, so that short episodes are not preferred. The environment's seed differs from every
    training seed. `changes` (field -> value) are rules that differ from training's, such as
    {"sticky": 0.0}. OUT is the run folder unless given; `name` is the checkpoint's file, or best.

    `max_steps` ends it after so many agent steps of each environment (or a few more: unrolls are
    whole); what was played is then the result, and its `limit` says what is missing. Raises
    ValueError, before anything is played, where OUT cannot be written.
    """
    for what, value in (("episodes", episodes), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{what} is {value}; at least 1 must be played")
    config = read_config(folder)
    saved = checkpoint.load(folder, config, name)
    env_config = evaluation_env(config.env, video)
    for path, value in (changes or {}).items():
        env_config = changed(env_config, path, value)
    if greedy and config.learner.policy.uniform:
        raise ValueError(
            f"{folder} acts at random, so that no action is the likeliest; leave --greedy out"
        )
    config = replace(config.alone(), env=env_config, seed=seed)
    if video:
        check_film()
    target = folder if out is None else out
    film = target / VIDEO
    with checked_outputs(target / NAME, *([film] if video else [])), closing(Run(config)) as run:
        try:
            run.learner.load_state(saved["learner"])
        except ValueError as error:
            raise ValueError(f"{folder} cannot play here: {error}") from error
        env = Recorder(run.actors[0].env) if video else run.actors[0].env
        actor = Actor(
            env, run.learner.policy, config.unroll_length, seed, run.learner.device, greedy
        )
        actor.set_weights(run.learner.acting, run.learner.version)
        played, limit = play(run, actor, episodes, progress, max_steps)
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
            result["human_normalised"] = human_normalised(game, result["results"]["return"])
        result |= {"changes": dict(changes or {})}
        result |= {
            "environment": dict(env.spec.semantics),
            "config": to_dict(config),
            "provenance": provenance(),
        }
        failure = filmed(env, film) if isinstance(env, Recorder) else None
        try:
            write_json(
                target / NAME, result | ({"video": VIDEO} if video and failure is None else {})
            )
        except Unwritable:
            print(table(result))  # rather than lose what was played
            raise
    if failure is not None:
        raise ValueError(
            f"{film} could not be made ({failure}); the scores are in {target / NAME}"
        ) from failure
    return result


def filmed(env: Recorder, path: Path) -> Exception | None:
    """Write the film; what went wrong, if something did."""
    try:
        env.write(path)
    except (OSError, RuntimeError, ValueError) as error:  # of ffmpeg, too
        return error
    return None


def human_normalised(game: str, returns: Mapping[str, float]) -> dict[str, float]:
    """(score - random) / (human - random) of a summary of returns; `capped` counts no game for more
    than a human's score.
    """
    human, random = HUMAN_RANDOM[game]
    numbers = {
        name: (returns[name] - random) / (human - random)
        for name in ("mean", "low", "high", "median")
    }
    return numbers | {"capped": min(numbers["mean"], 1.0)}


def evaluation_env(config: EnvConfig, video: bool) -> EnvConfig:
    """As many environments as in training (the reward's negatives come from them), whole first
    episodes, and frames for a video.
    """
    if isinstance(config, MazeConfig):
        return replace(config, stagger=False)
    return replace(config, render=True) if video and isinstance(config, GymConfig) else config


def play(
    run: Run, actor: Actor, episodes: int, progress: bool, max_steps: int | None
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Unroll until each environment has given its share of whole episodes, or taken `max_steps`
    agent steps: the episodes that ended, and where that are not all, what is missing."""
    batch = actor.env.spec.num_envs
    missing = np.full(batch, episodes // batch) + (np.arange(batch) < episodes % batch)
    statistics, played, steps = Statistics(actor.env.spec, 1), list[dict[str, float]](), 0

    def words(silence: float) -> str:
        return (
            f"no episode has ended for {silence:.0f} s; {len(played)} of {episodes} have, and each"
            f" environment took {steps:,} agent steps; Ctrl-C ends this without a result,"
            " --max-steps ends it with what was played until then"
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
        SilenceNotice(words) as waiting,
    ):
        while missing.any() and (max_steps is None or steps < max_steps):
            trajectory = actor.unroll()
            with own_modes():
                seen = run.learner.appraise(trajectory)
            statistics.add(
                trajectory,
                run.learner.intrinsic(seen.reward, trajectory.real.to(seen.reward.device)),
                0,
            )
            steps += len(trajectory.action)
            if isinstance(actor.env, Recorder):
                actor.env.explain(
                    trajectory,
                    {name: part[:, 0] for name, part in seen.parts.items()},
                    run.learner.intrinsic.deviation,
                )
            for env, episode in statistics.episodes:
                if missing[env]:
                    missing[env] -= 1
                    played.append(episode)
                    bar.update()
                    waiting.progress()
            statistics.episodes.clear()
    if not missing.any():
        return played, {}
    going_on = [
        {name: float(value[env]) for name, value in statistics.running.items()}
        for env in np.flatnonzero(missing)
    ]
    limit = {
        "max_steps": max_steps,
        "agent_steps": steps,
        "asked": episodes,
        "unfinished": summaries(going_on),
    }
    return played, limit


def summaries(played: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Each number of the episodes, summarised; the trackers first."""
    names = sorted(
        {name for episode in played for name in episode},
        key=lambda name: (section(name) != "reached", name),
    )
    return {
        name: summarise(np.array([episode[name] for episode in played if name in episode]))
        for name in names
    }


def summarise(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean with a 95% bootstrap interval over the episodes that have the number (a first reward,
    not all do), median and spread.
    """
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return {
        "episodes": len(values),
        "mean": float(values.mean()),
        "low": float(low),
        "high": float(high),
        "median": float(np.median(values)),
        "deviation": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


REST = ("median", "deviation", "min", "max")


def table(result: dict[str, Any]) -> str:
    """The evaluation as text: one row a number."""
    trained = f"{result['trained_agent_steps']:,} agent steps ({result['trained_frames']:,} frames)"
    head = f"{result['episodes']} episodes, {result['policy']} policy, after {trained}"
    rows = [rules(result["environment"]), ""]
    if result["results"]:
        rest = f"{'median':>10}{'deviation':>11}{'min':>10}{'max':>10}"
        rows.append(f"{'':<14}{'mean':>10}{'95% interval':>22}{rest}")
    for name, value in result["results"].items():
        interval = f"{value['low']:.2f} .. {value['high']:.2f}"
        numbers = f"{value['mean']:>10.2f}{interval:>22}" + "".join(
            f"{value[column]:>11.2f}" for column in REST
        )
        rare = (
            ""
            if value["episodes"] == result["episodes"]
            else f"   in {value['episodes']} of {result['episodes']} episodes"
        )
        rows.append(f"{name:<14}{numbers}{rare}")
    if "limit" in result:
        rows.append(limited(result["limit"], result["episodes"]))
    if "human_normalised" in result:
        human = result["human_normalised"]
        rows.append(
            f"human-normalised {human['mean']:.3f} ({human['low']:.3f} .. {human['high']:.3f}),"
            f" capped at a human's {human['capped']:.3f}"
        )
    return "\n".join([head, *rows])


def limited(limit: Mapping[str, Any], ended: int) -> str:
    """That an evaluation ended early, and with what."""
    so_far = limit["unfinished"]["return"]
    return (
        f"stopped by max_steps after {limit['agent_steps']:,} agent steps of each environment:"
        f" {ended} of {limit['asked']} episodes ended, the short ones first; {so_far['episodes']}"
        f" going on, with a return of {so_far['mean']:.2f} so far"
    )


def rules(environment: Mapping[str, Any]) -> str:
    """What was played by, in a line: of Atari the settings that change scores, of others all that
    the environment says of itself.
    """
    if environment.get("backend") not in get_args(Backend):  # no Atari
        return ", ".join(
            f"{name} {value}" for name, value in environment.items() if value is not None
        )
    e = environment
    return (
        f"{e['task']} on {e['backend']}: sticky {e['repeat_action_probability']} a frame, skip"
        f" {e['frame_skip']}, {1 if e['backend'] == 'envpool' else 0} to {e['noop_max']} no-ops at"
        f" the start, at most {e['episode_frames']:,} frames ({e['episode_frames'] / 3600:.0f}"
        f" min), {'all 18' if e['full_action_space'] else 'the minimal set of'} actions,"
        f" {'an episode ends with a life' if e['episodic_life'] else 'a lost life ends nothing'},"
        " raw scores"
    )


HUMAN = "human_normalised"


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """A run's evaluation, None where there is none. Its summaries, `results` and
    `human_normalised`, hold numbers alone.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    remedy = f"remove it or write it again: afterwit evaluate {quoted(folder)}"
    result = read_json(path, remedy)
    if not isinstance(result, dict) or not isinstance(result.get("results"), dict):
        raise ValueError(f"{path} holds no evaluation; {remedy}")
    summaries = result["results"] | ({HUMAN: result[HUMAN]} if HUMAN in result else {})
    for name, summary in summaries.items():
        if not isinstance(summary, dict) or not all(map(is_number, summary.values())):
            raise ValueError(
                f"{path} has {short(summary)} for {name}, which is no summary; {remedy}"
            )
    return result


def is_unicode(name: str) -> bool:
    """Whether pages and pictures can show it: JSON can spell halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def is_number(value: Any) -> bool:
    """An int or float that float64 can hold; NaN and infinity are such floats."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1000)
