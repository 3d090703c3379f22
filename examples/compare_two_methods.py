"""Compare two methods properly: several seeds, every run shown, an interval of the difference.

    pip install 'afterwit[study]'                     # for scipy
    python examples/compare_two_methods.py            # ten runs, one after the other
    python examples/compare_two_methods.py --small    # four tiny runs: they show nothing

Ctrl-C saves; the same command goes on. `afterwit study maze` compares many methods in many worlds,
several runs at a time.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import ttest_ind

from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import write_config
from afterwit.runs.reports.run_results import read_run
from afterwit.runs.training.loop import train

METHODS = ("byol-hindsight", "rnd")


def score(folder: Path) -> float:
    """Trackers reached per episode over the number of trackers, over all of training."""
    run = read_run(folder)
    everywhere = np.ones(len(run.steps), bool)
    return float(np.mean([run.mean(name, everywhere) for name in run.names("reached/")]))


def interval_of_difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """95% interval of the difference of two means, by Welch's t.

    With five runs a method, bootstrap intervals are too narrow.
    """
    low, high = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="two seeds of 10,000 steps")
    parser.add_argument("--out", type=Path, default=Path("runs/out/two-methods"))
    options = parser.parse_args()
    steps, seeds = (10_000, range(2)) if options.small else (1_500_000, range(5))
    folders = {
        (method, seed): options.out / method / f"s{seed}" for method in METHODS for seed in seeds
    }
    for (method, seed), folder in folders.items():
        if not (folder / "config.json").exists():
            config = replace(maze(method, "sticky"), total_steps=steps, seed=seed)
            write_config(replace(config, log_interval=steps // 100), folder)
        if not train(folder):  # goes on from a checkpoint; a finished run is left alone
            return  # Ctrl-C
    scores = {
        method: np.array([score(folders[method, seed]) for seed in seeds]) for method in METHODS
    }
    for method, values in scores.items():
        print(
            f"{method:<15} {values.mean():.2f}   all runs: {' '.join(f'{v:.2f}' for v in values)}"
        )
    one, other = scores.values()
    low, high = interval_of_difference(one, other)
    print(f"difference      {one.mean() - other.mean():.2f} [{low:.2f}, {high:.2f}]")
    if low <= 0 <= high:
        print("The interval contains 0: these runs do not show which method is better.")


if __name__ == "__main__":
    main()
