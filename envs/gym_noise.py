"""The maze's noise on any Gymnasium environment: a wrapper that works alone, with
`gymnasium.make_vec`, or through GymConfig.

    gymnasium.make_vec("CartPole-v1", num_envs=8, wrappers=[functools.partial(Noise,
    noise="pixel")])

What each kind does to an observation depends on what the observation's numbers mean:

    image   (envs/images.py)  random pixels lie on the picture: a share `density` of them, each
            channel drawn evenly from its
                              bounds in the space
    vector  (1 axis)          every entry has its own meaning, so none is touched. As many entries
            follow: a share `density`
                              of them carries random numbers where noise is on, all are 0 elsewhere
                              (or what of their bounds is nearest to 0)

The entries beside a vector are from -1 to 1 where it has floats. Where it has integers, they have
its least and greatest bound, or at most 256 values where these are more than 65,536 apart. Pixels
without bounds are drawn from 0 to 1.

Kinds and doses are the maze's (`afterwit.envs.noise`), without the random walk, which needs the
maze's blocks.
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
from afterwit.envs.infos import checked, declared, with_declared
from afterwit.envs.maze import DEFAULT_DOSE, MazeConfig
from afterwit.envs.noise import LAYERS, NOOP, NoiseLayer
from afterwit.envs.seeds import stream

NOISES = ("none", *LAYERS, "sticky")
WIDEST = 2**16  # of a range that numbers are drawn from; beyond it, bounds say nothing


class Noise(gymnasium.Wrapper[Array, Any, Array, Any], RecordConstructorArgs):
    """Noise on an environment with Box observations and Discrete actions.

    `noise` is one of NOISES: none; pixel (with probability `dose` a frame); on-demand (with
    probability `dose` when `noise_action` is taken); frozen (the control: one fixed pattern on a
    share `dose` of the frames); sticky (with probability `dose` a step the previous action is
    executed again, never on an episode's first step). `dose` unset is the maze's: 1 for on-demand,
    0.25 for the others. A dose of 0 is the same environment without its noise, observation shape
    included. `noise_action` is counted from 0, wherever the action space starts.

    Infos, on resets too: `noise_on` (a layer lies on this frame, or the chosen action was
    overridden; or the environment below, where it declares that it tells, said so) and
    `executed_action` (counted from 0; 0 on resets; that of the environment below where it declares
    one). Both are declared in the metadata. `reset(seed=s)` makes all of it reproducible, with
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
        self.below = declared(env.metadata)
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
                self.low, self.high = entry_range(space)
                low, high = (
                    np.concatenate([space.low, self.low]),
                    np.concatenate([space.high, self.high]),
                )
                with np.errstate(all="ignore"):
                    self.observation_space = Box(low, high, dtype=space.dtype.type)
            else:
                self.low, self.high = (
                    self.view.planes(end) for end in narrowed(space.low, space.high)
                )
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
        if "noise_on" in self.below and "noise_on" in info:
            on = bool(checked(self.name, "noise_on", info["noise_on"], None)) or on
        entries = {**info, "noise_on": on}
        if "executed_action" not in self.below or "executed_action" not in info:
            entries["executed_action"] = int(self.executed) - self.first_action
        return entries

    @np.errstate(all="ignore")  # whatever the caller has set
    def _cover(self, observation: Array, action: int, first: bool) -> tuple[Array, bool]:
        """What the agent sees instead of `observation`, which stays as it is, and whether the layer
        is on.
        """
        if self.layer is None:
            return observation, False
        on = bool(
            self.layer.active(np.array([action]), np.array([self.elapsed]), np.array([first]))[0]
        )
        if self.vector:
            rest = np.clip(np.zeros(self.low.shape, self.dtype), self.low, self.high)
            beside = rest
            if on:
                drawn = spread(self.layer.values(1)[0], self.low, self.high)
                beside = np.where(self.layer.pixels(1)[0], drawn, rest)
            return np.concatenate([np.asarray(observation, self.dtype), beside]), on
        if not on:
            return observation, False
        planes = self.view.planes(np.asarray(observation, self.dtype))
        covered = np.where(
            self.layer.pixels(1),
            spread(self.layer.values(len(planes)), self.low, self.high),
            planes,
        )
        return self.view.restored(covered), True


@np.errstate(all="ignore")
def entry_range(space: Box) -> tuple[Array, Array]:
    """The least and the greatest number of the entries beside a vector of `space`, of its dtype and
    shape."""
    if np.issubdtype(space.dtype, np.floating):
        return np.full(space.shape, -1, space.dtype), np.full(space.shape, 1, space.dtype)
    low, high = np.full(space.shape, space.low.min()), np.full(space.shape, space.high.max())
    if low[0] == high[0]:  # nothing to draw from: a neighbour, too
        low, high = (low - 1, high) if low[0] > 0 else (low, high + 1)
    return narrowed(low.astype(space.dtype), high.astype(space.dtype))


@np.errstate(all="ignore")  # the width of a wide range is infinite
def narrowed(low: Array, high: Array) -> tuple[Array, Array]:
    """The least and the greatest value of each number between `low` and `high`, both of them in the
    range: where that is wider than WIDEST, 256 integers, or an interval of length 1, from 0 on or
    as near to it as it goes."""
    low, high = low.copy(), high.copy()
    width = 1 if np.issubdtype(low.dtype, np.floating) else 255
    wide = high.astype(np.float64) - low.astype(np.float64) >= WIDEST
    if not wide.any():  # and of small integers none can be
        return low, high
    above, around = wide & (low > 0), wide & (low <= 0) & (high >= width)
    below = wide & ~above & ~around
    high[above] = low[above] + width
    low[around], high[around] = 0, width
    low[below] = high[below] - width
    return low, high


@np.errstate(all="ignore")
def spread(values: Array, low: Array, high: Array) -> Array:
    """Numbers in 0..1 as numbers evenly from `low` to `high`, both of them among them where they
    are integers; of their dtype."""
    if np.issubdtype(low.dtype, np.floating):
        start, end = low.astype(np.float64), high.astype(np.float64)
        return np.clip((start + values * (end - start)).astype(low.dtype), low, high)
    wide = np.uint64 if low.dtype == np.uint64 else np.int64
    start, steps = low.astype(wide), high.astype(wide) - low.astype(wide) + wide(1)
    return (start + np.floor(values * steps.astype(np.float64)).astype(wide)).astype(low.dtype)


def resolved_dose(noise: str, dose: float | None) -> float:
    """`dose`, or where it is unset the maze's dose of this noise."""
    return DEFAULT_DOSE[noise] if dose is None else dose


def check_noise(noise: str, dose: float | None, density: float, noise_action: int) -> None:
    """Raise a ValueError that names the bad value, if there is one."""
    if noise not in NOISES:
        raise ValueError(f"unknown noise {noise!r}; choose from {', '.join(NOISES)}")
    if dose is not None and not (is_number(dose) and 0 <= dose <= 1):
        raise ValueError(f"dose is {dose!r}; it is a probability, a number between 0 and 1")
    if not is_number(density) or not 0 <= density <= 1:
        raise ValueError(
            f"density is {density!r}; it is a share of the observation, a number between 0 and 1"
        )
    check_counts(least=0, noise_action=noise_action)
