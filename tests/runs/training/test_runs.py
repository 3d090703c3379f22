"""Small runs from beginning to end: train, resume, evaluate, and users' mistakes."""

from __future__ import annotations

import importlib.abc
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from afterwit.agents.learner import Learner
from afterwit.envs.gym import GymConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.command_line.preset_options import default_name
from afterwit.runs.configs.presets import PRESETS, maze
from afterwit.runs.configs.run_config import (
    RunConfig,
    from_dict,
    read_config,
    to_dict,
    write_config,
)
from afterwit.runs.evaluation.evaluate import evaluate
from afterwit.runs.training import checkpoint
from afterwit.runs.training.loop import train
from afterwit.runs.training.run import Run
from afterwit.runs.training.run_log import read_metrics
from afterwit.world_models.registry import WORLD_MODELS, world_model_name
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import same

SMALL = replace(
    maze(),
    env=MazeConfig(num_envs=4, episode_steps=17),
    total_steps=400,
    unroll_length=5,
    log_interval=100,
    checkpoint_interval=200,
)


def new_run(config: RunConfig, folder: Path) -> Path:
    """Return the folder of a run that has not begun."""
    write_config(config, folder)
    return folder


def weights(folder: Path) -> dict[str, Any]:
    return checkpoint.load(folder, read_config(folder))["learner"]["modules"]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("model", WORLD_MODELS)
def test_every_preset_makes_a_config_that_survives_json(name: str, model: str) -> None:
    config = PRESETS[name](model=model)
    assert world_model_name(config.learner.world_model) == model
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns_from_its_own_environment(name: str) -> None:
    config = PRESETS[name]()
    run = Run(replace(config, env=replace(config.env, num_envs=2), unroll_length=9, threads=1))
    metrics = [run.step() for _ in range(2)]
    assert all(torch.isfinite(value) for step in metrics for value in step.values())
    assert run.agent_steps == 2 * 2 * 9
    run.actors[0].env.close()


@pytest.mark.parametrize("model", WORLD_MODELS)
def test_a_run_trains_logs_and_saves(model: str, tmp_path: Path) -> None:
    config = replace(
        SMALL, learner=replace(SMALL.learner, world_model=WORLD_MODELS[model].Config())
    )
    folder = new_run(config, tmp_path / "run")
    assert train(folder, progress=False)
    entries = read_metrics(folder)
    assert [entry["agent_steps"] for entry in entries] == [100, 200, 300, 400]
    # 4 environments of 17-step episodes: 18 agent steps an episode with its reset; the first ones
    # are cut short.
    assert sum(entry["episode/count"] for entry in entries) >= 4 * (100 // 18)
    last = entries[-1]
    assert last["learner_steps"] == 20 and last["frames"] == 400
    names = [
        "learner/kl",
        "learner/entropy",
        "rank/embedding",
        "rank/belief",
        "collapse/alarm",
        "share_of_time/noise",
        "reached/R1",
    ]
    names += ["share_of_time/noop", "noise/seeking"]
    # AMA's first bonuses are all below zero, so there are no shares of pay yet
    names += ["noise/share"] if model != "ama" else []
    for name in names + ["learner/model_nats", "rank/latent", "use/latent"] * (
        model == "byol-hindsight"
    ):
        assert name in last
    assert 0 <= last["share_of_time/noise"] <= 1
    assert list((folder / "tensorboard").iterdir())


def test_the_same_seed_gives_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    folders = [
        new_run(replace(SMALL, seed=seed), tmp_path / str(index))
        for index, seed in enumerate((3, 3, 4))
    ]
    for folder in folders:
        train(folder, progress=False)
    assert same(weights(folders[0]), weights(folders[1]))
    assert not same(weights(folders[0]), weights(folders[2]))


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, halves = new_run(SMALL, tmp_path / "whole"), new_run(SMALL, tmp_path / "halves")
    train(whole, progress=False)
    run = Run(SMALL)
    for _ in range(13):  # stops inside an episode and between two log entries
        run.step()
    checkpoint.save(halves, run.state())
    train(halves, progress=False)
    assert same(weights(whole), weights(halves))


def test_a_resumed_game_is_not_counted_with_the_one_that_was_cut(tmp_path: Path) -> None:
    """Gym and Atari environments cannot be saved: a resumed run starts new episodes.

    They differ from the run's first ones, and none is counted as part of an old one.
    """
    config = replace(SMALL, env=GymConfig(id="CartPole-v1", num_envs=4))
    run, resumed = Run(config), Run(config)
    for _ in range(3):
        run.step()
    assert run.statistics.running["length"].any()
    resumed.load_state(run.state())
    assert not resumed.statistics.running["length"].any()
    first = Run(config).actors[0].unroll()
    assert not torch.equal(resumed.actors[0].unroll().obs[0], first.obs[0])


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    run = Run(SMALL)
    run.learner.policy.value_head[0].weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(FloatingPointError, match="the gradient norm is nan after 0 agent steps"):
        run.step()


def test_resuming_repeats_no_log_entry(tmp_path: Path) -> None:
    folder = new_run(SMALL, tmp_path / "run")
    train(folder, progress=False)
    early = checkpoint.load(folder, SMALL)
    run = Run(SMALL)
    for _ in range(10):
        run.step()
    checkpoint.save(folder, run.state())
    train(folder, progress=False)
    assert [entry["agent_steps"] for entry in read_metrics(folder)] == [100, 200, 300, 400]
    assert early["agent_steps"] == 400


def test_a_metric_that_some_steps_lack_is_logged_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bonus of a user's own may not have all its metrics in every step."""
    update = Learner.update

    def sometimes(self: Learner, trajectory: Trajectory) -> dict[str, torch.Tensor]:
        rare = {"rare": torch.tensor(float(self.steps))} if self.steps % 2 else {}
        return update(self, trajectory) | rare

    monkeypatch.setattr(Learner, "update", sometimes)
    config = replace(SMALL, checkpoint_interval=140)  # within the steps of an entry
    folder = new_run(config, tmp_path / "run")
    train(folder, progress=False)
    rare = [entry["learner/rare"] for entry in read_metrics(folder)]
    assert rare == [2, 7, 12, 17]  # of steps 1 and 3, 5 to 9, ...


def test_a_signal_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = new_run(
        replace(SMALL, total_steps=1_000_000, log_interval=1000, checkpoint_interval=1_000_000),
        tmp_path / "run",
    )
    command = [sys.executable, "-m", "afterwit", "train", "--resume", str(folder), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while (
        not ((folder / "metrics.jsonl").exists() and read_metrics(folder))
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and f"--resume {folder}" in output
    state = checkpoint.load(folder, read_config(folder))
    assert 1000 <= state["agent_steps"] < 1_000_000


def test_evaluation_counts_whole_episodes_and_films(tmp_path: Path) -> None:
    folder = new_run(SMALL, tmp_path / "run")
    train(folder, progress=False)
    before = weights(folder)
    result = evaluate(folder, episodes=6, greedy=False, seed=9, video=True, progress=False)
    assert result["results"]["length"] == {
        "episodes": 6,
        "mean": 17.0,
        "low": 17.0,
        "high": 17.0,
        "median": 17.0,
        "deviation": 0.0,
        "min": 17.0,
        "max": 17.0,
    }
    assert set(result["results"]) >= {"R1", "R4", "return", "bonus"}
    assert (folder / "video.mp4").stat().st_size > 1000
    assert json.loads((folder / "evaluation.json").read_text())["episodes"] == 6
    assert same(before, weights(folder))
    again = evaluate(folder, episodes=6, greedy=False, seed=9, video=False, progress=False)
    assert again["results"] == result["results"]


def test_the_random_policy_is_named_so_and_has_no_likeliest_action(tmp_path: Path) -> None:
    config = replace(
        SMALL, learner=replace(SMALL.learner, policy=replace(SMALL.learner.policy, uniform=True))
    )
    folder = new_run(config, tmp_path / "run")
    assert (
        train(folder, progress=False)
        and config.method == "random"
        and default_name(config).startswith("maze-random-")
    )
    result = evaluate(folder, episodes=4, greedy=False, seed=9, video=False, progress=False)
    assert result["results"]["length"]["episodes"] == 4
    with pytest.raises(ValueError, match="acts at random"):
        evaluate(folder, episodes=4, greedy=True, seed=9, video=False, progress=False)


def test_any_gymnasium_environment_trains(tmp_path: Path) -> None:
    config = replace(
        SMALL,
        env=GymConfig(id="CartPole-v1", num_envs=4),
        learner=replace(SMALL.learner, extrinsic_weight=1.0),
    )
    folder = new_run(config, tmp_path / "run")
    assert train(folder, progress=False)
    assert sum(entry["episode/count"] for entry in read_metrics(folder)) > 0


MISTAKES = {
    "unknown command": (["fly"], "unknown command 'fly'"),
    "unknown preset": (
        ["train", "labyrinth"],
        "unknown preset 'labyrinth'; choose from maze, maze-branches, atari-small, atari, gym",
    ),
    "unknown game": (
        ["train", "atari-small", "--game", "Montezuma"],
        "did you mean 'MontezumaRevenge'?",
    ),
    "horizon too long": (
        ["train", "maze", "--learner.world-model.horizon", "40"],
        "world_model.horizon is 40; the horizon K must be at most the 20 steps T of an unroll",
    ),
    "continuous gym": (["train", "gym", "--id", "Pendulum-v1"], "so that it is Discrete"),
    "no ledger": (["report", "nothing.csv"], "there is no file nothing.csv; name a ledger"),
    "no environment": (["train", "maze", "--env.num-envs", "0"], "num_envs is 0"),
    "no run folder": (["report", "nowhere"], "nowhere is no run folder"),
    "no such run": (["evaluate", "nowhere"], "nowhere is no run folder"),
    "resume nothing": (["train", "--resume", "nowhere"], "nowhere is no run folder"),
    "resume two": (["train", "--resume", "a", "b"], "--resume takes one run folder, not 2"),
    "wrong encoder": (
        ["train", "maze", "--learner.torso.encoder", "conv"],
        "'conv' needs images of at least 36x36, not 5x5",
    ),
    "one environment": (
        ["train", "maze", "--env.num-envs", "1", "--learner.world-model.purity", "critic"],
        "byol-hindsight needs at least 2",
    ),
    "dose": (["train", "maze", "--env.dose", "1.5"], "dose is 1.5"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_costs_nothing(
    mistake: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = MISTAKES[mistake]
    try:
        code: object = main(arguments)
    # tyro ends the process itself if a field of the config is wrong
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_an_existing_run_folder_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "precious").write_text("data")
    assert main(["train", "maze", "--out", str(folder)]) == 2
    assert f"run folder {folder} exists" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["precious"]


def test_a_damaged_checkpoint_is_named_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_run(replace(SMALL, keep_checkpoints=1), tmp_path / "run")
    train(folder, progress=False)
    path = folder / checkpoint.NAME
    short = path.read_bytes()[:5000]
    path.write_bytes(short)
    assert main(["train", "--resume", str(folder)]) == 2
    assert f"{path} is damaged (5000 bytes): it was cut short" in capsys.readouterr().err
    assert path.read_bytes() == short
    assert [entry["agent_steps"] for entry in read_metrics(folder)] == [100, 200, 300, 400]


def test_a_checkpoint_of_another_config_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = new_run(SMALL, tmp_path / "run")
    train(folder, progress=False)
    data = json.loads((folder / "config.json").read_text())
    data["learner"]["torso"]["belief"] = 17
    (folder / "config.json").write_text(json.dumps(data))
    assert main(["train", "--resume", str(folder)]) == 2
    assert (
        "learner.torso.belief is 96 in the checkpoint, 17 in config.json" in capsys.readouterr().err
    )


def test_an_older_checkpoint_is_read_with_the_defaults_of_new_fields(tmp_path: Path) -> None:
    folder = new_run(SMALL, tmp_path / "run")
    state = Run(SMALL).state()
    del state["config"]["policy_lag"]
    checkpoint.save(folder, state)
    assert checkpoint.load(folder, SMALL)["agent_steps"] == 0
    with pytest.raises(ValueError, match=r"policy_lag is 0 in the checkpoint, 1 in config.json"):
        checkpoint.load(folder, replace(SMALL, policy_lag=1))


def test_a_checkpoint_with_fields_that_are_gone_says_who_can_read_it(tmp_path: Path) -> None:
    folder = new_run(SMALL, tmp_path / "run")
    state = Run(SMALL).state()
    state["config"]["learner"]["world_model"]["centre_decay"] = 0.95
    checkpoint.save(folder, state)
    with pytest.raises(
        ValueError, match=r"read it with the version that wrote it, which RUN/provenance.json names"
    ):
        checkpoint.load(folder, SMALL)


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(SMALL, tmp_path / "run")
    train(folder, progress=False)
    good = (folder / checkpoint.NAME).read_bytes()
    state = checkpoint.load(folder, SMALL)
    state["learner"]["modules"]["policy.action_head.0.weight"][0] = torch.nan
    state["learner"]["acting"]["action_head.0.weight"][:] = 0
    state["agent_steps"] = 200
    checkpoint.save(folder, state)
    bad = (folder / checkpoint.NAME).read_bytes()
    assert main(["train", "--resume", str(folder), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert (
        "the loss is nan after 200 agent steps" in error
        and "--learner.learning-rate" in error
        and error.count("\n") == 1
    )
    assert (folder / checkpoint.NAME).read_bytes() == bad != good


def test_the_first_losses_and_their_digest_tell_whether_two_machines_compute_alike(
    tmp_path: Path,
) -> None:
    """The first losses are in the provenance of the session that took them.

    Another seed has other losses, and a later session has none.
    """
    sessions = {}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        config = replace(
            maze("rnd"), env=MazeConfig(num_envs=2), unroll_length=5, total_steps=120, seed=seed
        )
        write_config(config, tmp_path / name)
        assert train(tmp_path / name, progress=False)
        (sessions[name],) = json.loads((tmp_path / name / "provenance.json").read_text())
        assert (
            len(sessions[name]["first_losses"]) == 10
            and len(sessions[name]["first_losses_sha256"]) == 16
        )
    assert (
        sessions["one"]["first_losses"]
        == sessions["same"]["first_losses"]
        != sessions["other"]["first_losses"]
    )
    digests = {name: session["first_losses_sha256"] for name, session in sessions.items()}
    assert digests["one"] == digests["same"] != digests["other"]
    (tmp_path / "one" / "config.json").write_text(
        json.dumps(to_dict(replace(read_config(tmp_path / "one"), total_steps=240)))
    )
    assert train(tmp_path / "one", progress=False)
    first, second = json.loads((tmp_path / "one" / "provenance.json").read_text())
    assert first == sessions["one"] and "first_losses" not in second


def test_a_finished_run_can_be_made_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights are then, bit for bit, those of the run that was planned so long."""
    long, short = (
        new_run(replace(SMALL, total_steps=steps), tmp_path / str(steps)) for steps in (400, 240)
    )
    assert train(long, progress=False) and train(short, progress=False)
    more = ["train", "--resume", str(short), "--quiet", "--total-steps"]
    before = (short / "config.json").read_bytes()
    newest = short / checkpoint.NAME
    intact = newest.read_bytes()
    newest.write_bytes(intact[:-9])
    files = sorted(path.name for path in short.iterdir())
    assert main([*more, "200"]) == 2  # what is damaged is left alone, as nothing goes on
    assert "has had 200 agent steps; name more" in capsys.readouterr().err
    assert sorted(path.name for path in short.iterdir()) == files
    newest.write_bytes(intact)
    assert main([*more, "240"]) == 2
    assert "--total-steps is 240, but" in capsys.readouterr().err
    assert (short / "config.json").read_bytes() == before
    assert main([*more, "400"]) == 0
    assert read_config(short).total_steps == 400
    assert same(weights(long), weights(short))


def test_the_gym_preset_pays_for_curiosity_in_cartpole_too(tmp_path: Path) -> None:
    """With the gym preset, curiosity is a few hundredths of the pay.

    It used to be a thousandth, because the constant reward was scaled to 100.
    """
    options = "--total-steps 16000 --log-interval 16000 --quiet --out"
    assert main(["train", "gym", *options.split(), str(tmp_path / "run")]) == 0
    (entry,) = read_metrics(tmp_path / "run")
    assert 0.01 < entry["learner/curiosity_share"] < 0.3
    assert entry["learner/temperature_ratio"] == pytest.approx(1, abs=0.02)


def test_ctrl_c_while_torch_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from afterwit.runs import __main__ as entry

    class Impatient(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "afterwit.runs.command_line.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "afterwit.runs.command_line.main")
    monkeypatch.setattr("sys.meta_path", [Impatient(), *sys.meta_path])
    assert (
        entry.main() == 130
        and capsys.readouterr().err == "afterwit: stopped; nothing was started\n"
    )


@pytest.mark.parametrize("place", ("file", "file/below", "/proc/none", "new/" + 300 * "n"))
def test_a_place_where_no_run_can_be_is_named(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["train", "maze", "--total-steps", "100", "--out", str(tmp_path / place)]) == 2
    errors = capsys.readouterr().err
    assert "choose another --out" in errors and "--resume" not in errors
    assert len(errors.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
