"""What is true of a MiniGrid world, as entries of `info`: see `Labels`.

Needs the package minigrid (Chevalier-Boisvert et al., 2023): pip install 'afterwit[minigrid]'.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.world_object import Door
from minigrid.minigrid_env import MiniGridEnv

from afterwit.envs.infos import DOORS, with_declared

ABSENT, CLOSED, LOCKED, OPEN = range(4)  # of a door
NAMES = ("x", "y", "direction", "carrying", "doors")


class Labels(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A MiniGrid environment whose `info` also tells where the agent is, and what it changed.

    - `x`, `y`: the agent's cell.
    - `direction`: 0 east, 1 south, 2 west, 3 north.
    - `carrying`: 0 nothing; else 1 + colour + 6 * kind, in MiniGrid's numbers.
    - `doors` [12]: 0 none, 1 closed, 2 locked, 3 open. In the order of columns, then rows, of a
      world's first 12 doors.

    Other environments are left as they are.

    Args:
      env: The environment.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        self.world = env.unwrapped if isinstance(env.unwrapped, MiniGridEnv) else None
        self.doors: list[Door] = []
        if self.world is not None:
            self.metadata = with_declared(env.metadata, *NAMES)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        if self.world is not None:
            grid = self.world.grid
            cells = (grid.get(x, y) for x, y in np.ndindex(grid.width, grid.height))
            self.doors = [cell for cell in cells if isinstance(cell, Door)][:DOORS]
        return observation, {**info, **self._labels()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminal, truncated, info = self.env.step(action)
        return observation, reward, terminal, truncated, {**info, **self._labels()}

    def _labels(self) -> dict[str, Any]:
        world = self.world
        if world is None:
            return {}
        held = world.carrying
        doors = [OPEN if d.is_open else LOCKED if d.is_locked else CLOSED for d in self.doors]
        return {
            "x": int(world.agent_pos[0]),
            "y": int(world.agent_pos[1]),
            "direction": int(world.agent_dir),
            "carrying": 0 if held is None else number_of(held.type, held.color),
            "doors": np.array(doors + [ABSENT] * (DOORS - len(doors))),
        }


def number_of(kind: str, colour: str) -> int:
    """The number of something that is carried."""
    return 1 + COLOR_TO_IDX[colour] + len(COLOR_TO_IDX) * OBJECT_TO_IDX[kind]
