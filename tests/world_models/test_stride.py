"""Predictions from some steps alone: the same numbers as if the other pairs did not count."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from afterwit.world_models.base import ModelConfig
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.models import byol_explore, byol_hindsight
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.open_loop import (
    Starts,
    TransitionReward,
    by_transition,
    draw_starts,
    future,
    pair_mask,
    predicted,
)
from afterwit.world_models.registry import make_world_model
from tests.helpers import B, T, close, look, random_trajectory, seeded, tiny_spec, tiny_torso
from tests.world_models.byol_models import INNOVATION

SOME = Starts(torch.tensor([0, 2, 5]), T)
FORMS = {
    "explore": (byol_explore, BYOLExploreConfig(horizon=3, hidden=16)),
    "centroid": (byol_explore, BYOLExploreConfig(horizon=3, hidden=16, centroid=0.5)),
    "hindsight": (byol_hindsight, replace(INNOVATION, horizon=3)),
}


@pytest.mark.parametrize("stride", (2, 3, 8))
def test_every_step_still_has_a_prediction(stride: int) -> None:
    random, seconds = torch.Generator().manual_seed(0), set()
    real = torch.ones(20, 3, dtype=torch.bool)
    for _ in range(60):
        starts = draw_starts(20, stride, random)
        assert starts is not None and starts.length == 20
        times = starts.times.tolist()
        gaps = [later - earlier for earlier, later in zip(times, [*times[1:], 20], strict=True)]
        assert times[0] == 0 and all(1 <= gap <= stride for gap in gaps)
        seconds.add(times[1])
        assert predicted(pair_mask(real, stride, starts), starts).all()
    assert seconds == set(range(1, stride + 1))  # so each distance comes for each step


def test_only_steps_soon_after_a_reset_have_none() -> None:
    random, missed = torch.Generator().manual_seed(0), set[int]()
    real = torch.ones(20, 1, dtype=torch.bool)
    real[7] = False
    for _ in range(60):
        starts = draw_starts(20, 4, random)
        has = predicted(pair_mask(real, 4, starts), starts) | ~real
        missed |= set((~has[:, 0]).nonzero()[:, 0].tolist())
    assert missed == {8, 9, 10}


def test_without_a_stride_nothing_is_drawn() -> None:
    random = torch.Generator().manual_seed(0)
    before = random.get_state()
    assert draw_starts(20, 1, random) is None and torch.equal(random.get_state(), before)


def test_arrays_over_some_starts_are_rows_of_those_over_all() -> None:
    real, rows = random_trajectory().real, torch.rand(T, B)
    assert torch.equal(pair_mask(real, 3, SOME), pair_mask(real, 3)[:, SOME.times])
    assert torch.equal(future(rows, 3, T, SOME), future(rows, 3, T)[:, SOME.times])
    values, everywhere = torch.rand(3, 3, B, 2), torch.zeros(3, T, B, 2)
    everywhere[:, SOME.times] = values
    close(by_transition(values, SOME), by_transition(everywhere))


def output(config: ModelConfig) -> WorldModelOutput:
    """What a model with fixed weights, and no noise in z, makes of one trajectory."""
    torso, trajectory = tiny_torso(), random_trajectory()
    model = seeded(lambda: make_world_model(config, torso, tiny_spec(), 0), 1)

    def nothing(target: Tensor, size: int) -> Tensor:
        return torch.zeros(*target.shape[:-1], size)

    vars(model)["draw"] = nothing
    return model(trajectory, *look(torso, trajectory))


@pytest.mark.parametrize("form", FORMS)
def test_it_is_as_if_the_other_pairs_did_not_count(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: ModuleType
    module, config = FORMS[form]
    with monkeypatch.context() as patch:
        patch.setattr(module, "draw_starts", lambda *_: SOME)
        few = output(replace(config, stride=3))
    counts = torch.zeros(T, 1, dtype=torch.bool)
    counts[SOME.times] = True
    with monkeypatch.context() as patch:
        patch.setattr(module, "pair_mask", lambda real, k, _: pair_mask(real, k) & counts)
        masked = output(config)
    trajectory = random_trajectory()
    known = predicted(pair_mask(trajectory.real, 3) & counts)
    assert torch.equal(few.paid(trajectory), known)
    assert not few.paid(trajectory).all() and (few.reward[known] > 0).all()
    assert not few.reward[~known].any()
    close(few.reward, masked.reward)
    close(few.metrics["reconstruction"], masked.metrics["reconstruction"])
    if form != "hindsight":  # its price is in units of ignorance, which few starts estimate anew
        close(few.loss, masked.loss)


def test_a_step_is_paid_alike_at_any_distance() -> None:
    """Errors grow with the distance; what a step is paid, in units of the whole, does not."""
    reward, random = TransitionReward(4, "whole"), torch.Generator().manual_seed(0)
    errors = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(4, 1, 1)
    real = torch.ones(12, 3, dtype=torch.bool)
    for _ in range(20):
        starts = draw_starts(12, 4, random)
        assert starts is not None
        valid = pair_mask(real, 4, starts)
        close(reward(errors.expand(valid.shape), valid, starts), torch.full((12, 3), 15.0))


@pytest.mark.parametrize("config", (BYOLExploreConfig, BYOLHindsightConfig))
def test_what_does_not_go_together_is_named(config: type[ModelConfig]) -> None:
    for changes, message in (
        ({"stride": 0}, "stride is 0; it must be at least 1, and at most the horizon, which is 1"),
        ({"stride": 4, "horizon": 3}, "stride is 4; .* at most the horizon, which is 3"),
        (
            {"stride": 2, "horizon": 3, "reward_edges": "sum"},
            "stride is 2, but reward_edges sum .*set world_model.reward_edges to whole",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            config(**changes)


def test_the_critic_needs_every_start() -> None:
    with pytest.raises(ValueError, match="stride is 2, but the critic needs every step"):
        BYOLHindsightConfig(
            stride=2, horizon=2, purity="critic", generator_reads="outcome", expected_error="off"
        )
