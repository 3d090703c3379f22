"""Standings: order and means by hand, worlds that some lack, and the page's picture."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image

from afterwit.runs.studies.page import write_study_report
from afterwit.runs.studies.standings import cells, standings, standings_markdown
from afterwit.runs.studies.standings_figure import standings_figure
from tests.runs.studies.test_page import Level, levelled, log, make, maze

pytest.importorskip("rliable.library", reason="pip install -e '.[study]'")
METHODS = ("byol-hindsight", "byol-explore", "rnd")
LEVELS: dict[tuple[str, str], Level] = {
    ("none", "byol-hindsight"): 0.6,
    ("none", "byol-explore"): 0.8,
    ("none", "rnd"): 0.5,
    ("sticky", "byol-hindsight"): 0.6,
    ("sticky", "byol-explore"): 0.2,
    ("sticky", "rnd"): 0.6,
}


def test_the_order_is_that_of_the_mean_over_worlds(tmp_path: Path) -> None:
    """Runs are a hundredth apart, so each mean is a hundredth below the level."""
    study = levelled(tmp_path / "s", maze(("none", "sticky"), METHODS, 3), LEVELS)
    found = standings(study)
    assert found is not None and found.common == found.worlds == ("none", "sticky")
    assert [each.method for each in found.methods] == ["byol-hindsight", "rnd", "byol-explore"]
    best = found.methods[0].overall
    # two cells of three runs with variance 0.01^2: Welch's t with 4 degrees of freedom is 2.776
    assert best.value == pytest.approx(0.59)
    assert best.high - best.value == pytest.approx(2.776445 * math.sqrt(2 * 0.01**2 / 3) / 2)
    rows = cells(found)
    assert rows[2] == [
        "byol-explore",
        "0.49",
        "0.48 to 0.50",
        "0.79 (0.80 0.79 0.78)",
        "0.19 (0.20 0.19 0.18)",
    ]
    lines = standings_markdown(found).splitlines()
    assert lines[0] == "| method | mean | 95% interval | none | sticky |" and len(lines) == 5
    assert lines[2].startswith("| `byol-hindsight` | 0.59 |")


def test_a_world_that_a_method_lacks_is_shown_and_does_not_count(tmp_path: Path) -> None:
    """RND has not run in sticky; and half a run there is no run."""
    for length in (0, 5):
        study = make(
            tmp_path / f"s{length}",
            maze(("none", "sticky"), METHODS, 2),
            lambda world, method, _, length=length: (
                log(LEVELS[world, method])[: length if (world, method) == ("sticky", "rnd") else 10]
                or None
            ),
        )
        found = standings(study)
        assert found is not None and found.common == ("none",)
        assert [each.method for each in found.methods] == ["byol-explore", "byol-hindsight", "rnd"]
        assert [row[-1] for row in cells(found)] == ["0.20 (0.20 0.20)", "0.60 (0.60 0.60)", ""]


def test_without_a_world_that_all_have_there_is_no_order(tmp_path: Path) -> None:
    study = make(
        tmp_path / "s",
        maze(("none", "sticky"), ("rnd", "byol-explore"), 1),
        lambda world, method, _: (
            log(0.5) if (world, method) in (("none", "rnd"), ("sticky", "byol-explore")) else None
        ),
    )
    found = standings(study)
    assert found is not None and found.common == ()
    assert [row[:3] for row in cells(found)] == [["byol-explore", "", ""], ["rnd", "", ""]]
    page = write_study_report(tmp_path / "s").read_text(encoding="utf-8")
    table = (tmp_path / "s" / "standings.md").read_text(encoding="utf-8")
    assert table == standings_markdown(found) + "\n"
    assert "which all methods have" not in page and "<h2>Standings</h2>" in page


def test_one_method_has_no_standings(tmp_path: Path) -> None:
    study = make(tmp_path / "s", maze(("none",), ("rnd",), 1), lambda *_: log(0.5))
    assert standings(study) is None


def test_the_page_shows_them_however_many_methods_there_are(tmp_path: Path) -> None:
    """The curves are left out where there are too many lines."""
    methods = (*METHODS, "icm", "ama", "lpm", "ride", "noveld")
    study = make(
        tmp_path / "s", maze(("none", "sticky"), methods, 1), lambda world, method, seed: log(0.5)
    )
    page = write_study_report(study.home).read_text(encoding="utf-8")
    assert (study.home / "study-standings.png").stat().st_size < 300_000
    assert not (study.home / "study-curves.png").exists()
    assert all((study.home / f"study-maps-{name}.png").exists() for name in methods)
    # eight methods are rows, two worlds are columns: eight columns would be 3,600 pixels wide
    assert Image.open(study.home / "study-coverage.png").width < 2000
    assert "the mean over none, sticky, which all methods have" in page
    assert "Mean score over 2 worlds: byol-hindsight 0.50, " in page


def test_the_longest_name_is_whole(tmp_path: Path) -> None:
    methods = ("byol-hindsight", "byol-hindsight-published")
    study = levelled(
        tmp_path / "s",
        maze(("none",), methods, 1),
        dict.fromkeys([("none", m) for m in methods], 0.5),
    )
    found = standings(study)
    assert found is not None
    figure = standings_figure(study, found)
    figure.canvas.draw()
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == list(methods)
    assert all(label.get_window_extent().x0 >= 0 for label in labels)
