"""TARGETS and CLAIMS: what a study should show, and published claims about the same question."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from afterwit.runs.evaluation.intervals import Estimate
from afterwit.runs.reports.sentences import percent
from afterwit.runs.studies.results import Key, StudyLog
from afterwit.runs.studies.verdicts import (
    EQUALS,
    EXPLORE,
    HARDLY,
    HINDSIGHT,
    KEEPS,
    REACHES,
    RND,
    Claim,
    Target,
    against_quiet,
    all_of,
    decided,
    format_estimate,
    keeps,
    reaches,
    verdict,
)

PAPER = "Jarrett et al. (2023)"
SUCCESS, SEEDS, STEPS = 0.6, 5, 1_500_000
SUFFERS = 0.7  # share of its own score without noise below which a method suffers greatly
FADES = 0.1  # loss of score since the best tenth
SMALL = 0.1  # explained variance, or remaining share of a reward, that counts as nothing


def targets(study: StudyLog) -> list[Target]:
    """Return the targets of the study in this folder, none if it has none."""
    return TARGETS[study.manifest.study](study) if study.manifest.study in TARGETS else []


def claims(study: StudyLog) -> list[Claim]:
    """Return the published claims that the study in this folder tests."""
    return CLAIMS[study.manifest.study](study) if study.manifest.study in CLAIMS else []


def maze_targets(study: StudyLog) -> list[Target]:
    """Return the targets of the maze study."""
    deep, other = (study.get("brownian", method, "R4_last") for method in (HINDSIGHT, EXPLORE))
    quiet = study.get("none", HINDSIGHT, "score_all")
    noises = [world for world in study.manifest.worlds if world != "none"]
    kept, above, kept_words, above_words = [], [], [], []
    for world in noises:
        own = study.get(world, HINDSIGHT, "score_all")
        kept.append(decided(own.mean >= KEEPS * quiet.mean, own, quiet))
        kept_words.append(
            f"{world} "
            + (percent(own.mean / quiet.mean) if own.runs and quiet.mean > 0 else "no data")
        )
        for method in study.methods:
            rival = study.get(world, method, "score_all")
            if method != HINDSIGHT and rival.runs:
                above.append(decided(rival.low <= own.high, rival, own))
                if above[-1] is False:
                    above_words.append(
                        f"{world}: {method} {format_estimate(rival)} above {format_estimate(own)}"
                    )
    explore = study.get("none", EXPLORE, "score_all")
    counted = successes(study)
    loud = [row["folder"] for row in counted if row.get("alarm")]
    watched = [row for row in counted if "alarm" in row]
    cells = [
        study.groups.get((world, method))
        for world in study.manifest.worlds
        for method in study.manifest.methods
    ]
    enough = [
        group is not None
        and sum(run.finished and run.config.total_steps >= STEPS for run in group.runs) >= SEEDS
        for group in cells
    ]
    return [
        Target(
            f"Brownian noise, R4 in the last tenth: {HINDSIGHT} in at least {percent(SUCCESS)} of"
            " the episodes (mean)",
            decided(deep.mean >= SUCCESS, deep),
            f"{HINDSIGHT} {format_estimate(deep)}",
        ),
        Target(
            f"The same: the lower end of {HINDSIGHT}'s interval lies above the upper end of"
            f" {EXPLORE}'s",
            decided(deep.low > other.high, deep, other),
            f"{HINDSIGHT} {format_estimate(deep)}, {EXPLORE} {format_estimate(other)}",
        ),
        Target(
            f"In every noise, {HINDSIGHT}'s score is at least {KEEPS} x its own without noise",
            all_of(kept),
            f"without noise {format_estimate(quiet)}; of that: {', '.join(kept_words)}",
        ),
        Target(
            f"In no noise does another method's interval of the score lie above {HINDSIGHT}'s",
            all_of(above),
            "; ".join(above_words) or (f"none in {len(above)} comparisons" if above else "no data"),
        ),
        Target(
            f"Without noise, {HINDSIGHT}'s score is at least {EQUALS} x {EXPLORE}'s",
            decided(quiet.mean >= EQUALS * explore.mean, quiet, explore),
            f"{HINDSIGHT} {format_estimate(quiet)}, {EXPLORE} {format_estimate(explore)}",
        ),
        Target(
            f"No collapse alarm in any run of {HINDSIGHT} that counts as a success (score at least"
            f" {KEEPS} x the one without noise)",
            not loud if loud or (watched and len(watched) == len(counted)) else None,
            f"{len(counted)} successes, {len(watched)} with an alarm to watch, {len(loud)}"
            " raised it" + "".join(f", {name}" for name in loud[:4]),
        ),
        Target(
            f"{SEEDS} seeds of at least {STEPS:,} agent steps in every cell",
            all(enough),
            f"{sum(enough)} of {len(enough)} cells",
        ),
    ]


def successes(study: StudyLog) -> list[dict[str, Any]]:
    """Return the rows of BYOL-Hindsight's successful runs.

    Their score is at least KEEPS times its mean without noise.
    """
    quiet = study.get("none", HINDSIGHT, "score_all").mean
    return [
        row
        for row in study.rows
        if row["method"] == HINDSIGHT and row.get("score_all", -math.inf) >= KEEPS * quiet
    ]


def maze_claims(study: StudyLog) -> list[Claim]:
    """Return published claims about the maze, and what theory and later work predict.

    The claims are those of Jarrett et al. (2023) about their Pycolab maze.
    """
    drop = study.get("none", RND, "score_drop")
    best, last = (study.get("none", RND, f"score_{when}") for when in ("best", "last"))
    stuck, free = (study.get(world, EXPLORE, "R3_last") for world in ("brownian", "none"))
    paid = {method: study.get("brownian", method, "noise_ratio") for method in (EXPLORE, HINDSIGHT)}
    rest = {
        key: study.get(*key, "reward_left")
        for key in (("none", HINDSIGHT), ("brownian", HINDSIGHT), ("brownian", EXPLORE))
    }
    hindsight, explore = rest["brownian", HINDSIGHT], rest["brownian", EXPLORE]
    rows: list[tuple[str, str, tuple[str, str]]] = [
        (
            "no noise",
            (
                f"Every method reaches all four trackers (R4 in {percent(REACHES)} of the episodes"
                " of its best tenth)"
            ),
            reaches(study, "none", (EXPLORE, HINDSIGHT, RND), "R4"),
        ),
        (
            "no noise",
            (
                f"RND later loses interest (its score falls by {FADES} or more from the best tenth"
                " to the last)"
            ),
            (
                verdict(drop.low >= FADES, drop.high < FADES, drop),
                (
                    f"best tenth {format_estimate(best)}, last {format_estimate(last)}, fall"
                    f" {format_estimate(drop)}"
                ),
            ),
        ),
        (
            "brownian",
            (
                f"BYOL-Hindsight explores the whole maze (R4 in {percent(REACHES)} of the episodes"
                " of its best tenth)"
            ),
            reaches(study, "brownian", (HINDSIGHT,), "R4"),
        ),
        (
            "brownian",
            (
                f"RND explores the whole maze (R4 in {percent(REACHES)} of the episodes of its best"
                " tenth)"
            ),
            reaches(study, "brownian", (RND,), "R4"),
        ),
        (
            "brownian",
            (
                f"BYOL-Explore hardly passes the first two trackers (R3 in under {percent(HARDLY)}"
                " of the last tenth's episodes), and it is the noise that stops it (without noise"
                " it does so more often)"
            ),
            (
                verdict(stuck.high < min(HARDLY, free.low), stuck.low > HARDLY, stuck, free),
                (
                    f"R3 in the last tenth {format_estimate(stuck)}, without noise"
                    f" {format_estimate(free)}; in the best tenth"
                    f" {format_estimate(study.get('brownian', EXPLORE, 'R3_best'))}"
                ),
            ),
        ),
        (
            "pixel",
            "BYOL-Explore does worse than without noise",
            against_quiet(study, "pixel", EXPLORE, 1, 1),
        ),
        ("pixel", "RND does worse than without noise", against_quiet(study, "pixel", RND, 1, 1)),
        (
            "pixel",
            f"BYOL-Hindsight keeps exploring ({KEEPS} x its score without noise)",
            keeps(study, "pixel"),
        ),
        (
            "on-demand",
            f"Even RND suffers greatly (under {SUFFERS} x its score without noise)",
            against_quiet(study, "on-demand", RND, SUFFERS, SUFFERS),
        ),
        (
            "on-demand",
            f"BYOL-Hindsight keeps exploring ({KEEPS} x its score without noise)",
            keeps(study, "on-demand"),
        ),
        (
            "theory",
            (
                "The noise always remains in plain prediction error: with Brownian blocks,"
                " BYOL-Explore keeps a larger part of its first reward than BYOL-Hindsight"
            ),
            (
                verdict(
                    explore.low > hindsight.high, explore.high < hindsight.low, explore, hindsight
                ),
                (
                    f"left in the last tenth: {EXPLORE} {format_estimate(explore)}, {HINDSIGHT}"
                    f" {format_estimate(hindsight)}"
                ),
            ),
        ),
        (
            "theory",
            (
                "BYOL-Hindsight's reward goes to zero in stochastic worlds too (under"
                f" {percent(SMALL)} of its first reward is left)"
            ),
            (
                verdict(hindsight.high < SMALL, hindsight.low > SMALL, hindsight),
                (
                    f"left in the last tenth: brownian {format_estimate(hindsight)}, none"
                    f" {format_estimate(rest['none', HINDSIGHT])}"
                ),
            ),
        ),
        (
            "theory",
            (
                "The noise draws BYOL-Explore's pay: with Brownian blocks, a step with one in view"
                " pays it more, against its other steps, than it pays BYOL-Hindsight"
            ),
            (
                verdict(
                    paid[EXPLORE].low > paid[HINDSIGHT].high,
                    paid[EXPLORE].high < paid[HINDSIGHT].low,
                    *paid.values(),
                ),
                "share of pay over share of time: "
                + ", ".join(
                    f"{method} {format_estimate(value, ratio=True)}"
                    for method, value in paid.items()
                ),
            ),
        ),
        (
            "known results",
            (
                "Invariance keeps predictable content out of z (place from z, beyond place from"
                f" noise: under {percent(SMALL)} of the variance)"
            ),
            leak(study, "place"),
        ),
        (
            "known results",
            f"The same for the action (under {percent(SMALL)} of the variance)",
            leak(study, "action"),
        ),
    ]
    return [
        Claim(setting, text, PAPER, result, figures) for setting, text, (result, figures) in rows
    ]


def leak(study: StudyLog, what: str) -> tuple[str, str]:
    """Return a verdict and figures: what a linear probe predicts from z, over all worlds.

    `what` is place or action. What the probe predicts from noise of z's size is subtracted.
    """
    found: dict[Key, Estimate] = {}
    for world in study.worlds:
        latent, noise = (
            study.get(world, HINDSIGHT, f"leak/{what}_from_{source}")
            for source in ("latent", "noise")
        )
        if math.isfinite(latent.low) and math.isfinite(noise.mean):
            found[world, HINDSIGHT] = Estimate(
                latent.mean - noise.mean,
                latent.low - noise.mean,
                latent.high - noise.mean,
                latent.runs,
            )
    values = list(found.values())
    result = verdict(
        all(v.high < SMALL for v in values), any(v.low > SMALL for v in values), *values
    )
    return (
        result,
        ", ".join(f"{world} {format_estimate(value)}" for (world, _), value in found.items())
        or "the probe was not logged",
    )


TARGETS: dict[str, Callable[[StudyLog], list[Target]]] = {"maze": maze_targets}
CLAIMS: dict[str, Callable[[StudyLog], list[Claim]]] = {"maze": maze_claims}
