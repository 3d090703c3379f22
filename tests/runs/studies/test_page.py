"""A study's report: numbers from slow definitions, verdicts, and a self-contained page."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from afterwit.envs.atari import AtariConfig
from afterwit.envs.maze import build_map
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.run_config import write_config
from afterwit.runs.evaluation.intervals import estimate, intervals
from afterwit.runs.studies.claims import claims as claims_of
from afterwit.runs.studies.claims import targets as targets_of
from afterwit.runs.studies.definitions import STUDIES
from afterwit.runs.studies.differences import study_costs
from afterwit.runs.studies.page import write_study_report
from afterwit.runs.studies.results import StudyLog, read_study
from afterwit.runs.studies.run_study import merge_manifest, write_manifest
from afterwit.runs.studies.study import Study, Variant
from afterwit.runs.studies.verdicts import cost, trapped_words
from afterwit.runs.training.run_log import MAPS, METRICS
from tests.runs.written_runs import Page

pytest.importorskip("rliable.library", reason="pip install -e '.[study]'")
STEPS = 1_500_000
Entry = dict[str, Any]
# share of episodes that reach every tracker; before the last tenth, and in it
Level = float | tuple[float, float]


def entry(steps: int, reached: Mapping[str, float], episodes: int = 10, **more: float) -> Entry:
    result: Entry = {"agent_steps": steps, "seconds": steps / 1000, "episode/count": episodes}
    return (
        result
        | {f"reached/{name}": value for name, value in reached.items()}
        | {name.replace("__", "/"): v for name, v in more.items()}
    )


def log(level: Level, **more: float) -> list[Entry]:
    """Ten entries, one a tenth."""
    before, last = level if isinstance(level, tuple) else (level, level)
    shares = [before] * 9 + [last]
    return [
        entry(STEPS // 10 * (index + 1), dict.fromkeys(("R1", "R2", "R3", "R4"), share), **more)
        for index, share in enumerate(shares)
    ]


def make(
    home: Path, study: Study, entries: Callable[[str, str, int], list[Entry] | None]
) -> StudyLog:
    """Return the folder of a study whose runs have logged `entries(world, method, seed)`.

    None: the run has not begun.
    """
    home.mkdir()
    cells = study.cells()
    manifest = merge_manifest(study, cells, home)
    manifest.sessions.append(
        {"command": "afterwit study maze", "date": "today", "commit": "c0ffee"}
    )
    write_manifest(manifest, home)
    for cell in cells:
        folder = home / cell.folder
        write_config(cell.config, folder)
        lines = entries(cell.world, cell.method, cell.seed)
        if lines is not None:
            (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
            visits = np.zeros((10, build_map().walls.size), np.int64)
            visits[:, 3 * build_map().width + 5] = 100
            np.savez_compressed(folder / MAPS, visits=visits, pay=visits * 0.5)
    return read_study(home)


def maze(
    worlds: tuple[str, ...] = ("none", "brownian"),
    methods: tuple[str, ...] = ("byol-explore", "byol-hindsight"),
    seeds: int = 5,
) -> Study:
    return STUDIES["maze"]().select(worlds, methods, range(seeds), {})


def levelled(
    home: Path, study: Study, levels: Mapping[tuple[str, str], Level], **more: float
) -> StudyLog:
    """Return a study whose runs log the level of their cell, minus a hundredth per seed."""

    def shifted(level: Level, seed: int) -> Level:
        return (
            (level[0] - seed / 100, level[1] - seed / 100)
            if isinstance(level, tuple)
            else level - seed / 100
        )

    return make(
        home, study, lambda world, method, seed: log(shifted(levels[world, method], seed), **more)
    )


def test_the_time_to_first_reach_is_of_the_runs_that_reached(tmp_path: Path) -> None:
    def entries(_: str, method: str, seed: int) -> list[Entry]:
        lines = log(0.5)
        for index, line in enumerate(lines):
            if method == "byol-hindsight" and index >= seed and seed < 3:
                line["first/R1"] = 1000.0 * (seed + 1)
        return lines

    study = make(tmp_path / "s", maze(("none",)), entries)
    rows = {(row["method"], row["seed"]): row for row in study.rows}
    assert [rows["byol-hindsight", seed]["first/R1"] for seed in range(3)] == [1000, 2000, 3000]
    assert all(math.isnan(rows["byol-explore", seed]["first/R1"]) for seed in range(5))
    assert all(math.isnan(row["first/R4"]) for row in study.rows)
    found = study.get("none", "byol-hindsight", "first/R1")
    assert (found.mean, found.runs) == (2000, 3)
    assert study.get("none", "byol-explore", "first/R1").runs == 0


def test_the_score_is_the_slow_definition(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    steps = [*range(40_000, STEPS, 40_000), STEPS + 17]
    entries = [
        entry(step, {f"R{i + 1}": random.random() for i in range(4)}, int(random.integers(0, 9)))
        for step in steps
    ]
    for line in entries:
        if not line["episode/count"]:
            line |= {f"reached/R{i + 1}": None for i in range(4)}
    (row,) = make(tmp_path / "s", maze(("brownian",), ("rnd",), 1), lambda *_: entries).rows
    # per episode; the eleventh: all of training
    tenths: list[list[float]] = [[] for _ in range(11)]
    for line in entries:
        for _ in range(line["episode/count"]):
            score = sum(line[f"reached/R{i + 1}"] for i in range(4)) / 4
            tenths[min(9, (line["agent_steps"] - 1) * 10 // STEPS)].append(score)
            tenths[10].append(score)
    assert row["score_all"] == pytest.approx(sum(tenths[10]) / len(tenths[10]))
    assert row["score_last"] == pytest.approx(sum(tenths[9]) / len(tenths[9]))
    assert row["score_best"] == pytest.approx(max(sum(tenth) / len(tenth) for tenth in tenths[:10]))
    assert row["score_drop"] == pytest.approx(row["score_best"] - row["score_last"])


def test_intervals_are_student_s() -> None:
    values = np.random.default_rng(1).random((5, 4))
    centre, low, high = intervals(values)
    for column in range(4):
        known = scipy.stats.ttest_1samp(values[:, column], 0).confidence_interval(0.95)
        assert (low[column], high[column]) == pytest.approx((known.low, known.high))
    assert centre == pytest.approx(values.mean(0))
    same = intervals(np.full((3, 1), 0.3))
    assert [float(end[0]) for end in same] == pytest.approx([0.3, 0.3, 0.3])


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    drawn = np.random.default_rng(0).normal(1.0, 2.0, (5, 4000))
    _, low, high = intervals(drawn)
    assert ((low < 1) & (high > 1)).mean() == pytest.approx(0.95, abs=0.01)


def test_a_number_that_some_runs_lack_is_estimated_over_the_others() -> None:
    values = np.random.default_rng(2).random((5, 3))
    values[3, 0], values[1:, 1], values[:, 2] = np.nan, np.nan, np.nan
    some, one, none = estimate(values)
    (alone,) = estimate(values[[0, 1, 2, 4], :1])
    assert some == alone and some.runs == 4
    assert (
        (one.mean, one.runs) == (values[0, 1], 1) and math.isnan(one.low) and math.isnan(one.high)
    )
    assert none.runs == 0 and math.isnan(none.mean)


def test_targets_and_claims_flip_with_the_numbers(tmp_path: Path) -> None:
    quiet: dict[tuple[str, str], Level] = {
        ("none", "byol-explore"): 0.9,
        ("none", "byol-hindsight"): 0.9,
    }
    good = levelled(
        tmp_path / "good",
        maze(),
        quiet | {("brownian", "byol-hindsight"): 0.85, ("brownian", "byol-explore"): 0.1},
        collapse__alarm=0.0,
    )
    bad = levelled(
        tmp_path / "bad",
        maze(),
        quiet | {("brownian", "byol-hindsight"): 0.1, ("brownian", "byol-explore"): 0.85},
        collapse__alarm=1.0,
    )
    assert [target.passed for target in targets_of(good)] == [True] * 7
    assert [target.passed for target in targets_of(bad)] == [
        False,
        False,
        False,
        False,
        True,
        False,
        True,
    ]
    assert "byol-hindsight 83% [81%, 85%], byol-explore 8% [6%, 10%]" in [
        target.figures for target in targets_of(good)
    ]

    def verdicts(study: StudyLog) -> dict[str, str]:
        return {
            claim.text.split(" (")[0]: claim.verdict
            for claim in claims_of(study)
            if claim.setting == "brownian"
        }

    whole = "BYOL-Hindsight explores the whole maze"
    hardly = "BYOL-Explore hardly passes the first two trackers"
    rnd = "RND explores the whole maze"
    assert verdicts(good) == {whole: "reproduced", hardly: "reproduced", rnd: "no data"}
    assert verdicts(bad) == {whole: "differs", hardly: "differs", rnd: "no data"}
    assert (
        cost(good, "brownian", "byol-explore")[0],
        cost(bad, "brownian", "byol-explore")[0],
    ) == ("trapped", "holds")
    assert "byol-explore is not trapped by brownian" in trapped_words(bad, "byol-explore")[0]


def test_a_method_that_explores_little_without_noise_is_not_called_trapped(tmp_path: Path) -> None:
    levels: dict[tuple[str, str], Level] = {
        ("none", "byol-explore"): 0.11,
        ("brownian", "byol-explore"): 0.1,
    }
    study = levelled(tmp_path / "s", maze(methods=("byol-explore",)), levels)
    (claim,) = [claim for claim in claims_of(study) if "hardly passes" in claim.text]
    assert claim.verdict == "not"
    assert "what holds it is not the noise alone" in trapped_words(study, "byol-explore")[0]


def test_rnd_that_fades_and_rnd_that_does_not(tmp_path: Path) -> None:
    for last, expected in ((0.3, "reproduced"), (0.9, "differs")):
        study = levelled(
            tmp_path / expected, maze(("none",), ("rnd",)), {("none", "rnd"): (0.9, last)}
        )
        (claim,) = [claim for claim in claims_of(study) if "loses interest" in claim.text]
        assert claim.verdict == expected


def test_one_run_decides_nothing(tmp_path: Path) -> None:
    levels: dict[tuple[str, str], Level] = {
        (world, method): 0.9
        for world in ("none", "brownian")
        for method in ("byol-explore", "byol-hindsight")
    }
    study = levelled(tmp_path / "s", maze(seeds=1), levels)
    assert [target.passed for target in targets_of(study)][:5] == [None] * 5
    assert {claim.verdict for claim in claims_of(study)} == {"no data"}


def test_the_page_stands_alone_and_the_files_hold_every_run(tmp_path: Path) -> None:
    name = "<script>alert(1)<"
    study = replace(
        maze(("none", "brownian"), ("rnd",), 3),
        methods=(Variant("rnd", {"model": "rnd"}), Variant(name, {"model": "icm"})),
    )
    more = {
        "noise__share": 1.25,
        "share_of_time__block_in_view": 0.5,
        "leak__critic": 0.125,
        "collapse__alarm": 0.0,
    }
    home = tmp_path / "s"
    make(
        home,
        study,
        lambda world, method, seed: (
            None
            if (method, seed) == (name, 2)
            else log(0.5 + seed / 10, **more)[: 9 if seed else 10]
        ),
    )
    html = write_study_report(home).read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags and "&lt;script&gt;" in html
    assert page.links and all(link.startswith("data:image/png") for link in page.links)
    assert "url(" not in html and "@import" not in html
    assert "of 12 runs, 4 are finished, 6 are unfinished and 2 have logged nothing yet" in " ".join(
        html.split()
    )
    assert "Does it seek the noise?" in html and "noise/share" in html and "c0ffee" in html
    assert {"study-curves.png", "study-scores.png", "study-coverage.png"} <= {
        path.name for path in home.glob("*.png")
    }
    with (home / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and {row["folder"] for row in rows if row["method"] == "rnd"} >= {
        "none/rnd/s0",
        "brownian/rnd/s2",
    }
    assert (
        float(rows[0]["score_all"]) == pytest.approx(0.5) and float(rows[0]["noise/share"]) == 1.25
    )
    summary = json.loads((home / "summary.json").read_text())
    assert len(summary["runs"]) == 10 and len(summary["cells"]) == 4 and not summary["finished"]
    cell = next(
        cell for cell in summary["cells"] if (cell["world"], cell["method"]) == ("none", "rnd")
    )
    # the two runs of nine tenths are not averaged with the finished one
    assert cell["runs"] == 1 and cell["score_all"] == pytest.approx(0.5)
    assert cell["score_all_low"] is None


def test_a_sensitivity_study_has_a_table_of_variants_with_the_default_in_its_place(
    tmp_path: Path,
) -> None:
    study = STUDIES["maze-sensitivity"]().select(
        (), ("byol-hindsight", "horizon-4", "horizon-8"), (), {}
    )
    read = make(
        tmp_path / "s",
        study,
        lambda world, method, seed: log({"horizon-4": 0.9}.get(method, 0.5) - seed / 100),
    )
    (knob,) = read.knobs
    assert knob.path == "learner.world_model.horizon"
    assert [method for _, method in knob.settings] == ["byol-hindsight", "horizon-4", "horizon-8"]
    html = write_study_report(tmp_path / "s").read_text(encoding="utf-8")
    assert (
        "<h2>Variants</h2>" in html
        and "1 (default)" in html
        and "<h2>Published claims</h2>" not in html
    )
    assert "; the highest of 3 is horizon-4, 90% [83%, 96%]." in html


def test_one_variant_among_other_models_leaves_a_comparison_of_methods(tmp_path: Path) -> None:
    methods = ("byol-hindsight", "place-paid", "rnd")
    study = STUDIES["noisy-tv"]().select(("none",), methods, (5, 6), {})
    read = make(tmp_path / "s", study, lambda world, method, seed: log(0.5 + seed / 100))
    assert not read.knobs
    html = write_study_report(tmp_path / "s").read_text(encoding="utf-8")
    assert "<h2>Variants</h2>" not in html
    assert (tmp_path / "s" / "study-standings.png").is_file()


def test_worlds_without_trackers_are_judged_by_cells_rooms_and_return(tmp_path: Path) -> None:
    games = (Variant("MontezumaRevenge", {"game": "MontezumaRevenge"}),)
    control = Variant("random", {"model": "icm"}, {"learner.policy.uniform": True})
    study = Study(
        "atari", "atari-small", games, (Variant("rnd", {"model": "rnd"}), control), (0, 1)
    )

    def logged(method: str, counts: dict[str, float]) -> list[dict[str, float]]:
        means = {"episode/rooms": 1.5, **(counts if method == "rnd" else {})}
        return [
            {
                "agent_steps": 40_000 * (i + 1),
                "episode/count": 2,
                "episode/return": 50.0 * i,
                **means,
            }
            for i in range(10)
        ]

    read = make(
        tmp_path / "s",
        study,
        lambda world, method, seed: logged(
            method, {"episode/cells": 12.0 + seed, "explored/cells": 70.0}
        ),
    )
    config = read.groups["MontezumaRevenge", "random"].runs[0].config
    assert isinstance(config.env, AtariConfig) and config.method == "random"
    assert read.measures == ["cells", "explored", "rooms", "return"]
    assert (
        read.rows[0]["return_all"],
        read.rows[0]["return_last"],
        read.rows[0]["rooms_best"],
    ) == (225.0, 450.0, 1.5)
    assert (read.rows[1]["cells_all"], read.rows[1]["explored_last"], read.rows[2]["world"]) == (
        13.0,
        70.0,
        "MontezumaRevenge",
    )
    # a human has 4753.3 there (Badia et al., 2020), a random policy 0
    assert read.rows[0]["human_last"] == pytest.approx(450 / 4753.3)
    (tmp_path / "s" / "MontezumaRevenge" / "rnd" / "s0" / MAPS).unlink()
    html = write_study_report(tmp_path / "s").read_text(encoding="utf-8")
    assert (
        "Cells seen per episode in MontezumaRevenge: rnd 12.5 [6.1, 18.9]; random –." in html
        and "Targets" not in html
    )
    assert "<h2>Human-normalised scores</h2>" in html and "0.095 [0.095, 0.095]" in html


def test_report_only_trains_nothing_and_mistakes_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "s"
    make(home, maze(("none",), ("rnd",), 2), lambda *_: log(0.5)[:4])
    before = (home / "none" / "rnd" / "s0" / METRICS).read_bytes()
    assert main(["study", "maze", "--out", str(home), "--report-only"]) == 0
    assert f"report: {home / 'report.html'}" in capsys.readouterr().out
    assert (home / "none" / "rnd" / "s0" / METRICS).read_bytes() == before
    assert main(["study", "maze", "--out", str(tmp_path / "nowhere"), "--report-only"]) == 2
    assert "holds no study: it has no study.json" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has logged anything yet"):
        make(tmp_path / "silent", maze(("none",), ("rnd",), 2), lambda *_: None)
    assert main(["study", "maze", "--out", str(tmp_path / "silent"), "--report-only"]) == 2
    assert "no run of the study" in capsys.readouterr().err

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("afterwit.runs.evaluation.intervals.importlib.import_module", missing)
    assert main(["study", "maze", "--out", str(tmp_path / "new")]) == 2
    assert (
        "pip install 'afterwit[study]'" in capsys.readouterr().err
        and not (tmp_path / "new").exists()
    )


def test_the_page_says_what_noise_costs_and_shows_every_run(tmp_path: Path) -> None:
    levels: dict[tuple[str, str], Level] = {
        ("none", "byol-hindsight"): 0.9,
        ("none", "byol-explore"): 0.8,
        ("brownian", "byol-hindsight"): 0.85,
        ("brownian", "byol-explore"): 0.25,
        ("pixel", "byol-hindsight"): 0.7,
        ("pixel", "byol-explore"): 0.6,
    }
    chosen = maze(("none", "brownian", "pixel"), ("byol-hindsight", "byol-explore"), 3)
    levelled(tmp_path / "s", chosen, levels)
    html = write_study_report(tmp_path / "s").read_text(encoding="utf-8")
    assert "Does noise cost a method more than byol-hindsight?" in html
    # Three seeds a hundredth apart: Welch's t with 8 degrees of freedom is 2.306.
    reach = 2.306 * math.sqrt(4 * 0.01**2 / 3)
    brownian = f"+0.50 [{0.5 - reach:+.2f}, {0.5 + reach:+.2f}]"
    shown = f"<td>3 and 3</td><td>{brownian}</td><td>&lt; 0.001</td><td>costs it more</td>"
    assert shown in html
    assert "<td>1.000</td><td>not shown</td>" in html
    assert "<td>+0.05 [" in html and "<td>+0.55 [" in html  # the costs themselves
    assert "<td>25% 24% 23%</td>" in html
    with (tmp_path / "s" / "differences.csv").open() as file:
        rows = {(row["world"], row["method"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4 and rows["pixel", "byol-explore"]["words"] == "not shown"
    assert float(rows["brownian", "byol-explore"]["difference"]) == pytest.approx(0.5)
    assert rows["brownian", "byol-hindsight"]["difference"] == ""


def test_half_a_run_is_not_compared(tmp_path: Path) -> None:
    """One of three runs in the noise has stopped early: two are left."""
    study = make(
        tmp_path / "s",
        maze(seeds=3),
        lambda world, _, seed: log(0.5 + seed / 10)[
            : 5 if (world, seed) == ("brownian", 2) else 10
        ],
    )
    costs = study_costs(study)
    assert [(each.runs, each.quiet_runs) for each in costs] == [(2, 3)] * 2
    assert costs[0].cost.value == pytest.approx(0.6 - 0.55)
