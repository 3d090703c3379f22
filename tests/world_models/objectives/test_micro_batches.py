"""A world model's loss in parts: the same learner, up to rounding, or a refusal.

Whole learners are compared over some updates: weights, statistics, memories, draws, pay and
metrics. They compute in float64, so that rounding makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from afterwit.agents import Learner, LearnerConfig, PolicyConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.run_config import RunConfig
from afterwit.world_models import data_parallel
from afterwit.world_models.base import ModelConfig, WorldModel
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.models.mix import MixConfig
from afterwit.world_models.models.re3 import RE3Config
from afterwit.world_models.registry import ALL_MODELS
from afterwit.world_models.trajectory import (
    BATCH_AXIS,
    Trajectory,
    cut_trajectory,
    join_trajectories,
    masked_mean,
)
from tests.helpers import close, random_trajectory, tiny_spec, tiny_torso_config

BATCH, CELLS = 6, 11
NEVER_HERE = [(t, b) for t in range(9) for b in (4, 5)]  # the last of three parts has no real step
RESETS = [(), ((0, 0), (4, 1), (8, 2), (3, 3), (4, 3), (2, 5)), NEVER_HERE]
MODELS: dict[str, ModelConfig] = {
    **{name: model.Config() for name, model in ALL_MODELS.items() if name not in ("re3", "mix")},
    "far ahead": BYOLExploreConfig(horizon=3, reward_edges="whole", centroid=0.5),
    "unit vectors": BYOLExploreConfig(horizon=3, standardise_decay=None),
    "direct-pred": BYOLExploreConfig(horizon=3, predictor="direct-pred", weight_decay=1e-3),
    "isoloss": BYOLExploreConfig(horizon=3, predictor="direct-pred", predictor_isotropic=True),
    "stride": BYOLExploreConfig(horizon=3, stride=3, centroid=0.5),
    "hindsight by strides": BYOLHindsightConfig(horizon=3, stride=2),
    "derivatives": BYOLExploreConfig(horizon=2, target_view="alternating"),
    "regularised": BYOLExploreConfig(dispersion_weight=1.0, brownian_weight=0.1),
    "pulled": BYOLHindsightConfig(horizon=2, pull_weight=1.0, expected_takes="action"),
    "pulled unit vectors": BYOLExploreConfig(pull_weight=1.0, standardise_decay=None),
    "priced": BYOLHindsightConfig(horizon=3, purity="price", latent_price=0.5),
    "mixed": MixConfig(parts=("disagreement", "byol-hindsight")),
}
COUPLED: dict[str, ModelConfig] = {
    "compares each z": BYOLHindsightConfig(purity="critic"),
    "re3 compares": RE3Config(),
    "and trains nothing": MixConfig(parts=("rnd", "re3")),
}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trajectory(seed: int) -> Trajectory:
    whole = random_trajectory(
        batch=BATCH, seed=seed, resets=RESETS[seed % len(RESETS)], dtype=torch.float64
    )
    cells = torch.arange(whole.action.numel()).view(whole.action.shape) * 7 % CELLS
    return replace(whole, info={"cell": cells})


def make(model: ModelConfig, parts: int, shared: bool = True) -> Learner:
    config = LearnerConfig(
        torso=tiny_torso_config(),
        policy=PolicyConfig(hidden=16),
        world_model=model,
        micro_batches=parts,
        shared_torso=shared,
    )
    spec = replace(tiny_spec(num_envs=BATCH), tells=("cell",), semantics={"cells": CELLS})
    return Learner(config, spec, seed=3, device=torch.device("cpu"))


def flat(value: Any, path: str = "") -> dict[str, Tensor]:
    """All tensors in a state by their paths."""
    if isinstance(value, Tensor):
        return {path: value}
    if not isinstance(value, dict | list | tuple):
        return {}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, each in pairs for k, v in flat(each, f"{path}/{key}").items()}


def compare(one: Learner, two: Learner, updates: int = 4) -> None:
    for seed in range(updates):
        told, again = one.update(trajectory(seed)), two.update(trajectory(seed))
        assert told.keys() == again.keys()
        for name, value in told.items():
            close(again[name], value, 1e-9)
    states = flat(one.state()), flat(two.state())
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        close(states[1][name].double(), value.double(), 1e-8)


@pytest.mark.parametrize(
    ("name", "shared"),
    [(name, True) for name in MODELS] + [("byol-hindsight", False), ("icm", False)],
)
def test_a_learner_in_parts_learns_the_same(name: str, shared: bool) -> None:
    compare(make(MODELS[name], 1, shared), make(MODELS[name], 3, shared))


def test_gradients_are_those_of_the_whole_and_not_of_a_mean_of_means() -> None:
    one, two = make(MODELS["far ahead"], 1), make(MODELS["far ahead"], 3)
    whole = trajectory(2)
    assert len({int(part.real.sum()) for part in cut_trajectory(whole, 3)}) > 1
    for learner in (one, two):
        learner.update(whole)
    for (name, first), (_, second) in zip(
        one.named_parameters(), two.named_parameters(), strict=True
    ):
        assert (first.grad is None) == (second.grad is None), name
        if first.grad is not None and second.grad is not None:
            close(second.grad, first.grad, 1e-12)


def test_networks_see_one_part_at_a_time_with_gradient() -> None:
    learner, seen = make(MODELS["far ahead"], 3), list[int]()

    def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if torch.is_grad_enabled():
            seen.append(output.shape[2])

    learner.world_model.predictor.register_forward_hook(note)  # type: ignore[union-attr, operator]
    learner.update(trajectory(0))
    assert seen == [BATCH // 3] * 3


@pytest.mark.parametrize("words", COUPLED)
def test_a_loss_that_couples_environments_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=f"micro_batches is 2, but .*{words}.*leave it at 1"):
        make(COUPLED[words], 2)
    make(COUPLED[words], 1)
    # the refusal is honest: in parts the model would need what only the whole batch has
    learner = make(COUPLED[words], 1)
    object.__setattr__(learner.config, "micro_batches", 2)
    with pytest.raises(RuntimeError, match="cannot be compared with the other parts"):
        learner.update(trajectory(0))


@dataclass(frozen=True)
class CoupledConfig(ModelConfig):
    """A model of a user's own."""

    own_mean: bool = False


class Coupled(WorldModel):
    """Its loss is a variance over the batch, or a mean that it takes by itself."""

    Config = CoupledConfig

    def __init__(self, config: CoupledConfig, torso: Any, spec: Any, seed: int):
        super().__init__(seed)
        self.own_mean, self.scale = config.own_mean, torch.nn.Parameter(torch.ones(()))

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        real, size = trajectory.real, embeddings[1:].square().sum(-1) * self.scale
        mean = size[real].mean()
        loss = mean if self.own_mean else masked_mean((size - mean).square(), real)
        return WorldModelOutput(loss, torch.zeros_like(size.detach()), {}, {})


@pytest.mark.parametrize("own_mean", [False, True])
def test_a_model_of_ones_own_that_couples_them_is_found(own_mean: bool) -> None:
    learner = make(CoupledConfig(own_mean=own_mean), 3)
    with pytest.raises(ValueError, match=r"the loss of Coupled is .* in parts and .* in one"):
        learner.update(trajectory(1))


def test_parts_that_ask_for_other_averages_are_found() -> None:
    tape = data_parallel.Tape(2)
    with data_parallel.using(tape, None):
        assert float(data_parallel.mean_count(torch.ones(4, 3))) == 12
    with data_parallel.using(tape, 1):
        assert float(data_parallel.mean_count(torch.ones(4, 1))) == 6
        with pytest.raises(RuntimeError, match="other averages"):
            data_parallel.average(torch.ones(()))
    with data_parallel.using(tape, 0), pytest.raises(RuntimeError, match="other averages"):
        data_parallel.average(torch.ones(2))
    assert data_parallel.num_learners() == 1


def test_a_trajectory_is_cut_and_joined() -> None:
    whole = trajectory(1)
    parts = cut_trajectory(whole, 3)
    assert [part.rows.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    joined = join_trajectories(parts)
    for name, value in whole.state().items():
        if isinstance(value, Tensor):
            assert torch.equal(getattr(joined, name), value), name
            axis = BATCH_AXIS.get(name, 1)
            assert torch.equal(getattr(parts[1], name), value.narrow(axis, 2, 2)), name
    assert torch.equal(joined.info["cell"], whole.info["cell"])
    with pytest.raises(ValueError, match="6 environments do not divide into 4 parts"):
        cut_trajectory(whole, 4)


def test_numbers_of_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="micro_batches is 0; it must be at least 1"):
        LearnerConfig(micro_batches=0)
    with pytest.raises(ValueError, match="micro_batches is 4; it must divide a learner's 6"):
        RunConfig(env=MazeConfig(num_envs=6), learner=LearnerConfig(micro_batches=4))
