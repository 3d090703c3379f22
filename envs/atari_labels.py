"""Where the state of an Atari game is in its RAM: bytes by name and category.

The addresses and categories are those of AtariARI (Anand et al., 2019, "Unsupervised State
Representation Learning in Atari", arXiv 1906.08226), with the sets of labels of the paper. Labels
that its authors added later are left out: Pitfall's clock, Pong's x of both players, and Qbert's
score and tiles. Three things differ. Our names are those of their newest tables. Seaquest's divers
are, as in the paper, no small objects. The lives of Space Invaders are at the address that the
authors corrected in 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

SMALL = "small objects"
AGENT = "agent"
OTHER = "other objects"
SCORE = "score, clock, lives, display"
MISC = "misc"
CATEGORIES = (SMALL, AGENT, OTHER, SCORE, MISC)

# Game -> category -> label -> its byte of the RAM, 0 to 127. Several bytes become label_0, label_1
# and so on.
TABLE: dict[str, dict[str, dict[str, int | Sequence[int]]]] = {
    "Asteroids": {
        SMALL: {
            "player_missile_x1": 83,
            "player_missile_x2": 84,
            "player_missile_y1": 86,
            "player_missile_y2": 87,
        },
        AGENT: {"player_x": 73, "player_y": 74},
        OTHER: {
            "enemy_asteroids_y": (3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18, 19),
            "enemy_asteroids_x": (21, 22, 23, 24, 25, 26, 27, 30, 31, 32, 33, 34, 35, 36, 37),
        },
        SCORE: {"num_lives_direction": 60, "player_score_high": 61, "player_score_low": 62},
        MISC: {"player_missile1_direction": 89, "player_missile2_direction": 90},
    },
    "Berzerk": {
        SMALL: {
            "player_missile_x": 22,
            "player_missile_y": 23,
            "robot_missile_x": 29,
            "robot_missile_y": 30,
        },
        AGENT: {"player_x": 19, "player_y": 11},
        OTHER: {
            "enemy_evilOtto_x": 46,
            "enemy_evilOtto_y": 89,
            "enemy_robots_x": range(65, 73),
            "enemy_robots_y": range(56, 65),
        },
        SCORE: {"num_lives": 90, "player_score": range(93, 96)},
        MISC: {
            "player_direction": 14,
            "player_missile_direction": 21,
            "robot_missile_direction": 26,
            "robots_killed_count": 91,
            "game_level": 92,
        },
    },
    "Bowling": {
        SMALL: {"ball_x": 30, "ball_y": 41},
        AGENT: {"player_x": 29, "player_y": 40},
        SCORE: {"frame_number_display": 36, "score": 33},
        MISC: {"pin_existence": range(57, 67)},
    },
    "Boxing": {
        AGENT: {"player_x": 32, "player_y": 34},
        OTHER: {"enemy_x": 33, "enemy_y": 35},
        SCORE: {"enemy_score": 19, "clock": 17, "player_score": 18},
    },
    "Breakout": {
        SMALL: {"ball_x": 99, "ball_y": 101},
        AGENT: {"player_x": 72},
        SCORE: {"score": 84},
        MISC: {"blocks_hit_count": 77, "block_bit_map": range(30)},
    },
    "DemonAttack": {
        SMALL: {"missile_y": 21},
        AGENT: {"player_x": 22},
        OTHER: {
            "enemy_x1": 17,
            "enemy_x2": 18,
            "enemy_x3": 19,
            "enemy_y1": 69,
            "enemy_y2": 70,
            "enemy_y3": 71,
        },
        SCORE: {"num_lives": 114},
        MISC: {"level": 62},
    },
    "Freeway": {
        AGENT: {"player_y": 14},
        OTHER: {"enemy_car_x": range(108, 118)},
        SCORE: {"score": 103},
    },
    "Frostbite": {
        AGENT: {"player_x": 102, "player_y": 100},
        OTHER: {
            "top_row_iceflow_x": 34,
            "second_row_iceflow_x": 33,
            "third_row_iceflow_x": 32,
            "fourth_row_iceflow_x": 31,
            "enemy_bear_x": 104,
            "enemy_x": range(84, 88),
        },
        SCORE: {"num_lives": 76, "score": range(72, 75)},
        MISC: {"igloo_blocks_count": 77, "player_direction": 4},
    },
    "Hero": {
        AGENT: {"player_x": 27, "player_y": 31},
        SCORE: {"power_meter": 43, "score": (56, 57)},
        MISC: {"room_number": 28, "level_number": 117, "dynamite_count": 50},
    },
    "MontezumaRevenge": {
        AGENT: {"player_x": 42, "player_y": 43},
        OTHER: {"enemy_skull_x": 47, "enemy_skull_y": 46, "key_monster_x": 44, "key_monster_y": 45},
        SCORE: {"num_lives": 58, "score": range(19, 22)},
        MISC: {
            "room_number": 3,
            "player_direction": 52,
            "level": 57,
            "items_in_inventory_count": 61,
            "room_state": 62,
        },
    },
    "MsPacman": {
        AGENT: {"player_x": 10, "player_y": 16},
        OTHER: {
            "enemy_sue_x": 6,
            "enemy_inky_x": 7,
            "enemy_pinky_x": 8,
            "enemy_blinky_x": 9,
            "enemy_sue_y": 12,
            "enemy_inky_y": 13,
            "enemy_pinky_y": 14,
            "enemy_blinky_y": 15,
            "fruit_x": 11,
            "fruit_y": 17,
        },
        SCORE: {"player_score": 120, "num_lives": 123},
        MISC: {"ghosts_count": 19, "player_direction": 56, "dots_eaten_count": 119},
    },
    "Pitfall": {
        AGENT: {"player_x": 97, "player_y": 105},
        OTHER: {"enemy_logs_x": 98, "enemy_scorpion_x": 99, "bottom_of_rope_y": 18},
    },
    "Pong": {
        SMALL: {"ball_x": 49, "ball_y": 54},
        AGENT: {"player_y": 51},
        OTHER: {"enemy_y": 50},
        SCORE: {"enemy_score": 13, "player_score": 14},
    },
    "PrivateEye": {
        AGENT: {"player_x": 63, "player_y": 86},
        OTHER: {"dove_x": 48, "dove_y": 39},
        SCORE: {"clock": (67, 69), "score": (73, 74)},
        MISC: {"room_number": 92, "player_direction": 58},
    },
    "Qbert": {
        AGENT: {"player_x": 43, "player_y": 67, "player_column": 35},
        OTHER: {"red_enemy_column": 69, "green_enemy_column": 105},
    },
    "Riverraid": {
        SMALL: {"missile_x": 117, "missile_y": 50},
        AGENT: {"player_x": 51},
        SCORE: {"fuel_meter_high": 55, "fuel_meter_low": 56},
    },
    "Seaquest": {
        SMALL: {"player_missile_x": 103},
        AGENT: {"player_x": 70, "player_y": 97},
        OTHER: {"enemy_obstacle_x": range(30, 34), "diver_x": range(71, 75)},
        SCORE: {"oxygen_meter_value": 102, "score": (57, 58), "num_lives": 59},
        MISC: {
            "player_direction": 86,
            "player_missile_direction": 87,
            "divers_collected_count": 62,
        },
    },
    "SpaceInvaders": {
        SMALL: {"missiles_y": 9},
        AGENT: {"player_x": 28},
        OTHER: {"enemies_x": 26, "enemies_y": 24},
        SCORE: {"player_score": 104, "num_lives": 73},
        MISC: {"invaders_left_count": 17},
    },
    "Tennis": {
        SMALL: {"ball_x": 16, "ball_y": 17},
        AGENT: {"player_x": 26, "player_y": 24},
        OTHER: {"enemy_x": 27, "enemy_y": 25},
        SCORE: {"enemy_score": 70, "player_score": 69},
    },
    "Venture": {
        AGENT: {"player_x": 85, "player_y": 26},
        OTHER: {
            "sprite0_y": 20,
            "sprite1_y": 21,
            "sprite2_y": 22,
            "sprite3_y": 23,
            "sprite4_y": 24,
            "sprite5_y": 25,
            "sprite0_x": 79,
            "sprite1_x": 80,
            "sprite2_x": 81,
            "sprite3_x": 82,
            "sprite4_x": 83,
            "sprite5_x": 84,
        },
        SCORE: {"num_lives": 70, "score_1_2": 71, "score_3_4": 72},
        MISC: {"current_room": 90},
    },
    "VideoPinball": {
        SMALL: {"ball_x": 67, "ball_y": 68},
        AGENT: {"player_left_paddle_y": 98, "player_right_paddle_y": 102},
        SCORE: {"score_1": 48, "score_2": 50},
    },
    "YarsRevenge": {
        SMALL: {
            "player_missile_x": 38,
            "player_missile_y": 37,
            "enemy_missile_x": 47,
            "enemy_missile_y": 46,
        },
        AGENT: {"player_x": 32, "player_y": 31},
        OTHER: {"enemy_x": 43, "enemy_y": 42},
    },
}


def labels_of(game: str) -> dict[str, tuple[int, str]]:
    """The labels of a game's state.

    Args:
      game: its name, such as "MontezumaRevenge".

    Returns:
      Label -> its byte of the RAM, 0 to 127, and its category, one of CATEGORIES.

    Raises:
      ValueError: the game has no labels.

    >>> labels_of("Pitfall")["player_x"]
    (97, 'agent')
    """
    if game not in TABLE:
        raise ValueError(
            f"{game} has no labels of its RAM; the games that have them are {', '.join(TABLE)}"
        )
    return {
        name: (byte, category)
        for category, entries in TABLE[game].items()
        for name, byte in numbered(entries).items()
    }


def numbered(entries: dict[str, int | Sequence[int]]) -> dict[str, int]:
    """Labels and their bytes, with a number after the names that have several bytes."""
    labels: dict[str, int] = {}
    for name, place in entries.items():
        if isinstance(place, int):
            labels[name] = place
        else:
            labels |= {f"{name}_{index}": byte for index, byte in enumerate(place)}
    return labels
