"""Marks: `slow` is left out of `make quick`, `gpu` needs a GPU and is skipped without one."""

from __future__ import annotations

import pytest
import torch

# Files and tests that took a second or more when they were measured (pytest --durations=0). Many
# start processes: Ray, studies, killed runs.
SLOW = (
    "agents/test_device.py",
    "agents/test_pipeline.py",
    "agents/test_ray.py",
    "agents/test_vmpo.py::test_it_finds_the_best_arm_of_a_bandit",
    "agents/test_vmpo.py::test_the_trust_region_is_met_in_closed_loop",
    "agents/test_learner.py::test_extrinsic_rewards_are_of_order_one_in_any_unit",
    "envs/test_atari.py",
    "envs/test_atari_ale.py",
    "envs/test_atari_noise.py",
    "envs/test_env_contract.py::TestColourfulStackedPongOnALE",
    "envs/test_maze.py::test_how_far_a_random_policy_gets",
    "envs/test_maze.py::test_the_view_is_the_map_around_the_agent_under_the_noise",
    "envs/test_maze_branches.py::test_how_far_a_random_policy_gets",
    "envs/test_minigrid.py",
    "envs/test_user_envs.py",
    "house/test_wheel.py",
    "properties/",
    "runs/benchmarks/",
    "runs/diagnostics/",
    "runs/drills/",
    "runs/evaluation/",
    "runs/output/test_streams.py",
    "runs/reports/test_comparison_page.py::test_many_methods_and_seeds",
    "runs/studies/",
    "runs/training/",
    "world_models/test_byol_learning.py",
    "world_models/test_data_parallel.py",
    "world_models/test_registry.py::test_an_own_model_trains_goes_on_is_evaluated_and_reported",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))
