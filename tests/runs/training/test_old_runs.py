"""Run folders of November 2026 (commit cc15d7c) can still be read.

They act as before, and can be evaluated, reported and resumed. They were made with `afterwit train
maze --model M --noise sticky --seed 3 --total-steps 480 --env.num-envs 2` and tiny networks; the
command is in each folder's provenance.json.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from afterwit.runs.command_line.main import main
from afterwit.runs.configs.run_config import read_config, to_dict
from afterwit.runs.evaluation.evaluate import evaluate
from afterwit.runs.evaluation.trained_agent import load_agent
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run

RUNS = Path(__file__).parents[2] / "data" / "runs-2026-11"
# Their output at that time for two views of random bytes: log-probabilities of the five actions.
LOG_PROBABILITIES = {
    "byol-hindsight": [-1.966316, -2.058828, -1.677265, -1.018911, -1.689819],
    "rnd": [-1.960736, -2.062855, -1.674491, -1.020887, -1.690237],
}


@pytest.fixture(params=LOG_PROBABILITIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def test_it_acts_as_it_did(folder: Path) -> None:
    agent, draw = load_agent(folder), np.random.default_rng(0)
    for first in (True, False):
        log_probs = agent.choose(
            draw.integers(0, 256, (1, 8, 5, 5), dtype=np.uint8), np.array([first])
        )[1]
    np.testing.assert_allclose(log_probs[0].numpy(), LOG_PROBABILITIES[folder.name], atol=1e-5)


def test_its_moments_stay_with_their_parameters(folder: Path) -> None:
    config = read_config(folder)
    run, saved = Run(config), checkpoint.load(folder, config)
    run.load_state(saved)
    state, duals = run.learner.optimiser.state_dict()["state"], 2
    first, second = (len(group["params"]) for group in run.learner.optimiser.param_groups)
    for index, (name, parameter) in enumerate(
        (n, p) for n, p in run.learner.named_parameters() if p.requires_grad
    ):
        old = saved["learner"]["optimiser"]["state"][index + (duals if index >= first else 0)]
        assert state[index]["exp_avg"].shape == parameter.shape, name
        assert torch.equal(state[index]["exp_avg"], old["exp_avg"]) and torch.equal(
            state[index]["exp_avg_sq"], old["exp_avg_sq"]
        )
    assert len(state) == first + second
    # the only behaviour before this was a choice
    assert getattr(config.learner.world_model, "reward_edges", "sum") == "sum"
    if folder.name == "rnd":  # the scale starts at 1: the same function in the same unit
        assert float(run.learner.world_model.target_scale.size) == 1  # type: ignore[union-attr]
    assert float(run.learner.trust_region.alpha) == pytest.approx(
        float(saved["learner"]["modules"]["duals.trust_region"])
    )
    run.close()


def test_it_is_evaluated_reported_and_resumed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        "temperature_init" in (folder / "config.json").read_text()
        and "vmpo" in to_dict(read_config(folder))["learner"]
    )
    assert (
        evaluate(folder, 2, greedy=False, seed=1, video=False, progress=False)["results"]["length"][
            "mean"
        ]
        == 500
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"total_steps": 640}))
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [entry["agent_steps"] for entry in entries] == [160, 320, 480, 640]
    assert entries[-1]["learner/trust_region"] > 0 and "learner/curiosity_share" in entries[-1]
    assert main(["report", str(folder), "--out", str(tmp_path / "report")]) == 0
    assert "finished" in capsys.readouterr().out


TODAY = Path(__file__).parents[2] / "data" / "runs-2026-11-26"
CLOCK = ("seconds", "agent_steps_per_second")


@pytest.mark.parametrize("model", ("byol-hindsight", "byol-explore"))
def test_a_run_from_before_the_move_goes_on_as_its_own_version_did(
    model: str, tmp_path: Path
) -> None:
    """Saved by commit 445b81c, the last one before runs/ was split into packages.

    next-entry.json is what that commit logged when it went on from 480 to 640 agent steps.
    """
    folder = Path(shutil.copytree(TODAY / model, tmp_path / model))
    expected = json.loads((folder / "next-entry.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"total_steps": 640}))
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    entry = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    for name in CLOCK:
        del entry[name], expected[name]
    # today's version logs more
    assert {name: entry[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-4)
