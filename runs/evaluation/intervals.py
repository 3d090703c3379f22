"""Interquartile means over runs, with 95% stratified-bootstrap intervals (rliable)."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array

AGGREGATES = {"IQM": "aggregate_iqm", "median": "aggregate_median", "mean": "aggregate_mean"}
REPETITIONS = 2000  # bootstrap resamples; five runs have only 3125 different ones


@dataclass(frozen=True)
class Estimate:
    """An interquartile mean over runs, with its interval."""

    iqm: float = math.nan
    """Interquartile mean. NaN if no run has the number."""
    low: float = math.nan
    """Lower end of the 95% interval. NaN for fewer than two runs."""
    high: float = math.nan
    runs: int = 0


def interquartile_mean(values: Array) -> Array:
    """Return the mean over runs without the lowest and the highest quarter of them.

    The quarters are rounded down: of five runs the middle three count, of four the middle two, of
    fewer all. For one world it equals rliable's aggregate_iqm.

    Args:
      values: [runs, ...].

    Returns:
      [...].
    """
    cut = len(values) // 4
    return np.asarray(np.sort(values, 0)[cut : len(values) - cut].mean(0))


def estimate(values: Array) -> list[Estimate]:
    """Return an estimate of each number over the runs that have it.

    Args:
      values: [runs, numbers], NaN for runs that lack a number.
    """
    each = zip(*intervals(values), np.isfinite(values).sum(0), strict=True)
    return [
        Estimate(float(centre), float(low), float(high), int(count))
        for centre, low, high, count in each
    ]


def intervals(values: Array) -> tuple[Array, Array, Array]:
    """Return interquartile means with 95% stratified-bootstrap intervals (rliable).

    The same values give the same interval.

    Args:
      values: [runs, numbers], NaN for runs that lack a number.

    Returns:
      Means, lower ends and upper ends, [numbers] each. Ends are NaN for fewer than two runs.
    """
    library = rliable()
    result = np.full((3, values.shape[1]), np.nan)
    known = np.isfinite(values)
    # Numbers that the same runs have are estimated together.
    for pattern in {tuple(column) for column in known.T}:
        rows = np.array(pattern)
        columns = (known == rows[:, None]).all(0)
        if not rows.any():
            continue
        scores = values[rows][:, columns]
        result[0, columns] = interquartile_mean(scores)
        if len(scores) < 2:
            continue
        with numpy_seed(0):
            _, ends = library.get_interval_estimates(
                {"": scores[:, None]},
                lambda drawn: interquartile_mean(drawn[:, 0]),
                reps=REPETITIONS,
                confidence_interval_size=0.95,
            )
        result[1:, columns] = ends[""]
    return result[0], result[1], result[2]


class numpy_seed:
    """Seed NumPy's global generator inside the `with` block, and restore it afterwards.

    rliable always draws from the global generator.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def __enter__(self) -> None:
        self.state = np.random.get_state()  # noqa: NPY002
        np.random.seed(self.seed)  # noqa: NPY002

    def __exit__(self, *reason: object) -> None:
        np.random.set_state(self.state)  # noqa: NPY002


def rliable(part: str = "library") -> Any:
    """Return a module of rliable.

    Raises:
      ValueError: it is missing, or its own dependencies do not fit. The message names the remedy.
    """
    try:
        return importlib.import_module(f"rliable.{part}")
    except (
        ImportError,
        TypeError,
    ) as error:  # TypeError: from arch 7, which rliable needs, with pandas 3
        raise ValueError(
            f"intervals need rliable, which cannot be imported ({error}): pip install"
            " 'afterwit[study]'"
        ) from error
