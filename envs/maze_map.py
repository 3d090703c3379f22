"""The map of the noisy maze, and pictures of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from afterwit.envs.arrays import Array

VIEW = 5
RADIUS = VIEW // 2
CHANNELS = ("wall", "block", "R1", "R2", "R3", "R4", "floor", "noise")
WALL, BLOCK, TRACKER, FLOOR, NOISE = 0, 1, 2, 6, 7
NUM_TRACKERS = 4
HEIGHT = 7  # rows, outer walls included
PASSAGE = slice(2, 5)  # open rows of a passage, in which its blocks move
START_WIDTH = 4
GUARD_WIDTH = 3  # columns of a passage
GUARD_COLUMNS = (0, 2)  # columns of a passage that have a block
CHAMBER_WIDTHS = (10, 10, 9, 14)
# columns in the chambers: a random policy reaches R1..R4 in about 58%, 6%, 0.4%, 0.0% of episodes
TRACKER_COLUMNS = (9, 9, 8, 8)
PALETTE = {
    "wall": (52, 58, 64),
    "open": (248, 249, 250),
    "floor": (222, 226, 230),
    "block": (214, 40, 40),
    "agent": (29, 53, 87),
    "R1": (42, 157, 143),
    "R2": (233, 196, 106),
    "R3": (244, 162, 97),
    "R4": (131, 56, 236),
    "noise": (72, 202, 228),
}


@dataclass(frozen=True)
class MazeMap:
    """The fixed parts of the maze, with tables by cell (row * width + column)."""

    walls: Array  # bool [H, W]
    floor: Array  # bool [H, W]: painted cells
    trackers: Array  # int [4, 2]: row, column
    block_columns: Array  # int [n]: each block moves in PASSAGE rows of its column
    start: tuple[int, int]

    @property
    def width(self) -> int:
        """Columns, including the outer walls."""
        return int(self.walls.shape[1])

    @cached_property
    def channels(self) -> Array:
        """uint8 [C, H, W]: the whole map in the agent's channels, without blocks and noise."""
        image = np.zeros((len(CHANNELS), *self.walls.shape), np.uint8)
        image[WALL], image[FLOOR] = self.walls, self.floor
        image[TRACKER + np.arange(NUM_TRACKERS), self.trackers[:, 0], self.trackers[:, 1]] = 1
        return image * np.uint8(255)

    @cached_property
    def views(self) -> Array:
        """uint8 [H * W, C, 5, 5]: the view from each cell, before blocks and noise."""
        padded = np.zeros((len(CHANNELS), HEIGHT + 2 * RADIUS, self.width + 2 * RADIUS), np.uint8)
        padded[WALL] = 255
        padded[:, RADIUS:-RADIUS, RADIUS:-RADIUS] = self.channels
        # [C, H, W, 5, 5]
        windows = np.lib.stride_tricks.sliding_window_view(padded, (VIEW, VIEW), axis=(1, 2))
        return np.ascontiguousarray(
            windows.transpose(1, 2, 0, 3, 4).reshape(-1, len(CHANNELS), VIEW, VIEW)
        )

    @cached_property
    def reaches(self) -> Array:
        """bool [H * W, 4]: whether a tracker is reached: from its cell or the eight around it."""
        cells = np.stack(np.divmod(np.arange(HEIGHT * self.width), self.width), 1)
        return np.abs(cells[:, None] - self.trackers).max(-1) <= 1


def build_map() -> MazeMap:
    """Build the map: the start room, then four times a passage with blocks and a chamber."""
    width = 2 + START_WIDTH + sum(GUARD_WIDTH + chamber for chamber in CHAMBER_WIDTHS)
    walls, floor = np.ones((HEIGHT, width), bool), np.zeros((HEIGHT, width), bool)
    walls[PASSAGE, 1 : 1 + START_WIDTH] = False
    rows, columns = np.indices((HEIGHT, width))
    # Each floor is harder to learn than the one before. The last is a mosaic, the same in each run.
    mosaic = np.random.default_rng(0).random((HEIGHT, width)) < 0.5
    patterns = (rows % 2 == 0, columns % 2 == 0, (rows + columns) % 2 == 0, mosaic)
    trackers, blocks, start = [], [], 1 + START_WIDTH
    for chamber, tracker, pattern in zip(CHAMBER_WIDTHS, TRACKER_COLUMNS, patterns, strict=True):
        walls[PASSAGE, start : start + GUARD_WIDTH] = False
        blocks += [start + column for column in GUARD_COLUMNS]
        start += GUARD_WIDTH
        inside = np.s_[1:-1, start : start + chamber]
        walls[inside], floor[inside] = False, pattern[inside]
        trackers.append((HEIGHT // 2, start + tracker))
        start += chamber
    return MazeMap(walls, floor, np.array(trackers), np.array(blocks), (HEIGHT // 2, 1))


def draw_map(maze: MazeMap) -> Array:
    """The map without agent and blocks, one pixel per cell: uint8 [H, W, 3]."""
    image = np.full((*maze.walls.shape, 3), PALETTE["open"], np.uint8)
    image[maze.floor], image[maze.walls] = PALETTE["floor"], PALETTE["wall"]
    for index, (row, column) in enumerate(maze.trackers):
        image[row, column] = PALETTE[f"R{index + 1}"]
    return image


def draw_view(observation: Array) -> Array:
    """One observation [8, 5, 5] as an image, with the agent as a small square in the middle.

    Returns:
      uint8 [5 * 8, 5 * 8, 3].
    """
    image = np.full((VIEW, VIEW, 3), PALETTE["open"], np.uint8)
    # the floor is drawn first, below the other channels
    for index in sorted(range(len(CHANNELS)), key=lambda index: index != FLOOR):
        image[observation[index] > 0] = PALETTE[CHANNELS[index]]
    image = image.repeat(8, 0).repeat(8, 1)
    middle = np.s_[RADIUS * 8 + 2 : RADIUS * 8 + 6]
    image[middle, middle] = PALETTE["agent"]
    return image
