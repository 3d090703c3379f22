"""Maps of the rooms that runs have seen in a game, and of the squares of each that they entered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from afterwit.envs.arrays import Array
from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.atari_places import CELLS, SIDE, STOREYS
from afterwit.envs.infos import ROOMS
from afterwit.runs.output.figure_style import GREY, PALE
from afterwit.runs.reports.curves import colour
from afterwit.runs.reports.groups import Group
from afterwit.runs.reports.run_results import RunLog
from afterwit.runs.training import checkpoint
from afterwit.runs.training.episode_statistics import unpacked

COUNTED = "explored/rooms"  # logged by runs whose rooms are known
ROOMS_NOTE = (
    "By all episodes together, as of the newest checkpoint; the darker, the more of the runs were"
    " there. Where a game's map is known, rooms lie as on it."
)
WIDTH, COLUMNS = 8.7, 8  # inches; rooms beside each other where their places are not known


class Explored(NamedTuple):
    """What a run has seen, in all episodes."""

    rooms: Array  # bool [ROOMS]
    cells: Array | None  # bool [ROOMS, SIDE, SIDE], y upwards, if the squares are known


def explored(run: RunLog) -> Explored:
    """Return what a run had seen at its newest checkpoint.

    Raises:
      ValueError: the checkpoint is missing or damaged.
    """
    arrays = checkpoint.load(run.folder, run.config)["statistics"]["arrays"]
    found = {name: array.numpy() for name, array in arrays.items()}
    cells = None
    if "explored_cells" in found and 8 * len(found["explored_cells"]) == CELLS:
        cells = unpacked(found["explored_cells"], np.zeros(CELLS, bool)).reshape(ROOMS, SIDE, SIDE)
    return Explored(unpacked(found.get("explored_rooms"), np.zeros(ROOMS, bool)), cells)


def seen_by(group: Group) -> list[Explored]:
    """Return what the runs of a group have seen, without those that have no readable checkpoint."""
    result = []
    for run in group.runs if group.names(COUNTED) else ():
        try:
            result.append(explored(run))
        except (ValueError, OSError):
            continue
    return result


def storeys_of(group: Group, seen: Sequence[Explored]) -> tuple[range, ...] | None:
    """Return where the game's rooms lie, None if that is not known of all that were seen."""
    env = group.runs[0].config.env
    storeys = STOREYS.get(env.game, ()) if isinstance(env, AtariConfig) else ()
    known = {room for storey in storeys for room in storey}
    return storeys if storeys and set(numbers_of(seen)) <= known else None


def numbers_of(seen: Sequence[Explored]) -> list[int]:
    """Return the rooms that any run has seen."""
    together = np.any([each.rooms for each in seen], 0) if seen else np.zeros(0, bool)
    return [int(number) for number in np.flatnonzero(together)]


def places_of(
    numbers: Sequence[int], storeys: Sequence[Sequence[int]] | None
) -> dict[int, tuple[int, int]]:
    """Return row and column of each room: where it lies in the game, or in the order of numbers.

    Args:
      numbers: the rooms that were seen.
      storeys: all rooms of the game, or None where their places are not known.
    """
    if storeys is None:
        return {number: divmod(index, COLUMNS) for index, number in enumerate(numbers)}
    widest = max(map(len, storeys))
    return {
        room: (row, (widest - len(storey)) // 2 + column)
        for row, storey in enumerate(storeys)
        for column, room in enumerate(storey)
    }


def rooms_figure(group: Group, seen: Sequence[Explored]) -> Figure | None:
    """Return a tile for each room, the darker, the more of the runs were there.

    Where the squares of rooms are known, each is coloured for itself. Where the game's map is
    known, rooms lie as on it, and those that nobody saw are empty. None if no room was seen.

    Args:
      group: whose game and colour.
      seen: of each run.
    """
    numbers = numbers_of(seen)
    if not numbers:
        return None
    places = places_of(numbers, storeys_of(group, seen))
    rows = 1 + max(row for row, _ in places.values())
    columns = max(COLUMNS, 1 + max(column for _, column in places.values()))
    figure = Figure(figsize=(WIDTH, rows * WIDTH / columns * 1.15), dpi=180)
    ink = LinearSegmentedColormap.from_list("", ["#f8f9fa", colour(group)])
    for number, (row, column) in places.items():
        ax = figure.add_subplot(rows, columns, row * columns + column + 1)
        share = np.mean([tile(each, number) for each in seen], 0)
        ax.imshow(share, origin="lower", cmap=ink, vmin=0, vmax=1, interpolation="nearest")
        runs = sum(bool(each.rooms[number]) for each in seen)
        of = f": {runs} of {len(seen)}" if len(seen) > 1 else ""
        ax.set_title(f"room {number}{of}", fontsize=8, color=GREY, pad=2)
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set(visible=True, color=PALE)
    figure.tight_layout(pad=0.4)
    return figure


def tile(seen: Explored, number: int) -> Array:
    """Return where a run was in a room, float [SIDE, SIDE]; all of it if squares are unknown."""
    if seen.cells is None:
        return np.full((SIDE, SIDE), float(seen.rooms[number]))
    return seen.cells[number].astype(float)
