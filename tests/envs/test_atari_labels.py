"""The labels of Atari's RAM: they are the paper's, and the games agree with them."""

from __future__ import annotations

import numpy as np
import pytest

from afterwit.envs.atari import Atari, AtariConfig
from afterwit.envs.atari_config import games
from afterwit.envs.atari_labels import CATEGORIES, TABLE, labels_of
from afterwit.envs.atari_places import PLACES

# Labels of each game in the paper's tables (Anand et al., 2019).
COUNTS = {
    "MontezumaRevenge": 15,
    "PrivateEye": 10,
    "Venture": 18,
    "Pitfall": 5,
    "Freeway": 12,
    "Qbert": 5,
    "Hero": 8,
    "Pong": 6,
}


def test_the_tables_are_those_of_the_paper() -> None:
    assert len(TABLE) == 22 and set(TABLE) <= set(games())
    assert {game: len(labels_of(game)) for game in COUNTS} == COUNTS
    for game in TABLE:
        places, categories = zip(*labels_of(game).values(), strict=True)
        assert len(set(places)) == len(places), game
        assert all(0 <= place < 128 for place in places) and set(categories) <= set(CATEGORIES)


@pytest.mark.parametrize("game", sorted(set(PLACES) & set(TABLE) - {"Pitfall"}))
def test_the_players_place_is_the_one_that_coverage_reads(game: str) -> None:
    labels, place = labels_of(game), PLACES[game]
    names = {"Venture": ("current_room",), "Hero": ("level_number", "room_number")}
    rooms = () if game == "Freeway" else names.get(game, ("room_number",))
    assert place.room == tuple(labels[name][0] for name in rooms)
    assert place.y == labels["player_y"][0]
    assert place.x == (labels["player_x"][0] if "player_x" in labels else None)


def test_the_labels_follow_the_game() -> None:
    """Breakout's paddle goes right with RIGHT, and the ball is served with FIRE."""
    env = Atari(AtariConfig("Breakout", num_envs=1, sticky=0.0, threads=1, noop_max=1), seed=0)
    labels = labels_of("Breakout")
    env.reset()

    def play(action: int, times: int) -> dict[str, int]:
        for _ in range(times):
            env.step(np.array([action]))
        assert env.ram is not None
        return {name: int(env.ram[0, place]) for name, (place, _) in labels.items()}

    served = play(1, 12)
    right, left = play(3, 6), play(4, 6)
    env.close()
    assert right["player_x"] > served["player_x"] and left["player_x"] < right["player_x"]
    assert right["ball_y"] != served["ball_y"]
    assert all(served[f"block_bit_map_{index}"] for index in range(30))


def test_a_game_without_labels_lists_those_that_have_them() -> None:
    with pytest.raises(ValueError, match=r"BankHeist has no labels.*Freeway.*Venture") as caught:
        labels_of("BankHeist")
    assert "\n" not in str(caught.value)
