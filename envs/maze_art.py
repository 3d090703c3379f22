"""The maps of the noisy maze as drawings, and how a drawing is read and checked.

#     wall
.     painted floor
S     start
o     where a block moves up and down: each run of o's in a column has one block
1-4   trackers
a-z   a lever
A-Z   a door, which opens with the lever of the same letter (O and S are taken)
> <   a portal, and the place where it leads
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

from afterwit.envs.arrays import Array

NUM_TRACKERS = 4
LEVERS = "".join(letter for letter in ascii_lowercase if letter not in "os")
Cell = tuple[int, int]  # row, column

# Four chambers in a row. Each floor is harder to learn than the one before. The last is a mosaic.
ROW = """
#############################################################
########          ### . . . . .### . . . . ### .  . .   . ..#
#    o o..........o o . . . . .o o. . . . .o o  . ..       .#
#S   o o         1o o . . . . 2o o . . . .3o o. .  . .4. .  #
#    o o..........o o . . . . .o o. . . . .o o..... .     . #
########          ### . . . . .### . . . . ###.  ..  ..  ...#
#############################################################
"""

# A hall with arms of chambers that look alike. West of the start is a room full of blocks. Lever a
# opens the way to R3 and to lever b, and that one the way to the portal, which leads to R4. Lever c
# opens a way out from there.
BRANCHES = """
###########################################
#. . .###     ##   ##. . .###. . .###. . .#
#  .   #  o o          .   o   .   #   .  #
#c 4 < C  o o        . . . o . . . A . 3b.#
#  .   #  o o          .   o   .   #   .  #
#. . .###     ##   ##. . .###. . .###. . .#
################ S ###########   ##########
#. . .###. . .##   ##. . .###. . .#########
#  .   #   .           .   o   .  #########
#. > . B . . .       . 1 . o .2.a.#########
#  .   #   .           .   o   .  #########
#. . .###. . .##   ##. . .###. . .#########
###########################################
"""

# The drawing, and the marks that stand on painted floor.
LAYOUTS = {"row": (ROW, "2"), "branches": (BRANCHES, "")}


@dataclass(frozen=True)
class Drawing:
    """What a drawing says. Cells are (row, column)."""

    walls: Array  #: bool [H, W]
    floor: Array  #: bool [H, W]: painted
    start: Cell
    trackers: tuple[Cell, ...]  #: four
    blocks: tuple[tuple[int, int, int], ...]  #: column, first row, last row; by column, then row
    levers: tuple[Cell, ...]
    doors: tuple[tuple[Cell, ...], ...]  #: of each lever
    portals: tuple[tuple[Cell, Cell], ...]  #: from, to


def read_drawing(text: str, painted: str = "") -> Drawing:
    """Read a map from a drawing.

    Args:
      text: The drawing, in the characters above. A blank line before and after it is ignored.
      painted: The marks that stand on painted floor.

    Raises:
      ValueError: The drawing is not a closed rectangle, a mark is missing, unknown or there twice,
          or a place cannot be reached.
    """
    lines = text.strip("\n").splitlines()
    widths = sorted({len(line) for line in lines})
    if len(widths) != 1:
        raise ValueError(f"the map's lines have {widths} characters; make them equally long")
    art = np.array([list(line) for line in lines])
    marks = {str(mark): _cells(art, mark) for mark in np.unique(art)}
    for mark in marks:
        if mark not in f"#. So1234<>{LEVERS}{LEVERS.upper()}":
            raise ValueError(f"the map has {mark!r}; use only the characters of envs/maze_art.py")
    edge = np.concatenate([art[0], art[-1], art[:, 0], art[:, -1]])
    if (edge != "#").any():
        raise ValueError("the map's edge has an opening; close it with #")
    levers = [letter for letter in LEVERS if letter in marks or letter.upper() in marks]
    for mark in ("S", *"1234", *levers, *("><" if "<" in marks or ">" in marks else "")):
        if len(marks.get(mark, ())) != 1:
            raise ValueError(f"the map has {len(marks.get(mark, ()))} times {mark!r}; it needs one")
    drawing = Drawing(
        walls=art == "#",
        floor=np.isin(art, [".", *painted]),
        start=marks["S"][0],
        trackers=tuple(marks[mark][0] for mark in "1234"),
        blocks=_lanes(art),
        levers=tuple(marks[letter][0] for letter in levers),
        doors=tuple(tuple(marks.get(letter.upper(), ())) for letter in levers),
        portals=((marks[">"][0], marks["<"][0]),) if ">" in marks else (),
    )
    lost = ~(_reachable(drawing) | drawing.walls)
    if lost.any():
        cell = _cells(lost, True)[0]
        raise ValueError(
            f"the map's cell {cell} cannot be reached from the start; open a way to it"
        )
    return drawing


def _cells(art: Array, mark: object) -> list[Cell]:
    return [(int(row), int(column)) for row, column in np.argwhere(art == mark)]


def _lanes(art: Array) -> tuple[tuple[int, int, int], ...]:
    """The runs of o's in columns: column, first row, last row."""
    lanes = []
    for column in range(art.shape[1]):
        rows = np.flatnonzero(art[:, column] == "o")
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
        lanes += [(column, int(run[0]), int(run[-1])) for run in runs]
    return tuple(lanes)


def _reachable(drawing: Drawing) -> Array:
    """bool [H, W]: cells that can be reached when levers are pulled, in whatever order that takes.

    Blocks are no obstacles.
    """
    seen = np.zeros(drawing.walls.shape, bool)
    lever_of = {
        door: lever
        for lever, doors in zip(drawing.levers, drawing.doors, strict=True)
        for door in doors
    }
    queue, met = [drawing.start], set()  # met: doors that were come to before their lever
    while queue:
        cell = queue.pop()
        if seen[cell] or drawing.walls[cell]:
            continue
        if cell in lever_of and not seen[lever_of[cell]]:
            met.add(cell)
            continue
        seen[cell] = True
        row, column = cell
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        leads = dict(drawing.portals)
        queue += [leads[cell]] if cell in leads else around
        queue += [door for door in met if lever_of[door] == cell]
    return seen
