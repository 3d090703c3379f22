"""Does the bonus help in other libraries' agents? MountainCar, with and without it, in a plot.

    python examples/sparse_task.py --seeds 5 6 7 8 9                       # all that is reported
    python examples/sparse_task.py --settings tried --seeds 0 1 --out tried   # how it was chosen
    python examples/sparse_task.py --library sb3-ppo --seeds 5
    python examples/sparse_task.py --small

Each run is a row of runs.csv in the folder --out. A run whose row is there is not done again.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import bonus_in_cleanrl_ppo as cleanrl
import bonus_in_sb3 as sb3
import bonus_in_torchrl as torchrl
import gymnasium
import matplotlib.pyplot as plt
import numpy as np

LIBRARIES = ("sb3-ppo", "sb3-a2c", "sb3-dqn", "cleanrl-ppo", "torchrl-ppo")
STEPS = {library: 50_000 if library == "sb3-dqn" else 100_000 for library in LIBRARIES}
# As many settings with the bonus as without it. All else is as in the library's example.
WITH: dict[str, dict[str, Any]] = {
    "rnd x 0.1": {"model": "rnd", "weight": 0.1},
    "byol-hindsight x 0.3": {"model": "byol-hindsight", "weight": 0.3},
}
WITHOUT: dict[str, dict[str, Any]] = {
    "entropy 0.01": {"entropy": 0.01},
    "entropy 0.1": {"entropy": 0.1},
}
WITHOUT_DQN: dict[str, dict[str, Any]] = {
    "random 0.2 to 0.05": {},  # for the first 20% of all steps, actions become less random
    "random 0.5 to 0.05": {"exploration_fraction": 0.5},
}
CHOSEN = {
    "sb3-ppo": ("rnd x 0.1", "entropy 0.01"),
    "sb3-a2c": ("rnd x 0.1", "entropy 0.1"),
    "sb3-dqn": ("byol-hindsight x 0.3", "random 0.2 to 0.05"),
    "cleanrl-ppo": ("rnd x 0.1", "entropy 0.1"),
    "torchrl-ppo": ("rnd x 0.1", "entropy 0.1"),
}
BINS = 20


class Record(gymnasium.Wrapper):
    """Writes to `ends`, which all environments of a run share: (agent steps of all, return)."""

    def __init__(self, env: gymnasium.Env, ends: list[tuple[int, int]], count: list[int]):
        super().__init__(env)
        self.ends, self.count, self.length = ends, count, 0

    def reset(self, **options: Any) -> Any:
        self.length = 0
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.length += 1
        self.count[0] += 1
        if result[2] or result[3]:  # MountainCar's own return: -1 a step, before any scale
            self.ends.append((self.count[0], -self.length))
        return result


def train(
    library: str, make: Callable[[], gymnasium.Env], seed: int, steps: int, settings: dict[str, Any]
) -> None:
    settings = {"weight": 0.0, "seed": seed, "total_steps": steps} | settings
    if library == "cleanrl-ppo":
        cleanrl.train(cleanrl.Args(**settings), make)
    elif library == "torchrl-ppo":
        torchrl.train(make, **settings)
    else:
        names = {"entropy": "ent_coef", "rate": "learning_rate"}
        sb3.train(library[4:], make, **{names.get(key, key): settings[key] for key in settings})


def run(library: str, name: str, settings: dict[str, Any], seed: int, steps: int) -> dict[str, Any]:
    """One run, as a row."""
    ends: list[tuple[int, int]] = []
    count, begun = [0], time.perf_counter()
    train(library, lambda: Record(sb3.make(), ends, count), seed, steps, settings)
    when, returns = np.array(ends, int).reshape(-1, 2).T  # there may be none
    late = returns[when > 0.9 * steps]
    goals = when[returns > -200]
    bins = np.minimum(when * BINS // steps, BINS - 1)
    curve = [float(returns[bins == b].mean()) if (bins == b).any() else -200.0 for b in range(BINS)]
    return {
        "library": library,
        "bonus": "with" if settings.get("weight") else "without",
        "setting": name,
        "seed": seed,
        "steps": steps,
        "first_goal": int(goals[0]) if len(goals) else "",
        "episodes": len(when),
        "goals": len(goals),
        "success_last_tenth": round(float((late > -200).mean()), 3) if len(late) else 0.0,
        "return_last_tenth": round(float(late.mean()), 1) if len(late) else -200.0,
        "seconds": round(time.perf_counter() - begun),
        "curve": " ".join(f"{value:.0f}" for value in curve),
    }


def tried(library: str) -> dict[str, dict[str, Any]]:
    return WITH | (WITHOUT_DQN if library == "sb3-dqn" else WITHOUT)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill(path: Path, library: str, name: str, seed: int, steps: int) -> None:
    """Add the row of a run, unless it is there."""
    key = (library, name, str(seed), str(steps))
    names = ("library", "setting", "seed", "steps")
    if path.exists() and any(tuple(row[n] for n in names) == key for row in read(path)):
        return
    row = run(library, name, tried(library)[name], seed, steps)
    begins = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if begins:
            writer.writeheader()
        writer.writerow(row)
    print(*(f"{value}" for key, value in row.items() if key != "curve"), flush=True)


def exact(one: list[float], other: list[float]) -> float:
    """Two-sided permutation test of a difference of means, over all ways to share out the runs.

    Of goals reached (1) and not (0) in two groups of one size it is Fisher's exact test.
    """
    both, n = np.array(one + other), len(one)
    shares = [both[list(rows)].mean() for rows in combinations(range(len(both)), n)]
    other_means = (both.sum() - n * np.array(shares)) / len(other)
    differences = np.abs(np.array(shares) - other_means)
    return float((differences >= abs(np.mean(one) - np.mean(other)) - 1e-9).mean())


def measures(row: dict[str, str]) -> dict[str, float]:
    curve = [float(value) for value in row["curve"].split()]
    return {
        "goal ever reached": float(bool(row["first_goal"])),
        "share of goals, last tenth": float(row["success_last_tenth"]),
        "return, whole run": float(np.mean(curve)),
    }


def table(path: Path) -> None:
    """Print all runs of each library, and exact tests of with against without."""
    rows = read(path)
    for library in LIBRARIES:
        pairs = []
        for bonus in ("with", "without"):
            own = [r for r in rows if r["library"] == library and r["bonus"] == bonus]
            for name in dict.fromkeys(r["setting"] for r in own):
                runs = [r for r in own if r["setting"] == name]
                first = [
                    f"{int(r['first_goal']) / 1000:.0f}" if r["first_goal"] else "-" for r in runs
                ]
                late = [f"{float(r['success_last_tenth']):.2f}" for r in runs]
                whole = [f"{measures(r)['return, whole run']:.0f}" for r in runs]
                cells = (library, bonus, name, *map(", ".join, (first, late, whole)))
                print("|", " | ".join(cells), "|")
                pairs.append([measures(r) for r in runs])
        if len(pairs) == 2 and min(map(len, pairs)) > 1:
            tests = {m: exact(*([r[m] for r in runs] for runs in pairs)) for m in pairs[0][0]}
            print(
                f"| {library} | exact p |",
                " | ".join(f"{m}: {p:.3f}" for m, p in tests.items()),
                "|",
            )


def plot(path: Path) -> None:
    """A panel for each library: each run thin, the median of the seeds thick."""
    rows = read(path)
    figure, panels = plt.subplots(1, len(LIBRARIES), figsize=(11, 2.6), sharey=True)
    for panel, library in zip(panels, LIBRARIES, strict=True):
        for bonus, colour in (("without", "#999999"), ("with", "#cc3311")):
            own = [r for r in rows if r["library"] == library and r["bonus"] == bonus]
            if not own:
                continue
            curves = np.array([[float(value) for value in r["curve"].split()] for r in own])
            x = (np.arange(BINS) + 0.5) / BINS * int(own[0]["steps"]) / 1000
            panel.plot(x, curves.T, color=colour, linewidth=0.6, alpha=0.6)
            panel.plot(x, np.median(curves, 0), color=colour, linewidth=2, label=f"{bonus} bonus")
        panel.set(title=library, xlabel="thousand agent steps")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("return of an episode")
    panels[1].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path.with_name("curves.png"), dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[5, 6, 7, 8, 9])
    parser.add_argument("--settings", choices=("chosen", "tried"), default="chosen")
    parser.add_argument("--out", type=Path, default=Path("sparse-task"))
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in [0] if args.small else args.seeds:
        for library in args.library:
            for name in CHOSEN[library] if args.settings == "chosen" else tried(library):
                fill(
                    args.out / "runs.csv",
                    library,
                    name,
                    seed,
                    1_024 if args.small else STEPS[library],
                )
    table(args.out / "runs.csv")
    plot(args.out / "runs.csv")


if __name__ == "__main__":
    main()
