"""The benchmark: time by part, counted work, turns of measurements, and the plain PPO + RND."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from afterwit.agents.actor import Actor
from afterwit.agents.learner import Learner
from afterwit.agents.learner_config import LearnerConfig
from afterwit.agents.pipeline import Pipeline
from afterwit.agents.policy import PolicyConfig
from afterwit.envs.atari import AtariConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.benchmarks.learner_cost import Traffic, split, work
from afterwit.runs.benchmarks.ppo_rnd_baseline import PPORND, Running
from afterwit.runs.benchmarks.speed import (
    benchmark,
    frames_per_step,
    measure,
    median_ratio,
    shares,
    varied_configs,
)
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import RunConfig
from afterwit.world_models import WORLD_MODELS
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from tests.helpers import close, random_trajectory, seeded, tiny_spec, tiny_torso_config

CPU = torch.device("cpu")
SMALL = replace(maze(), env=MazeConfig(num_envs=4, episode_steps=17), unroll_length=5)


def learner(config: LearnerConfig) -> Learner:
    return Learner(config, tiny_spec(), 0, CPU)


HEAVY = {
    "world model: predictor": LearnerConfig(
        torso=tiny_torso_config(), world_model=BYOLExploreConfig(hidden=300_000)
    ),
    "world model: critic": LearnerConfig(
        torso=tiny_torso_config(),
        world_model=BYOLHindsightConfig(purity="critic", critic_embedding=20_000),
    ),
    "heads": LearnerConfig(
        torso=tiny_torso_config(),
        policy=PolicyConfig(hidden=200_000),
        world_model=BYOLExploreConfig(),
    ),
    "torso: encoder": LearnerConfig(
        torso=replace(tiny_torso_config(), hidden=300_000), world_model=BYOLExploreConfig()
    ),
}


@pytest.mark.parametrize("part", HEAVY)
def test_time_lands_on_the_part_that_took_it(part: str) -> None:
    heavy, tries = learner(HEAVY[part]), []
    for _ in range(3):  # another process may take the core in one of them
        shares = split(heavy, random_trajectory(), steps=1)
        assert sum(shares.values()) == pytest.approx(1)
        # the same encoder, once more
        mine = shares[part] + (shares["world model: target"] if part == "torso: encoder" else 0)
        # Two thirds of a layer's work are in its backward pass; the optimiser and the clipping of
        # gradients are heavy with it, too.
        tries.append(mine / (1 - shares["optimiser"]))
        if tries[-1] > 0.6:
            return
    raise AssertionError(tries)


def test_profiling_leaves_no_hook_behind() -> None:
    one = learner(HEAVY["heads"])
    split(one, random_trajectory(), steps=1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in one.modules())


def test_work_is_counted_as_it_is_done() -> None:
    small, large = (
        work(
            learner(
                LearnerConfig(
                    torso=tiny_torso_config(), world_model=BYOLExploreConfig(hidden=hidden)
                )
            ),
            random_trajectory(),
        )
        for hidden in (64, 128)
    )
    # 40 pairs (t, b) go through two layers, 10 -> hidden -> 11: forward, and backward to weights
    # and to inputs.
    assert large["flop"] - small["flop"] == 2 * 40 * 64 * (10 + 11) * 3
    with Traffic() as traffic:
        a, b = torch.zeros(3, 5), torch.zeros(5, 7)
        before = traffic.bytes
        (a.t().t() @ b).view(-1)
    assert before == 4 * (15 + 35), "two arrays were written"
    assert traffic.bytes - before == 4 * (15 + 35 + 21), (
        "a product reads both and writes one; views move nothing"
    )


def test_benchmark_measures_every_part(tmp_path: Path) -> None:
    result = benchmark(
        SMALL, seconds=0.05, grow=True, baseline=True, out=tmp_path / "speed.json", progress=False
    )
    rates = result["agent_steps_per_second"]
    assert {"acting", "learning", "whole loop"} < set(rates) and all(
        rate > 0 for rate in rates.values()
    )
    assert set(result["growth"]) == {
        *(name for name in WORLD_MODELS if name != "byol-hindsight"),
        "K = 2",
        "K = 2, stride 2",
        "K = 4",
        "K = 4, stride 4",
        "B = 2",
        "B = 8",
    }
    assert rates == {name: float(np.median(result["rounds"][name])) for name in rates}
    rounds = {name: np.array(values) for name, values in result["rounds"].items()}
    grew = result["growth"]["B = 8"]
    assert grew["seconds_per_step"] == pytest.approx(8 * 5 / np.median(rounds["B = 8"]))
    assert grew["x_as_given"] == pytest.approx(np.median(rounds["learning"] / rounds["B = 8"]))
    # E3B remembers a matrix of 64 x 64 doubles for each episode, RND nothing
    assert result["growth"]["e3b"]["bytes_per_environment"] == 64 * 64 * 8
    assert result["growth"]["rnd"]["bytes_per_environment"] == 0
    assert result["growth"]["B = 8"]["bytes_of_model"] == result["learner"]["bytes_of_model"] > 1e5
    assert result["ppo_rnd"]["whole_loop_over_it"] == pytest.approx(
        np.median(rounds["whole loop"] / rounds["plain PPO + RND"])
    )
    assert json.loads((tmp_path / "speed.json").read_text())["learner"] == result["learner"]


@pytest.mark.parametrize("config", (SMALL, replace(SMALL, actor_envs=1, actors=8, policy_lag=1)))
def test_what_grows_differs_in_one_thing_only(config: RunConfig) -> None:
    """Except for the actors: a learner alone needs only one."""
    config = replace(config, learner=replace(SMALL.learner, world_model=BYOLExploreConfig()))
    one = config.alone()
    for name, other in varied_configs(config):
        same_model = replace(
            one, learner=replace(one.learner, world_model=other.learner.world_model)
        )
        assert other == (replace(one, env=other.env) if name.startswith("B") else same_model)


def test_measurements_take_turns_and_count_what_was_done_since_the_warm_up() -> None:
    calls: list[str] = []

    def work(name: str, steps: int, seconds: float) -> int:
        calls.append(name)
        time.sleep(seconds)
        return steps

    works = {"a": lambda: work("a", 10, 0.02), "b": lambda: work("b", 30, 0.03)}
    found = measure(works, 0.5, lambda: calls.append("settled"), warm_ups=2)
    turns = " ".join(calls).split("settled ")[1:]
    assert [set(turn.split()) for turn in turns] == [{"a"}, {"b"}] * 5, "five rounds"
    assert min(len(turn.split()) for turn in turns) >= 2 + 3
    assert 200 < min(found["a"]) <= max(found["a"]) <= 500, "10 steps in 0.02 s"
    assert 400 < min(found["b"]) <= max(found["b"]) <= 1000


def test_a_lag_leaves_nothing_done_for_the_clock() -> None:
    """Batches that are ready when a measurement begins would count as done within it."""

    class Slow:
        device, num_envs = CPU, 4

        def set_weights(self, weights: object, version: int) -> None: ...

        def unroll(self) -> Any:
            time.sleep(0.02)
            return SimpleNamespace(action=torch.zeros(5, 4))

    line = Pipeline([cast(Actor, Slow())], 1, 4, 1)
    (rates,) = measure(
        {"acting": lambda: line.next({}, 0).action.numel()}, 1.0, line.wait, warm_ups=4
    ).values()
    line.close()
    assert max(rates) <= 1000


def test_shares_are_quotients_of_the_same_round() -> None:
    found = {
        "acting": [10.0, 20.0, 40.0],
        "learning": [20.0, 20.0, 20.0],
        "whole loop": [8.0, 10.0, 18.0],
        "stepping, 4 environments": [80.0] * 3,
    }
    ratios = shares(found, 4)
    assert ratios["the slower of the two"] == 0.8, "of 0.8, 0.5 and 0.9"
    assert ratios["acting and learning in turn"] == pytest.approx(8 * (1 / 10 + 1 / 20)), (
        "of 1.2, 1.0 and 1.35"
    )
    assert ratios["stepping alone"] == 10 / 80
    assert median_ratio([10.0, 30.0, 1.0], [10.0, 10.0, 10.0]) == 1.0


def test_a_cluster_is_measured_with_simulated_actors() -> None:
    with pytest.raises(
        ValueError, match=r"cluster is 'local', but this measures one process.*--simulated-actors"
    ):
        benchmark(replace(SMALL, cluster="local"), seconds=1)


def test_the_table_tells_rates_in_both_units_and_every_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = [
        "--env.num-envs",
        "4",
        "--unroll-length",
        "4",
        "--env.noise",
        "none",
        "--model",
        "byol-explore",
    ]
    assert main(["benchmark", "maze", *small, "--seconds", "0.01"]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("whole loop  ")).split()
    assert row[2] == row[3], "the maze has one frame a step"
    assert all(
        part in printed
        for part in (
            "torso: encoder",
            "world model: predictor",
            "optimiser",
            "GFLOP a step",
            "of stepping alone",
        )
    )
    assert frames_per_step(replace(SMALL, env=AtariConfig("Pong", frame_skip=3))) == 3


def test_the_yardsticks_advantages_are_generalised_ones() -> None:
    plain, random = PPORND(SMALL), torch.Generator().manual_seed(0)
    reward, value = torch.randn(6, 4, generator=random), torch.randn(7, 4, generator=random)
    over = torch.rand(6, 4, generator=random) < 0.3
    gains = plain.gains(reward, value, over, 0.9)
    for b in range(4):
        for t in range(6):
            gain, weight = 0.0, 1.0
            for k in range(t, 6):
                after = 0.0 if over[k, b] else 0.9 * value[k + 1, b]
                gain += weight * (reward[k, b] + after - value[k, b])
                if over[k, b]:
                    break
                weight *= 0.9 * 0.95
            close(gains[t, b], torch.as_tensor(gain))


def test_the_yardstick_learns() -> None:
    plain, random = seeded(lambda: PPORND(SMALL), 0), torch.Generator().manual_seed(0)
    assert plain.iterate() == 20
    for group in plain.optimiser.param_groups:
        group["lr"] = 3e-3
    obs = torch.randint(
        0, 256, (64, *plain.env.spec.observation_shape), generator=random, dtype=torch.uint8
    )
    action, goal = torch.randint(0, 5, (64,), generator=random), torch.full((64,), 3.0)

    def look() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            choice, value, intrinsic = plain.network(obs)
            seen = plain.whiten(obs)
            return (
                choice.log_prob(action),
                value,
                intrinsic,
                (plain.predictor(seen) - plain.fixed(seen)).square().mean(-1),
            )

    before = look()
    # not for long: the advantages stay, so that the policy, whose body the values share, never
    # comes to rest
    for _ in range(8):
        plain.learn([obs, action, look()[0], (action == 0).float(), goal, -goal, obs])
    after = look()
    assert (after[0] - before[0])[action == 0].mean() > 0.5, "what paid is done more often"
    assert (after[1] - 3).square().mean() < 0.3 * (before[1] - 3).square().mean()
    assert (after[2] + 3).square().mean() < 0.3 * (before[2] + 3).square().mean()
    assert after[3].mean() < 0.5 * before[3].mean(), "what was seen again is worth less"
    plain.close()


def test_running_moments_are_those_of_everything_seen() -> None:
    running, values = Running((2,)), np.random.default_rng(0).normal(3, 2, (30, 2))
    for chunk in (values[:3], values[3:4], values[4:]):
        running.update(chunk)
    np.testing.assert_allclose(running.mean, values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(running.variance, values.var(0), rtol=1e-3)


def test_a_measurement_needs_time() -> None:
    with pytest.raises(ValueError, match="seconds is 0"):
        benchmark(SMALL, seconds=0)
