"""Marks: `slow` is left out of `make quick`, `thorough` of `make test`. `gpu` needs a GPU.

`make thorough` runs everything; so does `pytest -m ""`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests run at a time, with their processes

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

# Tests that take seconds and repeat with other values what a test that is not listed here shows,
# or start many processes to watch a fault that is rare.
THOROUGH = (
    "agents/test_device.py::"
    "test_a_learner_off_the_host_leaves_nothing_there_and_waits_for_nothing[all",
    "agents/test_pipeline.py::test_several_actors_do_what_they_would_one_after_the_other[2-2-0]",
    "agents/test_pipeline.py::test_several_actors_do_what_they_would_one_after_the_other[3-4-3]",
    "agents/test_pipeline.py::test_where_there_is_glibc_memory_is_kept",
    "agents/test_ray.py::test_a_cluster_s_checkpoint_goes_on_here_and_the_other_way_round",
    "agents/test_ray.py::test_a_learner_lost_again_and_again_stops_the_run",
    "agents/test_ray.py::test_a_lost_learner_is_told_and_training_goes_on_from_the_checkpoint",
    "agents/test_ray.py::test_actors_take_turns_and_are_as_late_as_the_lag_says",
    "agents/test_ray.py::test_an_actor_that_hangs_is_replaced",
    "agents/test_ray.py::test_an_environment_that_always_raises_stops_the_run_in_one_line",
    "agents/test_ray.py::test_environments_that_cannot_be_saved_start_new_episodes",
    "agents/test_ray.py::test_pairs_share_a_node",
    "agents/test_ray.py::test_what_is_here_already_is_not_asked_again",
    "agents/test_ray.py::test_with_one_learner_the_cluster_s_run_is_the_local_one[0-2-2]",
    "agents/test_ray.py::test_with_one_learner_the_cluster_s_run_is_the_local_one[2-1-4]",
    "envs/test_atari.py::test_sticky_actions_are_the_emulators_own_drawn_on_every_frame[0.0-3]",
    "envs/test_atari.py::test_sticky_actions_are_the_emulators_own_drawn_on_every_frame[0.1-4]",
    "envs/test_atari.py::test_sticky_actions_follow_their_probability_on_every_frame[0.1]",
    "envs/test_atari_ale.py::test_the_two_agree_bit_for_bit_until_an_episode_ends[colours]",
    "envs/test_atari_ale.py::test_the_two_agree_bit_for_bit_until_an_episode_ends[endings]",
    "envs/test_atari_ale.py::test_the_two_agree_bit_for_bit_until_an_episode_ends[few actions]",
    "envs/test_atari_ale.py::test_the_two_agree_bit_for_bit_until_an_episode_ends[limit]",
    "envs/test_atari_ale.py::test_the_two_agree_bit_for_bit_until_an_episode_ends[noise]",
    "envs/test_atari_ale.py::test_the_two_agree_bit_for_bit_until_an_episode_ends[rewards]",
    "envs/test_atari_ale.py::test_the_two_agree_bit_for_bit_until_an_episode_ends[rooms]",
    "envs/test_atari_noise.py::"
    "test_the_game_below_goes_on_unchanged_and_only_the_strip_is_covered[False-frozen]",
    "envs/test_atari_noise.py::"
    "test_the_game_below_goes_on_unchanged_and_only_the_strip_is_covered[False-pixel]",
    "envs/test_atari_noise.py::"
    "test_the_game_below_goes_on_unchanged_and_only_the_strip_is_covered[True-",
    "envs/test_atari_sound.py::test_it_plays_envpool_s_games[Freeway-settings3]",
    "envs/test_atari_sound.py::test_it_plays_envpool_s_games[MontezumaRevenge-settings1]",
    "envs/test_env_contract.py::TestColourfulStackedPongOnALE::",
    "envs/test_env_contract.py::TestMontezuma::",
    "envs/test_env_contract.py::TestStackedQbertWithSound::",
    "envs/test_maze.py::test_the_view_is_the_map_around_the_agent_under_the_noise[brownian-",
    "envs/test_maze.py::test_the_view_is_the_map_around_the_agent_under_the_noise[frozen-",
    "envs/test_maze.py::test_the_view_is_the_map_around_the_agent_under_the_noise[sticky-",
    "envs/test_minigrid_labels.py::"
    "test_labels_are_what_the_grid_and_the_view_show[minigrid:MiniGrid-DoorKey-5x5-v0-1]",
    "envs/test_minigrid_labels.py::"
    "test_labels_are_what_the_grid_and_the_view_show[minigrid:MiniGrid-LockedRoom-v0-6]",
    "envs/test_minigrid_labels.py::"
    "test_labels_are_what_the_grid_and_the_view_show[minigrid:MiniGrid-MultiRoom-N4-S5-v0-5]",
    "examples/test_foreign_libraries.py::"
    "test_the_agent_learns_from_the_bonus_and_from_nothing_else[sb3-dqn]",
    "examples/test_self_prediction.py::"
    "test_with_one_predictor_the_mean_counts_and_with_two_the_mean_square[1]",
    "examples/test_self_prediction.py::"
    "test_with_one_predictor_the_mean_counts_and_with_two_the_mean_square[2]",
    "runs/benchmarks/test_speed.py::test_time_lands_on_the_part_that_took_it[heads]",
    "runs/benchmarks/test_speed.py::test_time_lands_on_the_part_that_took_it[torso: encoder]",
    "runs/diagnostics/test_latent_swap.py::"
    "test_every_kind_of_world_is_measured_and_drawn[channels]",
    "runs/diagnostics/test_latent_swap.py::test_every_kind_of_world_is_measured_and_drawn[sticky",
    "runs/evaluation/test_kept_results.py::"
    "test_a_result_is_replaced_by_the_same_settings_alone[greedy]",
    "runs/evaluation/test_kept_results.py::"
    "test_a_result_is_replaced_by_the_same_settings_alone[limit]",
    "runs/evaluation/test_kept_results.py::"
    "test_a_result_is_replaced_by_the_same_settings_alone[rules]",
    "runs/output/test_streams.py::"
    "test_a_folder_of_any_name_is_trained_resumed_and_looked_at[two words]",
    "runs/output/test_streams.py::test_a_run_outlives_its_reader_and_its_streams",
    "runs/reports/test_comparison_page.py::test_a_file_of_another_origin_is_kept[summary",
    "runs/representation/test_objectives.py::test_small_worlds_are_compared_by_their_own_names",
    "runs/studies/test_ledger.py::test_a_bonus_of_ones_own_joins_by_its_name",
    "runs/studies/test_run_study.py::test_a_cell_that_fails_is_named_and_the_others_are_finished",
    "runs/studies/test_run_study.py::test_a_killed_study_leaves_no_orphans_and_goes_on[2]",
    "world_models/test_data_parallel.py::test_they_do_what_one_does[3-",
    "world_models/test_isoloss.py::test_models_learn_with_it_and_it_changes_them[foresight",
    "world_models/test_isoloss.py::test_models_learn_with_it_and_it_changes_them[unit",
    "world_models/test_step_window.py::"
    "test_failures_cost_a_few_updates_and_no_room[AutoresetMode.DISABLED-",
    "world_models/test_world_models.py::"
    "test_at_first_it_pays_little_and_in_the_end_nothing[disagreement]",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if name.startswith(THOROUGH):
            item.add_marker(pytest.mark.thorough)
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))
