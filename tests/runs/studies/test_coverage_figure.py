"""The maps of a study's methods: no words lie on others."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from afterwit.runs.studies.coverage_figure import coverage_figure, method_figure
from tests.runs.studies.test_page import levelled, maze

WORLDS = ("none", "on-demand", "sticky", "brownian")


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """The texts of a figure that lie on each other."""
    figure.canvas.draw()
    texts = [text for text in figure.texts if text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(one, two) for (one, a), (two, b) in combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize("worlds", [WORLDS[:3], WORLDS])
def test_no_words_lie_on_others(worlds: tuple[str, ...], tmp_path: Path) -> None:
    """Also where every tracker is reached in 100% of the episodes."""
    methods = ("byol-explore", "byol-hindsight")
    levels = {(world, method): 1.0 for world in worlds for method in methods}
    study = levelled(tmp_path / "s", maze(worlds, methods, seeds=1), levels)
    for figure in (method_figure(study, "byol-hindsight"), coverage_figure(study)):
        assert figure is not None
        assert any("R4 100%" in text.get_text() for text in figure.texts)
        assert overlaps(figure) == []
