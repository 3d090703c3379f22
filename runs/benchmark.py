"""How fast: environments alone, acting alone, learning alone, and the whole loop. Rates in agent steps per second."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from afterwit.envs.make import make_env
from afterwit.runs.config import RunConfig, to_dict
from afterwit.runs.memory import keep_memory
from afterwit.runs.provenance import provenance
from afterwit.runs.train import Run


def benchmark(config: RunConfig, seconds: float, out: Path | None, progress: bool = True) -> dict[str, Any]:
    """Measure the parts of `config`'s training loop, each for about `seconds`, and write them as JSON to `out`."""
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}; each measurement needs more than 0")
    keep_memory()  # as training does
    run = Run(config)
    frames = run.env.spec.frames_per_step
    trajectory = run.actor.unroll()
    batch = config.env.num_envs
    parts: dict[str, Callable[[], int]] = {
        "acting": lambda: run.actor.unroll().action.numel(),
        "learning": lambda: learn(run, trajectory),
        "whole loop": lambda: whole(run),
    }
    rates = {f"stepping, {count} environments": stepping(config, count, seconds) for count in (batch, 4 * batch, 8 * batch)}
    for name, work in tqdm(parts.items(), desc="benchmark", unit="part", disable=not progress, file=sys.stdout):
        rates[name] = measure(work, seconds)
    possible = 1 / (1 / rates["acting"] + 1 / rates["learning"])
    result = {
        "agent_steps_per_second": rates,
        "frames_per_second": {name: rate * frames for name, rate in rates.items()},
        "whole_loop_share_of_lockstep": rates["whole loop"] / possible,
        "whole_loop_share_of_slower_part": rates["whole loop"] / min(rates["acting"], rates["learning"]),
        "config": to_dict(config), "provenance": provenance(),
    }  # fmt: skip
    run.close()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


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


def learn(run: Run, trajectory: Any) -> int:
    run.learner.update(trajectory)["loss"].item()
    return int(trajectory.action.numel())


def whole(run: Run) -> int:
    before = run.agent_steps
    run.step()
    return run.agent_steps - before


def table(result: dict[str, Any]) -> str:
    """The measurement as text: one row a part."""
    rows = [f"{'':<30}{'agent steps/s':>16}{'frames/s':>16}"]
    for name, rate in result["agent_steps_per_second"].items():
        rows.append(f"{name:<30}{rate:>16,.0f}{result['frames_per_second'][name]:>16,.0f}")
    rows.append(f"whole loop: {result['whole_loop_share_of_lockstep']:.0%} of acting and learning in turn, "
                f"{result['whole_loop_share_of_slower_part']:.0%} of the slower of the two")  # fmt: skip
    return "\n".join(rows)
