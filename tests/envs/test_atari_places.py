"""Where the player is: the addresses follow the game, and rooms and cells are made of them."""

from __future__ import annotations

import numpy as np
import pytest

from afterwit.envs import atari_places
from afterwit.envs.arrays import Array
from afterwit.envs.atari import Atari
from tests.envs.test_atari import DOWN, FIRE, LEFT, NOOP, RIGHT, UP, config


def test_room_and_cell_are_those_in_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Atari(config("MontezumaRevenge", sticky=0.25), 0)
    assert (env.reset().info["room"] == 1).all()
    result = env.pool.step(np.zeros(3, np.int32))
    result[4]["ram"][:, [3, 42, 43]] = [(1, 15, 0), (5, 16, 255), (255, 255, 31)]
    monkeypatch.setattr(env, "pool", type("Pool", (), {"step": lambda self, action: result})())
    info = env.step(np.zeros(3, int)).info
    assert info["room"].tolist() == [1, 5, 255]
    assert (
        info["cell"].tolist() == [256, 5 * 256 + 15 * 16 + 1, 255 * 256 + 16 + 15]
        and info["cell"].max() < atari_places.CELLS
    )
    for other in (config("Pong"), config("MontezumaRevenge", backend="ale")):
        env = Atari(other, 0)
        assert not {"room", "cell"} & env.reset().info.keys() and "cells" not in env.spec.semantics
    for game in atari_places.PLACES:
        env = Atari(config(game), 0)
        known = {"room", "cell"} & env.reset().info.keys()
        assert known == {"room", "cell"} & set(env.spec.tells)
        assert ("cell" in known) == ("cells" in env.spec.semantics)


def watch(game: str, *actions: int, steps: int = 60) -> Array:
    """Return the RAM [n, 128] over a game in which each action is held for `steps` steps."""
    env = Atari(config(game, num_envs=1, sticky=0.0), 0)
    env.reset()
    seen = [env.step(np.array([action])) and env.ram for action in np.repeat(actions, steps)]
    env.close()
    return np.array(seen, int)[:, 0]


@pytest.mark.parametrize("game", atari_places.PLACES)
def test_the_addresses_follow_the_player(game: str) -> None:
    """x follows RIGHT and LEFT. y follows an action that lifts or lowers the player.

    The room changes where holding LEFT leads out of the first room.
    """
    place = atari_places.PLACES[game]
    left, right, idle = watch(game, LEFT), watch(game, RIGHT), watch(game, NOOP)
    rooms = [atari_places.read_place(ram, place).get("room") for ram in (left, right, idle)]
    if rooms[0] is not None:
        assert (len(np.unique(rooms[0])) > 1) == (game in ("Pitfall", "PrivateEye"))
        assert (rooms[2] == rooms[2][0]).all()
    if place.x is not None and rooms[0] is not None and rooms[1] is not None:
        # while both are in the room where they began
        together = (rooms[0] == rooms[1]) & (rooms[0] == rooms[0][0])
        # in Bank Heist LEFT leads out at once, and in again on the right
        rightmost, leftmost = (
            ram[together, place.x] for ram in (right, idle if game == "BankHeist" else left)
        )
        assert (rightmost >= leftmost).all() and (rightmost > leftmost).any()
        assert (np.abs(np.diff(rightmost)) < atari_places.SQUARE).all()
    if place.y is not None:
        actions = {
            "BankHeist": (*[RIGHT] * 11, *[DOWN] * 40),  # down a side street
            "Freeway": (UP,),
            "Hero": (UP,),
            "MontezumaRevenge": (DOWN,),  # down the ladder
            "PrivateEye": (FIRE,),  # a jump
            "Venture": (UP,),
        }[game]
        begin = 20 if game == "Hero" else 5  # H.E.R.O. is let down first
        moved = watch(game, *actions, steps=1 if game == "BankHeist" else 60)
        assert np.ptp(moved[begin:, place.y]) >= atari_places.SQUARE
        assert np.ptp(idle[begin:, place.y]) < atari_places.SQUARE


def test_places_are_made_of_the_bytes() -> None:
    ram = np.arange(3 * 128, dtype=np.uint8).reshape(3, 128) % 251
    ram[:, 117], ram[:, 28], ram[:, 27], ram[:, 31] = [0, 2, 17], [1, 5, 3], 33, 66
    hero = atari_places.read_place(ram, atari_places.PLACES["Hero"])
    assert hero["room"].tolist() == [1, 2 * 16 + 5, 1 * 16 + 3]  # the level goes round after 16
    assert hero["cell"].tolist() == [room * 256 + 4 * 16 + 2 for room in hero["room"]]
    ram[:, 14] = [6, 100, 177]
    freeway = atari_places.read_place(ram, atari_places.PLACES["Freeway"])
    assert freeway.keys() == {"cell"} and freeway["cell"].tolist() == [0, 6 * 16, 11 * 16]
    assert atari_places.read_place(ram, atari_places.PLACES["Pitfall"]).keys() == {"room"}
    assert atari_places.read_place(None, atari_places.PLACES["Hero"]) == {}


def test_the_next_city_of_bank_heist_is_another_room() -> None:
    ram = watch("BankHeist", LEFT, RIGHT, steps=10)  # round to the right, and out there
    room = atari_places.read_place(ram, atari_places.PLACES["BankHeist"])["room"]
    assert room[0] == 0 and room[-1] == 1
