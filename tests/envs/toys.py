"""Toy environments."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import AutoresetMode, SyncVectorEnv

B = 3
FIRST, LAST, FLAT = (Box(0, 255, shape, np.uint8) for shape in ((3, 8, 7), (8, 7, 3), (8, 7)))


class Toy(gymnasium.Env[Any, Any]):
    """Shows one number everywhere: 100 on reset, then the executed action.

    It draws one random number per step.
    """

    def __init__(
        self, space: Space[Any] = FIRST, actions: Discrete | None = None, length: int = 50
    ):
        self.observation_space, self.action_space, self.length = (
            space,
            actions or Discrete(4),
            length,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.look(100), {"drawn": float(self.np_random.random())}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return (
            self.look(int(action)),
            0.0,
            False,
            self.count == self.length,
            {"drawn": float(self.np_random.random())},
        )

    def look(self, number: int) -> Any:
        return np.full(self.observation_space.shape, number, self.observation_space.dtype)


class ShortToy(gymnasium.Env[Any, Any]):
    """Three steps long. Shows the chosen action. With `both` it ends with both flags set."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any], both: bool = False):
        self.observation_space, self.action_space, self.both = observation_space, action_space, both

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.look(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return (
            self.look(int(action)),
            0.1,
            self.both and self.count == 3,
            self.count == 3,
            {"seen": int(action), "note": "text"},
        )

    def look(self, action: int) -> Any:
        shape = self.observation_space.shape
        assert shape is not None
        return (np.arange(np.prod(shape)).reshape(shape) + action).astype(
            self.observation_space.dtype
        )


def toys(
    observation_space: Space[Any],
    action_space: Space[Any],
    mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    both: bool = False,
) -> Any:
    return SyncVectorEnv(
        [lambda: ShortToy(observation_space, action_space, both)] * B, autoreset_mode=mode
    )
