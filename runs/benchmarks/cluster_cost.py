"""Costs of many actors: each part measured, and the real learner under simulated actors."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from afterwit.envs.specs import EnvSpec
from afterwit.runs.benchmarks.speed import act, learn, measure
from afterwit.runs.configs.run_config import RunConfig, to_dict
from afterwit.runs.output.files import check_kind, checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.training.run import Run
from afterwit.world_models.trajectory import Trajectory

PREDICTED = (10, 50, 100, 400)


def cluster_cost(
    config: RunConfig, counts: Sequence[int], rate: float, seconds: float, out: Path | None
) -> dict[str, Any]:
    """Measure the costs, and the rates with simulated actors.

    Args:
      config: a run with a cluster and one learner.
      counts: numbers of simulated actors.
      rate: agent steps per second of each.
      seconds: for each measurement.
      out: JSON file. Unset: nothing is written.

    Raises:
      ValueError: the config has no cluster or several learners, or a number is too small.
    """
    if config.cluster is None or config.learners != 1:
        raise ValueError(
            f"simulated actors need a cluster and one learner, not {config.cluster} and"
            f" {config.learners}; add --cluster local"
        )
    if not rate > 0 or not seconds > 0 or min(counts) < 1:
        raise ValueError(
            f"simulated_actors are {list(counts)} at {rate} agent steps/s for {seconds} s; all of"
            " these must be above 0"
        )
    if min(counts) < config.actors_per_batch:
        raise ValueError(
            f"simulated_actors are {list(counts)}, but {config.actors_per_batch} actors make a"
            " batch; simulate at least as many"
        )
    check_kind(out, "transport_seconds")
    with checked_outputs(*([out] if out is not None else [])):
        return measure_costs(config, counts, rate, seconds, out)


def measure_costs(
    config: RunConfig, counts: Sequence[int], rate: float, seconds: float, out: Path | None
) -> dict[str, Any]:
    """Return what `cluster_cost` returns, measured and written."""
    bar = tqdm(total=1 + len(counts), unit="part", file=sys.stdout, dynamic_ncols=True)
    bar.set_description("costs")
    recorded, spec, costs = parts(config, seconds)
    bar.update()
    measured = []
    for count in counts:
        bar.set_description(f"{count} actors")
        measured.append(simulated(config, count, rate, seconds, recorded, spec))
        bar.update()
    bar.close()
    transport = (
        measured[-1]["seconds_per_batch"] - costs["learner_seconds"]
        if measured[-1]["share"] < 0.9
        else None
    )
    result = {
        "costs": costs,
        "transport_seconds": transport,
        "rate": rate,
        "measured": measured,
        "predicted": [
            {"actors": count, **predicted(config, costs, count, transport or 0.0)}
            for count in PREDICTED
        ],
        "config": to_dict(config),
        "provenance": provenance(),
    }
    if out is not None:
        write_json(out, result, indent=1)
    return result


def parts(config: RunConfig, seconds: float) -> tuple[Trajectory, EnvSpec, dict[str, float]]:
    """Measure one actor's trajectory, the weights, and a learner step, each alone in this process.

    Returns:
      The trajectory, its environments' spec, and bytes and seconds.
    """
    with ExitStack() as stack:
        acting, whole = Run(replace(config.alone(), env=config.actor_env)), Run(config.alone())
        stack.callback(acting.close)
        stack.callback(whole.close)
        trajectory, batch = act(acting), act(whole)
        works = {
            "acting": lambda: act(acting).action.numel(),
            "learning": lambda: learn(whole.learner, batch),
        }
        rate = {
            name: float(np.median(rates))
            for name, rates in measure(works, seconds, lambda: None).items()
        }
        weights = sum(value.nbytes for value in whole.learner.acting.values())
    fields = [value for value in trajectory.state().values() if isinstance(value, Tensor)]
    fields += trajectory.info.values()
    return (
        trajectory,
        acting.spec,
        {
            "trajectory_bytes": sum(value.nbytes for value in fields),
            "weights_bytes": weights,
            "acting_seconds": trajectory.action.numel() / rate["acting"],
            "learner_seconds": batch.action.numel() / rate["learning"],
        },
    )


def simulated(
    config: RunConfig, count: int, rate: float, seconds: float, recorded: Trajectory, spec: EnvSpec
) -> dict[str, float]:
    """Run the real learner on the cluster with `count` processes that replay `recorded`.

    Returns:
      The agent steps per second that were asked for and reached.
    """
    from afterwit.agents.cluster.cluster import Cluster  # imports ray
    from afterwit.runs.training.cluster_run import plan

    per_batch = config.actors_per_batch
    config = replace(config, actors=count, policy_lag=-(-count // per_batch))
    cluster = Cluster(plan(config), (recorded, spec, recorded.action.numel() / rate))
    try:
        for _ in range(2 * config.policy_lag):  # until all processes have started and run steadily
            step(cluster)
        batches, started = 0, time.perf_counter()
        while (taken := time.perf_counter() - started) < seconds or batches < 5:
            step(cluster)
            batches += 1
    finally:
        cluster.close()
    reached = batches * per_batch * recorded.action.numel() / taken
    return {
        "actors": count,
        "asked": count * rate,
        "reached": reached,
        "share": reached / (count * rate),
        "seconds_per_batch": taken / batches,
    }


def step(cluster: Any) -> None:
    cluster.learner.update(cluster.pipeline.next(cluster.learner.acting, cluster.learner.version))


def predicted(
    config: RunConfig, costs: dict[str, float], count: int, transport: float
) -> dict[str, float]:
    """Return the agent steps per second of `count` real actors with a core each.

    It is the smaller of what they act and what one learner takes.
    """
    acted = count * config.unroll_length * config.envs_per_actor / costs["acting_seconds"]
    learnt = config.unroll_length * config.env.num_envs / (costs["learner_seconds"] + transport)
    return {
        "acted": acted,
        "learnt": learnt,
        "reached": min(acted, learnt),
        "saturates_at": learnt / acted * count,
    }


def table(result: dict[str, Any]) -> str:
    """Return the measurement as text."""
    costs, transport = result["costs"], result["transport_seconds"]
    transport_text = (
        "hidden by the actors' rate" if transport is None else f"{transport * 1e3:,.1f} ms a batch"
    )
    rows = [
        (
            f"an actor's trajectory {costs['trajectory_bytes'] / 2**20:,.2f} MiB, acted in"
            f" {costs['acting_seconds'] * 1e3:,.1f} ms; weights"
            f" {costs['weights_bytes'] / 2**20:,.2f} MiB"
        ),
        (
            f"a learner step {costs['learner_seconds'] * 1e3:,.1f} ms alone; transport and driver:"
            f" {transport_text}"
        ),
        "",
        f"{'simulated actors':<20}{'asked, agent steps/s':>24}{'reached':>12}{'share':>8}",
    ]
    rows += [
        f"{row['actors']:<20}{row['asked']:>24,.0f}{row['reached']:>12,.0f}{row['share']:>8.0%}"
        for row in result["measured"]
    ]
    rows += ["", f"{'real actors':<20}{'they act':>24}{'a learner takes':>18}{'so':>12}"]
    rows += [
        f"{row['actors']:<20}{row['acted']:>24,.0f}{row['learnt']:>18,.0f}{row['reached']:>12,.0f}"
        for row in result["predicted"]
    ]
    rows.append(
        f"one learner is busy from {result['predicted'][0]['saturates_at']:.1f} actors on, of a"
        " core each"
    )
    return "\n".join(rows)
