"""A study's ledger: runs are trained once, reports need no folders, and wrong rows are found."""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from afterwit.runs.command_line import study_command
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.overrides import changed
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.configs.run_config import read_config, to_dict
from afterwit.runs.studies.ledger import NEUTRAL, Row, append, digest, read_ledger
from afterwit.runs.training.many_runs import RunsFailed
from tests.runs.studies.test_run_study import TINY

pytest.importorskip("rliable.library", reason="pip install -e '.[study]'")
pytestmark = pytest.mark.xdist_group("ledger")  # they share two runs
SET = ["--set", *(f"{name}={value}" for name, value in TINY.items())]
OWN, SOURCE = "my_bonus:Disagreement", Path(__file__).parents[3]
PART = ["study", "maze", "--worlds", "none", "--methods", "rnd", "--jobs", "2", *SET]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ledger of two runs, and the study's folder beside it."""
    home = tmp_path_factory.mktemp("ledger")
    assert main(command(home, 0, 1)) == 0
    return home


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def command(home: Path, *seeds: int, out: str = "runs") -> list[str]:
    named = ["--ledger", str(home / "maze.csv"), "--out", str(home / out)]
    return [*PART, "--seeds", *map(str, seeds), *named]


def test_runs_in_the_ledger_are_not_trained_again(copy: Path) -> None:
    before = (copy / "maze.csv").read_text()
    assert main(command(copy, 0, 1, out="new")) == 0
    assert not (copy / "new" / "none").exists() and (copy / "new" / "report.html").exists()
    assert (copy / "maze.csv").read_text() == before
    assert main(command(copy, 0, 1, 2, out="new")) == 0
    assert [path.name for path in (copy / "new" / "none" / "rnd").iterdir()] == ["s2"]
    assert [row["seed"] for row in read_ledger(copy / "maze.csv")] == [0, 1, 2]


def test_a_ledger_that_cannot_be_written_is_refused_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for ledger in (tmp_path / "file" / "maze.csv", Path("/dev/null/maze.csv")):
        named = ["--ledger", str(ledger), "--out", str(tmp_path / "runs")]
        assert main([*PART, "--seeds", "0", *named]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{ledger} cannot be written" in line and "choose another --ledger" in line
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["--worlds", "--methods", "--seeds"])
def test_an_option_with_nothing_after_it_does_not_mean_all(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from an empty variable of the shell: --seeds $SEEDS."""
    named = ["--ledger", str(tmp_path / "maze.csv"), "--out", str(tmp_path / "runs")]
    assert main([*PART, option, *named]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"afterwit: {option} names nothing; name at least one, or leave it out for all"
    assert not list(tmp_path.iterdir())


def test_finished_folders_are_collected_after_a_crash(copy: Path) -> None:
    before = (copy / "maze.csv").read_text()
    (copy / "maze.csv").write_text("".join(before.splitlines(keepends=True)[:2]))
    assert main(command(copy, 0, 1)) == 0
    (copy / "maze.csv").unlink()
    assert main(command(copy, 0, 1)) == 0
    assert (copy / "maze.csv").read_text() == before


def test_a_failure_is_told_first_and_the_report_is_of_the_ledger(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise RunsFailed({Path("s2"): "the loss is nan"})

    monkeypatch.setattr(study_command, "run_study", fail)
    assert main(command(copy, 0, 1, 2, out="new")) == 2
    assert capsys.readouterr().err == "afterwit: s2 failed: the loss is nan\n"
    assert "Made from the ledger" in (copy / "new" / "report.html").read_text()
    (copy / "maze.csv").unlink()  # nothing to report
    for words in (command(copy, 2, out="none"), [*PART, "--out", str(copy / "none")]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("afterwit: s2 failed: the loss is nan; and there is no report: ")
        assert error.count("\n") == 1


def test_a_report_is_of_the_study_that_was_named(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "noisy-tv", "--report-only", "--out"]
    assert main([*words, str(copy / "runs")]) == 2
    assert "holds the study maze, not noisy-tv; choose another" in capsys.readouterr().err
    assert main([*words, str(copy / "page"), "--ledger", str(copy / "maze.csv")]) == 2
    assert "is of study maze, not noisy-tv" in capsys.readouterr().err
    assert not (copy / "page").exists()


def test_two_studies_may_fill_one_ledger(copy: Path) -> None:
    """Two processes add rows in turns. None is lost."""
    row, path = read_ledger(copy / "maze.csv")[0], copy / "shared.csv"
    children = [
        multiprocessing.get_context("fork").Process(target=add, args=(path, row, range(k, 60, 2)))
        for k in (0, 1)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [row["seed"] for row in read_ledger(path)] == list(range(60))
    assert not [each.name for each in copy.glob(".*")]  # and no lock is left behind


def add(path: Path, row: Row, seeds: Iterable[int]) -> None:
    for seed in seeds:
        append(path, [row | {"seed": seed}])


def test_a_bonus_of_ones_own_joins_by_its_name(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is trained beside the others, and whoever reads the ledger needs not have it."""
    ledger, home = str(copy / "maze.csv"), str(copy / "runs")
    own = ["study", "maze", "--worlds", "none", "--methods", OWN, "--seeds", "0", *SET]
    monkeypatch.chdir(SOURCE / "examples")
    assert main([*own, "--ledger", ledger, "--out", home]) == 0
    assert [row["method"] for row in read_ledger(Path(ledger))] == [OWN, "rnd", "rnd"]
    assert read_ledger(Path(ledger))[0]["contents"].startswith("my_bonus ")
    assert main([*own, "--ledger", ledger, "--check", home]) == 0
    monkeypatch.chdir(copy)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_bonus"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "examples" not in each])
    assert main(["report", ledger, "--out", str(copy / "page")]) == 0
    assert f"| `{OWN}` |" in (copy / "page" / "standings.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main([*own[:4], "--methods", "no_such:Bonus", "--out", str(copy / "new")]) == 2
    assert "'no_such:Bonus' cannot be imported" in capsys.readouterr().err
    assert not (copy / "new").exists()


def test_a_report_needs_no_file_that_the_runs_began_with(copy: Path) -> None:
    """The rows say what was in it."""
    path, began = copy / "begun.csv", {"learner.torso.init": "no/eye"}
    for row in read_ledger(copy / "maze.csv"):
        config = read_config(copy / "runs" / "none" / "rnd" / f"s{row['seed']}")
        config = changed(config, {"learner.torso.init": "no/eye", "contents": "eye 123"})
        overrides = row["overrides"] | began
        new = {"digest": digest(config), "overrides": overrides, "contents": "eye 123"}
        append(path, [row | new])
    assert main(["report", str(path), "--out", str(copy / "page")]) == 0
    edit(path, "contents", "eye 456")
    assert main(["report", str(path), "--out", str(copy / "page")]) == 2


def test_another_config_is_refused_and_named(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (copy / "maze.csv").read_text()
    assert main([*command(copy, 0), *SET, "unroll_length=6"]) == 2
    assert "unroll_length is 5 in the ledger, 6 now" in capsys.readouterr().err
    assert (copy / "maze.csv").read_text() == before


def test_a_report_from_the_ledger_has_the_numbers_of_one_from_folders(copy: Path) -> None:
    assert main([*PART, "--out", str(copy / "runs"), "--report-only"]) == 0
    assert main(["report", str(copy / "maze.csv"), "--out", str(copy / "page")]) == 0
    for name in ("runs.csv", "cells.csv"):
        there, here = (filled(copy / folder / name) for folder in ("runs", "page"))
        assert there == here


def filled(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if v} for row in rows]


def test_a_check_finds_a_changed_number(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = [*command(copy, 0, 1), "--check", str(copy / "runs")]
    assert main(check) == 0
    edit(copy / "maze.csv", "seconds", "12.5")
    shutil.rmtree(copy / "runs" / "none" / "rnd" / "s1")
    capsys.readouterr()
    assert main(check) == 1
    text = capsys.readouterr().out
    assert "none/rnd/s0: differs: seconds is 12.5 in the ledger" in text
    assert "none/rnd/s1: no finished run" in text


def edit(path: Path, column: str, value: str | None, name: str = "") -> None:
    """Change a column in the first run's row, drop it (None), or rename it."""
    head, *rows = list(csv.reader(path.open()))
    index = head.index(column)
    if value is None:
        head, *rows = [line[:index] + line[index + 1 :] for line in (head, *rows)]
    else:
        head[index], rows[0][index] = name or column, value
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


@pytest.mark.parametrize(
    ("column", "value", "name", "message"),
    [
        ("seconds", "nan", "", "line 2, column seconds: 'nan'"),
        ("seed", "one", "", "line 2, column seed: 'one'"),
        ("seed", "1", "", "line 3 is the same run as line 2"),
        ("finished", "yes", "", "line 2, column finished"),
        ("curve", "{", "", "line 2, column curve"),
        ("seconds", "1", "secs", "line 1: unknown column 'secs'"),
        ("digest", None, "", "line 1: column 'digest' is missing"),
    ],
)
def test_a_bad_ledger_is_refused_and_left_alone(
    copy: Path,
    capsys: pytest.CaptureFixture[str],
    column: str,
    value: str | None,
    name: str,
    message: str,
) -> None:
    edit(copy / "maze.csv", column, value, name)
    before = (copy / "maze.csv").read_text()
    assert main(command(copy, 0, 1, 2)) == 2
    assert message in capsys.readouterr().err
    assert (copy / "maze.csv").read_text() == before


def test_an_older_ledger_with_fewer_numbers_is_read(copy: Path) -> None:
    edit(copy / "maze.csv", "reward_left", None)
    assert "reward_left" not in read_ledger(copy / "maze.csv")[0]
    assert main(["report", str(copy / "maze.csv"), "--out", str(copy / "page")]) == 0


@pytest.mark.parametrize("model", ["rnd", "byol-explore"])
def test_a_field_that_is_newer_than_a_ledger_changes_no_digest_until_it_is_used(model: str) -> None:
    config = PRESETS["maze"](model=model)
    values = to_dict(config)
    others = {None: "file", "mlp": "linear", "exponential": "linear", "frame": "change", 1: 2}
    others |= {"": "eye 123", "all": "action", False: True}
    needs = {
        "predictor_isotropic": {"learner.world_model.predictor": "linear"},
        "stride": {"learner.world_model.horizon": 2},
        "expected_takes": {"learner.world_model.expected_error": "log"},
    }
    for path, value in NEUTRAL.items():
        inner = values
        for part in path[:-1]:
            inner = inner[part]
        if path[-1] in inner:  # other models have other fields
            assert inner.pop(path[-1]) == value, path  # the default changes nothing
            base = changed(config, needs.get(path[-1], {}))
            used = 0.5 if isinstance(value, float) else others[value]
            other = changed(base, {".".join(path): used})
            assert digest(other) != digest(base)
    older = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    assert digest(config) == older


def test_rows_with_other_settings_are_refused_before_they_are_written(copy: Path) -> None:
    """A report could not be made of such a ledger: its rows are no cells of one study."""
    ledger = copy / "maze.csv"
    before, (row, *_) = ledger.read_bytes(), read_ledger(ledger)
    odd = row | {"seed": 9, "overrides": row["overrides"] | {"unroll_length": 7}}
    with pytest.raises(ValueError, match="unroll_length is 5 in the ledger, 7 now; choose another"):
        append(ledger, [odd])
    with pytest.raises(ValueError, match="is of study maze, not hard-games; choose another"):
        append(ledger, [row | {"seed": 9, "study": "hard-games"}])
    assert ledger.read_bytes() == before
    with pytest.raises(ValueError, match="is of study maze, not hard-games"):
        append(copy / "new.csv", [row, row | {"seed": 9, "study": "hard-games"}])
    assert not (copy / "new.csv").exists()


@pytest.mark.parametrize("name", ["runs.csv", "cells.csv", "differences.csv"])
def test_a_report_never_replaces_its_ledger(
    copy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(copy / "maze.csv", copy / name)
    before = (copy / name).read_bytes()
    for words in (["report", str(copy / name)], ["study", "maze", "--report-only", "--ledger"]):
        given = [*words, str(copy / name)] if words[0] == "study" else words
        assert main([*given, "--out", str(copy)]) == 2
        assert "the report would replace the ledger" in capsys.readouterr().err
    assert (copy / name).read_bytes() == before


def test_a_strangers_table_is_kept(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("runs.csv", "cells.csv", "standings.md"):
        out = copy / f"of {name}"
        out.mkdir()
        (out / name).write_text("mine")
        assert main(["report", str(copy / "maze.csv"), "--out", str(out)]) == 2
        assert f"{name}' is not a report of Afterwit's" in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == [name]


def test_a_report_of_part_is_of_that_part(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "maze", "--report-only", "--ledger", str(copy / "maze.csv")]
    out = ["--out", str(copy / "part")]
    assert main([*words, "--seeds", "1", *out]) == 0
    with (copy / "part/runs.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1"]
    assert main([*words, "--seeds", "77", *out]) == 2
    assert "no such runs are there yet" in capsys.readouterr().err
    assert main([*words, "--set", "unroll_length=6", *out]) == 2
    assert "leave out --set and --total-steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("study", "change", "message"),
    [
        ("maze", "env.noise=none", "env.noise is none in the world none"),
        ("hard-games", "env.game=Pitfall", "env.game is Venture in the world Venture"),
    ],
)
def test_what_makes_a_world_is_not_set_for_all(
    study: str, change: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", study, "--set", change, "--out", str(tmp_path / "out")]) == 2
    assert f"{message}, so it cannot be set for every run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
