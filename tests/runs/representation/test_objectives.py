"""The table that compares objectives: rows are made once, and are those that were asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from afterwit.envs.minigrid import MiniGridConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.overrides import changed
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.output.files import write_csv
from afterwit.runs.representation import objectives
from afterwit.runs.representation.log_split import has_recurring_views
from afterwit.runs.representation.objectives_figure import draw_objectives
from tests.runs.representation.test_pretrain import TORSO, log

IDS = ("minigrid:MiniGrid-FourRooms-v0", "minigrid:MiniGrid-KeyCorridorS3R3-v0")
PUBLISHED = Path(__file__).parents[3] / "docs" / "results" / "objectives" / "objectives.csv"


def table(
    out: Path,
    names: tuple[str, ...],
    updates: int = 2,
    game: str = "Freeway",
    changes: Mapping[str, Any] | None = None,
) -> tuple[list[Any], list[str]]:
    config, told = PRESETS["atari-small"](), list[str]()
    config = replace(config, learner=replace(config.learner, torso=TORSO))
    config = changed(config, {"env.num_envs": 2, **(changes or {})})
    rows = objectives.compare(
        config, [game], names, [0], 240, updates, out, progress=False, tell=told.append
    )
    return rows, told


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    long = log(1200, episode=100)
    monkeypatch.setattr(objectives, "log_for", lambda config, steps: long)


@pytest.mark.usefixtures("bars")
def test_a_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    rows, told = table(out, ("random",))
    assert told == ["Freeway, random, seed 0"]
    assert float(rows[0]["mean"]) > 2 * float(rows[0]["majority"])  # a bar is easily read
    kept = out.read_text().splitlines()
    rows, told = table(out, ("random", "vididi"))
    assert told == ["Freeway, vididi, seed 0"]
    assert out.read_text().splitlines()[:2] == kept
    assert [row["objective"] for row in rows] == ["random", "vididi"]
    assert table(out, ("random", "vididi"))[1] == []
    assert "Freeway" in objectives.text(rows)
    picture = draw_objectives(rows, out)
    assert picture.png == (tmp_path / picture.file).read_bytes()
    assert "random, vididi in Freeway" in picture.alt
    with pytest.raises(ValueError, match="has rows with updates 2; use the same"):
        table(out, ("random",), updates=3)
    out.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no table of objectives"):
        table(out, ("random",))


@pytest.mark.usefixtures("bars")
def test_rows_that_another_process_adds_meanwhile_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, judged = tmp_path / "t.csv", objectives.judged

    def beside(*arguments: Any) -> dict[str, Any]:
        row = judged(*arguments)
        monkeypatch.setattr(objectives, "judged", judged)
        table(out, ("random", "vididi"))  # as another process would, while this one trained
        return row

    monkeypatch.setattr(objectives, "judged", beside)
    rows, told = table(out, ("random", "byol-explore"))
    assert [row["objective"] for row in rows] == ["random", "vididi", "byol-explore"]
    assert told == ["Freeway, random, seed 0", "Freeway, byol-explore, seed 0"]


@pytest.mark.usefixtures("bars")
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"env.frame_stack": 4}, "env.frame_stack is 1 there, 4 now"),
        ({"env.num_envs": 4}, "env.num_envs is 2 there, 4 now"),
        ({"env.noise": "walk"}, "env.noise is 'none' there, 'walk' now"),
        ({"learner.torso.embedding": 8}, "learner.torso.embedding is .* there, 8 now"),
    ],
)
def test_rows_of_other_settings_are_no_result(
    changes: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    out = tmp_path / "t.csv"
    table(out, ("random",))
    before = out.read_bytes()
    with pytest.raises(
        ValueError, match=rf"rows of Freeway with other settings: {difference}; give the same"
    ):
        table(out, ("random",), changes=changes)
    assert out.read_bytes() == before
    # another world may have settings of its own, and threads change no row
    assert table(out, ("random",), game="Pong", changes=changes)[1] == ["Pong, random, seed 0"]
    assert table(out, ("random",), changes={"env.threads": 2, "threads": 2})[1] == []


@pytest.mark.usefixtures("bars")
def test_fields_that_are_newer_than_a_row_have_their_defaults_there(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    rows, _ = table(out, ("random",))
    rows[0]["settings"] = rows[0]["settings"].replace('"env.grayscale":true,', "")
    write_csv(out, rows)
    assert "grayscale" not in out.read_text()
    assert table(out, ("random",))[1] == []
    with pytest.raises(ValueError, match=r"env\.grayscale is True there, False now"):
        table(out, ("random",), changes={"env.grayscale": False})


@pytest.mark.usefixtures("bars")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "rows of Freeway that do not say their settings, as earlier versions wrote them"),
        ("{", "a row of Freeway whose settings are damaged"),
        ('{"env.name": "chess"}', "a row of Freeway whose settings are damaged"),
    ],
)
def test_rows_without_settings_are_no_result(settings: str, message: str, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    rows, _ = table(out, ("random",))
    write_csv(out, [rows[0] | {"settings": settings}])
    with pytest.raises(ValueError, match=message):
        table(out, ("random",))


@pytest.mark.usefixtures("bars")
def test_the_published_table_is_read_and_goes_on_with_other_worlds(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    out.write_bytes(PUBLISHED.read_bytes())
    rows = objectives.read_table(out)
    assert len(rows) == 20 and "byol-hindsight" in objectives.text(rows)
    assert draw_objectives(rows, out).png
    rows = [row | {"steps": "240", "updates": "2"} for row in rows]
    write_csv(out, rows)
    assert table(out, ("random",), game="Pong")[1] == ["Pong, random, seed 0"]
    with pytest.raises(ValueError, match="rows of PrivateEye that do not say their settings"):
        table(out, ("random",), game="PrivateEye")


def test_small_worlds_are_compared_by_their_own_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their views recur: all test frames are known, and none is removed."""
    pytest.importorskip("minigrid")
    words = "objectives --objectives random --seeds 0 --updates 1 --steps 6400 --out"
    small = [str(tmp_path / "t.csv"), "--set", "env.num_envs=4", "env.episode_steps=70"]
    worlds = [("minigrid", f"env.id={name}") for name in IDS] + [("maze", "env.stagger=false")]
    for preset, change in worlds:
        assert main([*words.split(), *small, change, "--preset", preset]) == 0
    assert "weighted F1" in capsys.readouterr().out
    with (tmp_path / "t.csv").open() as file:
        assert [row["environment"] for row in csv.DictReader(file)] == [*IDS, "maze"]


def test_known_test_frames_are_removed_in_atari_alone() -> None:
    assert not has_recurring_views(PRESETS["atari-small"]().env)
    assert has_recurring_views(PRESETS["maze"]().env)
    assert has_recurring_views(MiniGridConfig())
