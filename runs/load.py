"""Take a trained agent out of its run, to act in an environment of your own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from afterwit.agents.agent import Agent
from afterwit.agents.policy import Policy
from afterwit.envs.make import make_env
from afterwit.runs import checkpoint
from afterwit.runs.config import read_config
from afterwit.world_models.callers import own_modes


def load_agent(run: Path | str, num_envs: int = 1, greedy: bool = False, seed: int = 0, name: str = checkpoint.NAME) -> Agent:
    """The acting policy of a run folder's checkpoint, on the CPU, for `num_envs` environments stepped together.

    >>> agent = load_agent("runs/out/maze-byol-hindsight-brownian-s0")
    >>> action = agent.act(observation, first=True)    # an episode opens
    >>> action = agent.act(observation, first=False)   # and goes on

    It takes observations as the run's own environment returns them (images with channels first or
    last, doubles, integers), and gives actions as that environment's action space counts them: what
    training turned, `act` turns. What training wrapped the environment in, noise beside a vector,
    MiniGrid's OneHot, a game's small gray frames, has to be around it here, too; `act` says so
    where it is not. `name` is the checkpoint's file, or best. Raises ValueError where there is no
    run or no checkpoint, or it is damaged.
    """
    folder = Path(run)
    config = read_config(folder)
    saved = checkpoint.load(folder, config, name)
    env = make_env(replace(config.env, num_envs=1), config.seed)
    env.close()
    with own_modes():
        policy = Policy(config.learner.policy, config.learner.torso, env.spec)
        agent = Agent(policy, num_envs, seed, torch.device("cpu"), greedy, env.spec.interface)
    agent.set_weights(saved["learner"]["acting"], saved["learner"]["version"])
    return agent
