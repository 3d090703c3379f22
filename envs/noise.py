"""Noise layers on top of observations: when they show, and what they show.

They are those of BYOL-Hindsight (Jarrett et al., 2023, section 5.1), independent of any one
environment:

    pixel      With probability `dose` per frame: random pixels. They depend on nothing.
    on-demand  With probability `dose`, whenever the agent chooses one action (default: no-op).
               They depend on the action.
    frozen     The control: one fixed pattern, in a fixed rhythm on a share `dose` of the frames.
               It can be learned.
"""

from __future__ import annotations

import numpy as np

from afterwit.envs.arrays import Array

LAYERS = ("pixel", "on-demand", "frozen")
NOOP = 0
FROZEN = 0  # seed of the frozen layer's pattern


class NoiseLayer:
    """Decides per frame whether the layer is on, and draws its pixels.

    Args:
      kind: One of LAYERS.
      dose: Probability per frame (frozen: share of frames).
      density: Share of the pixels that are covered.
      shape: Height and width of an image, or the length of a vector.
      rng: The source of all random draws.
      noise_action: The action that triggers on-demand noise.
    """

    def __init__(
        self,
        kind: str,
        dose: float,
        density: float,
        shape: tuple[int, ...],
        rng: np.random.Generator,
        noise_action: int = NOOP,
    ):
        if kind not in LAYERS:
            raise ValueError(f"unknown noise layer {kind!r}; choose from {', '.join(LAYERS)}")
        self.kind, self.dose, self.density, self.shape = kind, dose, density, shape
        self.rng, self.noise_action = rng, noise_action
        # The frozen pattern does not depend on the run's seed: all runs see the same one.
        self.frozen = np.random.default_rng(FROZEN).random(shape) < density

    def active(self, action: Array, elapsed: Array, first: Array) -> Array:
        """Whether the layer is on, bool [B].

        Args:
          action: int [B]: the actions that led to the frames.
          elapsed: int [B]: agent steps in the episode so far.
          first: bool [B]: the frame opens an episode.
        """
        if self.kind == "frozen":
            return np.floor(elapsed * self.dose) > np.floor((elapsed - 1) * self.dose)
        drawn = self.rng.random(len(action)) < self.dose
        return drawn if self.kind == "pixel" else drawn & (action == self.noise_action) & ~first

    def pixels(self, count: int) -> Array:
        """bool [count, *shape]: the covered pixels in each of `count` frames."""
        if self.kind == "frozen":
            return np.broadcast_to(self.frozen, (count, *self.shape))
        return self.rng.random((count, *self.shape)) < self.density

    def values(self, channels: int) -> Array:
        """float32 [channels, *shape] in 0..1: the values of one frame's covered pixels."""
        rng = np.random.default_rng([FROZEN, channels]) if self.kind == "frozen" else self.rng
        return rng.random((channels, *self.shape), np.float32)


TVS = ("off", "always", "on-demand")
