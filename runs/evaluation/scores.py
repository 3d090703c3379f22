"""Scores over runs and games: aggregates with intervals, who beats whom, and performance profiles,
all by rliable.

Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice": with
few runs a mean or a best seed says little; interquartile means with stratified bootstrap intervals
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
from afterwit.runs.evaluation.evaluate import HUMAN, read_evaluation
from afterwit.runs.evaluation.intervals import AGGREGATES, REPETITIONS, numpy_seed, rliable
from afterwit.runs.output.files import checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.output.text import quoted

RESULT, PICTURE = "scores.json", "scores.png"
THRESHOLDS = 101  # points of a profile


def scores(folders: Sequence[Path], measure: str | None, out: Path) -> dict[str, Any]:
    """Aggregate the evaluations in run `folders` and write OUT/scores.json and scores.png.

    `measure` is a number of the evaluations, such as return, rooms or R4; unset, the
    human-normalised score where all games have one, else the return. Raises ValueError where a run
    was not evaluated, lacks the measure, is there twice (method, task and seed), or cells have
    unequal numbers of runs.
    """
    if len(folders) < 2:
        raise ValueError(
            f"scores compares runs, and was given {len(folders)}; name two or more run folders"
        )
    found = [(folder, config_of(folder), evaluation_of(folder)) for folder in folders]
    if measure is None:
        measure = HUMAN if all(HUMAN in evaluation for _, _, evaluation in found) else "return"
    cells: dict[str, dict[str, list[float]]] = {}
    seen: dict[tuple[str, str, int], Path] = {}
    for folder, config, evaluation in found:
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
        return aggregated(measure, tables, found, out)


def aggregated(
    measure: str,
    tables: Mapping[str, Array],
    found: Sequence[tuple[Path, RunConfig, Mapping[str, Any]]],
    out: Path,
) -> dict[str, Any]:
    """The aggregates of scores [runs, tasks] of each method, written to OUT."""
    result = {
        "measure": measure,
        "tasks": sorted({task(config) for _, config, _ in found}),
        "scores": {name: table.tolist() for name, table in tables.items()},
        "aggregates": aggregates(tables),
        "improvement": improvement(tables),
        "profiles": profiles(tables),
        "runs": [
            {"folder": str(folder)}
            | {name: evaluation.get(name) for name in ("trained_agent_steps", "policy", "episodes")}
            for folder, _, evaluation in found
        ],
        "provenance": provenance(),
    }
    # imports matplotlib, which the numbers need not wait for
    from afterwit.runs.evaluation.scores_figure import draw

    draw(result, out / PICTURE)
    write_json(out / RESULT, result)
    return result


def evaluation_of(folder: Path) -> dict[str, Any]:
    found = read_evaluation(folder)
    if found is None:
        raise ValueError(f"{folder} was not evaluated; run: afterwit evaluate {quoted(folder)}")
    return found


def number(evaluation: Mapping[str, Any], measure: str) -> float | None:
    """The mean over episodes; None where the evaluation does not have it, or it is not finite."""
    mean = ((evaluation if measure == HUMAN else evaluation["results"]).get(measure) or {}).get(
        "mean", math.nan
    )
    return float(mean) if math.isfinite(mean) else None


def task(config: RunConfig) -> str:
    """What was played: the game, or the id and its arguments, and the noise if there can be any."""
    env = config.env
    name = getattr(env, "game", None) or getattr(env, "label", None) or config.preset
    noise = getattr(env, "noise", None)
    return f"{name}, {noise}" if noise not in (None, "none") else str(name)


def matrices(cells: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Array]:
    """Scores [runs, tasks] of each method. Raises ValueError where a method lacks a task, or has
    more runs of one than of another.
    """
    tasks = sorted({name for own in cells.values() for name in own})
    for method, own in cells.items():
        counts = {name: len(own.get(name, ())) for name in tasks}
        least, most = (
            min(counts, key=lambda name: counts[name]),
            max(counts, key=lambda name: counts[name]),
        )
        if counts[least] < counts[most]:
            raise ValueError(
                f"{method} has {counts[most]} runs of {most} and {counts[least]} of {least}; give"
                " as many runs of each"
            )
    return {method: np.array([own[name] for name in tasks]).T for method, own in cells.items()}


def aggregates(tables: Mapping[str, Array]) -> dict[str, dict[str, dict[str, float]]]:
    """method -> IQM, median, mean -> value, low, high. The ends are NaN for a single run."""
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
    """For each two methods the probability that a run of the one beats a run of the other on a
    task, averaged over tasks.
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
    """For thresholds from the lowest score to the highest, the share of runs above, and its
    interval: a curve for each method.
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
    """95% stratified-bootstrap intervals, [2, numbers] each; the same scores give the same
    interval.
    """
    with numpy_seed(0):
        ends: dict[str, Array] = rliable().get_interval_estimates(
            dict(tables), function, reps=REPETITIONS
        )[1]
    return ends


def table(result: Mapping[str, Any]) -> str:
    """The aggregates as text: one row a method."""
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
