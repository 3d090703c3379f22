"""Whole runs whose embeddings have an objective of their own: derivative targets and IsoLoss."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import RunConfig, write_config
from afterwit.runs.training import checkpoint
from afterwit.runs.training.loop import train
from afterwit.runs.training.run import Run
from afterwit.runs.training.run_log import read_metrics
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from tests.helpers import same

OBJECTIVES = {
    "change": ({"target_view": "change"}, "still/target"),
    "acceleration": ({"target_view": "acceleration"}, "still/target"),
    "alternating": ({"target_view": "alternating"}, "still/target"),
    "isoloss": ({"predictor": "direct-pred", "predictor_isotropic": True}, "align/commutator"),
    "stride": ({"horizon": 3, "stride": 3}, "learner/model_reconstruction"),
}


def small(fields: dict[str, Any]) -> RunConfig:
    config = maze("byol-explore", "pixel")
    world_model = BYOLExploreConfig(**fields)
    return replace(
        config,
        env=replace(config.env, num_envs=4, episode_steps=17),
        learner=replace(config.learner, world_model=world_model),
        total_steps=400,
        unroll_length=5,
        log_interval=100,
        checkpoint_interval=200,
        threads=1,
    )


def finished(config: RunConfig, folder: Path) -> dict[str, Any]:
    """The learner's state at the end of a run in `folder`, which may have begun."""
    assert train(folder, progress=False)
    state: dict[str, Any] = checkpoint.load(folder, config)["learner"]
    return state


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_trains_is_paid_and_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    """Episodes of 17 steps end inside unrolls of 5, so windows of frames are cut everywhere."""
    fields, instrument = OBJECTIVES[name]
    config = small(fields)
    assert isinstance(config.env, MazeConfig)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        write_config(config, folder)
    run = Run(config)
    for _ in range(11):  # inside an episode, and of alternating inside a cycle
        run.step()
    checkpoint.save(halves, run.state())
    assert same(finished(config, whole), finished(config, halves))
    entries = read_metrics(whole)
    assert [entry["agent_steps"] for entry in entries] == [100, 200, 300, 400]
    for entry in entries:
        numbers = {k: v for k, v in entry.items() if isinstance(v, float)}
        broken = [key for key, value in numbers.items() if not math.isfinite(value)]
        assert not broken and instrument in entry
    assert entries[-1]["learner/model_reconstruction"] < entries[0]["learner/model_reconstruction"]
