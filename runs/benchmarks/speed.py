"""Speed of training in agent steps per second: environments, acting, learning, the whole loop.

Also the parts of a learner step, its growth with the config, and a plain PPO + RND.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from afterwit.agents.learner import Learner
from afterwit.agents.malloc_settings import keep_memory
from afterwit.envs.make import make_env
from afterwit.envs.specs import EnvSpec
from afterwit.runs.benchmarks import learner_cost
from afterwit.runs.benchmarks.ppo_rnd_baseline import PPORND
from afterwit.runs.configs.overrides import changed
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.configs.run_config import RunConfig, to_dict
from afterwit.runs.output.files import check_kind, checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.training.closing import with_safe_close
from afterwit.runs.training.run import Run
from afterwit.world_models.registry import WORLD_MODELS
from afterwit.world_models.trajectory import Trajectory

HORIZONS = (1, 2, 4, 8)
ROUNDS = 5
BASELINE = "plain PPO + RND"
# does a part of the work and returns how many agent steps that was
Work = Callable[[], int]


def benchmark(
    config: RunConfig,
    seconds: float,
    grow: bool = False,
    baseline: bool = False,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a training loop, each part for about `seconds`.

    Args:
      config: the run, without a cluster.
      seconds: for each measurement.
      grow: whether to measure other models, horizons and batch sizes too.
      baseline: whether to measure the plain PPO + RND too.
      out: JSON file. Unset: nothing is written.
      progress: whether to show a progress bar.

    Returns:
      The numbers, as written to `out`.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds is {seconds}; each measurement needs more than 0, and an end")
    if config.cluster is not None:
        raise ValueError(
            f"cluster is {config.cluster!r}, but this measures one process; leave --cluster out, or"
            " add --simulated-actors 10 50 100"
        )
    keep_memory()  # as training does
    check_kind(out, "agent_steps_per_second")
    with checked_outputs(*([out] if out is not None else [])):
        result = measured(config, seconds, grow, baseline, progress)
        if out is not None:
            write_json(out, result)
    return result


def measured(
    config: RunConfig, seconds: float, grow: bool, baseline: bool, progress: bool
) -> dict[str, Any]:
    """Return what `benchmark` returns."""
    variants = dict(varied_configs(config)) if grow else {}
    with ExitStack() as stack:
        run = Run(config)
        stack.callback(run.close)
        trajectory = act(run)
        parts = loop_parts(config, run, trajectory, stack)
        works = parts | {name: learning(other) for name, other in variants.items()}
        if baseline:
            works[BASELINE] = plain_ppo_rnd(config, stack)
        found = measure(works, seconds, run.pipeline.wait, max(1, config.policy_lag), progress)
        rate = {name: float(np.median(rates)) for name, rates in found.items()}
        learner = cost(config, run, trajectory, rate["learning"])
        kept = {
            name: learner_cost.memory(fresh(other, run.spec)) for name, other in variants.items()
        }
    loop = {name: rate[name] for name in parts}
    result: dict[str, Any] = {
        "agent_steps_per_second": loop,
        "frames_per_second": {
            name: value * frames_per_step(config) for name, value in loop.items()
        },
        "whole_loop_share": shares(found, config.env.num_envs),
        "learner": learner,
    }
    if grow:
        result["growth"] = {
            name: {
                "agent_steps_per_second": rate[name],
                "seconds_per_step": other.env.num_envs * config.unroll_length / rate[name],
                "x_as_given": median_ratio(found["learning"], found[name]),
                **kept[name],
            }
            for name, other in variants.items()
        }
    if baseline:
        result["ppo_rnd"] = {
            "agent_steps_per_second": rate[BASELINE],
            "whole_loop_over_it": median_ratio(found["whole loop"], found[BASELINE]),
        }
    return result | {"rounds": found, "config": to_dict(config), "provenance": provenance()}


def frames_per_step(config: RunConfig) -> int:
    return getattr(config.env, "frame_skip", 1)


def measure(
    works: Mapping[str, Work],
    seconds: float,
    settle: Callable[[], None],
    warm_ups: int = 1,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Return the agent steps per second of each of `works`, once per round.

    The works take turns in ROUNDS stretches of `seconds` / ROUNDS. If something else slows the
    machine for a while, it slows all works alike. So the ratio of two rates in the same round is
    more reliable than that of two medians.

    Args:
      works: name -> a function that does some work and returns its agent steps.
      seconds: for each work, over all rounds.
      settle: called before each stretch, to end work in the background.
      warm_ups: calls before each stretch, to use up the batches that a policy lag holds ready.
      progress: whether to show a progress bar.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    with tqdm(
        total=ROUNDS * len(works),
        unit="stretch",
        disable=not progress,
        dynamic_ncols=True,
        file=sys.stdout,
    ) as bar:
        for _ in range(ROUNDS):
            for name, work in works.items():
                bar.set_description(name)
                settle()
                for _ in range(warm_ups):
                    work()
                start, steps = time.perf_counter(), 0
                while time.perf_counter() - start < seconds / ROUNDS:
                    steps += work()
                found[name].append(steps / (time.perf_counter() - start))
                bar.update()
    return found


def median_ratio(rates: ArrayLike, others: ArrayLike) -> float:
    """Return how many times as fast as `others` it is: the median over the rounds."""
    return float(np.median(np.asarray(rates) / np.asarray(others)))


def loop_parts(
    config: RunConfig, run: Run, trajectory: Trajectory, stack: ExitStack
) -> dict[str, Work]:
    """Return each part of the training loop alone, and the whole loop."""
    batch = config.env.num_envs

    def whole() -> int:
        before = run.agent_steps
        run.step()
        return run.agent_steps - before

    return {
        **{
            stepping_name(count): stepping(config, count, stack)
            for count in (batch, 4 * batch, 8 * batch)
        },
        "acting": lambda: act(run).action.numel(),
        "learning": lambda: learn(run.learner, trajectory),
        "whole loop": whole,
    }


def stepping_name(count: int) -> str:
    return f"stepping, {count} environments"


def shares(found: Mapping[str, Sequence[float]], batch: int) -> dict[str, float]:
    """Return the whole loop's rate over three limits.

    They are acting and learning in turn, the slower of the two, and stepping alone.
    """
    acting, learning = np.array(found["acting"]), np.array(found["learning"])
    could_be = {
        "acting and learning in turn": 1 / (1 / acting + 1 / learning),
        "the slower of the two": np.minimum(acting, learning),
        "stepping alone": found[stepping_name(batch)],
    }
    return {name: median_ratio(found["whole loop"], rates) for name, rates in could_be.items()}


def stepping(config: RunConfig, num_envs: int, stack: ExitStack) -> Work:
    """Return work that steps `num_envs` environments with random actions drawn beforehand."""
    env = with_safe_close(make_env(replace(config.env, num_envs=num_envs), config.seed))
    stack.callback(env.close)
    env.reset()
    actions = np.random.default_rng(config.seed).integers(0, env.spec.num_actions, (10, num_envs))

    def work() -> int:
        for action in actions:
            env.step(action)
        return int(actions.size)

    return work


def act(run: Run) -> Trajectory:
    """Return the next batch, from all actors that make it."""
    return run.pipeline.next(run.learner.acting, run.learner.version)


def learn(learner: Learner, trajectory: Trajectory) -> int:
    """Take a learner step. Returns its agent steps."""
    learner.update(trajectory)["loss"].item()
    return trajectory.action.numel()


def learning(config: RunConfig) -> Work:
    """Return work that takes learner steps of another config."""
    run = Run(config)
    trajectory = act(run)
    run.close()
    return lambda: learn(run.learner, trajectory)


def plain_ppo_rnd(config: RunConfig, stack: ExitStack) -> Work:
    """Return work that trains the plain PPO + RND on the same environments."""
    plain = PPORND(config)
    stack.callback(plain.close)
    return plain.iterate


def cost(config: RunConfig, run: Run, trajectory: Trajectory, rate: float) -> dict[str, Any]:
    """Return the costs of a learner step: its time by part, its arithmetic and traffic.

    Both stand beside the device's limits. `rate` is in agent steps per second.
    """
    run.pipeline.wait()
    step_seconds = trajectory.action.numel() / rate
    learner = fresh(config, run.spec)
    kept = learner_cost.memory(learner)
    done = learner_cost.work(learner, trajectory)
    device = run.learner.device
    return {
        **kept,
        "seconds_per_step": step_seconds,
        "share_of_time": learner_cost.split(run.learner, trajectory),
        "flop_per_step": done["flop"],
        "bytes_per_step": done["bytes"],
        "flop_per_second": done["flop"] / step_seconds,
        "bytes_per_second": done["bytes"] / step_seconds,
        "ceilings": learner_cost.ceilings(device),
        "device": (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"CPU, {torch.get_num_threads()} threads"
        ),
    }


def fresh(config: RunConfig, spec: EnvSpec) -> Learner:
    """Return a learner on the CPU for all of a run's environments, which has seen nothing."""
    spec = replace(spec, num_envs=config.env.num_envs)
    return Learner(config.learner, spec, config.seed, torch.device("cpu"))


def varied_configs(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """Yield names and configs of learners that differ from `config` in one field.

    The field is the world model, the horizon K, or the number of environments B. With a horizon
    also the stride, where the model allows it. All have one actor.
    """
    config = config.alone()
    for name in WORLD_MODELS:
        model = PRESETS[config.preset](model=name).learner.world_model
        if type(model) is not type(config.learner.world_model):
            yield name, replace(config, learner=replace(config.learner, world_model=model))
    current = getattr(config.learner.world_model, "horizon", None)
    for horizon in HORIZONS if current is not None else ():
        if horizon != current and horizon < config.unroll_length:
            ahead = changed(config, {"learner.world_model.horizon": horizon})
            yield f"K = {horizon}", ahead
            with suppress(ValueError):  # published forms have no stride
                name = f"K = {horizon}, stride {horizon}"
                yield name, changed(ahead, {"learner.world_model.stride": horizon})
    for factor in (0.5, 2):
        count = int(config.env.num_envs * factor)
        if count > 1:
            yield f"B = {count}", replace(config, env=replace(config.env, num_envs=count))
