"""Where the player is in an Atari game, as its RAM tells: the room, and a square of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.infos import ROOMS


@dataclass(frozen=True)
class Place:
    """Addresses in a game's 128 bytes of RAM that tell where the player is."""

    room: tuple[int, ...] = ()
    """The room's number; or the level's, then the room's in it, 16 rooms a level."""
    x: int | None = None
    y: int | None = None


# From Anand et al. (2019, arXiv 1906.08226), but for Bank Heist (its city is its room) and
# Pitfall's room, which we found by inspection. Pitfall's y is invalid while the player respawns. In
# Freeway the player only moves up and down. Coverage is not counted in other games. Montezuma's
# Revenge numbers the rooms of each level alike.
PLACES: dict[str, Place] = {
    "BankHeist": Place((0,), 28, 8),
    "Freeway": Place(y=14),
    "Hero": Place((117, 28), 27, 31),
    "MontezumaRevenge": Place((3,), 42, 43),
    "Pitfall": Place((1,)),
    "PrivateEye": Place((92,), 63, 86),
    "Venture": Place((90,), 85, 26),
}
# The rooms of a level, storey by storey, each storey centred below the one above
STOREYS: dict[str, tuple[range, ...]] = {
    "MontezumaRevenge": (range(3), range(3, 8), range(8, 15), range(15, 24))
}
SQUARE = 16  # width and height of a cell of a room, in units of x and y
SIDE = 256 // SQUARE  # cells in a row and in a column of a room
CELLS = 256 * SIDE**2
LEVEL_ROOMS = 16  # room numbers of a level, in games whose levels number their rooms alike


def read_place(ram: Array | None, place: Place) -> dict[str, Array]:
    """Return the room and the cell, int64 [B] each, as far as they are known.

    Args:
      ram: uint8 [B, 128], or None where the emulator does not tell.
      place: where in it the game keeps the player's place.
    """
    if ram is None:
        return {}
    known, number = {}, np.zeros(len(ram), np.int64)
    for address in place.room:
        number = number * LEVEL_ROOMS + ram[:, address]
    if place.room:
        known["room"] = number = number % ROOMS
    if place.y is not None:
        x = 0 if place.x is None else ram[:, place.x].astype(np.int64)
        y = ram[:, place.y].astype(np.int64)
        known["cell"] = (number * SIDE + y // SQUARE) * SIDE + x // SQUARE
    return known
