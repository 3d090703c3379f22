"""Noise of your own: a wrapper that reports when its noise is on.

    cd examples
    afterwit train gym --id my_noise:StripedCartPole-v0 --total-steps 50000
    afterwit train gym --id my_noise:StripedCartPole-v0 --env.kwargs dose=0.5
    python my_noise.py

`noise_on` is what reports compare: the share of time with noise, and the share of pay.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Stripes(gymnasium.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """Beside each observation a vector of 8 numbers: 0, or with probability `dose` a random one."""

    def __init__(self, env: gymnasium.Env[Any, Any], dose: float = 0.25):
        super().__init__(env)
        if not 0 <= dose <= 1:
            raise ValueError(f"dose is {dose}; it must lie between 0 and 1")
        space = env.observation_space
        assert isinstance(space, Box)
        low, high = np.append(space.low, [-1] * 8), np.append(space.high, [1] * 8)
        self.observation_space = Box(low.astype(np.float32), high.astype(np.float32))
        self.metadata = {**env.metadata, "afterwit_tells": ("noise_on",)}
        self.dose, self.noise = dose, np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:  # a generator of its own: the world below draws the same numbers
            self.noise = np.random.default_rng([seed, 1])
        return self.lay(observation, info)

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, info = self.lay(observation, info)
        return observation, reward, terminated, truncated, info

    def lay(self, observation: np.ndarray, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        on = bool(self.noise.random() < self.dose)
        stripes = self.noise.uniform(-1, 1, 8) if on else np.zeros(8)
        return np.append(observation, stripes).astype(np.float32), {**info, "noise_on": on}


def make(dose: float = 0.25, **options: Any) -> gymnasium.Env[Any, Any]:
    return Stripes(gymnasium.make("CartPole-v1", **options), dose)


gymnasium.register("StripedCartPole-v0", entry_point=make)

if __name__ == "__main__":
    env = gymnasium.make("StripedCartPole-v0", dose=0.5)
    env.reset(seed=0)
    noisy = [env.step(env.action_space.sample())[4]["noise_on"] for _ in range(8)]
    print(f"noise in 8 steps: {noisy}")
