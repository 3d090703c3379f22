"""Small logs that are made up."""

from __future__ import annotations

import numpy as np

from afterwit.runs.representation.frame_log import FrameLog


def made_up(steps: int = 40, batch: int = 4, length: int = 10, seed: int = 0) -> FrameLog:
    """A log of random frames, with an episode every `length` steps and two labels.

    `shade` is written in the frames' first pixel. `luck` has nothing to do with them.
    """
    random = np.random.default_rng(seed)
    obs = random.integers(0, 256, (steps, batch, 1, 6, 5), dtype=np.uint8)
    first = np.zeros((steps, batch), bool)
    first[::length] = True
    shade, luck = random.integers(0, 4, (2, steps, batch))
    obs[:, :, 0, 0, 0] = shade
    return FrameLog(
        obs,
        random.integers(0, 3, (steps, batch)),
        first,
        {"shade": shade, "luck": luck.astype(np.uint8)},
        {"shade": "agent", "luck": "misc"},
        3,
        None,
        {"game": "none", "seed": seed},
    )
