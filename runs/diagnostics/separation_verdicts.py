"""The verdicts of the separation benchmark: whether news is paid and noise is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.runs.diagnostics.separation_world import KINDS, NOISY, NOVEL
from afterwit.runs.diagnostics.separation_worlds import WORLDS

# AUC from which news stands out from noise, and up to which noise pays as much as news
SEPARATED, TRAPPED = 0.98, 0.5
LEAKS = 0.02  # ratio of noise's pay to news' pay above which noise still attracts an agent
DOTS = 120  # rewards of each kind that are kept for the figure


def judge(rewards: Sequence[Array]) -> dict[str, Any]:
    """Return the numbers of one training.

    Args:
      rewards: [n] of each kind, in the order of KINDS.

    Returns:
      Medians, means, AUC, and `ratio`: the median of noisy over that of novel rewards.
    """
    medians = [float(np.median(values)) for values in rewards]
    return {
        "median": dict(zip(KINDS, medians, strict=True)),
        "mean": {kind: float(values.mean()) for kind, values in zip(KINDS, rewards, strict=True)},
        "count": {kind: len(values) for kind, values in zip(KINDS, rewards, strict=True)},
        "auc": auc(rewards[NOVEL], rewards[NOISY]),
        "ratio": medians[NOISY] / medians[NOVEL] if medians[NOVEL] > 0 else float("inf"),
        "rewards": {
            kind: values[:: max(1, len(values) // DOTS)][:DOTS].tolist()
            for kind, values in zip(KINDS, rewards, strict=True)
        },
    }


def auc(news: Array, noise: Array) -> float:
    """Return the probability that a draw from `news` [n] is above one from `noise` [m].

    Ties count half. It is Mann-Whitney's U / (n m), computed exactly.
    """
    ordered = np.sort(noise)
    below, up_to = np.searchsorted(ordered, news, "left"), np.searchsorted(ordered, news, "right")
    return float((below + up_to).sum() / (2 * len(news) * len(noise)))


def summarise(
    worlds: Sequence[str], models: Sequence[str], runs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return an entry per world and model.

    It has medians over seeds, the lowest and highest AUC, and the verdict.
    """
    entries = []
    for world in worlds:
        for model in models:
            own = [run for run in runs if (run["world"], run["model"]) == (world, model)]
            aucs = [run["auc"] for run in own]
            ratio = float(np.median([run["ratio"] for run in own]))
            entries.append(
                {
                    "world": world,
                    "model": model,
                    "median": {
                        kind: float(np.median([run["median"][kind] for run in own]))
                        for kind in KINDS
                    },
                    "auc": float(np.median(aucs)),
                    "auc_lowest": min(aucs),
                    "auc_highest": max(aucs),
                    "ratio": ratio,
                    "spread": spread_of(own, "spread/target"),
                    "spread_of_embeddings": spread_of(own, "spread/embedding"),
                    "verdict": verdict(float(np.median(aucs)), ratio),
                    "cpu_seconds": float(np.median([run["cpu_seconds"] for run in own])),
                }
            )
    return entries


def spread_of(runs: Sequence[dict[str, Any]], name: str) -> float | None:
    """Return the median of an instrument over runs, None if the model lacks it."""
    found = [run["instruments"][name] for run in runs if name in run["instruments"]]
    return float(np.median(found)) if found else None


def verdict(auc: float, ratio: float) -> str:
    """Return ok, leaks, unclear or trapped, as VERDICTS explains them."""
    if auc <= TRAPPED:
        return "trapped"
    if auc < SEPARATED:
        return "unclear"
    return "ok" if ratio <= LEAKS else "leaks"


VERDICTS = {
    "ok": f"news stands out (AUC at least {SEPARATED}) and noise pays at most {LEAKS:.0%} of it",
    "leaks": "news stands out, but noise pays more than that",
    "unclear": "news and noise overlap",
    "trapped": f"noise pays as much as news, or more (AUC at most {TRAPPED})",
}


def table(result: dict[str, Any]) -> str:
    """Return the verdicts as text: a block per world, a row per model."""
    rows = [
        f"{'median reward of':<18}{'familiar':>9}{'noisy':>9}{'novel':>9}   AUC novel/noisy  "
        " noisy/novel  spread"
    ]
    blocks = dict.fromkeys(entry["world"] for entry in result["summary"])
    for world in blocks:
        relevant = WORLDS[world].relevant
        rows += [
            "",
            (
                f"{world}: noise that"
                f" {'decides what follows' if relevant else 'means nothing for what follows'}"
            ),
        ]
        for entry in (entry for entry in result["summary"] if entry["world"] == world):
            paid = "".join(f"{entry['median'][kind]:>9.3f}" for kind in KINDS)
            area = f"{entry['auc']:.3f} ({entry['auc_lowest']:.2f}-{entry['auc_highest']:.2f})"
            ratio = f"{entry['ratio']:.1%}" if np.isfinite(entry["ratio"]) else "-"
            wide = "-" if entry["spread"] is None else f"{entry['spread']:.3f}"
            rows.append(
                f"  {entry['model']:<16}{paid}   {area:<17}{ratio:>11}{wide:>8}  {entry['verdict']}"
            )
    rows += ["", *(f"  {word:<8} {meaning}" for word, meaning in VERDICTS.items())]
    config = result["config"]
    slowest = max(run["cpu_seconds"] for run in result["runs"])
    seeds = f"{config['seeds']} seed{'s' * (config['seeds'] > 1)}"
    rows.append(
        f"{config['updates']:,} updates of {config['steps']} steps x {config['batch']}"
        f" environments, medians of {seeds}"
    )
    rows.append(
        f"{result['wall_seconds']:,.0f} s in all; the slowest training took {slowest:.0f} s of one"
        " core"
    )
    return "\n".join(rows)
