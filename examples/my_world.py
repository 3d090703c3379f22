"""A world of your own: a Gymnasium environment that reports where its agent is.

    cd examples
    afterwit train gym --id my_world:Corridor-v0 --total-steps 50000
    afterwit train gym --id my_world:Corridor-v0 --env.kwargs length=40 --env.noise pixel
    python my_world.py            # checks it as Gymnasium does

Afterwit reads of `info` only what the metadata declares: here `cell`, so that places are counted,
and `trackers`, so that goals are. envs/infos.py lists everything that can be declared.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

LONGEST = 100


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """A corridor: left, right, stay. Nothing is paid but curiosity; a third action does nothing."""

    metadata = {
        "render_modes": [],
        "afterwit_tells": ("cell", "trackers"),
        "afterwit_cells": LONGEST,
    }

    def __init__(self, length: int = 20, render_mode: str | None = None):
        if not 2 <= length <= LONGEST:
            raise ValueError(f"length is {length}; it must be 2 to {LONGEST}")
        self.length, self.render_mode = length, render_mode
        self.observation_space = Box(0.0, 1.0, (length,), np.float32)
        self.action_space = Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)  # seeds self.np_random: draw from it alone
        self.place, self.farthest = 0, 0
        return self.look(), self.info()

    def step(self, action: np.int64) -> Any:
        self.place = int(np.clip(self.place + (-1, 1, 0)[int(action)], 0, self.length - 1))
        self.farthest = max(self.farthest, self.place)
        return self.look(), 0.0, False, False, self.info()

    def look(self) -> np.ndarray:
        seen = np.zeros(self.length, np.float32)
        seen[self.place] = 1
        return seen

    def info(self) -> dict[str, Any]:
        goals = np.array([0.5, 1.0]) * (self.length - 1)  # halfway, and the end
        return {"cell": self.place, "trackers": self.farthest >= goals}


gymnasium.register("Corridor-v0", entry_point=f"{__name__}:Corridor", max_episode_steps=200)

if __name__ == "__main__":
    check_env(gymnasium.make("Corridor-v0").unwrapped)
    print("Corridor-v0 is a proper Gymnasium environment")
