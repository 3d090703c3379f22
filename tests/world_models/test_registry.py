"""The registry: how models are named, found, and added from a user's file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import atari
from afterwit.runs.configs.run_config import from_dict, read_config, to_dict
from afterwit.runs.training.run_log import read_metrics
from afterwit.world_models import (
    WORLD_MODELS,
    IntrinsicReward,
    ModelConfig,
    Trajectory,
    WorldModel,
    WorldModelOutput,
    find_model,
)
from afterwit.world_models.registry import world_model_name

OWN = '''
from dataclasses import dataclass
import torch
from torch import nn
from afterwit.world_models import ModelConfig, WorldModel, WorldModelOutput

@dataclass(frozen=True)
class SurpriseConfig(ModelConfig):
    """Error of a linear prediction of the next embedding."""
    width: int = 5
    """Rows of the fixed projection that is predicted."""

class Surprise(WorldModel):
    Config = SurpriseConfig

    def __init__(self, config, torso, spec, seed):
        super().__init__(seed)
        size = torso.config.embedding
        self.fixed = nn.Linear(size, config.width).requires_grad_(False)
        self.linear = nn.Linear(torso.config.belief + spec.num_actions, config.width)
        self.actions = spec.num_actions

    def forward(self, trajectory, beliefs, embeddings):
        action = nn.functional.one_hot(trajectory.action, self.actions).float()
        guess = self.linear(torch.cat([beliefs[:-1], action], -1))
        error = (guess - self.fixed(embeddings[1:]).detach()).square().mean(-1)
        reward = torch.where(trajectory.real, error, 0.0)
        return WorldModelOutput(reward.sum() / trajectory.real.sum().clamp(min=1), reward.detach())

class Counts(Surprise):
    pass

not_a_model = 3
'''
NAME = "some_persons_bonus:Surprise"
TINY = ["--total-steps", "400", "--env.num-envs", "2", "--log-interval", "80", "--quiet"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module that holds a model."""
    (tmp_path / "some_persons_bonus.py").write_text(OWN)
    (tmp_path / "needs_bonus.py").write_text("import not_installed_anywhere")
    (tmp_path / "typo_bonus.py").write_text("class Bonus(")
    (tmp_path / "broken_bonus.py").write_text("import torch\nraise RuntimeError('no\\nluck')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_config_names_its_model(name: str) -> None:
    model = find_model(name)
    assert model is WORLD_MODELS[name] and world_model_name(model.Config()) == name
    assert model.predicts and model.pays and "arXiv" in model.source and model.deviations
    assert set(model.Config.scale_fields) <= set(model.Config.__dataclass_fields__)


def test_an_own_model_trains_goes_on_is_evaluated_and_reported(own: Path) -> None:
    options = ["--model", NAME, "--learner.world-model.width", "7"]
    assert main(["train", "maze", *options, *TINY, "--out", "run"]) == 0
    config = read_config(own / "run")
    assert getattr(config.learner.world_model, "width", None) == 7 and config.method == NAME
    assert json.loads((own / "run/config.json").read_text())["learner"]["world_model"] == {
        "name": NAME,
        "loss_scale": 1.0,
        "prioritise": False,
        "expected_error": "off",
        "expected_floor": 0.02,
        "expected_rate": 10.0,
        "expected_takes": "all",
        "absolute_zero": 0.0,
        "dispersion_weight": 0.0,
        "brownian_weight": 0.0,
        "width": 7,
    }
    assert from_dict(to_dict(config)) == config
    assert read_metrics(own / "run")[-1]["agent_steps"] == 400
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert main(["evaluate", "run", "--episodes", "1", "--max-steps", "20"]) == 0
    assert main(["report", "run", "--out", "report"]) == 0
    assert NAME in (own / "report/report.html").read_text()


def test_an_own_model_is_a_bonus_for_any_agent(own: Path) -> None:
    spaces = Box(-1, 1, (3,)), Discrete(2)
    first = IntrinsicReward(NAME, *spaces, seed=0)
    again = IntrinsicReward(find_model(NAME).Config(), *spaces, seed=0)
    assert again.name == NAME
    random = np.random.default_rng(0)
    steps = random.uniform(-1, 1, (6, 4, 3)), random.integers(0, 2, (5, 4)), np.zeros((5, 4), bool)
    np.testing.assert_array_equal(first.reward(*steps), again.reward(*steps))
    assert first.update(*steps)["loss"] > first.update(*steps)["loss"]


@pytest.mark.parametrize(
    ("name", "why"),
    (
        ("nothing", "choose from byol-explore, byol-hindsight, rnd, icm"),
        ("no_such_module:Bonus", "start afterwit in the folder that holds 'no_such_module'"),
        ("broken_bonus:Bonus", "RuntimeError: no luck"),
        ("some_persons_bonus:Nothing", "has no class 'Nothing'; its classes derived from"),
        ("some_persons_bonus:not_a_model", "derived from afterwit.world_models.WorldModel"),
        ("some_persons_bonus:SurpriseConfig", "derived from afterwit.world_models.WorldModel"),
        ("some_persons_bonus:Counts", "no config class of its own"),
        (":", "cannot be imported"),
        ("some_persons_bonus:", "has no class ''"),
        ("needs_bonus:Bonus", "install 'not_installed_anywhere'"),
        ("typo_bonus:Bonus", "mend 'typo_bonus'"),
    ),
)
def test_what_is_no_model_is_named_with_the_remedy(
    name: str, why: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "maze", "--model", name, *TINY, "--out", "run"]) == 2
    message = capsys.readouterr().err
    assert why in message and message.count("\n") == 1 and not (own / "run").exists()
    with pytest.raises(ValueError, match="world model"):
        IntrinsicReward(name, Box(-1, 1, (3,)), Discrete(2), seed=0)


def test_a_run_whose_model_is_gone_is_named(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "maze", "--model", NAME, *TINY, "--out", "run"]) == 0
    config = json.loads((own / "run/config.json").read_text())
    config["learner"]["world_model"]["name"] = "gone_with_the_wind:Bonus"
    (own / "run/config.json").write_text(json.dumps(config))
    assert main(["report", "run"]) == 2
    assert "folder that holds 'gone_with_the_wind'" in capsys.readouterr().err


def test_an_own_model_has_no_published_form(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", "maze", "--model", NAME, "--variant", "published", *TINY, "--out", "run"]
    assert main(line) == 2 and "has no published form" in capsys.readouterr().err
    # The preset atari has published sizes for the library's models; an own model keeps its own.
    assert type(atari(NAME).learner.world_model).__name__ == "SurpriseConfig"


def test_a_config_belongs_to_one_model_and_has_no_field_that_is_taken() -> None:
    @dataclass(frozen=True)
    class Named(ModelConfig):
        name: str = "mine"

    def forward(self: WorldModel, t: Trajectory, b: Tensor, e: Tensor) -> WorldModelOutput:
        raise NotImplementedError

    with pytest.raises(TypeError, match="is the config of RND"):
        type("Mine", (WorldModel,), {"Config": WORLD_MODELS["rnd"].Config, "forward": forward})
    with pytest.raises(TypeError, match="a field `name`"):
        type("Mine", (WorldModel,), {"Config": Named, "forward": forward})


def test_a_config_of_nobody_is_refused() -> None:
    @dataclass(frozen=True)
    class Nobodys(ModelConfig):
        pass

    with pytest.raises(ValueError, match="unknown world model config Nobodys"):
        IntrinsicReward(replace(Nobodys()), Box(-1, 1, (3,)), Discrete(2), seed=0)
