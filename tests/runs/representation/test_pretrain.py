"""Pretraining encoders on logged frames."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from afterwit.envs.arrays import Array
from afterwit.envs.atari_sound import SILENCE
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.representation import objectives, pretrain
from afterwit.runs.representation.frame_log import FrameLog
from afterwit.runs.representation.pretrain import LENGTH, SEQUENCES, draws
from afterwit.runs.training import checkpoint
from afterwit.runs.training.loop import start
from afterwit.world_models import IntrinsicReward
from afterwit.world_models.encoder_file import encoder_bytes, load_encoder
from afterwit.world_models.models.counts import CountsConfig
from afterwit.world_models.objectives.slap import SLAP
from afterwit.world_models.registry import WORLD_MODELS
from tests.helpers import same, tiny_torso_config

STEPS, ENVS, SHAPE = 120, 3, (2, 24, 26)
TORSO = tiny_torso_config("small")


def log(steps: int = STEPS, sound: bool = True, episode: int = 40) -> FrameLog:
    """A bright bar that moves with the action; a new episode every 40 steps."""
    rng = np.random.default_rng(0)
    action = rng.integers(0, 3, (steps, ENVS))
    place = (action - 1).cumsum(0) % SHAPE[1]
    obs = np.zeros((steps, ENVS, *SHAPE), np.uint8)
    for t in range(steps):
        for b in range(ENVS):
            obs[t, b, :, place[t, b]] = 200
            obs[t, b, 0, 0, :8] = rng.integers(0, 100, 8)  # no two frames are the same
    first = np.zeros((steps, ENVS), bool)
    first[::episode] = True
    heard = rng.integers(0, 256, (steps, ENVS, 4, 512)).astype(np.uint8) if sound else None
    labels = {"place": place.astype(np.int64)}
    return FrameLog(obs, action, first, labels, {"place": "agent"}, 3, heard, {"game": "bar"})


@pytest.mark.parametrize("objective", [*pretrain.TRAINED, *pretrain.VARIANTS, "slap"])
def test_an_objective_trains_the_encoder_that_all_start_from(objective: str) -> None:
    before = pretrain.pretrain("random", log(), TORSO, 1, 3, progress=False).encoder
    trained = pretrain.pretrain(objective, log(), TORSO, 2, 3, progress=False)
    start_, end = before.state_dict(), trained.encoder.state_dict()
    change = max(float((end[name] - start_[name]).abs().max()) for name in start_)
    assert 0 < change < 0.05  # two steps
    assert all(np.isfinite(value) for value in trained.metrics.values())


@pytest.mark.parametrize("name", sorted(WORLD_MODELS.keys() - set(pretrain.TRAINED)))
def test_a_model_that_learns_in_networks_of_its_own_is_no_objective(name: str) -> None:
    """Its file would have the weights of `random`, and a table would call that what it learns."""
    with pytest.raises(ValueError, match=f"{name} learns in networks of its own"):
        pretrain.pretrain(name, log(), TORSO, 1, 0, progress=False)
    if not isinstance(WORLD_MODELS[name].Config(), CountsConfig):  # an oracle needs its world
        space = Box(0, 255, SHAPE, np.uint8)
        curiosity = IntrinsicReward(name, space, Discrete(3), seed=0, torso=TORSO)
        before = deepcopy(curiosity.torso.encoder.state_dict())
        source = log()
        curiosity.update(source.obs[:21], source.action[:20], source.first[1:21])
        assert same(dict(curiosity.torso.encoder.state_dict()), dict(before))


@pytest.mark.parametrize("objective", ["random", "byol-explore", "vididi", "slap"])
def test_all_start_from_the_encoder_of_a_file(tmp_path: Path, objective: str) -> None:
    path = tmp_path / "e.safetensors"
    given = pretrain.pretrain("byol-explore", log(), TORSO, 9, 5, progress=False).encoder
    path.write_bytes(encoder_bytes(given, TORSO, {}))
    torso = replace(TORSO, init=str(path))
    trained = pretrain.pretrain(objective, log(), torso, 1, 0, learning_rate=1e-9, progress=False)
    for name, value in given.state_dict().items():
        torch.testing.assert_close(trained.encoder.state_dict()[name], value)


def test_sound_is_learnt_from_steps_on_which_it_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that only resets has none."""
    source, seen = log(episode=2), list[Array]()
    forward = SLAP.forward

    def record(self: SLAP, pixels: Tensor, sound: Tensor) -> Any:
        seen.append(pixels.numpy())
        return forward(self, pixels, sound)

    monkeypatch.setattr(SLAP, "forward", record)
    pretrain.pretrain("slap", source, TORSO, 1, 0, progress=False)
    opening = {frame.tobytes() for frame in source.obs[source.first]}
    assert len(seen[0]) and not any(frame.tobytes() in opening for frame in seen[0])


@pytest.mark.parametrize("objective", pretrain.CLIPS)
def test_clips_train_it_too(objective: str) -> None:
    before = pretrain.pretrain("random", log(), TORSO, 1, 3, progress=False).encoder
    trained = pretrain.pretrain(objective, log(), TORSO, 4, 3, progress=False)
    pairs = zip(before.parameters(), trained.encoder.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("objective", ["vididi", "vididi-byol"])
def test_updates_in_which_nothing_moves_cost_no_training(objective: str) -> None:
    """In most updates fewer than two pairs of clips move, and there is no loss to average."""
    still = log()
    still.obs[:] = 0
    still.obs[60:, 0] = 200
    trained = pretrain.pretrain(objective, still, TORSO, 100, 0, progress=False)
    assert 0.7 < trained.metrics["still"] < 1
    part = "distance" if objective == "vididi-byol" else "invariance"
    assert np.isfinite(trained.metrics[part]) and np.isfinite(trained.metrics["loss"])


def test_pieces_reach_the_bonus_as_they_were_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Array, ...]] = []

    def record(self: Any, *arrays: Array, previous_dones: Array) -> dict[str, float]:
        seen.append((*arrays, previous_dones))
        return {"loss": 0.0}

    monkeypatch.setattr(IntrinsicReward, "update", record)
    source = log()
    pretrain.pretrain("byol-explore", source, TORSO, 3, 0, progress=False)
    obs, actions, dones, previous = seen[0]
    assert obs.shape == (LENGTH + 1, SEQUENCES, *SHAPE)
    for b in range(SEQUENCES):
        starts = [
            (t, env)
            for env in range(ENVS)
            for t in range(STEPS - LENGTH - 1)
            if np.array_equal(source.obs[t : t + LENGTH + 1, env], obs[:, b])
            and np.array_equal(source.action[t : t + LENGTH, env], actions[:, b])
        ]
        assert starts
        t, env = starts[0]
        first = source.first[t : t + LENGTH + 2, env]
        # an observation opens an episode one step after the done: next-step autoreset
        assert np.array_equal(dones[:, b], first[2:])
        assert previous[b] == first[1]


def test_windows_lie_in_one_episode() -> None:
    source = log()
    times, envs = next(draws(source, 5, 500, np.random.default_rng(0), whole=True))
    assert times.shape == (5, 500)
    assert not source.first[times[1:], envs].any()
    assert (np.diff(times, axis=0) == 1).all()
    assert set(envs) == {0, 1, 2}
    across, envs = next(draws(source, 5, 500, np.random.default_rng(0), whole=False))
    assert source.first[across[1:], envs].any()


@pytest.mark.parametrize(
    ("objective", "changes", "message"),
    [
        ("simclr", {}, "unknown objective 'simclr'; choose from random, byol-explore"),
        ("slap", {"sound": None}, "slap needs the sound of an Atari game"),
        ("slap", {"sound": np.full((STEPS, ENVS, 4, 512), SILENCE, np.uint8)}, "log is silent"),
        ("vididi", {"first": np.ones((STEPS, ENVS), bool)}, "no episode of the log has 4 obs"),
    ],
)
def test_what_cannot_be_learnt_is_said(
    objective: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain.pretrain(objective, replace(log(), **changes), TORSO, 1, 0, progress=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preset atari-small", "env.backend is 'envpool'; log it with --set env.backend=sound"),
        ("--preset maze", "this world has none; choose an Atari game"),
    ],
)
@pytest.mark.parametrize("command", ["pretrain slap", "objectives --objectives random slap"])
def test_a_world_without_sound_is_refused_before_it_is_played(
    command: str,
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(objectives, "log_game", lambda *_, **__: pytest.fail("it was played"))
    out = ["--out", str(tmp_path / "out")]
    assert main([*command.split(), *words.split(), *out]) == 2
    said = f"slap needs the sound of an Atari game, and {message}"
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_short_log_and_no_updates_are_refused() -> None:
    with pytest.raises(ValueError, match="the log has 10 steps of each environment"):
        pretrain.pretrain("byol-explore", log(10), TORSO, 1, 0, progress=False)
    with pytest.raises(ValueError, match="updates is 0; it must be at least 1"):
        pretrain.pretrain("byol-explore", log(), TORSO, 0, 0, progress=False)


def test_the_command_writes_an_encoder_that_a_run_starts_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "e.safetensors"
    words = "--steps 400 --updates 2 --game Freeway --set env.num_envs=2 threads=1 --out"
    assert main(["pretrain", "direct-pred", *words.split(), str(path)]) == 0
    assert "2 updates in" in capsys.readouterr().out
    encoder, _, about = load_encoder(path)
    assert (about["objective"], about["updates"]) == ("direct-pred", 2)
    config = PRESETS["atari-small"](game="Freeway")
    torso = replace(config.learner.torso, init=str(path))
    learner = replace(config.learner, torso=torso, learning_rate=1e-9)
    config = replace(
        config, env=replace(config.env, num_envs=2), learner=learner, total_steps=40, threads=1
    )
    assert start(config, tmp_path / "run", progress=False)
    saved = checkpoint.load(tmp_path / "run", config)
    for name, value in encoder.state_dict().items():
        kept = saved["learner"]["acting"][f"torso.encoder.{name}"]
        assert torch.allclose(kept, value, atol=1e-5)


@pytest.mark.parametrize(
    "words", ["--game Solaris", "--game Pong --set env.backend=ale", "--preset gym"]
)
def test_no_labels_are_needed(tmp_path: Path, words: str) -> None:
    path = tmp_path / "e.safetensors"
    words += "" if "--set" in words else " --set"
    small = "env.num_envs=2 threads=1 --steps 100 --updates 1 --out"
    assert main(["pretrain", "byol-explore", *words.split(), *small.split(), str(path)]) == 0
    assert load_encoder(path)[2]["objective"] == "byol-explore"


def test_a_missing_encoder_leaves_no_run(tmp_path: Path) -> None:
    config = PRESETS["atari-small"](game="Freeway")
    learner = replace(config.learner, torso=replace(config.learner.torso, init="nowhere"))
    config = replace(config, env=replace(config.env, num_envs=2), learner=learner)
    with pytest.raises(ValueError, match="nowhere cannot be read as an encoder"):
        start(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain random --preset mase", "unknown preset 'mase'; did you mean 'maze'"),
        ("pretrain random --steps 0", "steps is 0; it must be at least 1"),
        ("pretrain random --game Nothing", "unknown game 'Nothing'"),
        ("objectives --objectives simclr", "unknown objective 'simclr'"),
        ("objectives --objectives random icm", "icm learns in networks of its own"),
        ("objectives --objectives", "objectives is empty; name at least one"),
        ("objectives --seeds", "seeds is empty; name at least one"),
        ("pretrain random --seed -1", "seed is -1; it must be an integer of 0 or more"),
        (
            "pretrain random --set learner.world_model.horizon=2",
            "--set learner.world_model.horizon changes nothing here, where no agent is trained",
        ),
        ("objectives --set seed=9", "--set seed changes nothing here"),
    ],
)
def test_bad_words_are_answered_in_a_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
