"""Configs that are made in Python: values of another kind than the field's are named."""

from __future__ import annotations

from typing import Any

import pytest

from afterwit.agents.learner_config import LearnerConfig
from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.gym_config import GymConfig
from afterwit.envs.maze import MazeConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig


@pytest.mark.parametrize(
    ("make", "field", "value", "message"),
    [
        (AtariConfig, "num_envs", 2.5, "num_envs is 2.5; it must be an integer"),
        (AtariConfig, "frame_skip", 2.5, "frame_skip is 2.5; it must be an integer"),
        (AtariConfig, "sticky", "0.25", "sticky is '0.25'; it must be a number"),
        (AtariConfig, "walk_overflow", "foo", "unknown walk_overflow 'foo'; choose from clip"),
        (MazeConfig, "num_envs", 2.5, "num_envs is 2.5; it must be an integer"),
        (MazeConfig, "dose", True, "dose is True; it must be a number"),
        (MazeConfig, "dose", "high", "dose is 'high'; it must be a number"),
        (GymConfig, "num_envs", "2", "num_envs is '2'; it must be an integer"),
        (LearnerConfig, "learning_rate", "fast", "learner.learning_rate is 'fast'; it must be a n"),
        (BYOLHindsightConfig, "horizon", 1.5, "world_model.horizon is 1.5; it must be an integer"),
    ],
)
def test_a_value_of_another_kind_is_named(make: Any, field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**{field: value})


def test_whole_numbers_stand_for_floats_and_none_where_it_may() -> None:
    assert MazeConfig(dose=1).resolved_dose == 1 and MazeConfig(dose=None).dose is None
    assert LearnerConfig(discount=0).discount == 0
