"""The state probe: what a run's networks tell, beside controls, and encoders of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from afterwit.agents.actor import Actor
from afterwit.envs.maze import MazeConfig
from afterwit.envs.minigrid import MiniGridConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import maze, minigrid
from afterwit.runs.configs.run_config import read_config, write_config
from afterwit.runs.representation import feature_scores
from afterwit.runs.representation.encoders import frames_reader, perceive
from afterwit.runs.representation.feature_scores import score_features, summary, table
from afterwit.runs.representation.frame_log import FrameLog, log_game, read_log, save_log
from afterwit.runs.representation.linear_probe import ProbeConfig
from afterwit.runs.representation.state_probe import probe_game, probe_run
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run
from afterwit.world_models.encoder_file import encoder_bytes
from afterwit.world_models.torso import Encoder, TorsoConfig
from tests.runs.representation.logs import made_up

CONFIG = replace(
    maze(),
    env=MazeConfig(num_envs=4, episode_steps=20),
    total_steps=80,
    unroll_length=20,
    log_interval=80,
)
QUICK = ProbeConfig(rate=0.02, batch=16, epochs=8, min_episode=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_encoder_that_shows_a_label_scores_1_and_a_blind_one_does_not() -> None:
    log = made_up(120, 4, 10)

    def shows(frames: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(frames[:, 0, 0, 0].long(), 4).float()

    def blind(frames: Tensor) -> Tensor:
        return torch.ones(len(frames), 3)

    readers = {"shows": frames_reader(shows), "blind": frames_reader(blind)}
    result = score_features(log, readers, 0, QUICK)
    found = {name: column["labels"] for name, column in result["columns"].items()}
    assert list(found) == ["majority", "shows", "blind"]
    assert found["shows"]["shade"] == 1.0 and found["shows"]["luck"] < 0.45
    assert found["blind"]["shade"] < 0.25  # one guess for all, as majority
    assert result["frames"] == {"train": 330, "validation": 50, "test": 100}


def test_features_of_a_wrong_shape_are_refused() -> None:
    log = made_up(120, 4, 10)
    with pytest.raises(ValueError, match=r"shape \(480, 1, 6, 5\)"):
        score_features(log, {"odd": frames_reader(lambda frames: frames)}, 0, QUICK)
    with pytest.raises(ValueError, match="not finite"):
        score_features(log, {"nan": lambda log: torch.full((480, 2), torch.nan)}, 0, QUICK)
    for name in ("majority", "supervised"):
        with pytest.raises(ValueError, match=f"an encoder is called '{name}', as a column"):
            score_features(log, {name: lambda log: torch.zeros(480, 2)}, 0, QUICK)
    with pytest.raises(ValueError, match="an encoder is called 'random CNN'"):
        probe_game("Pong", Path("nowhere"), 1000, 0, 0, {"random CNN": lambda frames: frames})


def test_the_mean_is_over_categories_not_labels() -> None:
    categories = {"x": "agent", "y": "agent", "room": "misc"}
    found = summary({"x": 0.2, "y": 0.4, "room": 0.9}, categories)
    assert found["categories"] == pytest.approx({"agent": 0.3, "misc": 0.9})
    assert found["mean"] == pytest.approx(0.6)


def test_a_log_is_perceived_as_the_learner_perceives_it() -> None:
    with closing(Run(CONFIG)) as run:
        actor = Actor(run.actors[0].env, run.learner.policy, 50, 3, run.learner.device)
        trajectory = actor.unroll()
        with torch.no_grad():
            _, beliefs, embeddings = run.learner.perceive(trajectory)
        log = FrameLog(
            trajectory.obs[:-1].numpy(),
            trajectory.action.numpy(),
            trajectory.first[:-1].numpy(),
            {},
            {},
            run.spec.num_actions,
            None,
            {},
        )
        assert log.first[1:].any()
        found = perceive(run.learner.policy.torso, log)
    assert torch.allclose(found.embeddings, embeddings[:-1].flatten(0, 1), atol=1e-6)
    assert torch.allclose(found.beliefs, beliefs[:-1].flatten(0, 1), atol=1e-6)


def test_a_run_is_probed_beside_its_controls(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, frames = tmp_path / "out", tmp_path / "frames"
    before = (trained / "checkpoint.pt").read_bytes()
    command = ["state-probe", str(trained), "--steps", "1200", "--supervised-epochs", "2"]
    assert main([*command, "--out", str(out), "--save-frames", str(frames)]) == 0
    told = capsys.readouterr().out
    result = json.loads((out / "state-probe.json").read_text())
    names = ["majority", "random embedding", "embedding", "random belief", "belief", "supervised"]
    assert list(result["columns"]) == names
    assert result["categories"]["cell"] == "place"
    assert result["columns"]["random embedding"]["mean"] > result["columns"]["majority"]["mean"]
    assert "place (1)" in told and "mean over categories" in told
    with Image.open(out / "state-probe.png") as picture:
        assert picture.width > 800
    assert (trained / "checkpoint.pt").read_bytes() == before
    # the same frames again, from their log: the same numbers
    again = probe_run(
        trained, 1, 1_000_000, supervised_epochs=0, out=tmp_path / "again", frames=frames
    )
    for name in names[:-1]:
        assert again["columns"][name] == result["columns"][name]


def test_a_minigrid_run_is_probed(tmp_path: Path) -> None:
    config = replace(
        minigrid(),
        env=MiniGridConfig(num_envs=4, episode_steps=20),
        total_steps=80,
        unroll_length=20,
        log_interval=80,
    )
    run = Run(config)
    run.step()
    write_config(run.config, tmp_path / "run")
    checkpoint.save(tmp_path / "run", run.state())
    out, frames = tmp_path / "out", tmp_path / "frames"
    arguments = {"policy": "random", "supervised_epochs": 0, "out": out}
    result = probe_run(tmp_path / "run", 1200, 0, save_frames=frames, **arguments)  # type: ignore[arg-type]
    assert {"x", "y", "direction"} <= set(result["categories"])
    assert set(result["dropped"]) == {"carrying", "room", *(f"door {n}" for n in range(1, 5))}, (
        "a random policy stays in the first room; the other eight doors are none"
    )
    columns = result["columns"]
    for place in ("x", "y"):
        known, guessed = (columns[each]["labels"][place] for each in ("embedding", "majority"))
        assert known > guessed + 0.2
    log = read_log(frames)
    assert log.labels["x"].max() <= 4 and log.labels["door 1"].max() == 3
    assert read_config(tmp_path / "run") == config, "labels are for the probe alone"


def test_encoders_in_files_are_columns(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of the run's own encoder has the run's numbers; another form has its own column."""
    with closing(Run(CONFIG)) as run:
        run.learner.load_state(checkpoint.load(trained, CONFIG, checkpoint.NAME)["learner"])
        torso = run.learner.policy.torso
        files = {
            "own-of-a-very-long-name": (torso.encoder, torso.config),
            "embedding": (torso.encoder, torso.config),
        }
        narrow = replace(torso.config, hidden=3, embedding=2)
        files["narrow"] = Encoder(narrow, torso.encoder.shape), narrow
    paths = [tmp_path / f"{name}.safetensors" for name in files]
    for path, (encoder, config) in zip(paths, files.values(), strict=True):
        path.write_bytes(encoder_bytes(encoder, config, {}))
    out = tmp_path / "out"
    command = ["state-probe", str(trained), "--steps", "1200", "--supervised-epochs", "0"]
    command += ["--out", str(out), "--encoder", *map(str, paths)]
    assert main(command) == 0
    result = json.loads((out / "state-probe.json").read_text())
    own, clash, small = "own-of-a-very-long-name", str(paths[1]), "narrow"
    assert list(result["columns"])[-3:] == [own, clash, small], "a taken name is the whole path"
    known = result["columns"]["embedding"]
    assert result["columns"][own] == known and result["columns"][clash] == known
    assert result["columns"][small]["mean"] < known["mean"]
    assert result["encoders"] == list(map(str, paths))
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("weighted F1"))
    head, *rows = lines[start : start + len(known["categories"]) + 2]
    assert own in head and len({len(line) for line in (head, *rows)}) == 1, "columns stand in line"


def test_an_encoder_that_does_not_fit_is_refused_before_playing(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("afterwit.runs.representation.state_probe.play", None)
    config = TorsoConfig()
    files = {
        name: tmp_path / f"{name}.safetensors" for name in ("other", "none", "damaged", "formless")
    }
    files["other"].write_bytes(encoder_bytes(Encoder(config, (3, 4)), config, {}))
    files["damaged"].write_bytes(files["other"].read_bytes()[:200])
    text = files["other"].read_bytes().replace(b"embedding", b"embeddimg")
    files["formless"].write_bytes(text)
    for name, message in (
        ("other", "the encoder other reads observations of shape (3, 4), and the run's are"),
        ("none", "none.safetensors cannot be read as an encoder"),
        ("damaged", "damaged.safetensors cannot be read as an encoder"),
        ("formless", "formless.safetensors is damaged or of another version"),
    ):
        command = ["state-probe", str(trained), "--encoder", str(files[name])]
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    twice = ["--encoder", str(files["other"]), str(files["other"])]
    assert main(["state-probe", str(trained), *twice]) == 2
    assert "other.safetensors twice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_game_is_probed_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = replace(ProbeConfig(), epochs=2, min_episode=16)
    monkeypatch.setattr(feature_scores, "ProbeConfig", lambda: quick)

    def corners(frames: Tensor) -> Tensor:
        assert frames.dtype == torch.uint8 and frames.shape[1:] == (1, 210, 160)
        return frames[:, 0, ::30, ::30].flatten(1).float() / 255

    result: dict[str, Any] = probe_game(
        "MontezumaRevenge", tmp_path, 1600, 42, encoders={"corners": corners}
    )
    assert list(result["columns"]) == ["majority", "random CNN", "corners"]
    assert result["published"] == {"majority": 0.08, "random CNN": 0.68}
    assert "published (Anand et al., 2019)" in table(result)
    assert (tmp_path / "state-probe.png").is_file() and result["duplicates_removed"] is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes one of a run folder and --published GAME"),
        (["run", "--published", "Pong"], "takes one of a run folder and --published GAME"),
        (["--published", "Pong", "--policy", "random"], "--policy does not go with --published"),
        (["--published", "Pong", "--encoder", "e"], "--encoder does not go with --published"),
        (["--published", "Alien"], "Alien has no labels"),
        (["--published", "Pong", "--steps", "3"], "steps is 3"),
        (["run", "--steps", "0"], "steps is 0"),
        (["run", "--supervised-epochs", "-1"], "supervised epochs are -1"),
        (["nowhere"], "no run folder"),
    ],
)
def test_mistakes_are_named(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["state-probe", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_frames_of_another_world_are_refused(trained: Path, tmp_path: Path) -> None:
    save_log(made_up(), tmp_path / "log")
    with pytest.raises(ValueError, match=r"has frames of shape \(1, 6, 5\) and 3 actions"):
        probe_run(trained, 10, 0, out=tmp_path / "out", frames=tmp_path / "log")
    # of the same shape, but another world's
    log = log_game(read_config(trained).env, 4, 0)
    save_log(replace(log, meta=log.meta | {"environment": "chess"}), tmp_path / "same")
    with pytest.raises(ValueError, match="has frames of chess, and the run lives in maze"):
        probe_run(trained, 10, 0, out=tmp_path / "out", frames=tmp_path / "same")
    assert not (tmp_path / "out").exists()
