"""What the numbers say, in sentences. They claim only what the numbers show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from afterwit.runs.reports.groups import Group, noise_of

CLOSE = 0.1  # shares that differ by less are called similar
ENOUGH_SEEDS = 5  # for a claim about learning


def headline(groups: Sequence[Group]) -> list[list[str]]:
    """Return the sentences of each world, the main one first."""
    worlds = dict.fromkeys(group.world for group in groups)
    return [
        _sentences(world, [group for group in groups if group.world == world]) for world in worlds
    ]


def _repeated_seeds(group: Group) -> list[str]:
    """Return a sentence about each seed of which a group has several runs."""
    by_seed: dict[int, list[str]] = {}
    for run in group.runs:
        by_seed.setdefault(run.config.seed, []).append(run.folder.name)
    return [
        f"{' and '.join(names)} have one config and one seed, {seed}, and count as {len(names)}"
        f" runs of {group.label}."
        for seed, names in by_seed.items()
        if len(names) > 1
    ]


def _sentences(world: str, groups: list[Group]) -> list[str]:
    begun = [group for group in groups if any(run.episodes.any() for run in group.runs)]
    trackers = sorted({name for group in begun for name in group.names("reached/")})
    if not begun:
        lead = f"On {world}, no episode has ended yet, so there is nothing to compare."
    elif trackers:
        lead = _lead_trackers(world, begun, trackers)
    else:
        lead = _lead_returns(world, begun)
    noisy = [group for group in begun if trackers or not math.isnan(_noise_time(group))]
    result = [
        lead,
        *_noise_sentences(noisy),
        *(s for group in begun for s in _fading_sentence(group)),
    ]
    result += [
        f"{group.label} has not finished an episode yet."
        for group in groups
        if group not in begun and begun
    ]
    result += [note for group in groups for run in group.runs for note in run.notes]
    result += [s for group in groups for s in _repeated_seeds(group)]
    for run in (run for group in groups for run in group.runs if not run.finished):
        result.append(
            f"{run.folder.name} is not finished: {run.steps[-1]:,} of {run.config.total_steps:,}"
            " agent steps."
        )
    fewest = min(len(group.runs) for group in groups)
    if fewest < ENOUGH_SEEDS:
        happened = (
            f"With {fewest} seed{'s' * (fewest > 1)} this is what happened, not yet what to expect"
        )
        result.append(f"{happened}: a claim about learning needs {ENOUGH_SEEDS}.")
    return result


def _lead_trackers(world: str, groups: list[Group], trackers: list[str]) -> str:
    """Return how often each group reached the deepest tracker.

    The deepest is the last one that any group reached in 1% of its episodes.
    """
    tracker = next(
        (name for name in reversed(trackers) if max(group.last(name) for group in groups) >= 0.01),
        trackers[0],
    )
    order = sorted(groups, key=lambda group: -group.last(tracker))
    counts = [
        f"{group.label} {'reached ' + tracker.split('/')[1] + ' ' if index == 0 else ''}in"
        f" {_range(group, tracker)}"
        f"{' of the episodes of the last tenth of training' if index == 0 else ''}"
        for index, group in enumerate(order)
    ]
    close = len(order) > 1 and order[0].last(tracker) - order[-1].last(tracker) < CLOSE
    sitter = order[-1]
    clause = ""
    if noise_of(sitter) and (
        len(order) == 1 or _noise_time(sitter) - min(map(_noise_time, order)) >= CLOSE
    ):
        clause = f", and spent {percent(_noise_time(sitter))} of its time {noise_words(sitter)}"
    return (
        f"On {world},"
        f" {'; '.join(counts)}{clause}{': no clear difference' if close and not clause else ''}."
    )


def _lead_returns(world: str, groups: list[Group]) -> str:
    kind = next(
        (
            kind
            for kind in ("cells", "rooms")
            if all(group.names(f"episode/{kind}") for group in groups)
        ),
        "return",
    )
    order = sorted(groups, key=lambda group: -group.last(f"episode/{kind}"))
    parts = []
    for group in order:
        seen = f"saw {group.last(f'episode/{kind}'):.1f} {kind} and " if kind != "return" else ""
        parts.append(f"{group.label} {seen}returned {group.last('episode/return'):,.1f}")
    return f"On {world}, {'; '.join(parts)} per episode of the last tenth of training."


def _noise_sentences(groups: list[Group]) -> list[str]:
    """Return how much time each group spent with noise, and how such steps paid."""
    groups = [group for group in groups if noise_of(group) and math.isfinite(_noise_time(group))]
    if not groups:
        return []
    times, words, result = [_noise_time(group) for group in groups], noise_words(groups[0]), []
    if len(groups) > 1:
        listed = ", ".join(
            f"{group.label} {percent(time)}" for group, time in zip(groups, times, strict=True)
        )
        alike = "about equal: " if max(times) - min(times) < CLOSE else ""
        result.append(f"Share of time {words}, {alike}{listed}.")
    ratios = [
        (group, group.last(f"ratio/{noise[0]}")) for group in groups if (noise := noise_of(group))
    ]
    paid = [f"{group.label} {ratio:.2f}" for group, ratio in ratios if math.isfinite(ratio)]
    if paid:
        result.append(
            f"Pay of a step {words}, where the mean of all steps is 1: {', '.join(paid)}."
        )
    return result


def _fading_sentence(group: Group) -> list[str]:
    """Return a sentence if a group once reached a tracker clearly more often than at the end."""
    loss, name = max(
        ((group.best(name) - group.last(name), name) for name in group.names("reached/")),
        default=(0.0, ""),
    )
    if not loss >= CLOSE:
        return []
    best, last = percent(group.best(name)), percent(group.last(name))
    return [
        f"{group.label} reached {name.split('/')[1]} more often before: {best} of the episodes of"
        f" its best tenth, {last} of the last."
    ]


def _noise_time(group: Group) -> float:
    noise = noise_of(group)
    return group.last(f"share_of_time/{noise[0]}") if noise else math.nan


def noise_words(group: Group) -> str:
    noise = noise_of(group)
    return noise[1] if noise else ""


def _range(group: Group, name: str) -> str:
    values = group.over_runs(lambda run: run.last(name))
    spread = (
        f" ({percent(min(values))} to {percent(max(values))} by seed)"
        if len(values) > 1 and max(values) - min(values) >= 0.01
        else ""
    )
    return percent(group.last(name)) + spread


def percent(share: float) -> str:
    """Return a share as text. 0% means none, 100% means all."""
    if 0 < share < 0.005:
        return "under 1%"
    return (
        "over 99%"
        if 0.995 <= share < 1
        else f"{share:.0%}"
        if math.isfinite(share)
        else "an unknown share"
    )
