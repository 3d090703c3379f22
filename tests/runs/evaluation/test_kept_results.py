"""What took play or training to make is not replaced by a command with other settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from afterwit.envs.maze import MazeConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import maze
from afterwit.runs.diagnostics import latent_swap
from afterwit.runs.drills import drill
from afterwit.runs.evaluation import evaluate
from afterwit.runs.representation import objectives, state_probe
from afterwit.world_models.encoder_file import encoder_bytes
from afterwit.world_models.torso import Torso

CONFIG = replace(
    maze(), env=MazeConfig(num_envs=3, noise="sticky", episode_steps=9), unroll_length=7
)
# a command, its result, and an option that changes the result, as its settings spell it
COMMANDS = {
    "evaluate": ("evaluate RUN --episodes 4", "evaluation.json", "--episodes 3", "episodes is 4"),
    "rules": ("evaluate RUN --episodes 4", "evaluation.json", "--set dose=0.5", "changes.dose is"),
    "greedy": ("evaluate RUN --episodes 4", "evaluation.json", "--greedy", "greedy is False"),
    "limit": ("evaluate RUN --episodes 4", "evaluation.json", "--max-steps 9", "max_steps is None"),
    "probe": ("probe RUN --steps 100 --swaps 1", "probe.json", "--swaps 2", "swaps is 1"),
    "state": (
        "state-probe RUN --steps 1200 --supervised-epochs 0",
        "state-probe.json",
        "--policy random",
        "policy is 'agent'",
    ),
}
PRETRAIN = "pretrain random --preset maze --steps 400 --updates 1 --set env.num_envs=2 threads=1"


def refuse_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (evaluate, "play"),
        (latent_swap, "gather"),
        (state_probe, "play"),
        (state_probe, "published_log"),
        (drill, "run_trials"),
        (objectives, "log_game"),
    ):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it was played"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_result_is_replaced_by_the_same_settings_alone(
    name: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, file, other, message = COMMANDS[name]
    command = words.replace("RUN", str(trained)).split()
    assert main(command) == 0
    (trained / file).write_text(json.dumps(json.loads((trained / file).read_text()) | {"old": 1}))
    assert main(command) == 0
    result = trained / file
    assert "old" not in json.loads(result.read_text())
    before, _ = result.read_bytes(), capsys.readouterr()
    refuse_to_work(monkeypatch)
    assert main([*command, *other.split()]) == 2
    error = capsys.readouterr().err
    assert f"{result} was made with other settings: {message}" in error
    assert "now; remove it, or choose another --out" in error and error.count("\n") == 1
    assert result.read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"results": {}}', '{"settings": {"seed": -1}}'])
@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("evaluate RUN", "evaluation.json"),
        ("evaluate RUN --out RUN", "evaluation.json"),
        ("probe RUN", "probe.json"),
        ("state-probe RUN", "state-probe.json"),
        ("state-probe --published Pong --out RUN", "state-probe.json"),
        ("drill --times 1 --out RUN", "drill.json"),
    ],
)
def test_a_file_of_another_origin_is_kept(
    command: str,
    file: str,
    content: str,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (trained / file).write_text(content)
    refuse_to_work(monkeypatch)
    assert main(command.replace("RUN", str(trained)).split()) == 2
    error = capsys.readouterr().err
    assert "remove it, or choose another --out" in error and error.count("\n") == 1
    assert (trained / file).read_text() == content


def test_an_encoder_is_replaced_by_the_same_settings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("afterwit.runs.command_line.representation_commands.OUT", Path("out"))
    assert main(PRETRAIN.split()) == 0
    path = Path("out/random-maze-s0.safetensors")
    assert main([*PRETRAIN.split(), "--out", str(path)]) == 0
    before = path.read_bytes()
    refuse_to_work(monkeypatch)
    for words, message in {
        "--updates 2": "updates is 1 there, 2 now",
        "--steps 401": "steps is 400 there, 401 now",
        "--set env.num_envs=2 threads=1 env.layout=branches": "env.layout is 'row' there",
        "--set env.num_envs=2 learner.torso.embedding=32": "learner.torso.embedding is 64 there",
    }.items():
        capsys.readouterr()
        assert main([*PRETRAIN.split(), *words.split()]) == 2
        error = capsys.readouterr().err
        assert f"{path} was made with other settings: {message}" in error
        assert error.count("\n") == 1 and path.read_bytes() == before


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"objective": "random", "steps": 400, "updates": 1, "seed": 0}, "does not say what it"),
        ([], "does not say what it was made with"),
        (None, "exists and is no encoder of afterwit pretrain; choose another --out"),
    ],
)
def test_a_file_that_is_no_such_encoder_is_kept(
    about: Any,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, torso = tmp_path / "mine", CONFIG.learner.torso
    torch.manual_seed(0)
    encoder = Torso(torso, (2, 7, 7), 5).encoder
    before = b"a thesis" if about is None else encoder_bytes(encoder, torso, about)
    path.write_bytes(before)
    refuse_to_work(monkeypatch)
    assert main([*PRETRAIN.split(), "--out", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and path.read_bytes() == before
