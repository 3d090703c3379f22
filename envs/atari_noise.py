"""Noise on Atari frames, added after the emulator has drawn them. The game is not affected.

    pixel      With probability `dose` per frame: random bytes on a share `density` of the pixels.
    on-demand  The same, with probability `dose`, whenever the agent chose no-op.
    frozen     The control: one fixed pattern, in a fixed rhythm, on a share `dose` of the frames.
    walk       The persistent noise of Jarrett et al. (2023) on Montezuma's Revenge. Each pixel has
               a random walk, taken modulo 50, which is added to the frame. A step is +-1 or +-11,
               depending on the parity of the action.

The walk persists and depends on the action, so an encoder cannot simply drop it. AtariConfig has an
option for each detail of the walk that Jarrett et al. (2023) do not state.

`height` is the share of the frame that has noise, from the top. 1 covers the full frame.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.noise import FROZEN, LAYERS, NOOP, NoiseLayer

NOISES = ("none", *LAYERS, "walk")
Overflow = Literal["clip", "wrap"]


class FrameNoise:
    """Covers the newest frame of B games with noise.

    It keeps the covered frames, so that a frame stack repeats what was shown before.

    Args:
      kind: One of NOISES except "none".
      num_envs: B.
      channels: 1 (grey) or 3 (red, green, blue).
      size: Height and width of a frame, in pixels.
      rng: The source of all random draws.
      dose: Probability (frozen: share) of agent steps with noise.
      density: Share of the pixels that are covered.
      height: Share of the frame's height that has noise, from the top.
      walk_modulus: The walk is taken modulo this number.
      walk_steps: Step sizes after an even and after an odd action.
      walk_overflow: "clip" or "wrap" for sums above 255.
      walk_restarts: Whether an episode draws a new walk.
    """

    def __init__(
        self,
        kind: str,
        num_envs: int,
        channels: int,
        size: int,
        rng: np.random.Generator,
        *,
        dose: float,
        density: float,
        height: float,
        walk_modulus: int,
        walk_steps: tuple[int, int],
        walk_overflow: Overflow,
        walk_restarts: bool,
    ):
        self.kind, self.num_envs, self.channels = kind, num_envs, channels
        self.rng, self.density = rng, density
        self.rows = round(height * size)
        self.modulus, self.steps = walk_modulus, np.array(walk_steps, np.int16)
        self.overflow, self.restarts = walk_overflow, walk_restarts
        plane = (self.rows, size)
        self.layer = None if kind == "walk" else NoiseLayer(kind, dose, density, plane, rng)
        self.walk = (
            rng.integers(0, walk_modulus, (num_envs, *plane), np.int16) if kind == "walk" else None
        )
        frozen = np.random.default_rng(FROZEN)
        self.still = (
            frozen.integers(0, 256, (channels, *plane), np.uint8),
            frozen.random(plane) < density,
        )
        self.elapsed = np.zeros(num_envs, np.int64)
        self.shown: Array | None = None  # the last stack that was returned

    def cover(self, observation: Array, action: Array, first: Array) -> tuple[Array, Array]:
        """Add noise to the newest frame of each stack.

        Args:
          observation: uint8 [B, stack * channels, H, W].
          action: int [B]: the actions that led to these frames.
          first: bool [B]: the frame opens an episode, and its action is ignored.

        Returns:
          The stacks with noise, and bool [B]: where the noise is on.
        """
        action = np.where(first, NOOP, action)
        self.elapsed = np.where(first, 0, self.elapsed + 1)
        newest = observation[:, -self.channels :].copy()
        on = (
            self._add_walk(newest, action, first)
            if self.walk is not None
            else self._lay_noise(newest, action, first)
        )
        if observation.shape[1] == self.channels:
            return newest, on
        repeats = observation.shape[1] // self.channels
        # A stack is the emulator's own, with each frame's noise as it was when that frame was new.
        # A new game fills it with its first frame (EnvPool) or with zeros (ALE). Where an episode
        # only ends with a life, the frames before stay.
        older = observation[:, : -self.channels]
        before = older if self.shown is None else self.shown[:, self.channels :]
        if first.any():
            opens, times = first[:, None, None, None], (1, repeats - 1, 1, 1)
            repeated = np.tile(observation[:, -self.channels :], times) == older
            filled = repeated.all((1, 2, 3), keepdims=True)
            empty = ~older.any((1, 2, 3), keepdims=True)
            before = np.where(opens & filled, np.tile(newest, times), before)
            before = np.where(opens & empty, 0, before)
        self.shown = np.concatenate([before, newest], 1)
        return self.shown.copy(), on

    def _lay_noise(self, frames: Array, action: Array, first: Array) -> Array:
        assert self.layer is not None
        on = self.layer.active(action, self.elapsed, first)
        count = int(on.sum())
        if count:
            part = frames[on][:, :, : self.rows]
            noise, covered = self.still if self.kind == "frozen" else self._draw(part.shape)
            frames[on, :, : self.rows] = np.where(
                covered if covered.ndim == 2 else covered[:, None], noise, part
            )
        return on

    def _draw(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Random bytes [n, channels, rows, W] and the pixels they cover, bool [n, rows, W].

        Bytes are faster to draw than floats.
        """
        drawn = self.rng.integers(0, 256, (shape[0], *shape[2:]), np.uint8)
        return self.rng.integers(0, 256, shape, np.uint8), drawn < round(self.density * 256)

    def _add_walk(self, frames: Array, action: Array, first: Array) -> Array:
        assert self.walk is not None
        sign = self.rng.integers(0, 2, self.walk.shape, np.int16) * np.int16(2) - np.int16(1)
        self.walk += sign * self.steps[action % 2][:, None, None]
        self.walk[self.walk < 0] += self.modulus
        self.walk[self.walk >= self.modulus] -= self.modulus
        if self.restarts and first.any():
            self.walk[first] = self.rng.integers(
                0, self.modulus, (int(first.sum()), *self.walk.shape[1:]), np.int16
            )
        summed = frames[:, :, : self.rows].astype(np.int16) + self.walk[:, None]
        frames[:, :, : self.rows] = (
            summed.clip(max=255) if self.overflow == "clip" else summed % 256
        ).astype(np.uint8)
        return np.ones(self.num_envs, bool)
