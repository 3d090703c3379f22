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
from afterwit.world_models.draws import draws_of


def load_agent(
    run: Path | str,
    num_envs: int = 1,
    greedy: bool = False,
    seed: int | None = 0,
    name: str = checkpoint.NAME,
) -> Agent:
    """Return the acting policy of a run folder's checkpoint, on the CPU.

    >>> agent = load_agent("runs/out/maze-byol-hindsight-brownian-s0")
    >>> action = agent.act(observation, first=True)    # an episode begins
    >>> action = agent.act(observation, first=False)   # and continues

    The agent takes observations as the run's own environment returns them (images with channels
    first or last, float64 vectors, integers), and returns actions of that environment's action
    space. All conversions of training are repeated by `act`. Wrappers of training are not: noise
    beside a vector, MiniGrid's OneHot, or the small grey frames of a game must be around your
    environment too. `act` says so if they are missing.

    Args:
      run: the run folder.
      num_envs: environments that are stepped together.
      greedy: take the likeliest action instead of drawing one.
      seed: of the draws. None: another one each time.
      name: the checkpoint's file, or best.

    Raises:
      ValueError: there is no run or checkpoint, it is damaged, or an argument has the wrong type or
        value.
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
    with own_modes(), draws_of(seed, "weights"):
        policy = Policy(config.learner.policy, config.learner.torso, env.spec)
        agent = Agent(policy, num_envs, seed, torch.device("cpu"), greedy, env.spec.interface)
    agent.set_weights(saved["learner"]["acting"], saved["learner"]["version"])
    return agent
