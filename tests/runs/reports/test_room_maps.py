"""The maps of rooms: each room where it lies, the darker, the more runs were there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterwit.envs.atari_places import CELLS, SIDE, STOREYS
from afterwit.runs.configs.presets import atari_small
from afterwit.runs.reports.comparison_page import write_report
from afterwit.runs.reports.groups import Group
from afterwit.runs.reports.room_maps import (
    Explored,
    explored,
    numbers_of,
    places_of,
    rooms_figure,
    seen_by,
    storeys_of,
)
from afterwit.runs.reports.run_results import read_run
from afterwit.runs.training import checkpoint
from tests.runs.written_runs import log, make


def was_in(*rooms: int, squares: bool = True) -> Explored:
    """A run that was in every square of these rooms, or whose game does not tell squares."""
    seen, cells = np.zeros(256, bool), np.zeros((256, SIDE, SIDE), bool)
    seen[list(rooms)] = cells[list(rooms)] = True
    return Explored(seen, cells if squares else None)


def group(tmp_path: Path, game: str = "MontezumaRevenge") -> Group:
    config = replace(atari_small(game=game), total_steps=1000, log_interval=50)
    run = read_run(make(tmp_path / game, config, log(0.5, explored__rooms=2.0), maps=False))
    return Group(run.method, game, (run,), 0)


def test_the_rooms_of_a_pyramid_lie_as_in_the_game(tmp_path: Path) -> None:
    storeys = STOREYS["MontezumaRevenge"]
    assert sorted(room for storey in storeys for room in storey) == list(range(24))
    places = places_of([1, 4], storeys)
    assert places[1] == (0, 4) and places[4] == (1, 3) and places[19] == (3, 4)
    montezuma = group(tmp_path)
    assert storeys_of(montezuma, [was_in(1, 4)]) == storeys
    # a room that is not on the map is shown all the same
    assert storeys_of(montezuma, [was_in(1), was_in(200)]) is None
    assert places_of([1, 200], None) == {1: (0, 0), 200: (0, 1)}
    assert storeys_of(group(tmp_path, "Venture"), [was_in(1)]) is None


def test_a_tile_is_the_darker_the_more_runs_were_there(tmp_path: Path) -> None:
    one, both = was_in(1, 4), was_in(1)
    assert both.cells is not None
    both.cells[1, 2, 3] = False
    assert numbers_of([one, both]) == [1, 4] and numbers_of([]) == []
    figure = rooms_figure(group(tmp_path), [one, both])
    assert figure is not None
    tiles = {ax.get_title(): np.asarray(ax.get_images()[0].get_array()) for ax in figure.axes}
    assert len(tiles) == 24
    assert (tiles["room 4: 1 of 2"] == 0.5).all() and not tiles["room 19: 0 of 2"].any()
    first = tiles["room 1: 2 of 2"]
    assert first[2, 3] == 0.5 and (np.delete(first.ravel(), 2 * SIDE + 3) == 1).all()
    assert rooms_figure(group(tmp_path), []) is None
    assert rooms_figure(group(tmp_path), [was_in()]) is None


def test_rooms_without_squares_are_coloured_whole(tmp_path: Path) -> None:
    figure = rooms_figure(group(tmp_path, "Pitfall"), [was_in(7, squares=False)])
    assert figure is not None and [ax.get_title() for ax in figure.axes] == ["room 7"]
    assert np.all(figure.axes[0].get_images()[0].get_array())


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the checkpoints of all runs hold: rooms 1 and 4, of room 4 all squares."""
    rooms, cells = np.zeros(256, bool), np.zeros((256, SIDE, SIDE), bool)
    rooms[[1, 4]] = cells[1, 2, 3] = cells[4] = True
    packed = {"rooms": np.packbits(rooms), "cells": np.packbits(cells.reshape(CELLS))}
    arrays = {f"explored_{name}": torch.from_numpy(bits) for name, bits in packed.items()}
    monkeypatch.setattr(checkpoint, "load", lambda *_: {"statistics": {"arrays": arrays}})
    return arrays


def test_they_are_read_from_the_checkpoint(tmp_path: Path, checkpoints: dict[str, Any]) -> None:
    run = group(tmp_path).runs[0]
    seen = explored(run)
    assert numbers_of([seen]) == [1, 4] and seen.cells is not None
    assert np.argwhere(seen.cells[1]).tolist() == [[2, 3]] and seen.cells[4].all()
    del checkpoints["explored_cells"]
    assert explored(run).cells is None


def test_a_report_shows_them(tmp_path: Path, checkpoints: dict[str, Any]) -> None:
    folder = group(tmp_path).runs[0].folder
    text = write_report([folder], tmp_path / "out").read_text(encoding="utf-8")
    assert "Rooms that were seen" in text
    assert (tmp_path / "out" / "rooms-byol-hindsight.png").is_file()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_report_does_without_a_checkpoint(tmp_path: Path, damaged: bool) -> None:
    found = group(tmp_path)
    if damaged:
        (found.runs[0].folder / checkpoint.NAME).write_bytes(b"afterwit checkpoint, cut sho")
    assert seen_by(found) == []
    text = write_report([found.runs[0].folder], tmp_path / "out").read_text(encoding="utf-8")
    assert "Rooms that were seen" not in text
