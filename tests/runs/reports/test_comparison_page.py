"""The report: numbers computed by hand, sentences that follow them, a self-contained page."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from afterwit.envs.atari import AtariConfig
from afterwit.envs.maze_art import LAYOUTS
from afterwit.envs.maze_map import build_map
from afterwit.runs.reports.comparison_page import write_report
from afterwit.runs.reports.curves import curves
from afterwit.runs.reports.groups import make_groups
from afterwit.runs.reports.maze_maps import draw_maze, map_size
from afterwit.runs.reports.report_summary import summarise
from afterwit.runs.reports.run_results import read_run
from afterwit.runs.reports.sentences import percent
from afterwit.runs.training.run_log import MAPS
from tests.runs.written_runs import Page, entry, log, make, small


def report(tmp_path: Path, *folders: Path) -> tuple[dict[str, Any], str]:
    path = write_report(folders, tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    return json.loads((tmp_path / "out" / "summary.json").read_text()), path.read_text(
        encoding="utf-8"
    )


def numbers(*folders: Path) -> dict[str, Any]:
    """Return the summary, without drawing."""
    return summarise(make_groups([read_run(folder) for folder in folders]))


def test_last_tenth_is_weighted_by_episodes_and_time_by_steps(tmp_path: Path) -> None:
    entries = [
        entry(500, 20, 0.9, share_of_pay__block_in_view=0.9),
        entry(900, 5, 0.8, share_of_pay__block_in_view=0.9),
        entry(940, 10, 0.5, share_of_time__block_in_view=0.4, share_of_pay__block_in_view=0.8),
        entry(950, 0, 0.0, share_of_time__block_in_view=1.0),  # no episode ended, nothing was paid
        entry(1000, 30, 0.1, share_of_time__block_in_view=0.2, share_of_pay__block_in_view=0.2),
    ]
    summary = numbers(make(tmp_path / "a", small(), entries))
    run = summary["groups"][0]["runs"][0]
    assert run["last_tenth"]["reached/R2"] == pytest.approx((10 * 0.5 + 30 * 0.1) / 40)
    assert run["best_tenth"]["reached/R2"] == pytest.approx(0.9)
    assert run["last_tenth"]["share_of_time/block_in_view"] == pytest.approx(
        (40 * 0.4 + 10 * 1.0 + 50 * 0.2) / 100
    )
    assert run["last_tenth"]["share_of_pay/block_in_view"] == pytest.approx(
        (40 * 0.8 + 50 * 0.2) / 90
    )
    assert run["last_tenth"]["ratio/block_in_view"] == pytest.approx(
        (40 * 0.8 + 50 * 0.2) / (40 * 0.4 + 50 * 0.2)
    )
    assert (run["episodes"], run["episodes_last_tenth"], run["frames"]) == (65, 40, 4000)
    assert run["agent_steps_per_second"] == pytest.approx(100)


def test_tenths_are_those_of_the_maps(tmp_path: Path) -> None:
    """An entry that ends at 900 of 1000 steps is in the ninth tenth.

    One beyond the end is in the last.
    """
    summary = numbers(make(tmp_path / "a", small(), [entry(900, 10, 1.0), entry(1040, 10, 0.25)]))
    assert summary["groups"][0]["last_tenth"]["reached/R2"] == 0.25


def test_seeds_are_grouped_and_weigh_the_same(tmp_path: Path) -> None:
    folders = [
        make(tmp_path / f"h{seed}", small(seed=seed), log(last))
        for seed, last in enumerate((0.2, 0.5, 0.8))
    ]
    folders.append(make(tmp_path / "e0", small("byol-explore"), log(0.0)))
    summary, html = report(tmp_path, *folders)
    hindsight, explore = summary["groups"]
    assert (hindsight["seeds"], explore["seeds"]) == ([0, 1, 2], [0])
    assert hindsight["last_tenth"]["reached/R2"] == pytest.approx(0.5)
    assert "byol-hindsight reached R2 in 50% (20% to 80% by seed)" in html
    assert "byol-hindsight (mean of 3)" in html


def test_other_configs_are_other_groups_and_say_how(tmp_path: Path) -> None:
    rates = (0.0005, 0.001)
    learner = small().learner
    configs = [
        replace(small(seed=seed), learner=replace(learner, learning_rate=rate))
        for seed, rate in enumerate(rates)
    ]
    summary = numbers(*(make(tmp_path / f"{config.seed}", config, log(0.5)) for config in configs))
    assert [group["label"] for group in summary["groups"]] == [
        "byol-hindsight, learning_rate 0.0005",
        "byol-hindsight, learning_rate 0.001",
    ]


@pytest.mark.parametrize(
    ("explore", "hindsight", "first"), [(0.0, 0.62, "byol-hindsight"), (0.62, 0.0, "byol-explore")]
)
def test_headline_follows_the_numbers(
    tmp_path: Path, explore: float, hindsight: float, first: str
) -> None:
    second = "byol-explore" if first == "byol-hindsight" else "byol-hindsight"
    time = {second: 0.83, first: 0.5}
    folders = [
        make(tmp_path / model, small(model), log(last, share_of_time__block_in_view=time[model]))
        for model, last in (("byol-explore", explore), ("byol-hindsight", hindsight))
    ]
    summary = numbers(*folders)
    expected = (
        f"On the maze with brownian noise, {first} reached R2 in 62% of the episodes of the last"
        f" tenth of training; {second} in 0%, and spent 83% of its time with a random block in"
        " view."
    )
    assert summary["headline"][0][0] == expected


def test_headline_claims_no_difference_where_there_is_none(tmp_path: Path) -> None:
    folders = [
        make(tmp_path / model, small(model), log(0.5, first=0.9))
        for model in ("byol-explore", "byol-hindsight")
    ]
    lead, *notes = numbers(*folders)["headline"][0]
    assert lead.endswith("no clear difference.")
    assert "spent" not in lead
    assert any("about equal: byol-explore 50%, byol-hindsight 50%" in note for note in notes)
    assert (
        "byol-explore reached R2 more often before: 90% of the episodes of its best tenth, 50% of"
        " the last." in notes
    )


@pytest.mark.parametrize(
    ("noise", "words"),
    [("none", "bouncing block"), ("pixel", "random pixels"), ("sticky", "overridden")],
)
def test_noise_is_named_for_what_it_is(tmp_path: Path, noise: str, words: str) -> None:
    entries = log(0.5, share_of_time__noise_on=0.25)
    assert words in numbers(make(tmp_path / "a", small(noise=noise), entries))["headline"][0][0]


def test_borders_of_rooms_are_shown_where_there_are_rooms(tmp_path: Path) -> None:
    plain, rooms = log(0.5), log(0.5, share_of_time__room_change=0.1, share_of_pay__room_change=0.3)
    for name, entries, count in (("plain", plain, 0), ("rooms", rooms, 2)):
        groups = make_groups([read_run(make(tmp_path / name, small(), entries))])
        assert sum("room_change" in curve.name for curve in curves(groups)) == count


def test_page_stands_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", small(), log(0.5))
    (folder / "video.mp4").write_bytes(b"\0" * 100)
    (folder / "evaluation.json").write_text(
        json.dumps({"episodes": 5, "results": {"return": {"mean": 1.5}}})
    )
    _, html = report(tmp_path, folder)
    page = Page(html)
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in html and "@import" not in html
    assert "video" in page.tags and "1.50" in html
    pictures = list((tmp_path / "out").glob("*.png"))
    assert {"overview.png", "curve-reached-r2.png", "tenths-byol-hindsight.png"} <= {
        path.name for path in pictures
    }
    assert all(0 < path.stat().st_size < 300_000 for path in pictures)


def test_mazes_of_different_layouts_have_maps_of_their_own(tmp_path: Path) -> None:
    folders = [
        make(tmp_path / layout, replace(config, env=replace(config.env, layout=layout)), log(0.5))
        for layout in LAYOUTS
        for config in [small()]
    ]
    summary, html = report(tmp_path, *folders)
    assert "of another version" not in html
    assert [group["world"] for group in summary["groups"]] == [
        "the maze with brownian noise",
        "the maze of branches with brownian noise",
    ]
    assert len(list((tmp_path / "out").glob("tenths*.png"))) == 2
    folder = make(tmp_path / "other", small(), log(0.5), maps=False)
    shutil.copy(folders[1] / MAPS, folder / MAPS)  # the maps of the other layout
    _, html = report(tmp_path, folder)
    assert "has maps of another version of the maze" in html


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_map_shows_trackers_and_blocks_where_they_are(layout: str) -> None:
    maze, ax = build_map(layout), Figure().subplots()
    visits = np.zeros(maze.walls.size)
    visits[maze.start[0] * maze.width + maze.start[1]] = 1
    draw_maze(ax, maze, visits, "#ff0000", marks=True)
    (image,) = ax.images
    assert image.get_array().shape == (maze.height, maze.width, 3)
    assert image.get_array()[maze.start].tolist() == [1, 0, 0]
    dots = [line.get_xydata()[0].tolist() for line in ax.lines]
    assert dots == [[column, row] for row, column in maze.trackers.tolist()]
    for index, (row, column) in enumerate(maze.trackers):  # each label is above its chamber
        (label,) = [text for text in ax.texts if text.get_text() == f"R{index + 1}"]
        assert label.get_position() == (column, row - 3)
        assert (label.get_color() == "white") == maze.walls[row - 3, column]
    assert sum(text.get_text() == "↕" for text in ax.texts) == len(maze.block_columns)
    wide, high = map_size(maze, 8.0, 1.0)
    assert wide / high == pytest.approx(maze.width / maze.height)
    assert max(wide / 8, high) == pytest.approx(1)


def test_names_are_escaped(tmp_path: Path) -> None:
    name = "<script>alert(1)<"
    folder = make(tmp_path / name, small(), log(0.5)[:3])
    _, html = report(tmp_path, folder)
    assert "script" not in Page(html).tags
    assert "&lt;script&gt;" in html


def test_atari_shows_return_and_rooms_without_maps(tmp_path: Path) -> None:
    config = replace(small(), env=AtariConfig(num_envs=2))
    entries = [
        {
            "agent_steps": 100 * (i + 1),
            "episode/count": 2,
            "episode/return": 50.0 * i,
            "episode/rooms": 1.5,
        }
        for i in range(10)
    ]
    summary, html = report(tmp_path, make(tmp_path / "a", config, entries, maps=False))
    assert summary["groups"][0]["last_tenth"] == {"episode/return": 450.0, "episode/rooms": 1.5}
    assert (
        "On MontezumaRevenge, byol-hindsight saw 1.5 rooms and returned 450.0 per episode" in html
    )
    assert not list((tmp_path / "out").glob("tenths*"))


def test_cells_are_reported_where_all_groups_know_them_and_columns_have_different_names(
    tmp_path: Path,
) -> None:
    entries = [
        {"agent_steps": 100 * (i + 1), "episode/count": 2, "episode/return": 5.0} for i in range(10)
    ]
    known = [{**line, "episode/cells": 12.0, "explored/cells": 70.0} for line in entries]
    folders = [
        make(
            tmp_path / model, replace(small(model), env=AtariConfig(num_envs=2)), lines, maps=False
        )
        for model, lines in (("rnd", entries), ("icm", known))
    ]
    summary, html = report(tmp_path, *folders)
    assert "nan" not in summary["headline"][0][0] and "saw" not in summary["headline"][0][0]
    heads = re.findall(
        r"<th>([^<]*)</th>", html[html.index("<h3>Montezuma") :].split("</thead>")[0]
    )
    assert "cells so far" in heads and len(set(heads)) == len(heads)


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    begun = make(tmp_path / "begun", small("byol-explore"), [entry(50, 0, 0.0)], maps=False)
    summary, _ = report(tmp_path, begun)
    assert "no episode has ended yet" in summary["headline"][0][0]
    assert "begun is not finished: 50 of 1,000 agent steps." in summary["headline"][0]
    summary = numbers(begun, make(tmp_path / "b", small(), log(0.5)))
    assert "byol-explore has not finished an episode yet." in summary["headline"][0]


def test_maps_of_another_maze_are_left_out_with_a_note(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", small(), log(0.5))
    np.savez_compressed(folder / MAPS, visits=np.ones((10, 6), int), pay=np.ones((10, 6)))
    summary = numbers(folder)
    assert any("6 cells" in note for note in summary["headline"][0])


def test_bad_folders_are_named_with_a_remedy(tmp_path: Path) -> None:
    good = make(tmp_path / "good", small(), log(0.5))
    (tmp_path / "empty").mkdir()
    silent = make(tmp_path / "silent", small(), [])
    for folders, words in (
        ((), "no run folder given"),
        ((good, tmp_path / "empty"), r"empty is no run folder.*afterwit train"),
        ((tmp_path / "absent",), "absent is no run folder"),
        ((silent,), r"silent has logged nothing yet.*50 agent steps"),
        ((good, good), r"good is given twice"),
    ):
        with pytest.raises(ValueError, match=words):
            write_report(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name, words in ((MAPS, "maps.npz is damaged"), ("evaluation.json", "is not JSON")):
        folder = make(tmp_path / name.split(".")[0], small(), log(0.5))
        (folder / name).write_bytes(b"PK\3\4 cut short")
        with pytest.raises(ValueError, match=words):
            write_report([folder], tmp_path / "out")


def test_percent_keeps_none_and_all_for_none_and_all() -> None:
    assert [percent(share) for share in (0.0, 0.001, 0.621, 0.999, 1.0)] == [
        "0%",
        "under 1%",
        "62%",
        "over 99%",
        "100%",
    ]


def test_runs_of_one_seed_are_told(tmp_path: Path) -> None:
    folders = [
        make(tmp_path / name, small(seed=seed), log(0.5))
        for name, seed in zip("abc", (0, 0, 1), strict=True)
    ]
    (lead,) = numbers(*folders)["headline"]
    assert "a and b have one config and one seed, 0, and count as 2 runs of byol-hindsight." in lead
    (lead,) = numbers(*folders[1:])["headline"]
    assert not any("one seed" in sentence for sentence in lead)


def test_many_methods_and_seeds(tmp_path: Path) -> None:
    models = ("byol-explore", "byol-hindsight", "rnd", "icm")
    folders = [
        make(tmp_path / f"{m}-{seed}", small(m, seed=seed), log(0.1 * seed))
        for m in models
        for seed in range(2)
    ]
    summary, html = report(tmp_path, *folders)
    assert [group["method"] for group in summary["groups"]] == list(models)
    assert len(re.findall(r'<tr class="run"><td>seed \d', html)) == 8


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("report.html", "<!doctype html><title>My results</title>"),
        ("report.html", ""),
        ("summary.json", '{"mine": 1}'),
        ("summary.json", "[1]"),
        ("summary.json", "notes"),
    ],
)
def test_a_file_of_another_origin_is_kept(tmp_path: Path, name: str, text: str) -> None:
    run, out = make(tmp_path / "run", small(), log(0.5)), tmp_path / "out"
    out.mkdir()
    (out / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*is not a report of Afterwit's.*another --out"):
        write_report([run], out)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == text
    (out / name).unlink()
    assert write_report([run], out) == write_report([run], out)  # its own are replaced
