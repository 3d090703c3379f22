"""A learner and a bonus on a real GPU give the same as on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from afterwit.agents.learner import Learner
from afterwit.runs.command_line.main import main
from afterwit.world_models import WORLD_MODELS
from tests.agents.small_agents import SMALL
from tests.helpers import random_trajectory, tiny_spec
from tests.world_models.curiosities import curiosity, steps

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_learner_takes_the_same_steps(name: str) -> None:
    config = replace(SMALL, world_model=WORLD_MODELS[name].Config())
    losses = []
    for device in ("cpu", "cuda"):
        learner = Learner(config, tiny_spec(), 0, torch.device(device))
        belief = config.torso.belief
        losses.append(
            [
                float(learner.update(random_trajectory(seed=seed, belief=belief))["loss"])
                for seed in range(3)
            ]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_bonus_is_the_same(name: str) -> None:
    bonuses = [
        torch.from_numpy(curiosity(name, device=device).reward(*steps()))
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(bonuses[0], bonuses[1], rtol=1e-3, atol=1e-4)


def test_a_run_trained_on_a_gpu_goes_on_on_the_cpu(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--total-steps", "400", "--env.num-envs", "2", "--quiet"]
    assert main(["train", "maze", "--device", "cuda", *small, "--out", str(run)]) == 0
    config = run / "config.json"
    text = config.read_text().replace('"total_steps": 400', '"total_steps": 800')
    config.write_text(text.replace('"device": "cuda"', '"device": "cpu"'))
    assert main(["train", "--resume", str(run), "--quiet"]) == 0
