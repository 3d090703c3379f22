"""The agent alone: it acts as the actor does, remembers, forgets where an episode opens, and comes out of a run ready to act."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from afterwit.agents import Actor, Agent, Policy
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.runs import checkpoint
from afterwit.runs.load import load_agent
from afterwit.runs.presets import maze
from afterwit.runs.train import Run, new_folder
from tests.helpers import same

CONFIG = replace(maze(), env=MazeConfig(num_envs=3, episode_steps=11), unroll_length=25)


def policy() -> Policy:
    run = Run(CONFIG)
    run.step()
    return run.learner.policy


@pytest.mark.parametrize("greedy", (False, True))
def test_it_acts_as_the_actor_does(greedy: bool) -> None:
    network = policy()
    trajectory = Actor(Maze(CONFIG.env, 7), network, 25, 5, torch.device("cpu"), greedy).unroll()
    agent, env = Agent(network, 3, 5, torch.device("cpu"), greedy), Maze(CONFIG.env, 7)
    step = env.reset()
    for t in range(25):
        action = agent.act(step.observation, step.first)
        assert action.tolist() == trajectory.action[t].tolist()
        step = env.step(action)


def test_a_single_environment_needs_no_batch_and_forgets_at_an_episodes_start() -> None:
    network = policy()
    observations = np.random.default_rng(0).integers(0, 256, (6, 8, 5, 5), np.uint8)
    one, batched = (Agent(network, 1, 5, torch.device("cpu")) for _ in range(2))
    for index, observation in enumerate(observations):
        action = one.act(observation, index == 0)
        assert np.ndim(action) == 0 and [action] == batched.act(observation[None], np.array([index == 0])).tolist()
    remembered = one.core.clone()
    one.act(observations[0], first=True)
    fresh = Agent(network, 1, 5, torch.device("cpu"))
    fresh.act(observations[0], first=True)
    assert torch.equal(one.core, fresh.core) and not torch.equal(one.core, remembered)


def test_observations_of_another_shape_are_named() -> None:
    agent = Agent(policy(), 2, 0, torch.device("cpu"))
    for shape in ((8, 5, 5), (3, 8, 5, 5), (2, 5, 5)):
        with pytest.raises(ValueError, match=r"the observation has shape \(.*\); this agent acts on \(2, 8, 5, 5\)"):
            agent.act(np.zeros(shape, np.uint8), False)


def test_it_comes_out_of_a_run_and_plays_a_gymnasium_environment(tmp_path: Path) -> None:
    new_folder(CONFIG, tmp_path / "run")
    run = Run(CONFIG)
    run.step()
    checkpoint.save(tmp_path / "run", run.state())
    agent = load_agent(tmp_path / "run", seed=3)
    assert same(dict(agent.policy.state_dict()), dict(run.learner.acting))

    env = gymnasium.make("afterwit.envs:afterwit/NoisyMaze-v0", noise="brownian", episode_steps=11)
    observation, _ = env.reset(seed=1)
    steps, over = 0, False
    while not over:
        observation, _, terminated, truncated, _ = env.step(agent.act(observation, first=steps == 0))
        steps, over = steps + 1, terminated or truncated
    assert steps == 11


def test_a_folder_without_a_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    new_folder(CONFIG, tmp_path / "run")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_agent(tmp_path / "run")
