"""How fast: environments alone, acting alone, learning alone, and the whole loop; what a learner step is spent on, how it grows
with the config, and a plain PPO + RND beside it. Rates in agent steps per second."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from afterwit.agents.learner import Learner
from afterwit.agents.memory import keep_memory
from afterwit.envs.make import make_env
from afterwit.runs import learner_cost
from afterwit.runs.config import RunConfig, to_dict
from afterwit.runs.ppo_rnd import PPORND
from afterwit.runs.presets import PRESETS
from afterwit.runs.provenance import provenance
from afterwit.runs.train import Run
from afterwit.world_models.byol_explore import BYOLExploreConfig
from afterwit.world_models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.make import WORLD_MODELS
from afterwit.world_models.trajectory import Trajectory

HORIZONS = (1, 2, 4, 8)


def benchmark(
    config: RunConfig, seconds: float, grow: bool = False, baseline: bool = False, out: Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Measure `config`'s training loop, each part for about `seconds`, and write the numbers as JSON to `out`."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds is {seconds}; each measurement needs more than 0, and an end")
    keep_memory()  # as training does
    found: dict[str, Any] = {}
    jobs: list[tuple[str, Callable[[], Any]]] = [
        ("rates", partial(rates, config, seconds)),
        ("learner", lambda: cost(config, found["rates"]["learning"])),
    ]
    if grow:
        jobs += [(f"growth: {name}", partial(learner_rate, other, seconds)) for name, other in grown(config)]
    if baseline:
        jobs.append(("ppo_rnd", partial(baseline_rate, config, seconds)))
    bar = tqdm(jobs, unit="part", disable=not progress, file=sys.stdout)
    for name, job in bar:
        bar.set_description(name)
        found[name] = job()
    loop = found["rates"]["whole loop"]
    result = {
        "agent_steps_per_second": found["rates"],
        "frames_per_second": {name: rate * frames_per_step(config) for name, rate in found["rates"].items()},
        "whole_loop_share": shares(found["rates"], config.env.num_envs),
        "learner": found["learner"],
        "config": to_dict(config), "provenance": provenance(),
    }  # fmt: skip
    if grow:
        result["growth"] = {name: found[f"growth: {name}"] for name, _ in grown(config)}
    if baseline:
        result["ppo_rnd"] = {"agent_steps_per_second": found["ppo_rnd"], "whole_loop_over_it": loop / found["ppo_rnd"]}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def frames_per_step(config: RunConfig) -> int:
    return getattr(config.env, "frame_skip", 1)


def measure(work: Callable[[], int], seconds: float) -> float:
    """Agent steps per second of `work`, which returns how many it did; the median of five stretches, after a warm-up."""
    work()
    rates = []
    for _ in range(5):
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 5:
            steps += work()
        rates.append(steps / (time.perf_counter() - start))
    return float(np.median(rates))


def rates(config: RunConfig, seconds: float) -> dict[str, float]:
    """Agent steps per second of each part of the loop alone, and of the whole."""
    batch = config.env.num_envs
    found = {stepping_name(count): stepping(config, count, seconds) for count in (batch, 4 * batch, 8 * batch)}
    run = Run(config)
    trajectory = act(run)
    found["acting"] = measure(lambda: act(run).action.numel(), seconds)
    found["learning"] = measure(lambda: learn(run.learner, trajectory), seconds)
    found["whole loop"] = measure(lambda: whole(run), seconds)
    run.close()
    return found


def stepping_name(count: int) -> str:
    return f"stepping, {count} environments"


def shares(found: dict[str, float], batch: int) -> dict[str, float]:
    """The whole loop's rate over what could be: all in turn, the slower of acting and learning, and the emulator alone."""
    acting, learning, loop = found["acting"], found["learning"], found["whole loop"]
    return {
        "acting and learning in turn": loop * (1 / acting + 1 / learning),
        "the slower of the two": loop / min(acting, learning),
        "stepping alone": loop / found[stepping_name(batch)],
    }


def stepping(config: RunConfig, num_envs: int, seconds: float) -> float:
    """Agent steps per second of `num_envs` environments alone, with random actions drawn beforehand."""
    env = make_env(replace(config.env, num_envs=num_envs), config.seed)
    env.reset()
    actions = np.random.default_rng(config.seed).integers(0, env.spec.num_actions, (10, num_envs))

    def work() -> int:
        for action in actions:
            env.step(action)
        return int(actions.size)

    rate = measure(work, seconds)
    env.close()
    return rate


def act(run: Run) -> Trajectory:
    """The next batch, of all that act beside each other where there are several."""
    return run.pipeline.next(run.learner.acting, run.learner.version)


def learn(learner: Learner, trajectory: Trajectory) -> int:
    learner.update(trajectory)["loss"].item()
    return trajectory.action.numel()


def whole(run: Run) -> int:
    before = run.agent_steps
    run.step()
    return run.agent_steps - before


def cost(config: RunConfig, rate: float) -> dict[str, Any]:
    """A learner step that takes in `rate` agent steps a second: its time, where that goes, its arithmetic and traffic, and both
    against the device's ceilings."""
    run = Run(config)
    trajectory, spec = act(run), run.spec
    step_seconds = trajectory.action.numel() / rate
    done = learner_cost.work(Learner(config.learner, spec, config.seed, torch.device("cpu")), trajectory)
    device = run.learner.device
    result = {
        "seconds_per_step": step_seconds,
        "share_of_time": learner_cost.split(run.learner, trajectory),
        "flop_per_step": done["flop"], "bytes_per_step": done["bytes"],
        "flop_per_second": done["flop"] / step_seconds, "bytes_per_second": done["bytes"] / step_seconds,
        "ceilings": learner_cost.ceilings(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
    }  # fmt: skip
    run.close()
    return result


def grown(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """Configs that differ from `config` in one thing: world model, horizon K, or number of environments B."""
    yield "as given", config
    for name in WORLD_MODELS:
        model = PRESETS[config.preset](model=name).learner.world_model
        if type(model) is not type(config.learner.world_model):
            yield name, replace(config, learner=replace(config.learner, world_model=model))
    model = config.learner.world_model
    if isinstance(model, BYOLExploreConfig | BYOLHindsightConfig):
        for horizon in HORIZONS:
            if horizon != model.horizon and horizon < config.unroll_length:
                yield f"K = {horizon}", replace(config, learner=replace(config.learner, world_model=replace(model, horizon=horizon)))
    for factor in (0.5, 2):
        count = int(config.env.num_envs * factor)
        if count > 1:
            yield f"B = {count}", replace(config, env=replace(config.env, num_envs=count))


def learner_rate(config: RunConfig, seconds: float) -> dict[str, float]:
    """A learner's rate alone, and the seconds of one of its steps."""
    run = Run(config)
    trajectory = act(run)
    rate = measure(lambda: learn(run.learner, trajectory), seconds)
    run.close()
    return {"agent_steps_per_second": rate, "seconds_per_step": trajectory.action.numel() / rate}


def baseline_rate(config: RunConfig, seconds: float) -> float:
    """Agent steps per second of a plain synchronous PPO + RND on the same environments, with as large an encoder."""
    plain = PPORND(config)
    rate = measure(plain.iterate, seconds)
    plain.close()
    return rate


def table(result: dict[str, Any]) -> str:
    """The measurement as text."""
    rows = [f"{'':<30}{'agent steps/s':>16}{'frames/s':>16}"]
    for name, rate in result["agent_steps_per_second"].items():
        rows.append(f"{name:<30}{rate:>16,.0f}{result['frames_per_second'][name]:>16,.0f}")
    rows.append("whole loop: " + ", ".join(f"{share:.0%} of {what}" for what, share in result["whole_loop_share"].items()))
    if "ppo_rnd" in result:
        plain = result["ppo_rnd"]
        rows.append(
            f"plain PPO + RND: {plain['agent_steps_per_second']:,.0f}; the whole loop is {plain['whole_loop_over_it']:.1f} x as fast"
        )
    learner = result["learner"]
    rows += ["", f"a learner step: {learner['seconds_per_step'] * 1e3:,.1f} ms ({learner['device']})"]
    rows += [f"  {share:>6.1%}  {part}" for part, share in learner["share_of_time"].items()]
    top = learner["ceilings"]
    for unit, what in (("flop", "GFLOP"), ("bytes", "GB")):
        done, rate, ceiling = learner[f"{unit}_per_step"], learner[f"{unit}_per_second"], top[f"{unit}_per_second"]
        rows.append(
            f"  {done / 1e9:,.2f} {what} a step, {rate / 1e9:,.1f} {what}/s: {rate / ceiling:.0%} of the {ceiling / 1e9:,.0f} reached alone"
        )
    if "growth" in result:
        rows += ["", f"{'learning alone':<30}{'agent steps/s':>16}{'ms a step':>16}{'x as given':>16}"]
        base = result["growth"]["as given"]
        for name, row in result["growth"].items():
            factor = base["agent_steps_per_second"] / row["agent_steps_per_second"]
            rows.append(f"{name:<30}{row['agent_steps_per_second']:>16,.0f}{row['seconds_per_step'] * 1e3:>16,.1f}{factor:>16.2f}")
    return "\n".join(rows)
