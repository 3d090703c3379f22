"""The maps of the noisy maze, and pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.maze_art import LAYOUTS, NUM_TRACKERS, Cell, Drawing, read_drawing

VIEW = 5
RADIUS = VIEW // 2
# Channels of the maze's views. Those of levers and doors are there in maps that have them. A map
# that has them paints all trackers as R1: a tracker is then no new picture.
CHANNELS = ("wall", "block", "R1", "R2", "R3", "R4", "floor", "noise")
LEVER_CHANNELS = ("lever", "door")
WALL, BLOCK, TRACKER, FLOOR, NOISE, LEVER, DOOR = 0, 1, 2, 6, 7, 8, 9
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
    "lever": (255, 0, 110),
    "door": (141, 85, 36),
    "open door": (221, 184, 146),
    "portal": (112, 224, 0),
}


@dataclass(frozen=True)
class MazeMap:
    """The fixed parts of a maze, with tables by cell (row * width + column)."""

    drawing: Drawing

    @property
    def walls(self) -> Array:
        """bool [H, W]. Doors are no walls."""
        return self.drawing.walls

    @property
    def floor(self) -> Array:
        """bool [H, W]: painted cells."""
        return self.drawing.floor

    @property
    def start(self) -> Cell:
        """Row and column."""
        return self.drawing.start

    @property
    def height(self) -> int:
        """Rows, including the outer walls."""
        return int(self.walls.shape[0])

    @property
    def width(self) -> int:
        """Columns, including the outer walls."""
        return int(self.walls.shape[1])

    @property
    def num_levers(self) -> int:
        """L."""
        return len(self.drawing.levers)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names of the C channels of a view."""
        return CHANNELS + LEVER_CHANNELS if self.num_levers else CHANNELS

    @cached_property
    def trackers(self) -> Array:
        """int [4, 2]: row, column."""
        return np.array(self.drawing.trackers)

    @cached_property
    def block_columns(self) -> Array:
        """int [n]: each block moves in its column."""
        return np.array([column for column, _, _ in self.drawing.blocks])

    @cached_property
    def block_top(self) -> Array:
        """int [n]: the first row of each block's way."""
        return np.array([top for _, top, _ in self.drawing.blocks])

    @cached_property
    def block_bottom(self) -> Array:
        """int [n]: the last row of each block's way."""
        return np.array([bottom for _, _, bottom in self.drawing.blocks])

    @cached_property
    def channels(self) -> Array:
        """uint8 [C, H, W]: the whole map in the agent's channels, without blocks and noise."""
        image = np.zeros((len(self.channel_names), *self.walls.shape), np.uint8)
        image[WALL], image[FLOOR] = self.walls, self.floor
        pictures = 0 if self.num_levers else np.arange(NUM_TRACKERS)
        image[TRACKER + pictures, self.trackers[:, 0], self.trackers[:, 1]] = 1
        if self.num_levers:
            image[LEVER], image[DOOR] = self.levers > 0, self.doors > 0
        return image * np.uint8(255)

    @cached_property
    def views(self) -> Array:
        """uint8 [H * W, C, 5, 5]: the view from each cell, before blocks and noise."""
        channels = len(self.channel_names)
        padded = np.zeros((channels, self.height + 2 * RADIUS, self.width + 2 * RADIUS), np.uint8)
        padded[WALL] = 255
        padded[:, RADIUS:-RADIUS, RADIUS:-RADIUS] = self.channels
        # [C, H, W, 5, 5]
        windows = np.lib.stride_tricks.sliding_window_view(padded, (VIEW, VIEW), axis=(1, 2))
        return np.ascontiguousarray(
            windows.transpose(1, 2, 0, 3, 4).reshape(-1, channels, VIEW, VIEW)
        )

    @cached_property
    def reaches(self) -> Array:
        """bool [H * W, 4]: whether a tracker is reached: from its cell or the eight around it."""
        cells = np.stack(np.divmod(np.arange(self.walls.size), self.width), 1)
        return np.abs(cells[:, None] - self.trackers).max(-1) <= 1

    @cached_property
    def levers(self) -> Array:
        """int [H, W]: 2^i where the i-th lever is, else 0."""
        return self._bits([[lever] for lever in self.drawing.levers])

    @cached_property
    def doors(self) -> Array:
        """int [H, W]: 2^i where the doors of the i-th lever are, else 0."""
        return self._bits(self.drawing.doors)

    @cached_property
    def arrivals(self) -> Array:
        """int [2, H, W]: row and column where a step onto a cell ends. Portals lead elsewhere."""
        places = np.indices(self.walls.shape)
        for (row, column), to in self.drawing.portals:
            places[:, row, column] = to
        return places

    def _bits(self, places: Sequence[Sequence[Cell]]) -> Array:
        """int [H, W]: 2^i at the i-th places."""
        table = np.zeros(self.walls.shape, np.int64)
        for index, cells in enumerate(places):
            for row, column in cells:
                table[row, column] = 2**index
        return table


@cache
def build_map(layout: str = "row") -> MazeMap:
    """The map of a layout, one of LAYOUTS."""
    text, painted = LAYOUTS[layout]
    return MazeMap(read_drawing(text, painted))


def draw_map(maze: MazeMap) -> Array:
    """The map without agent and blocks, one pixel per cell: uint8 [H, W, 3]."""
    image = np.full((*maze.walls.shape, 3), PALETTE["open"], np.uint8)
    image[maze.floor], image[maze.walls] = PALETTE["floor"], PALETTE["wall"]
    for index, (row, column) in enumerate(maze.trackers):
        image[row, column] = PALETTE[f"R{index + 1}"]
    image[maze.levers > 0], image[maze.doors > 0] = PALETTE["lever"], PALETTE["door"]
    for portal, _ in maze.drawing.portals:
        image[portal] = PALETTE["portal"]
    return image


def draw_view(observation: Array) -> Array:
    """One observation [C, 5, 5] as an image, with the agent as a small square in the middle.

    Returns:
      uint8 [5 * 8, 5 * 8, 3].
    """
    image = np.full((VIEW, VIEW, 3), PALETTE["open"], np.uint8)
    # the floor is drawn first, below the other channels
    names = (CHANNELS + LEVER_CHANNELS)[: len(observation)]
    for index in sorted(range(len(names)), key=lambda index: index != FLOOR):
        image[observation[index] > 0] = PALETTE[names[index]]
    image = image.repeat(8, 0).repeat(8, 1)
    middle = np.s_[RADIUS * 8 + 2 : RADIUS * 8 + 6]
    image[middle, middle] = PALETTE["agent"]
    return image
