"""The verdicts of the separation benchmark: whether news is paid and noise is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.runs.diagnostics.separation_atari import ATARI_WORLDS
from afterwit.runs.diagnostics.separation_world import FAMILIAR, KINDS, NOISY, NOVEL
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
      Medians, means, AUC, `ratio`, which is the median of noisy over that of novel rewards, and
      `noise`: the share of noisy steps, as `shares` counts it.
    """
    medians = [float(np.median(values)) for values in rewards]
    return {
        "median": dict(zip(KINDS, medians, strict=True)),
        "mean": {kind: float(values.mean()) for kind, values in zip(KINDS, rewards, strict=True)},
        "count": {kind: len(values) for kind, values in zip(KINDS, rewards, strict=True)},
        "auc": auc(rewards[NOVEL], rewards[NOISY]),
        "ratio": medians[NOISY] / medians[NOVEL] if medians[NOVEL] > 0 else float("inf"),
        "noise": shares(rewards[NOISY], rewards[FAMILIAR]),
        "rewards": {
            kind: values[:: max(1, len(values) // DOTS)][:DOTS].tolist()
            for kind, values in zip(KINDS, rewards, strict=True)
        },
    }


def shares(part: Array, rest: Array) -> dict[str, float]:
    """Return the share of `part` [n] in all that is paid above zero, and in all steps.

    `rest` [m] are the rewards of the other steps. Where nothing is paid, the share of pay is 0.
    """
    ours, others = part.clip(min=0).sum(), rest.clip(min=0).sum()
    paid = float(ours / (ours + others)) if ours + others > 0 else 0.0
    return {"pay": paid, "time": len(part) / (len(part) + len(rest))}


def judge_parts(paid: Array, kind: Array, parts: Mapping[str, Array]) -> dict[str, Any]:
    """Return numbers of the parts of noise and news.

    Args:
      paid: rewards [n].
      kind: their kinds [n].
      parts: by name, bool [n]. "entry" are steps into what is new. All others are noises, with the
          steps that they make noisy; they may overlap.

    Returns:
      Count and mean reward of each part that is there. A noise has its `shares` too, and the entry
      its AUC over each noise.
    """
    known = (kind == FAMILIAR) | (kind == NOISY)
    found: dict[str, Any] = {}
    entries = paid[parts["entry"] & (kind == NOVEL)] if "entry" in parts else paid[:0]
    areas = {}
    for name, steps in parts.items():
        part = steps & (kind == NOISY)
        if name != "entry" and part.any():
            found[name] = size_and_mean(paid[part]) | shares(paid[part], paid[known & ~part])
            if len(entries):
                areas[name] = auc(entries, paid[part])
    if len(entries):
        found["entry"] = size_and_mean(entries) | {"auc": areas}
    return found


def size_and_mean(values: Array) -> dict[str, Any]:
    return {"count": len(values), "mean": float(values.mean())}


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
                    "noise": {
                        share: float(np.median([run["noise"][share] for run in own]))
                        for share in ("pay", "time")
                    },
                    "spread": spread_of(own, "spread/target"),
                    "spread_of_embeddings": spread_of(own, "spread/embedding"),
                    "use_of_latent": spread_of(own, "use/latent"),
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


def noise_of(world: str) -> str:
    """Return what the noise of a world is, in words."""
    if world in ATARI_WORLDS:
        return ATARI_WORLDS[world].noisy
    relevant = WORLDS[world].relevant
    return f"noise that {'decides' if relevant else 'means nothing for'} what follows"


VERDICTS = {
    "ok": f"news stands out (AUC at least {SEPARATED}) and noise pays at most {LEAKS:.0%} of it",
    "leaks": "news stands out, but noise pays more than that",
    "unclear": "news and noise overlap",
    "trapped": f"noise pays as much as news, or more (AUC at most {TRAPPED})",
}


def table(result: dict[str, Any]) -> str:
    """Return the verdicts as text: a block per world, a row per model."""
    rows = [
        f"{'':<16}{'median reward of':>23}  {'AUC of news':<14}{'noise':>7}  {'pay, time':<9}",
        f"{'':<16}{'familiar':>9}{'noisy':>7}{'novel':>7}  {'over noise':<14}{'/ news':>7}"
        "  of noise",
    ]
    blocks = dict.fromkeys(entry["world"] for entry in result["summary"])
    for world in blocks:
        rows += ["", f"{world}: {noise_of(world)}"]
        for entry in (entry for entry in result["summary"] if entry["world"] == world):
            familiar, noisy, novel = (f"{entry['median'][kind]:.2f}" for kind in KINDS)
            area = f"{entry['auc']:.3f} {entry['auc_lowest']:.2f}-{entry['auc_highest']:.2f}"
            ratio = f"{entry['ratio']:.1%}" if np.isfinite(entry["ratio"]) else "-"
            share = f"{entry['noise']['pay']:.0%}, {entry['noise']['time']:.0%}"
            rows.append(
                f"  {entry['model']:<14}{familiar:>9}{noisy:>7}{novel:>7}  {area:<14}{ratio:>8}"
                f"  {share:<9} {entry['verdict']}"
            )
    rows += ["", *(f"  {word:<8} {meaning}" for word, meaning in VERDICTS.items())]
    rows.append("pay, time of noise: its share of all pay above 0 and of all steps, news left out")
    sizes = dict.fromkeys((run["updates"], run["steps"], run["batch"]) for run in result["runs"])
    rows += [
        f"{updates:,} updates of {steps} steps x {batch} environments"
        for updates, steps, batch in sizes
    ]
    slowest = max(run["cpu_seconds"] for run in result["runs"])
    seeds = result["config"]["seeds"]
    rows.append(f"medians of {seeds} seeds" if seeds > 1 else "one seed")
    rows.append(
        f"{result['wall_seconds']:,.0f} s in all; the slowest training took {slowest:.0f} s of one"
        " core"
    )
    return "\n".join(rows)
