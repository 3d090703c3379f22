"""What noise costs a method, and whether it costs one method more than another.

A method's cost of a noise is its own score without noise minus its score in the noise. The question
of a study is a difference of these differences: a lead that is as large without noise is no
robustness. Means over runs; intervals and p-values are Welch's with Satterthwaite's degrees of
freedom, over two or four cells of independent runs with variances of their own. The p-value is that
of Satterthwaite's t: it agrees with the interval, and no permutation of runs is exact for an
interaction of cells whose means and variances differ. Holm's correction is over the whole family.

Runs of one seed begin alike, so a method's scores may go together across worlds (BYOL-Explore's in
docs/results/maze-mended: correlation 0.95 between none and brownian). Four independent cells are
then too wide an interval, or too narrow one where they go against each other. The interval that is
paired by seed holds in both cases but has few degrees of freedom. It stands beside and decides
nothing: one analysis is chosen beforehand.

Sources: Satterthwaite (1946), Welch (1947), Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.runs.studies.results import Key, StudyLog

LEVEL = 0.05  # of the corrected p-value, and one minus that of the intervals
MEASURE = "score_all"


class Contrast(NamedTuple):
    """A weighted sum of cells' means, [...] each: scalars for cells of one number."""

    value: Array
    """NaN if a cell has no runs."""
    low: Array
    """Lower end of the 95% interval. NaN if a cell has one run, or no cell varies."""
    high: Array
    p: Array
    """Two-sided, that the sum is 0. NaN where the interval is."""


NO_CONTRAST = Contrast(*np.full(4, np.nan))


@dataclass(frozen=True)
class NoiseCost:
    """What one noise costs one method, and by how much more than the reference method."""

    world: str
    method: str
    reference: str
    runs: int
    """In the noise."""
    quiet_runs: int
    """Without noise."""
    cost: Contrast
    """Score without noise minus score in the noise."""
    more: Contrast
    """This cost minus the reference's. NaN for the reference itself."""
    paired: Contrast
    """The same over the seeds that all four cells have: Student's t of one number per seed."""
    corrected_p: float
    """Holm's, of `more`, over all comparisons of the study."""

    @property
    def words(self) -> str:
        """`costs it more`, `costs it less`, `not shown`, or `no interval`. Empty: the reference."""
        if self.method == self.reference:
            return ""
        if not math.isfinite(self.corrected_p):
            return "no interval"
        if self.corrected_p >= LEVEL:
            return "not shown"
        return "costs it more" if self.more.value > 0 else "costs it less"


def contrast(cells: Sequence[Array], weights: Sequence[float]) -> Contrast:
    """Return the weighted sum of the cells' means, with its Welch-Satterthwaite interval.

    Args:
      cells: [runs, ...] each. The cells may differ in runs and in variance.
      weights: one per cell.
    """
    from scipy import stats  # only the extra `study` has it

    counts = [len(cell) for cell in cells]
    missing = np.full(cells[0].shape[1:], np.nan)
    if min(counts) < 1:
        return Contrast(missing, missing, missing, missing)
    value = sum(weight * cell.mean(0) for cell, weight in zip(cells, weights, strict=True))
    if min(counts) < 2:
        return Contrast(np.asarray(value), missing, missing, missing)
    parts = np.array(
        [
            weight**2 * cell.var(0, ddof=1) / count
            for cell, weight, count in zip(cells, weights, counts, strict=True)
        ]
    )
    # Rounding gives equal numbers a variance that is not quite 0.
    varies = np.any([np.ptp(cell, 0) > 0 for cell in cells], 0)
    variance = np.where(varies, parts.sum(0), np.nan)
    freedom = variance**2 / sum(
        part**2 / (count - 1) for part, count in zip(parts, counts, strict=True)
    ).clip(np.finfo(float).tiny)
    reach = stats.t.ppf(1 - LEVEL / 2, freedom) * np.sqrt(variance)
    p = 2 * stats.t.sf(np.abs(value) / np.sqrt(variance), freedom)
    return Contrast(np.asarray(value), value - reach, value + reach, np.asarray(p))


def holm(p: Array) -> Array:
    """Return Holm's step-down corrected p-values.

    Args:
      p: [..., family]. NaN: a comparison that cannot be made. It does not count.

    Returns:
      [..., family].
    """
    order = np.argsort(p, -1)  # NaN last
    family = np.isfinite(p).sum(-1, keepdims=True)
    ranked = np.take_along_axis(p, order, -1) * (family - np.arange(p.shape[-1]))
    stepped = np.minimum(np.maximum.accumulate(ranked, -1), 1)
    result = np.empty_like(p)
    np.put_along_axis(result, order, stepped, -1)
    return result


def noise_costs(
    scores: Mapping[Key, Mapping[int, float]], quiet: Mapping[str, str], methods: Sequence[str]
) -> list[NoiseCost]:
    """Return the cost of every noise to every method, compared with the first method's.

    Args:
      scores: (world, method) -> seed -> score. A cell that is left out has no runs.
      quiet: each world with noise -> the same world without it. Others have no costs.
      methods: the first is the reference.
    """

    def cell(world: str, method: str) -> Array:
        return np.array(list(scores.get((world, method), {}).values()))

    def four(world: str, method: str) -> list[Key]:
        same = quiet[world]
        return [(same, method), (world, method), (same, methods[0]), (world, methods[0])]

    keys = [(world, method) for world in quiet for method in methods]
    costs = {
        (world, method): contrast((cell(quiet[world], method), cell(world, method)), (1, -1))
        for world, method in keys
    }
    weights = (1, -1, -1, 1)
    more, paired = dict.fromkeys(keys, NO_CONTRAST), dict.fromkeys(keys, NO_CONTRAST)
    for key in keys:
        if key[1] != methods[0]:
            more[key] = contrast([cell(*each) for each in four(*key)], weights)
            found = [scores.get(each, {}) for each in four(*key)]
            seeds = sorted(set(found[0]).intersection(*found[1:]))
            per_seed = [
                sum(weight * each[seed] for weight, each in zip(weights, found, strict=True))
                for seed in seeds
            ]
            paired[key] = contrast([np.array(per_seed)], (1,))
    corrected = holm(np.array([float(more[key].p) for key in keys])) if keys else ()
    return [
        NoiseCost(
            *key,
            methods[0],
            len(cell(*key)),
            len(cell(quiet[key[0]], key[1])),
            costs[key],
            more[key],
            paired[key],
            float(p),
        )
        for key, p in zip(keys, corrected, strict=True)
    ]


def study_costs(study: StudyLog) -> list[NoiseCost]:
    """Return the costs of a study in the maze's score over all of training.

    The study's first method is the reference. No costs if a study has no score or no world without
    noise.
    """
    if "score" not in study.measures:
        return []
    return noise_costs(finished_scores(study), study.quiet, study.methods)


def finished_scores(study: StudyLog) -> dict[Key, dict[int, float]]:
    """Return the scores over all of training by world and method, then by seed.

    Only finished runs count: the score of half a run is another number.
    """
    return {
        key: {
            row["seed"]: row[MEASURE]
            for row in study.rows
            if (row["world"], row["method"]) == key
            and row["finished"]
            and math.isfinite(row.get(MEASURE, math.nan))
        }
        for key in study.groups
    }


def cost_rows(costs: Sequence[NoiseCost]) -> list[dict[str, Any]]:
    """Return a row per noise and method, for a CSV file. Shares of 1, not percent."""
    return [
        {
            "world": each.world,
            "method": each.method,
            "reference": each.reference,
            "runs": each.runs,
            "runs_without_noise": each.quiet_runs,
            "cost": float(each.cost.value),
            "cost_low": float(each.cost.low),
            "cost_high": float(each.cost.high),
            "difference": float(each.more.value),
            "difference_low": float(each.more.low),
            "difference_high": float(each.more.high),
            "p": float(each.more.p),
            "corrected_p": each.corrected_p,
            "paired_low": float(each.paired.low),
            "paired_high": float(each.paired.high),
            "paired_p": float(each.paired.p),
            "words": each.words,
        }
        for each in costs
    ]
