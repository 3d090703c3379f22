"""The maze's noise on any Gymnasium environment: a wrapper that works alone, with `gymnasium.make_vec`, or through GymConfig.

    gymnasium.make_vec("CartPole-v1", num_envs=8, wrappers=[functools.partial(Noise, noise="pixel")])

What each kind does to an observation depends on what the observation's numbers mean:

    image   (uint8, 2 or 3 axes)  random pixels lie on the picture: a share `density` of them, each channel a random byte
    vector  (1 axis)              every entry has its own meaning, so none is touched. As many entries follow: a share
                                  `density` of them carries random numbers where noise is on, all are 0 elsewhere

Kinds and doses are the maze's (`afterwit.envs.noise`), without the random walk, which needs the maze's blocks.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import RecordConstructorArgs

from afterwit.envs.maze import DEFAULT_DOSE, MazeConfig
from afterwit.envs.noise import LAYERS, NOOP, NoiseLayer
from afterwit.envs.seeds import stream
from afterwit.envs.specs import Array

NOISES = ("none", *LAYERS, "sticky")


class Noise(gymnasium.Wrapper[Array, Any, Array, Any], RecordConstructorArgs):
    """Noise on an environment with Box observations and Discrete actions.

    `noise` is one of NOISES: none; pixel (with probability `dose` a frame); on-demand (with probability `dose` when
    `noise_action` is taken); frozen (the control: one fixed pattern on a share `dose` of the frames); sticky (with
    probability `dose` a step the previous action is executed again, never on an episode's first step). `dose` unset
    is the maze's: 1 for on-demand, 0.25 for the others. A dose of 0 is the same environment without its noise, observation
    shape included. `noise_action` is counted from 0, wherever the action space starts.

    Infos, on resets too: `noise_on` (a layer lies on this frame, or the chosen action was overridden; or the environment
    below said so) and `executed_action` (counted from 0; 0 on resets). `reset(seed=s)` makes all of it reproducible, with
    draws of its own: the environment below sees the same random numbers as without noise.

    Raises ValueError for a bad value, and for spaces that it cannot lie on.
    """

    def __init__(
        self,
        env: gymnasium.Env[Array, Any],
        noise: str,
        dose: float | None = None,
        density: float = MazeConfig.density,
        noise_action: int = NOOP,
    ):
        RecordConstructorArgs.__init__(self, noise=noise, dose=dose, density=density, noise_action=noise_action)
        super().__init__(env)
        check_noise(noise, dose, density, noise_action)
        space, actions = env.observation_space, env.action_space
        if not isinstance(actions, Discrete):
            raise ValueError(f"noise needs Discrete actions, not {actions}; wrap the environment so that it has them")
        if noise_action >= actions.n:
            raise ValueError(f"noise_action is {noise_action}; the environment has actions 0..{actions.n - 1}")
        self.noise, self.dose, self.density = noise, resolved_dose(noise, dose), density
        self.noise_action, self.first_action = noise_action, int(actions.start)
        self.vector = self.channels_last = False
        if noise in LAYERS:
            if not isinstance(space, Box) or not (len(space.shape) == 1 or (space.dtype == np.uint8 and len(space.shape) in (2, 3))):
                raise ValueError(f"noise needs Box observations that are vectors or uint8 images, not {space}; flatten or convert them")
            self.vector, self.channels_last = len(space.shape) == 1, is_channels_last(space)
            if self.vector:
                self.observation_space = self._widened(space)
        self._draw_from(np.random.default_rng())
        self.elapsed = 0  # agent steps in this episode
        self.executed: Any = actions.start

    @staticmethod
    def _widened(space: Box) -> Box:
        integer = space.dtype == np.uint8
        low, high = np.full(space.shape, 0 if integer else -1), np.full(space.shape, 255 if integer else 1)
        dtype: Any = space.dtype
        return Box(np.concatenate([space.low, low]).astype(dtype), np.concatenate([space.high, high]).astype(dtype), dtype=dtype)

    def _draw_from(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.layer: NoiseLayer | None = None
        if self.noise in LAYERS:
            shape = self.env.observation_space.shape
            assert shape is not None
            plane = shape if len(shape) < 3 else shape[:2] if self.channels_last else shape[1:]
            self.layer = NoiseLayer(self.noise, self.dose, self.density, plane, rng, self.noise_action)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        if seed is not None:
            self._draw_from(np.random.default_rng(stream(seed, "noise")))
        observation, info = self.env.reset(seed=seed, options=options)
        self.elapsed, self.executed = 0, self.first_action
        observation, on = self._cover(observation, NOOP, first=True)
        return observation, self._told(info, on)

    def step(self, action: Any) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        executed, overridden = action, False
        if self.noise == "sticky" and self.rng.random() < self.dose and self.elapsed > 0:
            executed, overridden = self.executed, bool(self.executed != action)
        observation, reward, terminal, truncated, info = self.env.step(executed)
        self.executed = executed
        self.elapsed += 1
        observation, on = self._cover(observation, int(action) - self.first_action, first=False)
        return observation, reward, terminal, truncated, self._told(info, on or overridden)

    def _told(self, info: dict[str, Any], on: bool) -> dict[str, Any]:
        executed = int(self.executed) - self.first_action
        return {"executed_action": executed, **info, "noise_on": on or bool(info.get("noise_on", False))}

    def _cover(self, observation: Array, action: int, first: bool) -> tuple[Array, bool]:
        """What the agent sees instead of `observation`, which stays as it is, and whether the layer is on."""
        if self.layer is None:
            return observation, False
        on = bool(self.layer.active(np.array([action]), np.array([self.elapsed]), np.array([first]))[0])
        if self.vector:
            beside = np.zeros(observation.shape)
            if on:
                values = self.layer.values(1)[0]
                # uint8 vectors (a game's RAM) get bytes, floats numbers from -1 to 1.
                beside = self.layer.pixels(1)[0] * (np.floor(values * 256) if observation.dtype == np.uint8 else 2 * values - 1)
            return np.concatenate([observation, beside.astype(observation.dtype)]), on
        if not on:
            return observation, False
        planes = np.moveaxis(observation, -1, 0) if self.channels_last else observation.reshape(-1, *observation.shape[-2:])
        covered = np.where(self.layer.pixels(1), np.floor(self.layer.values(len(planes)) * 256).astype(np.uint8), planes)
        return np.ascontiguousarray(np.moveaxis(covered, 0, -1)) if self.channels_last else covered.reshape(observation.shape), True


def is_channels_last(space: Box) -> bool:
    """A uint8 image whose last axis has at most 4 entries and whose first has more is height, width, channels."""
    return space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] <= 4 < space.shape[0]


def resolved_dose(noise: str, dose: float | None) -> float:
    """`dose`, or where it is unset the maze's dose of this noise."""
    return DEFAULT_DOSE[noise] if dose is None else dose


def check_noise(noise: str, dose: float | None, density: float, noise_action: int) -> None:
    """Raise a ValueError that names the bad value, if there is one."""
    if noise not in NOISES:
        raise ValueError(f"unknown noise {noise!r}; choose from {', '.join(NOISES)}")
    if dose is not None and not 0 <= dose <= 1:
        raise ValueError(f"dose is {dose}; it is a probability, between 0 and 1")
    if not 0 <= density <= 1:
        raise ValueError(f"density is {density}; it is a share of the observation, between 0 and 1")
    if noise_action < 0:
        raise ValueError(f"noise_action is {noise_action}; actions are counted from 0")
