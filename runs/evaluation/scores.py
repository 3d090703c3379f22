"""Scores over runs and games: aggregates with intervals, improvement, and profiles, by rliable.

Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice": with
few runs, a mean or a best seed says little. Interquartile means with stratified-bootstrap intervals
say how much is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.runs.configs.run_config import RunConfig, config_of
from afterwit.runs.evaluation.evaluation_result import HUMAN, read_evaluation
from afterwit.runs.evaluation.intervals import AGGREGATES, REPETITIONS, numpy_seed, rliable
from afterwit.runs.output.files import checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.output.text import quoted

RESULT, PICTURE = "scores.json", "scores.png"
THRESHOLDS = 101  # points of a performance profile


def scores(folders: Sequence[Path], measure: str | None, out: Path) -> dict[str, Any]:
    """Aggregate the evaluations of runs, and write OUT/scores.json and OUT/scores.png.

    Args:
      folders: run folders with an evaluation.json.
      measure: a number of the evaluations, such as return, rooms or R4. Unset: the human-normalised
        score if all games have one, else the return.
      out: the folder OUT.

    Raises:
      ValueError: a run was not evaluated or lacks the measure, two runs have the same method, task
        and seed, or methods have different numbers of runs.
    """
    if len(folders) < 2:
        raise ValueError(
            f"scores compares runs, and was given {len(folders)}; name two or more run folders"
        )
    evaluated = [(folder, config_of(folder), evaluation_of(folder)) for folder in folders]
    if measure is None:
        measure = HUMAN if all(HUMAN in evaluation for _, _, evaluation in evaluated) else "return"
    cells: dict[str, dict[str, list[float]]] = {}
    seen: dict[tuple[str, str, int], Path] = {}
    for folder, config, evaluation in evaluated:
        value = number(evaluation, measure)
        if value is None:
            known = ", ".join([*evaluation["results"], *([HUMAN] if HUMAN in evaluation else [])])
            raise ValueError(
                f"the evaluation of {folder} has no {measure!r}; it has"
                f" {known or 'no numbers: no episode ended'}"
            )
        cells.setdefault(config.method, {}).setdefault(task(config), []).append(value)
        if same := seen.get((config.method, task(config), config.seed)):
            raise ValueError(
                f"{same} and {folder} are both {config.title} on {task(config)}; runs of one task"
                " must have different seeds"
            )
        seen[config.method, task(config), config.seed] = folder
    tables = matrices(cells)
    with checked_outputs(out / RESULT, out / PICTURE):
        return aggregated(measure, tables, evaluated, out)


def aggregated(
    measure: str,
    tables: Mapping[str, Array],
    evaluated: Sequence[tuple[Path, RunConfig, Mapping[str, Any]]],
    out: Path,
) -> dict[str, Any]:
    """Return the aggregates of each method's scores [runs, tasks], and write them to OUT."""
    result = {
        "measure": measure,
        "tasks": sorted({task(config) for _, config, _ in evaluated}),
        "scores": {name: table.tolist() for name, table in tables.items()},
        "aggregates": aggregates(tables),
        "improvement": improvement(tables),
        "profiles": profiles(tables),
        "runs": [
            {"folder": str(folder)}
            | {name: evaluation.get(name) for name in ("trained_agent_steps", "policy", "episodes")}
            for folder, _, evaluation in evaluated
        ],
        "provenance": provenance(),
    }
    # late import: it needs matplotlib, which is slow to import
    from afterwit.runs.evaluation.scores_figure import draw

    draw(result, out / PICTURE)
    write_json(out / RESULT, result)
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


def task(config: RunConfig) -> str:
    """Return what was played: the game, or the id and its arguments, and the noise if any."""
    env = config.env
    name = getattr(env, "game", None) or getattr(env, "label", None) or config.preset
    noise = getattr(env, "noise", None)
    return f"{name}, {noise}" if noise not in (None, "none") else str(name)


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


def table(result: Mapping[str, Any]) -> str:
    """Return the aggregates as text: one row per method."""
    runs, tasks = np.array(next(iter(result["scores"].values()))).shape
    head = (
        f"{result['measure'].replace('_', '-')} score of {runs} run{'s' * (runs > 1)} a task,"
        f" {tasks} task{'s' * (tasks > 1)}: " + "; ".join(result["tasks"])
    )
    rows = [f"{'':<18}" + "".join(f"{name:>30}" for name in AGGREGATES)]
    for method, numbers in result["aggregates"].items():
        rows.append(
            f"{method:<18}"
            + "".join(
                f"{format_interval(numbers[name]['value'], numbers[name]):>30}"
                for name in AGGREGATES
            )
        )
    beats = [
        f"a run of {p['better']} beats one of {p['than']} with probability"
        f" {format_interval(p['probability'], p)}"
        for p in result["improvement"]
    ]
    return "\n".join([head, *rows, *beats])


def format_interval(value: float, ends: Mapping[str, float]) -> str:
    interval = f" [{ends['low']:.2f}, {ends['high']:.2f}]" if math.isfinite(ends["low"]) else ""
    return f"{value:.2f}{interval}"
