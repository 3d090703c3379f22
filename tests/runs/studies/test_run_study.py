"""Studies: their cells, and folders that are finished once, whatever interrupts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from afterwit.runs.command_line.main import main
from afterwit.runs.configs.overrides import assignments, changed
from afterwit.runs.configs.presets import maze as maze_preset
from afterwit.runs.configs.run_config import read_config
from afterwit.runs.output.files import locked_folder
from afterwit.runs.studies.definitions import STUDIES
from afterwit.runs.studies.run_study import read_manifest, run_study
from afterwit.runs.studies.study import Study, Variant, different
from afterwit.runs.studies.variants import varied
from afterwit.runs.training.many_runs import RunsFailed, finished
from afterwit.runs.training.run_log import last_entry, read_metrics

TINY = {
    "total_steps": 400,
    "unroll_length": 5,
    "log_interval": 100,
    "checkpoint_interval": 200,
    "env.num_envs": 4,
    "env.episode_steps": 17,
}


def tiny(
    worlds: tuple[str, ...] = ("none",),
    methods: tuple[str, ...] = ("rnd",),
    seeds: tuple[int, ...] = (0,),
    **more: object,
) -> Study:
    return STUDIES["maze"]().select(worlds, methods, seeds, {**TINY, **more})


@pytest.mark.parametrize("name", STUDIES)
def test_every_registered_study_makes_cells_that_differ(name: str) -> None:
    study = STUDIES[name]()
    cells = study.cells()
    assert len(cells) == len(study.worlds) * len(study.methods) * len(study.seeds)
    assert len({cell.folder for cell in cells}) == len(cells)
    assert len({str(cell.config) for cell in cells}) == len(cells)
    assert all(cell.config.seed == cell.seed for cell in cells)
    # several mazes share a machine
    assert all(cell.config.threads == 1 for cell in cells) or name == "atari"


@pytest.mark.parametrize("name", STUDIES)
def test_what_is_run_only_where_it_is_asked_for_makes_configs_too(name: str) -> None:
    study = STUDIES[name]()
    for method in study.more_methods:
        assert study.config(study.worlds[0], method, 5).seed == 5
    for world in study.more_worlds:
        assert study.config(world, study.methods[0], 5).seed == 5


def test_the_maze_study_is_the_whole_matrix_and_starts_with_whole_comparisons() -> None:
    cells = STUDIES["maze"]().cells()
    assert len(cells) == 6 * 4 * 10
    assert len({(cell.world, cell.method) for cell in cells[:24]}) == 24
    assert all(
        cell.config.env.noise == cell.world and cell.config.total_steps >= 1_500_000
        for cell in cells
    )  # type: ignore[union-attr]


def test_a_variant_that_changes_nothing_is_left_out() -> None:
    base, path = Variant("base", {"model": "byol-hindsight"}), "learner.world_model.horizon"
    default = maze_preset().learner.world_model.horizon  # type: ignore[union-attr]
    variants = [
        base,
        varied(base, "horizon", path, default),
        varied(base, "horizon", path, default + 1),
    ]
    assert [variant.name for variant in different(variants, "maze")] == [
        "base",
        f"horizon-{default + 1}",
    ]


def test_overrides_are_set_at_their_path_and_nowhere_else() -> None:
    config = maze_preset()
    overrides = assignments(
        [
            "learner.torso.channels=[3,4]",
            "learner.learning_rate=1",
            "env.dose=0.5",
            "learner.torso.encoder=conv",
            "seed=3",
        ]
    )
    result = changed(config, overrides)
    torso = replace(config.learner.torso, channels=(3, 4), encoder="conv")
    expected = replace(
        config,
        env=replace(config.env, dose=0.5),
        learner=replace(config.learner, torso=torso, learning_rate=1.0),
        seed=3,
    )
    assert result == expected
    assert isinstance(result.learner.learning_rate, float) and isinstance(
        result.learner.torso.channels, tuple
    )
    assert changed(config, {}) is config


def test_fields_that_need_each_other_are_set_in_any_order() -> None:
    config = maze_preset("byol-explore")
    needs = {
        "learner.world_model.expected_takes": "action",  # needs an expected error
        "learner.world_model.expected_error": "log",
        "learner.world_model.stride": 4,  # needs a horizon
        "learner.world_model.horizon": 4,
    }
    with pytest.raises(ValueError, match="stride"):
        changed(config, {"learner.world_model.stride": 4})
    with pytest.raises(ValueError, match="learner is set as a whole and in part"):
        changed(config, {"learner": config.learner, "learner.discount": 0.5})
    forwards, backwards = changed(config, needs), changed(config, dict(reversed(needs.items())))
    assert forwards == backwards and forwards.learner.world_model.horizon == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "learner.learning_rat=1e-3",
            (
                "unknown field 'learning_rat' of learner.learning_rat (LearnerConfig); did you mean"
                " 'learning_rate'?"
            ),
        ),
        (
            "lerner.learning_rate=1e-3",
            "unknown field 'lerner' of lerner.learning_rate (RunConfig); did you mean 'learner'?",
        ),
        ("learner.learning_rate=fast", "learner.learning_rate is 'fast'; it takes float"),
        ("total_steps=1.5", "total_steps is 1.5; it takes int"),
        ("total_steps=true", "total_steps is True; it takes int"),
        (
            "learner.torso.encoder=cnn",
            (
                "learner.torso.encoder is 'cnn'; it takes Literal['mlp', 'conv', 'small', 'resnet',"
                " 'auto']"
            ),
        ),
        ("total_steps.x=1", "total_steps is 1500000 and has no fields"),
        ("learner.learning_rate=-1", "learner.learning_rate is -1.0; it must be above 0"),
        ("seed=4", "seed is the study's own; choose seeds with --seeds"),
        ("learning_rate", "--set takes path=value"),
    ],
)
def test_bad_overrides_are_named(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "maze", "--out", str(tmp_path / "out"), "--set", text]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["labyrinth"],
            "unknown study 'labyrinth'; choose from maze, maze-branches, noisy-tv,"
            " maze-sensitivity, atari, atari-small",
        ),
        (
            ["maze", "--worlds", "brown"],
            "unknown world 'brown'; did you mean 'brownian'?; choose from none, brownian",
        ),
        (["maze", "--methods", "dqn"], "unknown method 'dqn'"),
        (["maze", "--seeds", "1", "1"], "has seed 1 twice"),
        (["maze", "--jobs", "0"], "jobs is 0"),
        (
            ["noisy-tv", "--methods", "rnd", "ama", "--set", "learner.world_model_rate=1"],
            "learner.world_model_rate is 1 for every run, but ama sets it to 4.0; leave out one",
        ),
    ],
)
def test_bad_choices_are_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_study_runs_once_grows_and_refuses_another(tmp_path: Path) -> None:
    home = tmp_path / "study"
    run_study(tiny(), home, jobs=2)
    first = home / "none" / "rnd" / "s0"
    assert finished(first) and read_config(first).env.num_envs == 4
    written = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    run_study(tiny(seeds=(0, 1)), home, jobs=2)
    assert written == {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    manifest = read_manifest(home)
    assert [(cell["folder"], cell["status"], cell["agent_steps"]) for cell in manifest.cells] == [
        ("none/rnd/s0", "finished", 400),
        ("none/rnd/s1", "finished", 400),
    ]
    assert (
        len(manifest.sessions) == 2
        and manifest.sessions[0]["commit"] == manifest.sessions[1]["commit"]
    )
    before = (home / "study.json").read_bytes()
    other = replace(tiny(), methods=(Variant("rnd", {"model": "icm"}),))
    for study, message in (
        (
            tiny(total_steps=500),
            (
                r"holds another study: overrides.total_steps is 400 there, 500 now; choose another"
                r" --out"
            ),
        ),
        (replace(tiny(), name="other"), "study is 'maze' there, 'other' now"),
        (other, "method rnd.arguments.model is 'rnd' there, 'icm' now"),
    ):
        with pytest.raises(ValueError, match=message):
            run_study(study, home, jobs=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("data")
    with pytest.raises(ValueError, match="holds other things \\(precious\\)"):
        run_study(tiny(), tmp_path / "full", jobs=1)
    data = json.loads((first / "config.json").read_text())
    data["learner"]["discount"] = 0.5
    (first / "config.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"none/rnd/s0: learner.discount is 0.5 there, 0.\d+ now"):
        run_study(tiny(), home, jobs=1)
    assert (home / "study.json").read_bytes() == before


def test_a_page_of_another_origin_is_refused_before_a_study_trains(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<title>My results</title>")
    with pytest.raises(ValueError, match=r"report\.html is not a report of Afterwit's"):
        run_study(tiny(), tmp_path, jobs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_cell_that_fails_is_named_and_the_others_are_finished(tmp_path: Path) -> None:
    broken = tmp_path / "none" / "rnd" / "s0"
    study = tiny(seeds=(0, 1), keep_checkpoints=1)
    run_study(replace(study, seeds=(0,)), tmp_path, jobs=1)
    (broken / "checkpoint.pt").write_bytes(b"PK\3\4 cut short")
    with pytest.raises(
        RunsFailed,
        match=r"none/rnd/s0 failed: afterwit: .*checkpoint.pt is damaged, or not a checkpoint",
    ) as raised:
        run_study(study, tmp_path, jobs=1)
    assert list(raised.value.failed) == [broken]
    assert [cell["status"] for cell in read_manifest(tmp_path).cells] == ["failed", "finished"]


def wait_for(what: str, true: object, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_study_leaves_no_orphans_and_goes_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    """The session is killed in the middle of a cell.

    The cell saves and stops by itself, and the same command finishes it.
    """
    overrides = [
        f"{path}={value}"
        for path, value in {**TINY, "total_steps": 6_000, "checkpoint_interval": 1_000_000}.items()
    ]
    options = "--worlds none --methods rnd --seeds 0 --jobs 1 --out"
    arguments = ["study", "maze", *options.split(), str(tmp_path / "out")]
    command = [sys.executable, "-m", "afterwit", *arguments, "--set", *overrides]
    cell = tmp_path / "out" / "none" / "rnd" / "s0"
    session = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # tests that a shell starts in the background inherit that SIGINT is ignored
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for("the first log entry", lambda: last_entry(cell))
    os.kill(session.pid, number)  # the session alone, not its cells
    assert session.wait(60) == (-number if number == signal.SIGKILL else 130)
    # The cell's process held the lock too: it is free when the process has ended.
    with locked_folder(tmp_path / "out", patience=60):
        assert (cell / "checkpoint.pt").exists() and not finished(cell)
    stopped = read_metrics(cell)[-1]["agent_steps"]
    assert main([*arguments, "--set", *overrides]) == 0
    assert finished(cell)
    steps = [entry["agent_steps"] for entry in read_metrics(cell)]
    assert steps == list(range(100, 6_001, 100)) and stopped < 6_000
    assert len(json.loads((cell / "provenance.json").read_text())) == 2


def test_two_sessions_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        locked_folder(tmp_path, 0),
        pytest.raises(ValueError, match="is in use by another afterwit process"),
        locked_folder(tmp_path, patience=0.2),
    ):
        pass


def test_the_last_entry_is_the_last_whole_line(tmp_path: Path) -> None:
    assert last_entry(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"agent_steps": i, "text": "x" * 90}) + "\n" for i in range(1000))
        + '{"agent'
    )
    assert (last_entry(tmp_path) or {})["agent_steps"] == 999
