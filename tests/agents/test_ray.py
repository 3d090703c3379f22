"""The cluster: the same results as in one process, and failures of actors and learners.

Two nodes are simulated on this machine.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

from afterwit.agents.cluster.remote_pipeline import RemoteTrajectory
from afterwit.agents.pipeline import LearnerLost
from afterwit.envs.gym import GymConfig
from afterwit.envs.maze import MazeConfig
from afterwit.envs.specs import EnvironmentFault
from afterwit.runs.benchmarks.cluster_cost import cluster_cost, table
from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import RunConfig, from_dict, to_dict, write_config
from afterwit.runs.training import checkpoint
from afterwit.runs.training.cluster_run import ClusterRun
from afterwit.runs.training.loop import train
from afterwit.runs.training.run import Run
from afterwit.runs.training.run_log import read_metrics
from tests.helpers import same

pytestmark = pytest.mark.xdist_group("ray")  # in one process of the tests, so one cluster

ONE = replace(
    maze(),
    env=MazeConfig(num_envs=4, episode_steps=17),
    total_steps=400,
    unroll_length=5,
    log_interval=100,
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of two nodes on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # no processes ahead of the actors that need them: each imports for seconds
    for setting in ("prestart_worker_first_driver", "enable_worker_prestart"):
        os.environ[f"RAY_{setting}"] = "0"
    cluster = Nodes(
        True,
        head_node_args={"num_cpus": 8, "object_store_memory": 2**27, "include_dashboard": False},
    )
    cluster.add_node(num_cpus=8, object_store_memory=2**27)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def start(nodes: Nodes) -> Iterator[Any]:
    """Makes a run on the cluster. It is closed after the test."""
    runs = []

    def make(**changes: Any) -> ClusterRun:
        runs.append(ClusterRun(replace(ONE, cluster=nodes.address, **changes)))
        return runs[-1]

    yield make
    for run in reversed(runs):  # the first is the one that connected
        run.close()


def metrics(run: Run, steps: int) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in run.step().items()} for _ in range(steps)]


@pytest.mark.parametrize(("lag", "actors", "actor_envs"), ((2, 1, 4), (0, 2, 2), (1, 3, 2)))
def test_with_one_learner_the_cluster_s_run_is_the_local_one(
    lag: int, actors: int, actor_envs: int, start: Any
) -> None:
    """Metrics, episodes, weights and environments are the same bit for bit."""
    changes = {"policy_lag": lag, "actors": actors, "actor_envs": actor_envs}
    local, remote = Run(replace(ONE, **changes)), start(**changes)
    assert metrics(remote, 12) == metrics(local, 12)
    assert same(remote.statistics.state(), local.statistics.state())
    local_state, remote_state = local.state(), remote.state()
    assert same(remote_state["learner"], local_state["learner"])
    assert same(remote_state["actor"], local_state["actor"])
    readings = remote.learner.inspect(remote.trajectory)
    for name, value in local.learner.inspect(local.trajectory).items():
        np.testing.assert_allclose(readings[name], value, rtol=1e-6)
    local.close()


def test_two_learners_are_one(start: Any) -> None:
    """Two learners of the same two actors give the local run, which has one.

    In lockstep a single different action would show in everything that follows.
    """
    two = start(actors=2, actor_envs=2, learners=2)
    one = Run(replace(ONE, actors=2, actor_envs=2))
    config = one.config
    for step, (single, double) in enumerate(zip(metrics(one, 20), metrics(two, 20), strict=True)):
        for name, value in single.items():
            # a KL, in units of what is allowed
            unit = (
                1 / config.learner.vmpo.trust_region_epsilon if name == "trust_region_ratio" else 1
            )
            assert double[name] == pytest.approx(value, rel=1e-3, abs=1e-4 * unit), (
                f"{name} at step {step}"
            )
    assert one.statistics.state()["time"] == two.statistics.state()["time"]
    one.close()


def test_actors_take_turns_and_are_as_late_as_the_lag_says(start: Any) -> None:
    run = start(actors=3, actor_envs=2, policy_lag=2, seed=5)
    pipeline = run.cluster.pipeline
    turns = []
    for step in range(6):
        batch = pipeline.ahead[0] if pipeline.ahead else None
        run.step()
        if batch is not None:
            assert [unroll.version for unroll in batch] == [max(0, step - 2) // 10] * 2
        turns.append(run.pipeline.environments.tolist())
        assert len(pipeline.ahead) == 2
    assert turns == [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]] * 2
    assert (
        isinstance(run.trajectory, RemoteTrajectory)
        and run.trajectory.obs.numel() == 0
        and len(run.trajectory.parts) == 2
    )
    seeds = {tuple(part["obs"].ravel()) for part in ray.get(list(run.trajectory.parts))}
    assert len(seeds) == 2


def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(start: Any, tmp_path: Path) -> None:
    whole = start(actors=2, policy_lag=2)
    metrics(whole, 7)
    checkpoint.save(tmp_path, whole.state())
    later = metrics(whole, 8)
    resumed = start(actors=2, policy_lag=2)
    resumed.load_state(checkpoint.load(tmp_path, resumed.config))
    assert metrics(resumed, 8) == later
    assert same(whole.statistics.state(), resumed.statistics.state())


def test_a_cluster_s_checkpoint_goes_on_here_and_the_other_way_round(
    start: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    remote = start(actors=2, policy_lag=2)
    metrics(remote, 3)
    local = Run(replace(ONE, policy_lag=2))
    local.load_state(remote.state())
    assert (
        same(local.learner.state(), remote.learner.state())
        and local.agent_steps == remote.agent_steps == 60
    )
    metrics(local, 2)
    remote.load_state(local.state())
    assert same(local.learner.state(), remote.learner.state())
    alike = Run(replace(ONE, actors=2, policy_lag=2))  # with as many actors, in the same episodes
    alike.load_state(remote.state())
    assert metrics(alike, 4) == metrics(remote, 4)
    assert same(alike.statistics.state(), remote.statistics.state())
    assert "is replaced" not in capfd.readouterr().err
    alike.close()
    local.close()


def test_environments_that_cannot_be_saved_start_new_episodes(start: Any) -> None:
    run = start(env=GymConfig("CartPole-v1", num_envs=4), actors=2, policy_lag=2)
    metrics(run, 3)
    state = run.state()
    run.load_state(state)
    assert not run.statistics.state()["arrays"]["length"].any()
    metrics(run, 1)


def process(actor: Any) -> int:
    pid: int = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    return pid


def test_an_actor_that_is_killed_is_replaced(start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run = start(actors=2, policy_lag=2)
    metrics(run, 3)
    os.kill(process(run.cluster.pipeline.actors[1]), signal.SIGKILL)
    assert all(np.isfinite(list(entry.values())).all() for entry in metrics(run, 4))
    assert run.cluster.pipeline.lives == [0, 1]
    assert capfd.readouterr().err.count("actor 1 is replaced: ") == 1
    assert run.agent_steps == 7 * 20  # no trajectory is missing


def test_what_is_here_already_is_not_asked_again(start: Any) -> None:
    """An actor dies when the first of its two pending trajectories has arrived.

    Then it dies when all of its pending trajectories are from a checkpoint.
    """
    run = start(policy_lag=2)
    pipeline = run.cluster.pipeline
    metrics(run, 2)
    (first,), (second,) = pipeline.ahead
    pipeline._receive(first)
    wholes = first.whole, second.whole
    pipeline._replace(0)
    assert first.whole is wholes[0] and second.whole is not wholes[1] and second.known is None
    metrics(run, 2)
    state = run.state()
    run.load_state(state)
    owed = [unroll.whole for batch in pipeline.ahead for unroll in batch]
    pipeline._replace(0)
    assert [unroll.whole for batch in pipeline.ahead for unroll in batch] == owed
    metrics(run, 2)


def test_an_actor_that_hangs_is_replaced(start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    run = start(actor_patience=15.0)
    metrics(run, 1)
    os.kill(process(run.cluster.pipeline.actors[0]), signal.SIGSTOP)
    metrics(run, 1)
    assert "actor 0 is replaced: gave nothing for 15 seconds" in capfd.readouterr().err


def test_an_environment_that_always_raises_stops_the_run_in_one_line(
    start: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Simulated: the actor raises at each call, since the weights belong to another network."""
    run = start(actor_patience=30.0)
    run.learner.acting = ray.put({"nothing": np.zeros(1)})
    with pytest.raises(
        EnvironmentFault, match="actor 0 was replaced 3 times in a row, the last time because: "
    ):
        run.step()
    assert capfd.readouterr().err.count("actor 0 is replaced: ") == 3


def test_a_lost_learner_is_told_and_training_goes_on_from_the_checkpoint(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kills = [8]  # the learner step before which a learner is killed
    step = ClusterRun.step

    def stepping(run: ClusterRun) -> Any:
        if kills and run.learner.steps == kills[0]:
            kills.clear()
            os.kill(process(run.cluster.learner.learners[1]), signal.SIGKILL)
        return step(run)

    monkeypatch.setattr(ClusterRun, "step", stepping)
    config: RunConfig = replace(
        ONE, cluster=nodes.address, actors=2, learners=2, checkpoint_interval=100
    )
    write_config(config, tmp_path / "run")
    assert train(tmp_path / "run", progress=False)
    assert not kills
    assert (
        "learner 1 failed: " in (message := capfd.readouterr().err)
        and "going on from the last checkpoint, at 100 agent steps" in message
    )
    assert [entry["agent_steps"] for entry in read_metrics(tmp_path / "run")] == [
        100,
        200,
        300,
        400,
    ]


def test_a_learner_lost_again_and_again_stops_the_run(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(run: ClusterRun) -> Any:
        raise LearnerLost("learner 1 failed: no more memory")

    monkeypatch.setattr(ClusterRun, "step", lost)
    write_config(replace(ONE, cluster=nodes.address), tmp_path / "run")
    with pytest.raises(
        ValueError, match="learner 1 failed: no more memory, twice after 0 agent steps"
    ):
        train(tmp_path / "run", progress=False)


def test_pairs_share_a_node(start: Any) -> None:
    run = start(actors=2, learners=2, actor_envs=2, placement="pairs")
    metrics(run, 2)
    where = [
        [
            ray.get(each.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id()))
            for each in processes
        ]
        for processes in (run.cluster.pipeline.actors, run.cluster.learner.learners)
    ]
    assert where[0] == where[1] and len(set(where[0])) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"learners": 2, "cluster": None}, "learners is 2, but that is for a cluster"),
        (
            {"actors": 1, "actor_envs": 2},
            "actors is 1, but 2 of 2 environments make a batch of 4; take at least 2, or larger",
        ),
        ({"learners": 3}, "learners is 3; it must divide env.num_envs, which is 4"),
        ({"actor_envs": 3}, "actor_envs is 3; it must divide a learner's 4"),
        (
            {"actors": 5, "policy_lag": 1},
            "actors is 5, but policy_lag 1 gives work to 2.*raise the lag to 5",
        ),
        ({"actors": 0}, "actors is 0"),
        ({"actor_patience": 0.0}, "actor_patience is 0.0"),
        (
            {"actors": 3, "policy_lag": 2, "actor_envs": 2, "placement": "pairs"},
            "'pairs', but actors is 3; .* multiple of the 2",
        ),
    ),
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ONE, **({"cluster": "local"} | changes))


def test_a_config_that_had_one_actor_by_default_is_read() -> None:
    """Until November 2026 the default was one actor, however many a batch needed."""
    config = replace(ONE, cluster="local", learners=2, actor_envs=1, policy_lag=1)
    assert from_dict(to_dict(config) | {"actors": 1}) == config
    assert from_dict(to_dict(ONE) | {"actors": 1}) == replace(ONE, actors=1)
    with pytest.raises(ValueError, match="learners is 3"):
        from_dict(to_dict(config) | {"actors": 1, "learners": 3})


def test_a_cluster_that_does_not_answer_is_told() -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(ValueError, match=r"cluster '127.0.0.1:9' does not answer"):
        ClusterRun(replace(ONE, cluster="127.0.0.1:9"))


def test_simulated_actors_feed_the_real_learner(nodes: Nodes, tmp_path: Path) -> None:
    """Actors that are asked for far too much saturate the learner.

    The predictions for real actors are arithmetic on the measured costs.
    """
    config = replace(ONE, cluster=nodes.address, actor_envs=2)
    result = cluster_cost(config, (3,), rate=1e7, seconds=0.2, out=tmp_path / "cost.json")
    (measured,), costs = result["measured"], result["costs"]
    assert measured["asked"] == 3e7 and 0 < measured["share"] < 0.5
    # T + 1 rows of 2 environments' observations, and more
    assert costs["trajectory_bytes"] > 6 * 2 * 8 * 5 * 5
    assert result["transport_seconds"] == pytest.approx(
        measured["seconds_per_batch"] - costs["learner_seconds"]
    )
    for row in result["predicted"]:
        assert row["acted"] == pytest.approx(row["actors"] * 10 / costs["acting_seconds"])
        assert row["reached"] == min(row["acted"], row["learnt"])
    text = table(json.loads((tmp_path / "cost.json").read_text()))
    assert "simulated actors" in text and "400" in text


def test_simulated_actors_need_a_cluster_and_sense() -> None:
    with pytest.raises(ValueError, match="need a cluster and one learner, not None and 1"):
        cluster_cost(ONE, (3,), 100.0, 1.0, None)
    with pytest.raises(ValueError, match=r"simulated_actors are \[0\] at 100.0"):
        cluster_cost(replace(ONE, cluster="local"), (0,), 100.0, 1.0, None)
