"""Means over runs with 95% intervals, and what the aggregates of rliable need."""

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
    """A mean over runs, with its interval."""

    mean: float = math.nan
    """NaN if no run has the number."""
    low: float = math.nan
    """Lower end of the 95% interval. NaN for fewer than two runs."""
    high: float = math.nan
    runs: int = 0


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
    """Return means with 95% intervals of Student's t.

    Over five runs a bootstrap holds the mean too seldom (docs/results/intervals.md). The ends may
    lie outside of what is possible: a share above 1 says that the runs are few.

    Args:
      values: [runs, numbers], NaN for runs that lack a number.

    Returns:
      Means, lower ends and upper ends, [numbers] each. Ends are NaN for fewer than two runs.
    """
    from scipy import stats  # only the extra `study` has it

    known = np.isfinite(values)
    count = known.sum(0)
    total = np.where(known, values, 0.0).sum(0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    square = np.where(known, (values - mean) ** 2, 0.0).sum(0)
    several = count > 1
    error = np.sqrt(square / np.maximum(count - 1, 1) / np.maximum(count, 1))
    reach = np.where(several, stats.t.ppf(0.975, np.maximum(count - 1, 1)) * error, np.nan)
    return mean, mean - reach, mean + reach


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
