"""Noise that lies on top of what an agent sees: when it shows, and what it shows.

The layers of the BYOL-Hindsight study (Jarrett et al., 2023, section 5.1), apart from any one
world:

    pixel      with probability `dose` a frame, random pixels (independent of state and action)
    on-demand  with probability `dose`, whenever the agent chose one action, no-op unless said
               otherwise (depends on the action)
    frozen     the control: one fixed pattern, in a fixed rhythm on a share `dose` of the frames
               (can be learnt)
"""

from __future__ import annotations

import numpy as np

from afterwit.envs.arrays import Array

LAYERS = ("pixel", "on-demand", "frozen")
NOOP = 0
FROZEN = 0  # seed of what the frozen layer shows


class NoiseLayer:
    """Decides per frame whether the layer is on, and draws its pixels.

    `dose` is a probability per frame (frozen: a share of frames), `density` the share of pixels
    covered, `shape` what the layer lies on (height and width of a view, or the length of a vector),
    `noise_action` the action that on-demand noise answers to. All draws come from `rng`.
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
        self.kind, self.dose, self.density, self.shape, self.rng, self.noise_action = (
            kind,
            dose,
            density,
            shape,
            rng,
            noise_action,
        )
        # The frozen pattern belongs to the world, not to the seed: two runs see the same one.
        self.frozen = np.random.default_rng(FROZEN).random(shape) < density

    def active(self, action: Array, elapsed: Array, first: Array) -> Array:
        """bool [B]: is the layer on in the frame reached by `action` after `elapsed` agent
        steps?
        """
        if self.kind == "frozen":
            return np.floor(elapsed * self.dose) > np.floor((elapsed - 1) * self.dose)
        drawn = self.rng.random(len(action)) < self.dose
        return drawn if self.kind == "pixel" else drawn & (action == self.noise_action) & ~first

    def pixels(self, count: int) -> Array:
        """bool [count, *shape]: the pixels covered in each of `count` frames."""
        if self.kind == "frozen":
            return np.broadcast_to(self.frozen, (count, *self.shape))
        return self.rng.random((count, *self.shape)) < self.density

    def values(self, channels: int) -> Array:
        """float32 [channels, *shape] in 0..1: what the covered pixels of one frame show, where they
        show more than that they are there.
        """
        rng = np.random.default_rng([FROZEN, channels]) if self.kind == "frozen" else self.rng
        return rng.random((channels, *self.shape), np.float32)


TVS = ("off", "always", "on-demand")
