"""What is in the files that a config names counts, not only where they are."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from afterwit.envs.make import make_env
from afterwit.runs.configs.comparison import compared
from afterwit.runs.configs.contents import with_contents
from afterwit.runs.configs.presets import gym, maze
from afterwit.runs.configs.run_config import RunConfig, read_config, write_config
from afterwit.runs.representation.objectives import settings
from afterwit.runs.studies.ledger import difference, digest
from afterwit.runs.studies.run_study import config_differences
from afterwit.runs.studies.study import Cell, Study, Variant
from afterwit.runs.training.loop import start, train
from afterwit.world_models.encoder_file import encoder_bytes
from afterwit.world_models.torso import Torso

SOURCE = Path(__file__).parents[3]
STUDY = Study("tiny", "maze", (Variant("none"),), (Variant("rnd", {"model": "rnd"}),), (0,))
NAMED = {"encoder": "eye.safetensors", "bonus": "own_bonus.py", "world": "own_world.py"}


def write_encoder(path: Path, seed: int, about: Any = None) -> None:
    """Write an encoder that fits the maze."""
    torch.manual_seed(seed)
    torso = maze().learner.torso
    shape = make_env(maze().env, 0).spec.observation_shape
    path.write_bytes(encoder_bytes(Torso(torso, shape, 5).encoder, torso, about or {}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an encoder, a bonus and a world of a user's own."""
    write_encoder(tmp_path / "eye.safetensors", 0)
    for name in ("bonus", "world"):
        text = (SOURCE / "examples" / f"my_{name}.py").read_text(encoding="utf-8")
        (tmp_path / f"own_{name}.py").write_text(text.replace("Corridor-v0", "Own-v0"))
        monkeypatch.delitem(sys.modules, f"own_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def change(kind: str) -> None:
    """Change what is in a file. Its path stays."""
    if kind == "encoder":
        write_encoder(Path(NAMED[kind]), 1)
    else:
        with Path(NAMED[kind]).open("a") as file:
            file.write("# changed\n")


def config_of(kind: str) -> RunConfig:
    """A small run that names a file of this kind."""
    config = gym("rnd", "own_world:Own-v0") if kind == "world" else maze("rnd")
    if kind == "bonus":
        config = maze("own_bonus:Disagreement")
    init = NAMED[kind] if kind == "encoder" else None
    learner = replace(config.learner, torso=replace(config.learner.torso, init=init))
    env: Any = replace(config.env, num_envs=4)
    small = {"total_steps": 40, "unroll_length": 5, "log_interval": 20, "threads": 1}
    return replace(config, env=env, learner=learner, **small)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", NAMED)
def test_a_changed_file_is_another_setting_and_an_equal_one_is_not(kind: str, home: Path) -> None:
    config = config_of(kind)
    first, again = with_contents(config), with_contents(config)
    change(kind)
    changed = with_contents(config)
    assert digest(first) == digest(again) != digest(changed)
    assert compared(first) == compared(again) != compared(changed)
    assert digest(config) not in (digest(first), digest(changed))
    assert first.contents.startswith(Path(NAMED[kind]).name.removesuffix(".py") + " ")


def test_what_names_no_file_notes_nothing() -> None:
    for config in (maze(), gym("ride", "CartPole-v1"), maze("counts")):
        assert with_contents(config) == config and config.contents == ""


@pytest.mark.parametrize("kind", NAMED)
def test_a_study_does_not_go_on_with_a_changed_file(kind: str, home: Path) -> None:
    """Neither from its folder nor from its ledger. Older ones, which note nothing, do go on."""
    old = config_of(kind)
    made = with_contents(old)
    assert made.contents and not old.contents
    change(kind)
    cell = Cell("none", "any", 0, with_contents(old))
    for there, said in ((made, f"{made.contents}"), (old, "")):
        write_config(there, home / cell.folder)
        (line,) = config_differences(home / cell.folder, cell) or [""]
        assert said in line and bool(line) == bool(said)
        noted = {"contents": there.contents} if there.contents else {}
        row = {"digest": digest(there), "overrides": {"threads": 1}, **noted}
        words = difference(row, STUDY, cell)
        assert said in words and bool(words) == bool(said)


@pytest.mark.parametrize("kind", NAMED)
def test_a_run_begins_with_the_files_that_it_was_made_with(
    kind: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(kind)
    write_config(with_contents(config), home / "waiting")
    write_config(config, home / "older")
    assert start(config, home / "run", progress=False)
    assert read_config(home / "run") == with_contents(config)
    change(kind)
    with pytest.raises(ValueError, match=r"the run was made with .* now; restore the files"):
        train(home / "waiting", progress=False)
    assert train(home / "older", progress=False)  # it notes nothing
    capsys.readouterr()
    longer = replace(read_config(home / "run"), total_steps=60)
    write_config(longer, home / "run")
    if kind == "encoder":
        Path(NAMED[kind]).unlink()  # a run that goes on does not need it
    assert train(home / "run", progress=False)
    told = f"own_{kind} has changed since this run was made"
    assert (told in capsys.readouterr().err) == (kind != "encoder")


def test_an_encoder_that_is_made_again_is_the_same(home: Path) -> None:
    """Its metadata name another commit, and safetensors writes them in any order."""
    first = with_contents(config_of("encoder"))
    write_encoder(Path(NAMED["encoder"]), 0, {"commit": "another"})
    assert with_contents(config_of("encoder")) == first


def test_an_encoder_that_is_missing_is_named(home: Path) -> None:
    config = config_of("encoder")
    Path(NAMED["encoder"]).unlink()
    for work in (with_contents, lambda config: start(config, home / "run", progress=False)):
        with pytest.raises(ValueError, match=r"eye.safetensors cannot be read as an encoder \(No"):
            work(config)
    assert not (home / "run").exists()


def test_an_encoder_s_content_is_a_setting_of_a_table_of_objectives(home: Path) -> None:
    config = config_of("encoder")
    first = settings(config.env, config.learner.torso)
    change("encoder")
    second = settings(config.env, config.learner.torso)
    assert [name for name in first if first[name] != second[name]] == ["contents"]
    plain = settings(config.env, replace(config.learner.torso, init=None))
    assert "contents" not in plain
