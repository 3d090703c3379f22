"""Small IntrinsicReward objects, and steps for them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from afterwit.envs.arrays import Array
from afterwit.world_models import IntrinsicReward
from tests.helpers import A, B, T, tiny_torso_config

VECTOR, IMAGE, ACTIONS = Box(-3, 3, (6,)), Box(0, 255, (2, 9, 12), np.uint8), Discrete(A)


def curiosity(
    model: Any = "byol-hindsight", space: gymnasium.Space[Any] = VECTOR, **options: Any
) -> IntrinsicReward:
    options = {
        "seed": 0,
        "torso": tiny_torso_config("resnet" if space is IMAGE else "mlp"),
        **options,
    }
    return IntrinsicReward(model, space, ACTIONS, **options)


def steps(
    seed: int = 0, space: gymnasium.Space[Any] = VECTOR, length: int = T, batch: int = B
) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    obs: Array = rng.normal(size=(length + 1, batch, *(space.shape or ()))).astype(np.float32)
    if space is IMAGE:
        obs = rng.integers(0, 256, obs.shape, dtype=np.uint8)
    dones = np.zeros((length, batch), bool)
    dones[[2, 5, 0], [0, 1, 2]] = dones[length - 1, 3] = dones[length - 2, 4] = True
    return obs, rng.integers(0, A, (length, batch)), dones
