"""Differences of differences: by hand, against SciPy, against a stored result, and simulated."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from afterwit.envs.arrays import Array
from afterwit.runs.studies.definitions import STUDIES
from afterwit.runs.studies.differences import contrast, cost_rows, holm, noise_costs, study_costs
from afterwit.runs.studies.verdicts import UNKNOWN, keeps
from tests.runs.studies.test_page import log, make

stats = pytest.importorskip("scipy.stats", reason="pip install -e '.[study]'")
MENDED = Path(__file__).parents[3] / "docs" / "results" / "maze-mended" / "runs.csv"
# What docs/results/maze-mended.md states: by how much more noise costs BYOL-Explore.
STATED = {
    "sticky": (0.08, -0.10, 0.25),
    "on-demand": (-0.10, -0.24, 0.04),
    "brownian": (0.00, -0.11, 0.12),
}


def noisy(*worlds: str) -> dict[str, str]:
    """Each world that is not `none` -> `none`."""
    return {world: "none" for world in worlds if world != "none"}


def test_four_cells_by_hand() -> None:
    """Means 3, 1, 2, 2; variances 1, 1, 4, 0; three runs each."""
    cells = [np.array(cell, float) for cell in ([2, 3, 4], [0, 1, 2], [0, 2, 4], [2, 2, 2])]
    found = contrast(cells, (1, -1, -1, 1))
    error, freedom = math.sqrt((1 + 1 + 4 + 0) / 3), 6**2 / ((1 + 1 + 16 + 0) / 2)
    assert freedom == 4 and found.value == pytest.approx(3 - 1 - 2 + 2)
    # the 97.5% point of t with 4 degrees of freedom, from a printed table
    assert found.high - found.value == pytest.approx(2.776445 * error)
    assert found.value - found.low == pytest.approx(2.776445 * error)
    # t = 2 / sqrt(2); in closed form, t with 4 degrees of freedom has this tail
    x = math.sqrt(2) / math.sqrt(4 + 2)
    assert found.p == pytest.approx(1 - (3 * x - x**3) / 2)


def test_two_cells_are_welchs_t_test() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(0, 1, (5, 7)), random.normal(0.5, 3, (8, 7))
    found, expected = (
        contrast((first, second), (1, -1)),
        stats.ttest_ind(first, second, equal_var=False),
    )
    ends = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.low == pytest.approx(ends.low) and found.high == pytest.approx(ends.high)


def test_an_interval_needs_two_runs_a_cell_and_a_cell_that_varies() -> None:
    two, one, none = np.array([0.1, 0.3]), np.array([0.5]), np.zeros(0)
    alone = contrast((two, one), (1, -1))
    assert alone.value == pytest.approx(-0.3) and np.isnan([alone.low, alone.high, alone.p]).all()
    assert np.isnan(contrast((two, none), (1, -1))).all()
    same = contrast((np.full(5, 0.1), np.full(5, 0.3)), (1, -1))
    assert same.value == pytest.approx(-0.2) and np.isnan([same.low, same.high, same.p]).all()
    assert np.isfinite(contrast((two, np.full(5, 0.3)), (1, -1))).all()


def test_holm_by_hand() -> None:
    """Smallest first: 4 x 0.005, 3 x 0.01, then 2 x 0.03, and 0.04 may not fall below that."""
    given = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(given) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])) == pytest.approx([1, 1])
    assert holm(np.array([0.01, math.nan, 0.02])) == pytest.approx(
        [0.02, math.nan, 0.02], nan_ok=True
    )


def mended() -> dict[tuple[str, str], dict[int, float]]:
    scores: dict[tuple[str, str], dict[int, float]] = {}
    with MENDED.open() as file:
        for row in csv.DictReader(file):
            cell = scores.setdefault((row["world"], row["model"]), {})
            cell[int(row["seed"])] = float(row["score"])
    return scores


def seeded(cells: dict[tuple[str, str], Array]) -> dict[tuple[str, str], dict[int, float]]:
    return {key: dict(enumerate(cell.tolist())) for key, cell in cells.items()}


def test_the_stored_maze_study_says_what_its_page_states() -> None:
    scores = mended()
    worlds = list(dict.fromkeys(world for world, _ in scores))
    found = noise_costs(scores, noisy(*worlds), ("byol-hindsight", "byol-explore"))
    more = {each.world: each for each in found if each.method == "byol-explore"}
    assert more.keys() == STATED.keys()
    for world, expected in STATED.items():
        # The page rounds to a hundredth.
        assert tuple(more[world].more[:3]) == pytest.approx(expected, abs=0.00501)
        assert more[world].words == "not shown" and more[world].corrected_p >= more[world].more.p
    own = more["sticky"].cost
    quiet, with_noise = (list(scores[w, "byol-explore"].values()) for w in ("none", "sticky"))
    ends = stats.ttest_ind(quiet, with_noise, equal_var=False).confidence_interval()
    assert (own.low, own.high) == pytest.approx(tuple(ends))


def test_words_follow_the_sign_and_the_correction() -> None:
    spread = np.linspace(-0.02, 0.02, 5)
    scores = {("none", method): 0.8 + spread for method in ("a", "b", "c")}
    scores |= {("x", "a"): 0.7 + spread, ("x", "b"): 0.5 + spread, ("x", "c"): 0.8 + spread}
    rows = cost_rows(noise_costs(seeded(scores), noisy("x", "y"), ("a", "b", "c")))
    assert [row["words"] for row in rows] == [
        *("", "costs it more", "costs it less"),
        *("", "no interval", "no interval"),
    ]
    assert [row["cost"] for row in rows[:3]] == pytest.approx([0.1, 0.3, 0])
    assert [row["difference"] for row in rows[1:3]] == pytest.approx([0.2, -0.1])
    assert (rows[3]["runs"], rows[3]["runs_without_noise"]) == (0, 5)
    assert noise_costs(seeded(scores), {}, ("a", "b")) == []
    # one comparison alone is shown, one of very many of the same size is not
    close = {("none", "a"): 5 * spread, ("none", "b"): 5 * spread, ("x", "a"): 5 * spread}
    close["x", "b"] = 5 * spread - 0.2
    (_, alone) = noise_costs(seeded(close), noisy("x"), ("a", "b"))
    assert alone.words == "costs it more" and alone.corrected_p == alone.more.p
    many = close | {(f"y{i}", method): 5 * spread for i in range(20) for method in "ab"}
    among = noise_costs(seeded(many), noisy("x", *(f"y{i}" for i in range(20))), ("a", "b"))[1]
    assert among.more == alone.more and among.words == "not shown"


def test_pairing_by_seed_is_the_one_sample_t_test_of_the_seeds_that_all_cells_have() -> None:
    random = np.random.default_rng(1)
    luck, cells = random.normal(0, 1, 6), [(w, m) for w in ("none", "x") for m in "ab"]
    scores = seeded({cell: luck + random.normal(0, 0.1, 6) for cell in cells})
    del scores["x", "b"][0], scores["none", "a"][5]
    found = noise_costs(scores, noisy("x"), ("a", "b"))[1]
    each = [
        scores["none", "b"][s] - scores["x", "b"][s] - scores["none", "a"][s] + scores["x", "a"][s]
        for s in range(1, 5)
    ]
    expected = stats.ttest_1samp(each, 0)
    ends = expected.confidence_interval()
    assert found.paired.p == pytest.approx(expected.pvalue)
    assert (found.paired.low, found.paired.high) == pytest.approx((ends.low, ends.high))
    # shared luck leaves the seeds' differences, and not the four cells
    assert found.paired.high - found.paired.low < (found.more.high - found.more.low) / 2
    assert found.runs == 5 and found.corrected_p == found.more.p


def test_under_the_null_one_family_in_twenty_has_a_false_difference() -> None:
    """Nothing costs anything: four noises, three methods against a reference, five runs a cell.

    The methods differ in level and spread, as in the maze. The cells without noise and those of
    the reference are shared, so Holm's correction is a little strict.
    """
    random, studies = np.random.default_rng(0), 4000
    level, spread = np.array([0.84, 0.67, 0.5, 0.3]), np.array([0.03, 0.08, 0.05, 0.1])
    drawn = level + spread * random.normal(size=(5, 5, studies, 4))  # world, run, study, method
    p = np.stack(
        [
            contrast(
                (drawn[0, ..., m], drawn[w, ..., m], drawn[0, ..., 0], drawn[w, ..., 0]),
                (1, -1, -1, 1),
            ).p
            for w in range(1, 5)
            for m in range(1, 4)
        ],
        -1,
    )
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.01)  # each alone
    assert (p < 0.05).any(-1).mean() > 0.2  # what no correction would do
    assert 0.02 < (holm(p) < 0.05).any(-1).mean() < 0.055


def test_noise_is_compared_with_the_same_world_without_it(tmp_path: Path) -> None:
    """Not with a world that is called `none` and is another maze."""
    names = ("none", "on-demand", "branches-none", "branches-on-demand")
    levels = dict(zip(names, (0.9, 0.8, 0.5, 0.3), strict=True))
    whole = STUDIES["noisy-tv"]().select(names, ("byol-hindsight", "rnd"), (0, 1), {})
    study = make(tmp_path / "s", whole, lambda world, *_: log(levels[world]))
    assert study.quiet == {"on-demand": "none", "branches-on-demand": "branches-none"}
    costs = {each.world: float(each.cost.value) for each in study_costs(study)}
    assert costs == pytest.approx({"on-demand": 0.1, "branches-on-demand": 0.2})


def test_keeping_a_score_needs_the_uncertainty_of_both_scores(tmp_path: Path) -> None:
    """Without noise three runs have 0.2, 0.6 and 1: nobody knows what 0.85 of that is."""
    whole = STUDIES["maze"]().select(("none", "pixel"), ("byol-hindsight",), (0, 1, 2), {})
    levels = {"unsure": (0.2, 0.6, 1.0), "sure": (0.59, 0.6, 0.61)}
    found = {}
    for name, quiet in levels.items():
        study = make(
            tmp_path / name,
            whole,
            lambda world, _, seed, quiet=quiet: log(
                quiet[seed] if world == "none" else 0.57 + 0.01 * seed
            ),
        )
        found[name] = keeps(study, "pixel")[0]
    assert found == {"unsure": "not", "sure": "reproduced"} and UNKNOWN not in found.values()
