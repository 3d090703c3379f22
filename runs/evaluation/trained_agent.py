"""Take a trained agent out of its run, to act in an environment of your own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from afterwit.agents.agent import Agent
from afterwit.agents.policy import Policy
from afterwit.envs.checks import check_counts
from afterwit.envs.make import make_env
from afterwit.envs.seeds import read_seed
from afterwit.runs.configs.run_config import read_config
from afterwit.runs.training import checkpoint
from afterwit.runs.training.closing import with_safe_close
from afterwit.world_models.callers import own_modes


def load_agent(
    run: Path | str,
    num_envs: int = 1,
    greedy: bool = False,
    seed: int | None = 0,
    name: str = checkpoint.NAME,
) -> Agent:
    """The acting policy of a run folder's checkpoint, on the CPU, for `num_envs` environments
    stepped together.

    >>> agent = load_agent("runs/out/maze-byol-hindsight-brownian-s0")
    >>> action = agent.act(observation, first=True)    # an episode opens
    >>> action = agent.act(observation, first=False)   # and goes on

    It takes observations as the run's own environment returns them (images with channels first or
    last, doubles, integers), and gives actions as that environment's action space counts them: what
    training turned, `act` turns. What training wrapped the environment in, noise beside a vector,
    MiniGrid's OneHot, a game's small gray frames, has to be around it here, too; `act` says so
    where it is not. `name` is the checkpoint's file, or best. `seed` None is another one each
    time. Raises ValueError where there is no run or no checkpoint, it is damaged, or an argument is
    none of its kind.
    """
    if not isinstance(run, str | Path):
        raise ValueError(f"run is {run!r}; it must be the folder of a run")
    if not isinstance(name, str):
        raise ValueError(f"name is {name!r}; it must be the name of a checkpoint's file, or best")
    if not isinstance(greedy, bool):
        raise ValueError(f"greedy is {greedy!r}; it must be True or False")
    check_counts(num_envs=num_envs)
    seed, folder = read_seed(seed), Path(run).expanduser()
    config = read_config(folder)
    saved = checkpoint.load(folder, config, name)
    env = make_env(replace(config.env, num_envs=1), config.seed)
    with_safe_close(env).close()
    with own_modes():
        policy = Policy(config.learner.policy, config.learner.torso, env.spec)
        agent = Agent(policy, num_envs, seed, torch.device("cpu"), greedy, env.spec.interface)
    agent.set_weights(saved["learner"]["acting"], saved["learner"]["version"])
    return agent
