"""The maze's noise on any Gymnasium environment, as a wrapper.

It works alone, with `gymnasium.make_vec`, or through GymConfig:

    noisy = functools.partial(Noise, noise="pixel")
    gymnasium.make_vec("CartPole-v1", num_envs=8, wrappers=[noisy])

What a layer does depends on what the observation is:

    image   (see envs/images.py) Random pixels cover a share `density` of the image. Each channel is
            drawn uniformly from its bounds in the space.
    vector  (1 axis) Each entry has its own meaning, so none is changed. As many new entries are
            appended. When the noise is on, a share `density` of them holds random numbers. All
            other times they are 0, or the value within their bounds that is nearest to 0.

The appended entries lie between -1 and 1 if the vector has floats. If it has integers, they lie
between the smallest and the largest bound of the vector. If these bounds are more than 65,536
apart, the entries take at most 256 values. Pixels without bounds are drawn from 0 to 1.

Kinds and doses are those of the maze (`afterwit.envs.noise`), without its Brownian blocks.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import RecordConstructorArgs

from afterwit.envs.arrays import Array
from afterwit.envs.checks import check_counts, is_number
from afterwit.envs.images import view_of
from afterwit.envs.infos import check_entry, declared_entries, with_declared
from afterwit.envs.maze import DEFAULT_DOSE, MazeConfig
from afterwit.envs.noise import LAYERS, NOOP, NoiseLayer
from afterwit.envs.seeds import stream

NOISES = ("none", *LAYERS, "sticky")
WIDEST_RANGE = 2**16  # bounds that are farther apart do not say which values occur


class Noise(gymnasium.Wrapper[Array, Any, Array, Any], RecordConstructorArgs):
    """Noise on an environment with Box observations and Discrete actions.

    The noises are:

    - none.
    - pixel: with probability `dose` per frame.
    - on-demand: with probability `dose` when `noise_action` is taken.
    - frozen: the control, one fixed pattern on a share `dose` of the frames.
    - sticky: with probability `dose` per step, the previous action is executed again. This never
      happens on the first step of an episode.

    A dose of 0 is the same environment without its noise. Its observations keep the same shape.

    The wrapper adds two entries to `info`, on resets too, and declares them in the metadata:

    - `noise_on`: a layer is on this frame, or the chosen action was overridden, or the wrapped
      environment reported it.
    - `executed_action`: counted from 0, and 0 on resets. If the wrapped environment declares this
      entry, its value is kept.

    `reset(seed=s)` makes the noise reproducible. The noise has random draws of its own, so the
    wrapped environment sees the same random numbers as without noise.

    Args:
      env: The environment.
      noise: One of NOISES.
      dose: Probability per agent step (on-demand: per `noise_action`; frozen: share of frames).
          None: 1 for on-demand, 0.25 for the others.
      density: Share of the image that a layer covers, or of the appended entries that carry noise.
      noise_action: The action that triggers on-demand noise, counted from 0 wherever the action
          space starts.

    Raises:
      ValueError: An argument is out of range, or the noise cannot be applied to these spaces.
    """

    def __init__(
        self,
        env: gymnasium.Env[Array, Any],
        noise: str,
        dose: float | None = None,
        density: float = MazeConfig.density,
        noise_action: int = NOOP,
    ):
        RecordConstructorArgs.__init__(
            self, noise=noise, dose=dose, density=density, noise_action=noise_action
        )
        super().__init__(env)
        check_noise(noise, dose, density, noise_action)
        space, actions = env.observation_space, env.action_space
        if not isinstance(actions, Discrete):
            raise ValueError(
                f"noise needs Discrete actions, not {actions}; wrap the environment so that it has"
                " them"
            )
        if noise_action >= actions.n:
            raise ValueError(
                f"noise_action is {noise_action}; the environment has actions 0..{actions.n - 1}"
            )
        self.noise, self.dose, self.density = noise, resolved_dose(noise, dose), density
        self.noise_action, self.first_action = noise_action, int(actions.start)
        self.declared_below = declared_entries(env.metadata)
        self.name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self.metadata = with_declared(env.metadata, "noise_on", "executed_action")
        self.vector = False
        if noise in LAYERS:
            self.vector = isinstance(space, Box) and len(space.shape) == 1
            if not isinstance(space, Box) or not (self.vector or view_of(space).image):
                raise ValueError(
                    f"noise needs Box observations that are vectors or images, not {space}; flatten"
                    " or convert them"
                )
            self.view, self.dtype = view_of(space), space.dtype
            if self.vector:
                self.low, self.high = added_entry_range(space)
                low = np.concatenate([space.low, self.low])
                high = np.concatenate([space.high, self.high])
                with np.errstate(all="ignore"):
                    self.observation_space = Box(low, high, dtype=space.dtype.type)
            else:
                low, high = narrow_range(space.low, space.high)
                self.low, self.high = self.view.to_planes(low), self.view.to_planes(high)
        self._draw_from(np.random.default_rng())
        self.elapsed = 0  # agent steps in this episode
        self.executed: Any = actions.start

    def _draw_from(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.layer: NoiseLayer | None = None
        if self.noise in LAYERS:
            plane = self.view.shape if self.vector else self.view.shape[1:]
            self.layer = NoiseLayer(
                self.noise, self.dose, self.density, plane, rng, self.noise_action
            )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start a new episode. With a seed, also restart the noise's random draws."""
        if seed is not None:
            self._draw_from(np.random.default_rng(stream(seed, "noise")))
        observation, info = self.env.reset(seed=seed, options=options)
        self.elapsed, self.executed = 0, self.first_action
        observation, on = self._cover(observation, NOOP, first=True)
        return observation, self._add_noise_info(info, on)

    def step(self, action: Any) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        """Take one agent step."""
        executed, overridden = action, False
        if self.noise == "sticky" and self.rng.random() < self.dose and self.elapsed > 0:
            executed, overridden = self.executed, bool(self.executed != action)
        observation, reward, terminal, truncated, info = self.env.step(executed)
        self.executed = executed
        self.elapsed += 1
        observation, on = self._cover(observation, int(action) - self.first_action, first=False)
        return (
            observation,
            reward,
            terminal,
            truncated,
            self._add_noise_info(info, on or overridden),
        )

    def _add_noise_info(self, info: dict[str, Any], on: bool) -> dict[str, Any]:
        if "noise_on" in self.declared_below and "noise_on" in info:
            on = bool(check_entry(self.name, "noise_on", info["noise_on"], None)) or on
        entries = {**info, "noise_on": on}
        if "executed_action" not in self.declared_below or "executed_action" not in info:
            entries["executed_action"] = int(self.executed) - self.first_action
        return entries

    @np.errstate(all="ignore")  # overrides the caller's error state
    def _cover(self, observation: Array, action: int, first: bool) -> tuple[Array, bool]:
        """The observation with noise, and whether the layer is on. The argument is not changed."""
        if self.layer is None:
            return observation, False
        batch = np.array([action]), np.array([self.elapsed]), np.array([first])
        on = bool(self.layer.active(*batch)[0])
        if self.vector:
            idle = np.clip(np.zeros(self.low.shape, self.dtype), self.low, self.high)
            added = idle
            if on:
                drawn = scale_to_range(self.layer.values(1)[0], self.low, self.high)
                added = np.where(self.layer.pixels(1)[0], drawn, idle)
            return np.concatenate([np.asarray(observation, self.dtype), added]), on
        if not on:
            return observation, False
        planes = self.view.to_planes(np.asarray(observation, self.dtype))
        pixels = self.layer.pixels(1)
        drawn = scale_to_range(self.layer.values(len(planes)), self.low, self.high)
        return self.view.from_planes(np.where(pixels, drawn, planes)), True


@np.errstate(all="ignore")
def added_entry_range(space: Box) -> tuple[Array, Array]:
    """The smallest and the largest value of the entries that are appended to a vector."""
    if np.issubdtype(space.dtype, np.floating):
        return np.full(space.shape, -1, space.dtype), np.full(space.shape, 1, space.dtype)
    low, high = np.full(space.shape, space.low.min()), np.full(space.shape, space.high.max())
    if low[0] == high[0]:  # a single value is no range: add a neighbour
        low, high = (low - 1, high) if low[0] > 0 else (low, high + 1)
    return narrow_range(low.astype(space.dtype), high.astype(space.dtype))


@np.errstate(all="ignore")  # the width of a wide range is infinite
def narrow_range(low: Array, high: Array) -> tuple[Array, Array]:
    """Replace each range that is wider than WIDEST_RANGE by a narrow one within it.

    The narrow range has 256 integers, or an interval of length 1. It starts at 0, or as near to 0
    as possible.

    Args:
      low: The smallest values (included).
      high: The largest values (included).

    Returns:
      The new smallest and largest values, of the same shapes and dtypes.
    """
    low, high = low.copy(), high.copy()
    width = 1 if np.issubdtype(low.dtype, np.floating) else 255
    wide = high.astype(np.float64) - low.astype(np.float64) >= WIDEST_RANGE
    if not wide.any():
        return low, high
    above, around = wide & (low > 0), wide & (low <= 0) & (high >= width)
    below = wide & ~above & ~around
    high[above] = low[above] + width
    low[around], high[around] = 0, width
    low[below] = high[below] - width
    return low, high


@np.errstate(all="ignore")
def scale_to_range(values: Array, low: Array, high: Array) -> Array:
    """Map numbers in 0..1 to numbers uniformly from `low` to `high`, of their dtype.

    For integers both ends are included.
    """
    if np.issubdtype(low.dtype, np.floating):
        start, end = low.astype(np.float64), high.astype(np.float64)
        return np.clip((start + values * (end - start)).astype(low.dtype), low, high)
    wide = np.uint64 if low.dtype == np.uint64 else np.int64
    start, steps = low.astype(wide), high.astype(wide) - low.astype(wide) + wide(1)
    return (start + np.floor(values * steps.astype(np.float64)).astype(wide)).astype(low.dtype)


def resolved_dose(noise: str, dose: float | None) -> float:
    """The dose, or the maze's default dose of this noise if `dose` is None."""
    return DEFAULT_DOSE[noise] if dose is None else dose


def check_noise(noise: str, dose: float | None, density: float, noise_action: int) -> None:
    """Raise a ValueError that names the first bad value, if there is one."""
    if noise not in NOISES:
        raise ValueError(f"unknown noise {noise!r}; choose from {', '.join(NOISES)}")
    if dose is not None and not (is_number(dose) and 0 <= dose <= 1):
        raise ValueError(f"dose is {dose!r}; it is a probability, a number between 0 and 1")
    if not is_number(density) or not 0 <= density <= 1:
        raise ValueError(
            f"density is {density!r}; it is a share of the observation, a number between 0 and 1"
        )
    check_counts(least=0, noise_action=noise_action)
