"""A run's numbers, as a study averages them over runs.

The exploration score of a run is the trackers reached per episode over the number of trackers.
`all` averages over all of training, `best` is the best tenth, `last` the last tenth. Curiosity
rightly fades when nothing is left to learn. `first/R1` is the agent step, over all environments, at
which an episode first reached R1. It is NaN if none did, and an estimate is over the other runs.
"""

from __future__ import annotations

import math

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.atari import AtariConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.evaluation.evaluation_result import HUMAN_RANDOM, normalised
from afterwit.runs.reports.groups import MEASURES, Group, noise_of
from afterwit.runs.reports.run_results import RunLog
from afterwit.runs.training.episode_statistics import NUM_WINDOWS
from afterwit.world_models.instruments import ALARM

INSTRUMENTS = (
    "noise/share",
    "noise/seeking",
    "leak/critic",
    "leak/place_from_latent",
    "leak/place_from_noise",
    "leak/action_from_latent",
    "leak/action_from_noise",
    "use/latent",
    "rank/embedding",
    "rank/belief",
    "rank/latent",
    "spread/target",
    "share_of_time/room_change",
    "share_of_pay/room_change",
)
# What an agent that seeks the noise does more often. It is compared with the same method in the
# world without noise.
SOUGHT = {"on-demand": "share_of_time/noop", "brownian": "share_of_time/block_in_view"}


def measured(run: RunLog) -> dict[str, tuple[str, ...]]:
    """Return the numbers that judge a run: name -> the logged names that it averages.

    Empty until its first episode has ended.
    """
    trackers = tuple(run.names("reached/"))
    if trackers:
        return {"score": trackers} | {name.split("/")[1]: (name,) for name in trackers}
    return {
        name: (logged,)
        for name, (logged, _) in MEASURES.items()
        if run.names(logged) and run.episodes.any()
    }


def numbers(run: RunLog) -> dict[str, float | int | bool]:
    """Return all numbers of a run by name.

    Floats are estimated over runs. Missing ones are NaN or left out.
    """
    whole, last = np.ones(len(run.steps), bool), run.tenth == run.last_tenth
    result: dict[str, float | int | bool] = {
        "finished": run.finished,
        "agent_steps": int(run.steps[-1]),
        "total_steps": run.config.total_steps,
        "episodes": int(run.episodes.sum()),
    }
    for measure, names in measured(run).items():

        def over(where: Array, names: tuple[str, ...] = names) -> float:
            return float(np.mean([run.mean(name, where) for name in names]))

        tenths = [over(run.tenth == index) for index in range(NUM_WINDOWS)]
        best = max((value for value in tenths if math.isfinite(value)), default=math.nan)
        result |= {
            f"{measure}_all": over(whole),
            f"{measure}_best": best,
            f"{measure}_last": over(last),
        }
        result[f"{measure}_drop"] = best - float(result[f"{measure}_last"])
    env = run.config.env
    if "return_all" in result and isinstance(env, AtariConfig) and env.game in HUMAN_RANDOM:
        result |= {
            f"human_{when}": normalised(env.game, float(result[f"return_{when}"]))
            for when in ("all", "best", "last")
        }
    result |= {
        first: first_value(run.column(first))
        for first in (name.replace("reached/", "first/") for name in run.names("reached/"))
    }
    logged = {name for entry in run.entries for name in entry}
    result |= {name: run.mean(name, last) for name in INSTRUMENTS if name in logged}
    if ALARM in logged:
        alarms = np.nan_to_num(run.column(ALARM))
        result |= {"alarm": bool(alarms.any()), "alarm_share": run.mean(ALARM, whole)}
    noise = noise_of(Group("", "", (run,), 0))
    if noise:
        result |= {
            "noise_time": run.mean(f"share_of_time/{noise[0]}", last),
            "noise_pay": run.mean(f"share_of_pay/{noise[0]}", last),
        }
        result["noise_ratio"] = run.mean(f"ratio/{noise[0]}", last)
    result |= {name: run.mean(name, last) for name in sorted(set(SOUGHT.values()) & logged)}
    parts = [
        run.column(name)
        for name in run.names("learner/intrinsic_")
        if name != "learner/intrinsic_scale"
    ]
    if parts:
        result["reward_left"] = remaining_reward_share(np.sum(parts, axis=0), run)
    result["seconds"] = float(run.entries[-1].get("seconds", math.nan))
    return result


def first_value(column: Array) -> float:
    """Return the first number of a column. NaN if there is none."""
    numbers = column[np.isfinite(column)]
    return float(numbers[0]) if len(numbers) else math.nan


def remaining_reward_share(reward: Array, run: RunLog) -> float:
    """Return how much of the raw intrinsic reward remains.

    It is the mean in the last tenth over that in the tenth with the largest.
    """
    means = [
        float(np.nanmean(reward[where]))
        for index in range(NUM_WINDOWS)
        if np.isfinite(reward[where := run.tenth == index]).any()
    ]
    return means[-1] / max(means) if means and max(means) > 0 else math.nan


def noise_key(group: Group) -> str | None:
    """Return the logged share of the action or place that makes a world's noise.

    None if there is none.
    """
    env = group.runs[0].config.env
    dose = (
        env.resolved_dose
        if isinstance(env, MazeConfig)
        else env.dose
        if isinstance(env, AtariConfig)
        else 0
    )
    return SOUGHT.get(env.noise) if dose and isinstance(env, MazeConfig | AtariConfig) else None
