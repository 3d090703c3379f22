"""The benchmark: time lands on the part that took it, work is counted as it is done, the yardstick is the algorithm it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from afterwit.agents.learner import Learner, LearnerConfig
from afterwit.agents.policy import PolicyConfig
from afterwit.envs.atari import AtariConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.benchmark import benchmark, frames_per_step, grown
from afterwit.runs.cli import main
from afterwit.runs.learner_cost import Traffic, split, work
from afterwit.runs.ppo_rnd import PPORND, Running
from afterwit.runs.presets import maze
from afterwit.world_models.byol_explore import BYOLExploreConfig
from afterwit.world_models.byol_hindsight import BYOLHindsightConfig
from tests.helpers import close, random_trajectory, seeded, tiny_spec, tiny_torso_config

CPU = torch.device("cpu")
SMALL = replace(maze(), env=MazeConfig(num_envs=4, episode_steps=17), unroll_length=5)


def learner(config: LearnerConfig) -> Learner:
    return Learner(config, tiny_spec(), 0, CPU)


HEAVY = {
    "world model: predictor": LearnerConfig(torso=tiny_torso_config(), world_model=BYOLExploreConfig(hidden=60_000)),
    "world model: critic": LearnerConfig(torso=tiny_torso_config(), world_model=BYOLHindsightConfig(critic_embedding=20_000)),
    "heads": LearnerConfig(torso=tiny_torso_config(), policy=PolicyConfig(hidden=200_000), world_model=BYOLExploreConfig()),
    "torso: encoder": LearnerConfig(torso=replace(tiny_torso_config(), hidden=100_000), world_model=BYOLExploreConfig()),
}


@pytest.mark.parametrize("part", HEAVY)
def test_time_lands_on_the_part_that_took_it(part: str) -> None:
    shares = split(learner(HEAVY[part]), random_trajectory(), steps=1)
    assert sum(shares.values()) == pytest.approx(1)
    mine = shares[part] + (shares["world model: target"] if part == "torso: encoder" else 0)  # the same encoder, once more
    # Two thirds of a layer's work are in its backward pass; the optimiser and the clipping of gradients are heavy with it, too.
    assert mine / (1 - shares["optimiser"]) > 0.6, shares


def test_profiling_leaves_no_hook_behind() -> None:
    one = learner(HEAVY["heads"])
    split(one, random_trajectory(), steps=1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in one.modules())


def test_work_is_counted_as_it_is_done() -> None:
    small, large = (
        work(learner(LearnerConfig(torso=tiny_torso_config(), world_model=BYOLExploreConfig(hidden=hidden))), random_trajectory())
        for hidden in (64, 128)
    )
    # 40 pairs (t, b) go through two layers, 10 -> hidden -> 11: forward, and backward to weights and to inputs.
    assert large["flop"] - small["flop"] == 2 * 40 * 64 * (10 + 11) * 3
    with Traffic() as traffic:
        a, b = torch.zeros(3, 5), torch.zeros(5, 7)
        before = traffic.bytes
        (a.t().t() @ b).view(-1)
    assert before == 4 * (15 + 35), "two arrays were written"
    assert traffic.bytes - before == 4 * (15 + 35 + 21), "a product reads both and writes one; views move nothing"


def test_benchmark_measures_every_part(tmp_path: Path) -> None:
    result = benchmark(SMALL, seconds=0.05, grow=True, baseline=True, out=tmp_path / "speed.json", progress=False)
    rates = result["agent_steps_per_second"]
    assert {"acting", "learning", "whole loop"} < set(rates) and all(rate > 0 for rate in rates.values())
    assert set(result["growth"]) == {"byol-explore", "rnd", "icm", "K = 2", "K = 4", "B = 2", "B = 8"}
    assert result["agent_steps_per_second"] == {name: float(np.median(result["rounds"][name])) for name in rates}
    assert json.loads((tmp_path / "speed.json").read_text())["learner"] == result["learner"]


def test_what_grows_differs_in_one_thing_only() -> None:
    for name, other in grown(SMALL):
        same_model = replace(SMALL, learner=replace(SMALL.learner, world_model=other.learner.world_model))
        assert other == (replace(SMALL, env=other.env) if name.startswith("B") else same_model)


def test_the_table_tells_rates_in_both_units_and_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--env.num-envs", "4", "--unroll-length", "4", "--env.noise", "none", "--model", "byol-explore"]
    assert main(["benchmark", "maze", *small, "--seconds", "0.01"]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("whole loop  ")).split()
    assert row[2] == row[3], "the maze has one frame a step"
    assert all(part in printed for part in ("torso: encoder", "world model: predictor", "optimiser", "GFLOP a step", "of stepping alone"))
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
    obs = torch.randint(0, 256, (64, *plain.env.spec.observation_shape), generator=random, dtype=torch.uint8)
    action, goal = torch.randint(0, 5, (64,), generator=random), torch.full((64,), 3.0)

    def look() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            choice, value, intrinsic = plain.network(obs)
            seen = plain.whiten(obs)
            return choice.log_prob(action), value, intrinsic, (plain.predictor(seen) - plain.fixed(seen)).square().mean(-1)

    before = look()
    for _ in range(8):  # not for long: the advantages stay, so that the policy, whose body the values share, never comes to rest
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
