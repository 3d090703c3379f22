"""The pipeline: which weights act which trajectory, acting beside learning, and failures."""

from __future__ import annotations

import subprocess
import sys
import threading
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from afterwit.agents import Actor, Learner
from afterwit.agents.actor import actor_seed
from afterwit.agents.pipeline import Pipeline
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.runs.configs.presets import maze
from afterwit.runs.training.run import Run
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.trajectory import join_trajectories
from tests.helpers import same

CONFIG = replace(
    maze(), env=MazeConfig(num_envs=4, episode_steps=17), total_steps=400, unroll_length=5
)


class FakeActor:
    """An actor whose trajectories record the weights and the thread that acted them."""

    device, num_envs = torch.device("cpu"), 4

    def __init__(self, breaks_at: int = 1000) -> None:
        self.made, self.breaks_at, self.version = 0, breaks_at, -1
        self.may_act = threading.Event()
        self.may_act.set()

    def set_weights(self, weights: object, version: int) -> None:
        self.version = version

    def unroll(self) -> tuple[int, int, str]:
        assert self.may_act.wait(10)
        if self.made == self.breaks_at:
            raise RuntimeError("the game broke")
        self.made += 1
        return self.made - 1, self.version, threading.current_thread().name


def pipeline(actor: FakeActor, lag: int) -> Any:
    return Pipeline([cast(Actor, actor)], 1, lag, 1)


@pytest.mark.parametrize("lag", (0, 1, 3))
def test_trajectory_n_is_acted_with_the_weights_of_n_minus_lag(lag: int) -> None:
    actor = FakeActor()
    pipe = pipeline(actor, lag)
    for step in range(10):
        number, version, thread = pipe.next({}, step)
        assert (number, version) == (step, max(0, step - lag))
        assert thread.startswith("actor") == (lag > 0)
    pipe.close()
    assert 10 <= actor.made <= 10 + lag


def test_the_actor_works_while_the_learner_does() -> None:
    actor = FakeActor()
    pipe = pipeline(actor, 1)
    pipe.next({}, 0)
    for step in range(1, 4):
        pipe.ahead[0][0][1].result(timeout=10)  # acted, though nobody has asked for it yet
        assert actor.made == step + 1
        actor.may_act.clear()
        assert pipe.next({}, step)[0] == step  # does not wait for the one after it
        actor.may_act.set()
    pipe.close()


@pytest.mark.parametrize("lag", (0, 1, 2))
def test_what_fails_in_the_actor_is_raised_where_its_trajectory_was_due(lag: int) -> None:
    pipe = pipeline(FakeActor(breaks_at=3), lag)
    for step in range(3):
        pipe.next({}, step)
    with pytest.raises(RuntimeError, match="the game broke"):
        pipe.next({}, 3)
    pipe.close()


def test_without_lag_a_run_acts_and_learns_in_turn() -> None:
    run = Run(CONFIG)
    learner = Learner(CONFIG.learner, run.spec, CONFIG.seed, torch.device("cpu"))
    actor = Actor(
        Maze(CONFIG.env, CONFIG.seed),
        learner.policy,
        CONFIG.unroll_length,
        CONFIG.seed,
        torch.device("cpu"),
    )
    for _ in range(12):
        found = run.step()
        actor.set_weights(learner.acting, learner.version)
        expected = learner.update(actor.unroll())
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert same(run.learner.state(), learner.state())


def test_with_a_lag_the_learning_step_is_the_same_and_only_the_weights_that_acted_are_older() -> (
    None
):
    config = replace(
        CONFIG,
        policy_lag=2,
        learner=replace(CONFIG.learner, vmpo=replace(CONFIG.learner.vmpo, target_period=1)),
    )
    run = Run(config)
    learner = Learner(config.learner, run.spec, config.seed, torch.device("cpu"))
    actor = Actor(
        Maze(config.env, config.seed),
        learner.policy,
        config.unroll_length,
        config.seed,
        torch.device("cpu"),
    )
    acting = [learner.acting] * 3
    for _ in range(12):
        found = run.step()
        actor.set_weights(acting[-3], 0)
        expected = learner.update(actor.unroll())
        acting.append(learner.acting)
        assert all(torch.equal(found[name], expected[name]) for name in found)
    run.close()


@pytest.mark.parametrize(
    ("actors", "actor_envs", "lag"), ((2, 2, 0), (4, 1, 1), (3, 2, 1), (3, 4, 3))
)
def test_several_actors_do_what_they_would_one_after_the_other(
    actors: int, actor_envs: int, lag: int
) -> None:
    """Batches hold the trajectories of the next actors in turn, with weights that are `lag` old.

    Episodes of different environments are kept apart.
    """
    vmpo = replace(CONFIG.learner.vmpo, target_period=1)
    config = replace(
        CONFIG,
        actors=actors,
        actor_envs=actor_envs,
        policy_lag=lag,
        learner=replace(CONFIG.learner, vmpo=vmpo),
    )
    run = Run(config)
    learner = Learner(
        config.learner, replace(run.spec, num_envs=4), config.seed, torch.device("cpu")
    )
    single_actors = []
    for index in range(actors):
        seed = actor_seed(config.seed, index)
        env = Maze(replace(CONFIG.env, num_envs=actor_envs), seed)
        single_actors.append(
            Actor(env, learner.policy, config.unroll_length, seed, torch.device("cpu"))
        )
    acting, turn = [learner.acting] * (lag + 1), 0
    for _ in range(30):
        found = run.step()
        batch = [(turn + place) % actors for place in range(4 // actor_envs)]
        turn += len(batch)
        for index in batch:
            single_actors[index].set_weights(acting[-1 - lag], len(acting))
        expected = learner.update(
            join_trajectories([single_actors[index].unroll() for index in batch])
        )
        acting.append(learner.acting)
        assert all(torch.equal(found[name], expected[name]) for name in found)
        assert run.pipeline.environments.tolist() == [
            actor_envs * index + env for index in batch for env in range(actor_envs)
        ]
    episodes = run.statistics.episodes
    later = [
        numbers["length"]
        for place, (env, numbers) in enumerate(episodes)
        if env in {other for other, _ in episodes[:place]}
    ]
    assert set(later) == {17}  # the first of each environment may be shorter
    run.close()


def test_several_actors_act_at_the_same_time() -> None:
    """Each actor waits for the other. If they acted in turn, neither would go on."""
    together = threading.Barrier(2)

    class Waits(FakeActor):
        def unroll(self) -> tuple[int, int, str]:
            together.wait(10)
            return super().unroll()

    pipe = Pipeline([cast(Actor, Waits()), cast(Actor, Waits())], 1, 1, 1)
    numbers = [cast(Any, pipe.next({}, step))[0] for step in range(5)]
    assert numbers == [0, 0, 1, 1, 2]
    pipe.close()


def test_where_one_of_several_actors_fails_it_is_heard() -> None:
    pipe = Pipeline([cast(Actor, FakeActor()), cast(Actor, FakeActor(breaks_at=1))], 1, 1, 1)
    for step in range(3):
        pipe.next({}, step)
    with pytest.raises(RuntimeError, match="the game broke"):
        pipe.next({}, 3)
    pipe.close()


@pytest.mark.parametrize(
    ("lag", "actors", "actor_envs"), ((0, 1, 4), (1, 1, 4), (2, 1, 4), (0, 2, 2), (1, 3, 2))
)
def test_a_state_taken_anywhere_goes_on_as_if_nothing_had_happened(
    lag: int, actors: int, actor_envs: int
) -> None:
    whole = Run(replace(CONFIG, policy_lag=lag, actors=actors, actor_envs=actor_envs))
    for _ in range(7):
        whole.step()
    half = Run(whole.config)
    half.load_state(deepcopy(whole.state()))
    for run in (whole, half):
        for _ in range(7):
            run.step()
    assert same(whole.state()["learner"], half.state()["learner"]) and same(
        whole.statistics.state(), half.statistics.state()
    )
    for run in (whole, half):
        run.close()


def test_other_actors_begin_new_episodes() -> None:
    """A run may continue with other numbers of actors or of environments per actor.

    It loses only the episodes in progress.
    """
    run = Run(replace(CONFIG, actors=2, actor_envs=2, policy_lag=1))
    for _ in range(5):
        run.step()
    state = run.state()
    for changes in (
        {"actors": 1, "actor_envs": 4},
        {"actors": 2, "actor_envs": 4},
        {"actors": 4, "actor_envs": 1},
    ):
        other = Run(replace(run.config, **changes))
        other.load_state(deepcopy(state))
        assert (
            same(other.learner.state(), run.learner.state())
            and other.agent_steps == run.agent_steps
        )
        assert not other.statistics.running["length"].any()
        for _ in range(5):
            other.step()
        other.close()
    # an actor of a cluster that was gone when the checkpoint was written
    lost = [state["actor"]["actors"][0], {}]
    assert run.pipeline.turns.fitting(state["actor"]["actors"]) == state["actor"]["actors"]
    assert run.pipeline.turns.fitting(lost) == [{}, {}], (
        "else half of the episodes would go on, counted as new"
    )
    run.close()


def test_where_there_is_glibc_memory_is_kept() -> None:
    """In a process of its own: freed memory is used again without page faults."""
    code = """
import ctypes, resource, sys
import numpy as np
from afterwit.agents.malloc_settings import keep_memory
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages: a few would do
kept = {} keep_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(10_000_000)
before = faults()
for _ in range(5): np.ones(10_000_000)
print(kept, faults() - before)
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code.format(way)], capture_output=True, text=True, check=True
        ).stdout.split()
        for way in ("True or", "")
    ]
    if outputs[1][0] == "False":
        pytest.skip("no glibc here")
    assert int(outputs[1][1]) < 1000 < int(outputs[0][1])


def test_compiled_encoders_learn_the_same() -> None:
    """Only the wiring: the compiler does not run here, since it takes a minute."""
    config = replace(CONFIG, learner=replace(CONFIG.learner, world_model=BYOLExploreConfig()))
    plain, compiled = Run(config), Run(replace(config, compile=True))
    compiled_modules = {
        module for module in compiled.learner.modules() if module._compiled_call_impl is not None
    }
    assert compiled_modules == {
        compiled.learner.policy.torso.encoder,
        compiled.learner.world_model.target.slow,
    }
    assert compiled.actors[0].policy.torso.encoder._compiled_call_impl is not None
    with torch.compiler.set_stance("force_eager"):
        for _ in range(3):
            one, other = plain.step(), compiled.step()
            assert all(torch.equal(one[name], other[name]) for name in one)
        plain.load_state(compiled.state())
    plain.close()
    compiled.close()


def test_of_several_actors_one_compiles_before_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed = []
    monkeypatch.setattr(Actor, "warm_up", lambda actor: warmed.append(actor))
    with torch.compiler.set_stance("force_eager"):
        run = Run(replace(CONFIG, compile=True, actor_envs=1))
        assert warmed == [run.actors[0]]
        monkeypatch.undo()
        before = run.actors[0].state()
        run.actors[0].warm_up()
        assert same(run.actors[0].state(), before)
        run.close()
