"""Scores over runs and games: aggregates with intervals, improvement, and profiles, by rliable.

Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice": with
few runs, a mean or a best seed says little. Interquartile means with stratified-bootstrap intervals
say how much is known.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.runs.configs.comparison import compared, label, world_name
from afterwit.runs.configs.run_config import RunConfig, config_of
from afterwit.runs.evaluation.evaluation_result import HUMAN, read_evaluation
from afterwit.runs.evaluation.intervals import AGGREGATES, REPETITIONS, numpy_seed, rliable
from afterwit.runs.output.files import check_kind, checked_outputs, finite, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.output.text import quoted
from afterwit.runs.training import checkpoint

RESULT, PICTURE = "scores.json", "scores.png"
Evaluated = tuple[Path, RunConfig, Mapping[str, Any]]  # a run and its evaluation
# Fields of environments that are part of how a method trains, not of what is played.
TRAINING_ONLY = ("env.num_envs", "env.stagger")
# How a method's runs of a task were evaluated, and what files of earlier versions mean.
ALIKE: dict[str, Any] = {"policy": None, "checkpoint": checkpoint.NAME, "changes": {}}
KEPT = ("trained_agent_steps", "policy", "episodes", "limit")  # of each evaluation
THRESHOLDS = 101  # points of a performance profile


def scores(folders: Sequence[Path], measure: str | None, out: Path) -> dict[str, Any]:
    """Aggregate the evaluations of runs, and write OUT/scores.json and OUT/scores.png.

    Runs of one method and task differ only in their seed. Others are methods or tasks of their own,
    which are named by the fields in which they differ.

    Args:
      folders: run folders with an evaluation.json.
      measure: a number of the evaluations, such as return, rooms or R4. Unset: the human-normalised
        score if all games have one, else the return.
      out: the folder OUT.

    Raises:
      ValueError: a run was not evaluated or lacks the measure, two runs have the same method, task
        and seed or were evaluated in different ways, or a method has different numbers of runs.
    """
    if len(folders) < 2:
        raise ValueError(
            f"scores compares runs, and was given {len(folders)}; name two or more run folders"
        )
    evaluated = [(folder, config_of(folder), evaluation_of(folder)) for folder in folders]
    places = methods_and_tasks([config for _, config, _ in evaluated])
    if measure is None:
        without = [folder for folder, _, evaluation in evaluated if HUMAN not in evaluation]
        if 0 < len(without) < len(evaluated) and len({task for _, task in places}) > 1:
            raise ValueError(
                f"{without[0]} has no human-normalised score and others have one, and returns of"
                " different games do not add up; leave it out, or choose a --measure"
            )
        measure = "return" if without else HUMAN
    cells: dict[str, dict[str, list[float]]] = {}
    seen: dict[tuple[str, str, int], Path] = {}
    for (method, task), (folder, config, evaluation) in zip(places, evaluated, strict=True):
        value = number(evaluation, measure)
        if value is None:
            known = ", ".join([*evaluation["results"], *([HUMAN] if HUMAN in evaluation else [])])
            raise ValueError(
                f"the evaluation of {folder} has no {measure!r}; it has"
                f" {known or 'no numbers: no episode ended'}"
            )
        cells.setdefault(method, {}).setdefault(task, []).append(value)
        if same := seen.get((method, task, config.seed)):
            raise ValueError(
                f"{same} and {folder} are both {method}, seed {config.seed} on {task}; runs of one"
                " task must have different seeds"
            )
        seen[method, task, config.seed] = folder
    check_alike(places, evaluated)
    tables = matrices(cells)
    check_kind(out / RESULT, "improvement")
    with checked_outputs(out / RESULT, out / PICTURE):
        return aggregated(measure, tables, places, evaluated, out)


def methods_and_tasks(configs: Sequence[RunConfig]) -> list[tuple[str, str]]:
    """Return the method and the task of each run.

    A task is all that is played, a method all else but the seed. Where a plain name means several,
    the fields in which they differ follow it.
    """
    fields = [compared(config) for config in configs]
    played, trained = (
        [
            {
                name: value
                for name, value in each.items()
                if (name.startswith("env.") and name not in TRAINING_ONLY) == of_task
            }
            for each in fields
        ]
        for of_task in (True, False)
    )
    tasks = told_apart([(world_name(config),) for config in configs], played)
    methods = told_apart(
        [(config.method, task) for config, task in zip(configs, tasks, strict=True)], trained
    )
    return list(zip(methods, tasks, strict=True))


def told_apart(names: Sequence[tuple[str, ...]], fields: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the first part of each name, with the fields that differ among equal names."""
    together = defaultdict[tuple[str, ...], list[Mapping[str, Any]]](list)
    for name, each in zip(names, fields, strict=True):
        together[name].append(each)
    return [label(n[0], each, together[n]) for n, each in zip(names, fields, strict=True)]


def check_alike(places: Sequence[tuple[str, str]], evaluated: Sequence[Evaluated]) -> None:
    """Raise a ValueError if runs were evaluated in ways that do not compare.

    Changed fields must be the same in all runs of a task. Policy and checkpoint must be the same in
    the runs of a method on a task: other methods may not have them.
    """
    seen: dict[tuple[str, ...], tuple[Path, Any]] = {}
    for (method, task), (folder, _, evaluation) in zip(places, evaluated, strict=True):
        for name, usual in ALIKE.items():
            value = evaluation.get(name, usual)
            of = (name, task) if name == "changes" else (name, task, method)
            first, other = seen.setdefault(of, (folder, value))
            if value != other:
                raise ValueError(
                    f"{first} and {folder}, both on {task}, were evaluated with {name} {other!r}"
                    f" and {value!r}; evaluate them alike, or leave one out"
                )


def aggregated(
    measure: str,
    tables: Mapping[str, Array],
    places: Sequence[tuple[str, str]],
    evaluated: Sequence[Evaluated],
    out: Path,
) -> dict[str, Any]:
    """Return the aggregates of each method's scores [runs, tasks], and write them to OUT."""
    result = {
        "measure": measure,
        "tasks": sorted({task for _, task in places}),
        "scores": {name: table.tolist() for name, table in tables.items()},
        "aggregates": aggregates(tables),
        "improvement": improvement(tables),
        "profiles": profiles(tables),
        "runs": [
            {"folder": str(folder)}
            | {"method": method, "task": task}
            | {name: evaluation.get(name) for name in KEPT}
            for (method, task), (folder, _, evaluation) in zip(places, evaluated, strict=True)
        ],
        "provenance": provenance(),
    }
    # late import: it needs matplotlib, which is slow to import
    from afterwit.runs.evaluation.scores_figure import draw

    draw(result, out / PICTURE)
    write_json(out / RESULT, finite(result), allow_nan=False)
    return result


def evaluation_of(folder: Path) -> dict[str, Any]:
    """Return the evaluation of a run. Raises ValueError if there is none."""
    found = read_evaluation(folder)
    if found is None:
        raise ValueError(f"{folder} was not evaluated; run: afterwit evaluate {quoted(folder)}")
    return found


def number(evaluation: Mapping[str, Any], measure: str) -> float | None:
    """Return the mean over episodes, None if it is missing or not finite."""
    mean = ((evaluation if measure == HUMAN else evaluation["results"]).get(measure) or {}).get(
        "mean", math.nan
    )
    return float(mean) if math.isfinite(mean) else None


def matrices(cells: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Array]:
    """Return the scores of each method as [runs, tasks].

    Raises:
      ValueError: a method lacks a task, or has more runs of one task than of another.
    """
    tasks = sorted({name for own in cells.values() for name in own})
    for method, own in cells.items():
        counts = {name: len(own.get(name, ())) for name in tasks}
        least = min(counts, key=lambda name: counts[name])
        most = max(counts, key=lambda name: counts[name])
        if counts[least] < counts[most]:
            raise ValueError(
                f"{method} has {counts[most]} runs of {most} and {counts[least]} of {least}; give"
                " as many runs of each"
            )
    return {method: np.array([own[name] for name in tasks]).T for method, own in cells.items()}


def aggregates(tables: Mapping[str, Array]) -> dict[str, dict[str, dict[str, float]]]:
    """Return method -> IQM, median, mean -> value, low, high. Ends are NaN for one run."""
    metrics = rliable("metrics")
    functions = [getattr(metrics, name) for name in AGGREGATES.values()]
    result = {}
    for method, table in tables.items():
        values = [float(function(table)) for function in functions]
        ends = np.full((2, len(values)), math.nan)
        if len(table) > 1:
            ends = bootstrap(
                {method: table}, lambda drawn: np.array([function(drawn) for function in functions])
            )[method]
        result[method] = {
            name: {"value": value, "low": float(low), "high": float(high)}
            for name, value, low, high in zip(AGGREGATES, values, *ends, strict=True)
        }
    return result


def improvement(tables: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Return for each pair of methods the probability that one beats the other.

    It is the probability that a run of the one beats a run of the other on a task, averaged over
    tasks.
    """
    metrics = rliable("metrics")
    result = []
    for one, other in permutations(tables, 2):
        value = float(metrics.probability_of_improvement(tables[one], tables[other]))
        low, high = math.nan, math.nan
        if min(len(tables[one]), len(tables[other])) > 1:
            pair = {"": (tables[one], tables[other])}
            low, high = map(
                float,
                bootstrap(pair, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]))[
                    ""
                ][:, 0],
            )
        result.append(
            {"better": one, "than": other, "probability": value, "low": low, "high": high}
        )
    return result


def profiles(tables: Mapping[str, Array]) -> dict[str, Any]:
    """Return for each method the share of runs above each threshold, with its interval.

    The thresholds go from the lowest score to the highest.
    """
    low, high = (
        float(end([table.min() if end is min else table.max() for table in tables.values()]))
        for end in (min, max)
    )
    thresholds = np.linspace(low, high, THRESHOLDS)
    library = rliable()
    with numpy_seed(0):
        shares, ends = library.create_performance_profile(
            dict(tables), thresholds, reps=REPETITIONS
        )
    return {
        "thresholds": thresholds.tolist(),
        "methods": {
            method: {
                "share": shares[method].tolist(),
                "low": ends[method][0].tolist(),
                "high": ends[method][1].tolist(),
            }
            for method in tables
        },
    }


def bootstrap(tables: Mapping[str, Any], function: Any) -> dict[str, Array]:
    """Return 95% stratified-bootstrap intervals, [2, numbers] each.

    The same scores give the same interval.
    """
    with numpy_seed(0):
        ends: dict[str, Array] = rliable().get_interval_estimates(
            dict(tables), function, reps=REPETITIONS
        )[1]
    return ends
