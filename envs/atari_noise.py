"""Noise on Atari, on all games at once: laid on each new frame after the emulator has drawn it, so
that the game never knows.

    pixel      with probability `dose` a frame, random bytes on a share `density` of the pixels
               (dose 1: always on)
    on-demand  the same, with probability `dose`, whenever the agent chose no-op
    frozen     the control: one fixed pattern, in a fixed rhythm on a share `dose` of the frames
    walk       the persistive noise of Jarrett et al. (2023) on Montezuma: every pixel has a random
               walk, taken modulo 50, that is
               added to the frame; a step is +-1 or +-11 by the parity of the action. It lasts and
               depends on the action, so an encoder cannot simply drop it. What the paper does not
               say is an option of AtariConfig and marked (ours) there.

`height` is the part of the frame that noise lies on, from the top: 1 is a full layer, less a strip.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.noise import FROZEN, LAYERS, NOOP, NoiseLayer

NOISES = ("none", *LAYERS, "walk")
Overflow = Literal["clip", "wrap"]


class FrameNoise:
    """Covers the newest frame of B games and keeps the frames that it covered, so that a stack
    shows what was shown.

    `channels` is 1 (gray) or 3, `size` the frame's height and width in pixels. All draws come from
    `rng`.
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
        self.kind, self.num_envs, self.channels, self.rng, self.density = (
            kind,
            num_envs,
            channels,
            rng,
            density,
        )
        self.rows = round(height * size)
        self.modulus, self.steps, self.overflow, self.restarts = (
            walk_modulus,
            np.array(walk_steps, np.int16),
            walk_overflow,
            walk_restarts,
        )
        plane = (self.rows, size)
        self.layer = None if kind == "walk" else NoiseLayer(kind, dose, density, plane, rng)
        self.walk = (
            rng.integers(0, walk_modulus, (num_envs, *plane), np.int16) if kind == "walk" else None
        )
        still = np.random.default_rng(FROZEN)
        self.still = (
            still.integers(0, 256, (channels, *plane), np.uint8),
            still.random(plane) < density,
        )
        self.elapsed = np.zeros(num_envs, np.int64)
        self.shown: Array | None = None  # the stack as it was shown last

    def cover(self, observation: Array, action: Array, first: Array) -> tuple[Array, Array]:
        """Stacks [B, stack * channels, H, W] with noise on their newest frame, and where it is on:
        bool [B].

        `action` [B] led to these frames; where `first` [B], they open an episode, and no action led
        to them.
        """
        action = np.where(first, NOOP, action)
        self.elapsed = np.where(first, 0, self.elapsed + 1)
        newest = observation[:, -self.channels :].copy()
        on = (
            self._walk(newest, action, first)
            if self.walk is not None
            else self._lay(newest, action, first)
        )
        if observation.shape[1] == self.channels:
            return newest, on
        repeats = observation.shape[1] // self.channels
        # as EnvPool fills the stack at an episode's start
        again = np.tile(newest, (1, repeats, 1, 1))
        moved = (
            again
            if self.shown is None
            else np.concatenate([self.shown[:, self.channels :], newest], 1)
        )
        self.shown = np.where(first[:, None, None, None], again, moved)
        return self.shown.copy(), on

    def _lay(self, frames: Array, action: Array, first: Array) -> Array:
        assert self.layer is not None
        on = self.layer.active(action, self.elapsed, first)
        count = int(on.sum())
        if count:
            part = frames[on][:, :, : self.rows]
            bytes_, covered = self.still if self.kind == "frozen" else self._draw(part.shape)
            frames[on, :, : self.rows] = np.where(
                covered if covered.ndim == 2 else covered[:, None], bytes_, part
            )
        return on

    def _draw(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Random bytes [n, channels, rows, W], and the pixels that they cover [n, rows, W]: bytes,
        since floats would take longer.
        """
        covered = self.rng.integers(0, 256, (shape[0], *shape[2:]), np.uint8) < round(
            self.density * 256
        )
        return self.rng.integers(0, 256, shape, np.uint8), covered

    def _walk(self, frames: Array, action: Array, first: Array) -> Array:
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
