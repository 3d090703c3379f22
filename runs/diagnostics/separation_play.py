"""Random play of an Atari game, drawn once and read by every model that is judged on it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.atari import Atari, AtariConfig
from afterwit.envs.atari_places import PLACES
from afterwit.envs.seeds import stream

ENVIRONMENTS = 16  # as in the preset atari-small


@dataclass(frozen=True)
class Play:
    """N agent steps of B games under a policy that draws every action alike."""

    obs: Array  # uint8 [N+1, B, C, H, W]
    first: Array  # bool [N+1, B]: obs[t] opens an episode
    action: Array  # int64 [N, B]
    room: Array  # int64 [N+1, B]
    cell: Array  # int64 [N+1, B]: a square of a room; the room where the game has no squares


def draw(config: AtariConfig, steps: int, seed: int) -> Play:
    """Play `steps` agent steps of each environment.

    The noise lies on the picture only: the same seed gives the same game with any noise.

    Raises:
      ValueError: the rooms of the game are not known.
    """
    roomy = [game for game, place in PLACES.items() if place.room]
    if config.game not in roomy:
        raise ValueError(
            f"the rooms of {config.game} are not known; choose from {', '.join(roomy)}"
        )
    random = np.random.default_rng(stream(seed, "logged policy"))
    with closing(Atari(config, seed)) as env:
        shape = (steps + 1, config.num_envs)
        obs = np.zeros((*shape, *env.spec.observation_shape), np.uint8)
        first = np.zeros(shape, bool)
        action = random.integers(env.spec.num_actions, size=(steps, config.num_envs))
        room, cell = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for t in range(steps + 1):
            step = env.step(action[t - 1]) if t else env.reset()
            obs[t], first[t], room[t] = step.observation, step.first, step.info["room"]
            cell[t] = step.info.get("cell", room[t])
    return Play(obs, first, action, room, cell)


def keep(play: Play, folder: Path) -> None:
    """Write a play to a new folder."""
    folder.mkdir()
    for field in fields(Play):
        np.save(folder / field.name, getattr(play, field.name))


def read(folder: Path) -> Play:
    """Return the play in `folder`. Its frames stay on disk until they are read."""
    return Play(
        **{
            field.name: np.load(folder / f"{field.name}.npy", "r" if field.name == "obs" else None)
            for field in fields(Play)
        }
    )
