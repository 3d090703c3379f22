"""What a bonus of one's own may return: anything else is one line that names it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from afterwit.runs.command_line.main import main
from afterwit.world_models import IntrinsicReward, ModelConfig, WorldModel, WorldModelOutput
from afterwit.world_models.reward_normaliser import FEWEST, RewardNormaliser

T, B = 5, 3
RESULT: dict[str, Any] = {}  # what the model below returns instead of what it should


@dataclass(frozen=True)
class GivenConfig(ModelConfig):
    """Config of Given."""


class Given(WorldModel):
    Config = GivenConfig

    def __init__(self, config: GivenConfig, torso: Any, spec: Any, seed: int):
        super().__init__(seed)
        self.head = torch.nn.Linear(torso.config.belief, 1)

    def forward(self, trajectory: Any, beliefs: Any, embeddings: Any) -> Any:
        error = self.head(beliefs[1:]).squeeze(-1).square()
        right = WorldModelOutput(error.mean(), error.detach())
        if "whole" in RESULT:
            return RESULT["whole"](right)
        return replace(right, **{name: make(right) for name, make in RESULT.items()})


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    RESULT.clear()


def curiosity() -> IntrinsicReward:
    return IntrinsicReward(GivenConfig(), Box(-1, 1, (4,)), Discrete(3), seed=0)


def steps(length: int = T, batch: int = B) -> tuple[Any, ...]:
    random = np.random.default_rng(0)
    obs = random.uniform(-1, 1, (length + 1, batch, 4)).astype(np.float32)
    return obs, random.integers(0, 3, (length, batch)), np.zeros((length, batch), bool)


WRONG = {
    "mean over time": ("reward", lambda r: r.reward.mean(0), r"reward of shape \(3,\)"),
    "one column": ("reward", lambda r: r.reward[:, :1], r"reward of shape \(5, 1\)"),
    "a step short": ("reward", lambda r: r.reward[1:], r"reward of shape \(4, 3\)"),
    "a last axis": ("reward", lambda r: r.reward[..., None], r"reward of shape \(5, 3, 1\)"),
    "scalar": ("reward", lambda r: r.reward.mean(), r"reward of shape \(\)"),
    "integers": ("reward", lambda r: r.reward.long(), "torch.int64; it must be a tensor of shape"),
    "doubles": ("reward", lambda r: r.reward.double(), "torch.float64"),
    "NumPy": ("reward", lambda r: r.reward.numpy(), "reward as ndarray"),
    "a gradient": ("reward", lambda r: r.loss + r.reward, "a reward that has a gradient"),
    "loss by step": ("loss", lambda r: r.reward, r"loss of shape \(5, 3\)"),
    "loss as float": ("loss", lambda r: float(r.loss.detach()), "loss as float"),
    "metric as float": ("metrics", lambda r: {"x": 1.0}, r"metrics\['x'\] as float"),
    "part": ("parts", lambda r: {"y": r.reward[0]}, r"parts\['y'\] of shape \(3,\)"),
    "judged": ("judged", lambda r: r.reward, "judged of shape .* torch.bool"),
    "ignorance": ("ignorance", lambda r: 1.0, "ignorance as float"),
    "nothing": ("whole", lambda r: None, "NoneType; it must return a WorldModelOutput"),
    "a pair": ("whole", lambda r: (r.loss, r.reward), "tuple; it must return a WorldModelOutput"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_output_is_named(case: str) -> None:
    bonus = curiosity()
    bonus.update(*steps())
    field, make, message = WRONG[case]
    RESULT[field] = make
    for call in (bonus.reward, bonus.update)[case == "a gradient" :]:  # `reward` takes none
        with pytest.raises(ValueError, match=f"^Given returned .*{message}"):
            call(*steps())


def test_a_right_output_is_paid() -> None:
    RESULT["metrics"] = lambda r: {"x": r.loss.detach()}
    RESULT["judged"] = lambda r: r.reward > -1
    assert curiosity().reward(*steps()).any() and "x" in curiosity().update(*steps())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_is_named_and_changes_nothing(value: float) -> None:
    bonus = curiosity()
    bonus.update(*steps())
    paid = bonus.reward(*steps())
    RESULT["reward"] = lambda r: torch.where(torch.arange(B) == 1, value, r.reward)
    for call in (bonus.reward, bonus.update):
        with pytest.raises(FloatingPointError, match=f"the reward of .*Given is {value}"):
            call(*steps())
    RESULT.clear()
    np.testing.assert_array_equal(bonus.reward(*steps()), paid)


OWN = """
from dataclasses import dataclass
from afterwit.world_models import ModelConfig, WorldModel, WorldModelOutput

@dataclass(frozen=True)
class Config(ModelConfig):
    pass

class Wrong(WorldModel):
    Config = Config

    {init}

    def forward(self, trajectory, beliefs, embeddings):
        loss = beliefs.square().mean()
        return WorldModelOutput(loss, {reward})
"""
RIGHT = "def __init__(self, config, torso, spec, seed):\n        super().__init__(seed)"
TINY = ["--total-steps", "400", "--env.num-envs", "2", "--log-interval", "80", "--quiet"]


@pytest.mark.parametrize(
    ("init", "reward", "message"),
    [
        (RIGHT, "beliefs[0, :, 0].detach()", "Wrong returned reward of shape (2,)"),
        ("def __init__(self, seed):\n        super().__init__(seed)", "0", "cannot be made"),
        ("def __init__(self, *a):\n        self.x = 1 / 0", "0", "ZeroDivisionError: division"),
        (RIGHT, "beliefs[1:, :, 0].detach() / 0", "look at the loss and the reward of wrong_bonus"),
    ],
)
def test_it_costs_a_run_one_line(
    init: str,
    reward: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    module = f"wrong_bonus_{abs(hash(message))}"  # a module is imported once
    (tmp_path / f"{module}.py").write_text(OWN.format(init=init, reward=reward))
    assert main(["train", "maze", "--model", f"{module}:Wrong", *TINY, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("afterwit: ")


def test_fewer_errors_than_needed_set_no_unit() -> None:
    """Their deviation would be what rounding leaves, and the next error billions of it."""
    normaliser = RewardNormaliser(prioritise=True, decay=0.99)
    one = torch.ones(1, 1, dtype=torch.bool)
    for error in range(FEWEST):
        assert not normaliser.has_statistics
        assert not normaliser(torch.full((1, 1), 1e6), one).any()
        normaliser.update(torch.full((1, 1), 1e-9 + error), one)
    assert normaliser.has_statistics
    deviation = np.std(np.arange(FEWEST))
    assert float(normaliser.deviation) == pytest.approx(deviation, rel=0.02)
    assert float(normaliser.normalised.mean) < 10
    state = normaliser.state_dict()
    del state["seen"]  # as until November 2026
    old = RewardNormaliser(prioritise=True, decay=0.99)
    old.load_state_dict(state)
    assert old.has_statistics and float(old.deviation) == float(normaliser.deviation)
