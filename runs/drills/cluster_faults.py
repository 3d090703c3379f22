"""CLUSTER_FAULTS: the drill's faults on a local Ray cluster, added to those of faults.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from afterwit.runs.drills.child import Child
from afterwit.runs.drills.processes import family, workers
from afterwit.runs.drills.scene import MAZE, STEP, Scene, wait_until

PAIR = replace(MAZE, cluster="local", actors=2, actor_envs=2, policy_lag=1)
# A program with a cluster of two nodes on this machine. It prints their address, removes the second
# node when it reads a line, and ends when its stdin closes.
NODES = """
import sys
from ray.cluster_utils import Cluster
nodes = Cluster(True, head_node_args={"num_cpus": 2, "include_dashboard": False})
second = nodes.add_node(num_cpus=2)
print(nodes.address, flush=True)
if sys.stdin.readline():
    nodes.add_node(num_cpus=2)
    nodes.remove_node(second)
    sys.stdin.readline()
nodes.shutdown()
"""


def at_a_worker(scene: Scene, name: str, number: signal.Signals) -> Child:
    """Start a run, and send a signal to one of its processes called `name`."""
    child = scene.start_and_wait()
    wait_until(lambda: bool(workers(child.pid, name)), child)
    found = workers(child.pid, name)
    victim = found[int(scene.random.integers(len(found)))]
    scene.moment += f", {name} {found.index(victim)}"
    os.kill(victim, number)
    return child


def cluster_actor_killed(scene: Scene) -> None:
    """kill -9 of an actor on a cluster, in mid-unroll"""
    scene.config, scene.lost = PAIR, 0
    scene.finish(at_a_worker(scene, "ActorProcess", signal.SIGKILL), 0, " is replaced: ")


def cluster_actor_hangs(scene: Scene) -> None:
    """an actor on a cluster hangs"""
    scene.config, scene.lost = replace(PAIR, actor_patience=20.0), 0
    scene.finish(
        at_a_worker(scene, "ActorProcess", signal.SIGSTOP), 0, "gave nothing for 20 seconds"
    )


def cluster_learner_killed(scene: Scene) -> None:
    """kill -9 of a learner of two on a cluster"""
    scene.config = replace(PAIR, learners=2)
    # the run goes back to its last checkpoint by itself; the verdict compares the log
    scene.lost = scene.allowed
    scene.finish(
        at_a_worker(scene, "LearnerProcess", signal.SIGKILL),
        0,
        "; going on from the last checkpoint, at ",
    )


def cluster_driver_killed(scene: Scene) -> None:
    """kill -9 of a cluster's driver; its processes must end by themselves

    Two of Ray's own processes take a minute.
    """
    scene.config = PAIR
    child = scene.start_and_wait()
    wait_until(lambda: len(workers(child.pid, "ActorProcess")) == 2, child)
    processes = [pid for pid in family(child.pid) if pid != child.pid]
    child.signal(signal.SIGKILL)
    scene.finish(child, -signal.SIGKILL, "")
    ending = time.monotonic() + 120
    while any(family(pid) for pid in processes):
        if time.monotonic() > ending:
            raise RuntimeError(
                f"{sum(bool(family(pid)) for pid in processes)} of its {len(processes)} processes"
                " stayed behind"
            )
        time.sleep(0.5)


def cluster_node_removed(scene: Scene) -> None:
    """a node of a cluster of two is removed, with the actors and learners on it"""
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert nodes.stdin is not None and nodes.stdout is not None
    scene.closing.callback(nodes.communicate)  # ends it
    scene.config = replace(
        PAIR,
        cluster=nodes.stdout.readline().strip(),
        total_steps=20 * MAZE.total_steps,
        log_interval=STEP,
    )
    child = scene.start("slow")
    step, delay = int(scene.random.integers(2, 40)), float(scene.random.uniform(0, 0.1))
    wait_until(lambda: scene.logged() >= step * STEP, child)
    time.sleep(delay)
    scene.moment = f"{delay * 1000:.0f} ms after learner step {step}"
    nodes.stdin.write("\n")
    nodes.stdin.flush()
    scene.max_lines, scene.lost = 6, scene.allowed
    scene.finish(child, 0, ": ")


CLUSTER_FAULTS: dict[str, Callable[[Scene], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        cluster_actor_killed,
        cluster_actor_hangs,
        cluster_learner_killed,
        cluster_driver_killed,
        cluster_node_removed,
    )
}
