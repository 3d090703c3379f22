"""Verdicts on a study's numbers, which follow the 95% intervals.

A published sentence may leave a threshold open ("hardly", "greatly"). Each of these is a constant,
and the claim that uses it states its value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from afterwit.runs.evaluation.intervals import Estimate
from afterwit.runs.reports.sentences import percent
from afterwit.runs.studies.differences import contrast, finished_scores
from afterwit.runs.studies.results import StudyLog

EXPLORE, HINDSIGHT, RND = "byol-explore", "byol-hindsight", "rnd"
KEEPS, EQUALS = 0.85, 0.9  # shares of its own, and of BYOL-Explore's, score without noise
REACHES, HARDLY = 0.5, 0.25  # share of episodes
REPRODUCED, NOT, DIFFERS, UNKNOWN = "reproduced", "not", "differs", "no data"


@dataclass(frozen=True)
class Target:
    """Something that the study should show."""

    text: str
    passed: bool | None  # None: the runs that decide this are missing
    figures: str


@dataclass(frozen=True)
class Claim:
    """Something that was published, and this study's verdict on it."""

    setting: str
    text: str
    source: str
    # reproduced: the interval shows it; differs: it shows the reverse; not: it shows neither
    verdict: str
    figures: str


def format_estimate(value: Estimate, ratio: bool = False) -> str:
    """Return `62% [48%, 71%]`, or for a ratio `1.31 [1.20, 1.44]`."""
    word: Callable[[float], str] = (lambda number: f"{number:.2f}") if ratio else percent
    if not value.runs:
        return "no data"
    return word(value.mean) + (
        f" [{word(value.low)}, {word(value.high)}]" if math.isfinite(value.low) else " [one run]"
    )


def all_of(parts: Sequence[bool | None]) -> bool | None:
    """Return False if any part is False, else None if any is unknown, else True.

    None also if there are no parts.
    """
    return False if False in parts else True if parts and all(parts) else None


def decided(condition: bool, *values: Estimate) -> bool | None:
    """Return `condition`, or None if an estimate that it depends on has no interval."""
    return condition if all(math.isfinite(value.low) for value in values) else None


def verdict(holds: bool, reverse: bool, *values: Estimate) -> str:
    """Return REPRODUCED if the intervals show it, DIFFERS if they show the reverse, else NOT.

    UNKNOWN if an estimate has no interval.
    """
    if any(not math.isfinite(value.low) for value in values) or not values:
        return UNKNOWN
    return REPRODUCED if holds else DIFFERS if reverse else NOT


def reaches(study: StudyLog, world: str, methods: Sequence[str], tracker: str) -> tuple[str, str]:
    """Return a verdict and figures: whether all methods reach a tracker.

    They must do so in at least REACHES of the episodes of their best tenth.
    """
    found = {method: study.get(world, method, f"{tracker}_best") for method in methods}
    values = list(found.values())
    result = verdict(
        all(v.low >= REACHES for v in values), any(v.high < REACHES for v in values), *values
    )
    return result, f"{tracker} in the best tenth: " + ", ".join(
        f"{method} {format_estimate(value)}" for method, value in found.items()
    )


def against_quiet(
    study: StudyLog, world: str, method: str, below: float, above: float
) -> tuple[str, str]:
    """Return a verdict and figures: whether noise lowers a method's score.

    It is below `below` times its own score without noise; the reverse is that it stays above
    `above` times.
    """
    same = study.quiet.get(world, "none")
    here, quiet = study.get(world, method, "score_all"), study.get(same, method, "score_all")
    share = f", {here.mean / quiet.mean:.2f} x" if here.runs and quiet.mean > 0 else ""
    # both scores are uncertain, so both differences have intervals of their own
    scores = finished_scores(study)
    cells = [np.array(list(scores.get((where, method), {}).values())) for where in (world, same)]
    lower, higher = (contrast(cells, (1, -part)) for part in (below, above))
    result = verdict(bool(lower.high < 0), bool(higher.low > 0), here, quiet)
    return (
        result,
        f"{method}: score {format_estimate(here)}, without noise {format_estimate(quiet)}{share}",
    )


def keeps(study: StudyLog, world: str) -> tuple[str, str]:
    """Return a verdict and figures: whether BYOL-Hindsight keeps its score in a noise."""
    result, figures = against_quiet(study, world, HINDSIGHT, KEEPS, KEEPS)
    return {DIFFERS: REPRODUCED, REPRODUCED: DIFFERS}.get(result, result), figures


def cost(study: StudyLog, world: str, method: str) -> tuple[str, str]:
    """Return what a noise costs a method.

    It is `holds` or `trapped` if the intervals decide, else `open`, with its scores with and
    without noise.
    """
    result, figures = against_quiet(study, world, method, KEEPS, KEEPS)
    return {REPRODUCED: "trapped", DIFFERS: "holds", NOT: "open", UNKNOWN: UNKNOWN}[result], figures


def trapped_words(study: StudyLog, method: str) -> list[str]:
    """Return sentences about the noises that trap a method and those that do not."""
    kinds = {
        world: cost(study, world, method)[0]
        for world in study.worlds
        if study.quiet.get(world) == "none"
    }
    quiet = study.get("none", method, "score_all")
    if not quiet.runs:
        return []
    words = {
        "trapped": f"is trapped (under {KEEPS} x its score without noise) by",
        "holds": "is not trapped by",
        "open": "is neither clearly trapped nor clearly not by",
    }
    parts = [
        f"{text} {', '.join(found)}"
        for kind, text in words.items()
        if (found := [w for w in kinds if kinds[w] == kind])
    ]
    little = (
        f" But it explores little without noise already (score {format_estimate(quiet)}): what"
        " holds it is not the noise alone."
    )
    return (
        [f"{method} {'; '.join(parts)}.{little if quiet.high < REACHES else ''}"] if parts else []
    )
