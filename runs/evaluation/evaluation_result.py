"""The result of an evaluation: summaries, human-normalised scores, its file and its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from afterwit.envs.atari_config import Backend
from afterwit.runs.configs.overrides import short
from afterwit.runs.output.files import read_json
from afterwit.runs.output.text import quoted
from afterwit.runs.training.episode_statistics import section

NAME, VIDEO = "evaluation.json", "video.mp4"
HUMAN = "human_normalised"  # key of the human-normalised score

# Human and random scores of Atari games: Badia et al. (2020), "Agent57", and the works it cites.
# human-normalised = (score - random) / (human - random)
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


def normalised(game: str, score: float) -> float:
    """Return a game's score in units of a human's: 0 is a random policy, 1 a human."""
    human, random = HUMAN_RANDOM[game]
    return (score - random) / (human - random)


def human_normalised(game: str, returns: Mapping[str, float]) -> dict[str, float]:
    """Return (score - random) / (human - random) of a summary of returns.

    `capped` counts a game as at most a human's score.
    """
    numbers = {name: normalised(game, returns[name]) for name in ("mean", "low", "high", "median")}
    return numbers | {"capped": min(numbers["mean"], 1.0)}


def summaries(played: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return a summary of each number of the episodes, the trackers first."""
    names = sorted(
        {name for episode in played for name in episode},
        key=lambda name: (section(name) != "reached", name),
    )
    return {
        name: summarise(np.array([episode[name] for episode in played if name in episode]))
        for name in names
    }


def summarise(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return mean, median, spread and a 95% bootstrap interval of the mean.

    `values` has one number per episode. Some numbers, such as the first reward, not all episodes
    have.
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


OTHER_COLUMNS = ("median", "deviation", "min", "max")


def table(result: dict[str, Any]) -> str:
    """Return an evaluation as text: one row per number."""
    trained = f"{result['trained_agent_steps']:,} agent steps ({result['trained_frames']:,} frames)"
    head = f"{result['episodes']} episodes, {result['policy']} policy, after {trained}"
    rows = [rules(result["environment"]), ""]
    if result["results"]:
        rest = "".join(f"{column:>11}" for column in OTHER_COLUMNS)
        rows.append(f"{'':<14}{'mean':>10}{'95% interval':>22}{rest}")
    for name, value in result["results"].items():
        interval = f"{value['low']:.2f} .. {value['high']:.2f}"
        numbers = f"{value['mean']:>10.2f} {interval:>21}" + "".join(
            f" {value[column]:>10.2f}" for column in OTHER_COLUMNS
        )
        rare = (
            ""
            if value["episodes"] == result["episodes"]
            else f"   in {value['episodes']} of {result['episodes']} episodes"
        )
        rows.append(f"{name:<14}{numbers}{rare}")
    if "limit" in result:
        rows.append(limit_text(result["limit"], result["episodes"]))
    if "human_normalised" in result:
        human = result["human_normalised"]
        rows.append(
            f"human-normalised {human['mean']:.3f} ({human['low']:.3f} .. {human['high']:.3f}),"
            f" capped at a human's {human['capped']:.3f}"
        )
    return "\n".join([head, *rows])


def limit_text(limit: Mapping[str, Any], ended: int) -> str:
    """Return a sentence about an evaluation that ended early."""
    so_far = limit["unfinished"]["return"]
    return (
        f"stopped by max_steps after {limit['agent_steps']:,} agent steps of each environment:"
        f" {ended} of {limit['asked']} episodes ended, the short ones first; {so_far['episodes']}"
        f" going on, with a return of {so_far['mean']:.2f} so far"
    )


def rules(environment: Mapping[str, Any]) -> str:
    """Return the rules of the evaluation in one line.

    For Atari these are the settings that change scores, for other environments everything that they
    declare.
    """
    if environment.get("backend") not in get_args(Backend):  # not Atari
        return ", ".join(
            f"{name} {value}" for name, value in environment.items() if value is not None
        )
    e = environment
    return (
        f"{e['task']} on {e['backend']}: sticky {e['repeat_action_probability']} a frame, skip"
        f" {e['frame_skip']}, {0 if e['backend'] == 'ale' else 1} to {e['noop_max']} no-ops at"
        f" the start, at most {e['episode_frames']:,} frames ({e['episode_frames'] / 3600:.0f}"
        f" min), {'all 18' if e['full_action_space'] else 'the minimal set of'} actions,"
        f" {'an episode ends with a life' if e['episodic_life'] else 'a lost life ends nothing'},"
        " raw scores"
    )


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """Return a run's evaluation, None if there is none.

    All values in its summaries `results` and `human_normalised` are numbers.

    Raises:
      ValueError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    remedy = f"remove it, and write it again: afterwit evaluate {quoted(folder)}"
    result = read_json(path, remedy)
    if not isinstance(result, dict) or not isinstance(result.get("results"), dict):
        raise ValueError(f"{path} is not an evaluation; {remedy}")
    summaries = result["results"] | ({HUMAN: result[HUMAN]} if HUMAN in result else {})
    for name, summary in summaries.items():
        if not isinstance(summary, dict) or not all(map(is_number, summary.values())):
            raise ValueError(
                f"{path} has {short(summary)} for {name}, which is not a summary; {remedy}"
            )
    return result


def is_unicode(name: str) -> bool:
    """Return whether pages and figures can show a name: JSON may hold half a surrogate pair."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def is_number(value: Any) -> bool:
    """Return whether `value` is an int or float within float64, or NaN or infinity."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1000)
