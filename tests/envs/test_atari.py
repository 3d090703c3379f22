"""Atari: the emulator does what the settings say."""

from __future__ import annotations

from typing import Any

import ale_py
import numpy as np
import pytest

from afterwit.envs import atari_config
from afterwit.envs.arrays import Array
from afterwit.envs.atari import Atari, AtariConfig

NOOP, FIRE, UP, RIGHT, LEFT, DOWN = 0, 1, 2, 3, 4, 5
PADDLE_BYTE = 72  # Breakout: address of the paddle's position in RAM
PADDLE_SPEED = 5.7  # Breakout: distance that the paddle moves per emulator frame

MONTEZUMAS = (
    "MontezumaRevenge-v5",
    "ALE/MontezumaRevenge-v5",
    "MontezumaRevengeNoFrameskip-v4",
    "montezuma_revenge",
    "MontezumasRevenge",
    "montezuma_revenge-v5",
    "Montezuma-v0",
    "ale/montezuma",
)
OTHERS = {
    "Breakout-ram-v4": "Breakout",
    "Breakout-ramNoFrameskip-v4": "Breakout",
    "PongDeterministic-v4": "Pong",
    "pong": "Pong",
    "Ms. Pac-Man": "MsPacman",
    "ALE/Qbert-ram-v5": "Qbert",
    "Q*bert": "Qbert",
    "Pitfall!": "Pitfall",
    "Space": "SpaceInvaders",
    "Montezuma's Revenge": "MontezumaRevenge",
}


def config(game: str, **settings: Any) -> AtariConfig:
    return AtariConfig(
        game, **{"num_envs": 3, "noop_max": 1, "image_size": 32, "threads": 1, **settings}
    )


def emulator_rams(seed: int, game: str, actions: Array, sticky: float, frame_skip: int) -> Array:
    """RAM of ALE's own emulator, uint8 [steps, 128].

    After one no-op, each action is executed for `frame_skip` frames.
    """
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", sticky)
    ale.setInt("random_seed", seed)
    rom = ale_py.roms.get_rom_path(game)
    assert rom is not None
    ale.loadROM(rom)
    ale.act(ale_py.Action.NOOP)
    rams = []
    for action in actions:
        for _ in range(frame_skip):
            ale.act(ale.getLegalActionSet()[action])
        rams.append(ale.getRAM().copy())
    return np.stack(rams)


@pytest.mark.parametrize(("sticky", "frame_skip"), [(0.25, 4), (0.25, 1), (0.1, 4), (0.0, 3)])
def test_sticky_actions_are_the_emulators_own_drawn_on_every_frame(
    sticky: float, frame_skip: int
) -> None:
    env = Atari(config("Breakout", sticky=sticky, frame_skip=frame_skip), seed=0)
    env.reset()
    actions = np.random.default_rng(0).integers(18, size=(60, 3))
    rams = np.stack([env.pool.step(action.astype(np.int32))[4]["ram"] for action in actions])
    for index, seed in enumerate(env.seeds):
        np.testing.assert_array_equal(
            rams[:, index], emulator_rams(seed, "breakout", actions[:, index], sticky, frame_skip)
        )
        other = emulator_rams(seed, "breakout", actions[:, index], 0.15, frame_skip)
        assert (rams[:, index] != other).any(), (
            "another probability must show, or this shows nothing"
        )


def pulse_lengths(sticky: float) -> Array:
    """Emulator frames for which a single RIGHT or LEFT was executed, int [pulses].

    The action is chosen for one agent step (4 frames) between no-ops. The number of frames follows
    from the distance that Breakout's paddle moved.
    """
    env = Atari(config("Breakout", num_envs=32, sticky=sticky), seed=0)
    lengths = []
    for _ in range(3):
        env.reset()
        place = np.zeros(32, int)
        # back and forth, to stay clear of the walls
        for action in (NOOP, RIGHT, LEFT, RIGHT, LEFT, RIGHT, LEFT):
            for chosen in (action, NOOP, NOOP):
                ram = env.pool.step(np.full(32, chosen, np.int32))[4]["ram"]
            before, place = place, ram[:, PADDLE_BYTE].astype(int)
            if action != NOOP:
                lengths.append(np.round(abs(place - before) / PADDLE_SPEED).astype(int))
    return np.concatenate(lengths)


@pytest.mark.parametrize("sticky", [0.1, 0.25])
def test_sticky_actions_follow_their_probability_on_every_frame(sticky: float) -> None:
    lengths = pulse_lengths(sticky)
    assert len(lengths) == 3 * 6 * 32
    # The pulse starts k frames late with probability (1 - p) p^k. If it starts at all, it ends k'
    # frames late with the same distribution.
    expected = np.zeros(10)
    expected[0] = sticky**4
    for late in range(4):
        for over in range(9 - 4 + late):
            expected[4 - late + over] += (1 - sticky) ** 2 * sticky ** (late + over)
    measured = np.bincount(lengths, minlength=10)[:10] / len(lengths)
    np.testing.assert_allclose(measured, expected, atol=0.06)
    # Drawn once per agent step instead, a pulse would last 0, 4 or 8 frames and no others.
    assert (lengths % 4 != 0).mean() == pytest.approx(1 - expected[[0, 4, 8]].sum(), abs=0.06)


def test_without_sticky_actions_the_seed_makes_no_difference() -> None:
    def frames(sticky: float, seed: int) -> Array:
        env = Atari(config("Breakout", sticky=sticky, num_envs=2), seed)
        env.reset()
        return np.stack(
            [
                env.step(np.full(2, action)).observation
                for action in [FIRE, RIGHT, LEFT, RIGHT, NOOP] * 6
            ]
        )

    not_sticky = frames(0.0, 1)
    np.testing.assert_array_equal(not_sticky, frames(0.0, 2))
    np.testing.assert_array_equal(not_sticky[:, 0], not_sticky[:, 1])
    with_sticky = frames(0.25, 1)
    assert (with_sticky != frames(0.25, 2)).any()
    assert (with_sticky[:, 0] != with_sticky[:, 1]).any()


def test_neighbouring_seeds_share_no_game() -> None:
    seeds = [seed for run in range(5) for seed in Atari(config("Pong", num_envs=4), run).seeds]
    assert len(set(seeds)) == 20
    assert (
        Atari(config("Pong", num_envs=2), 7).seeds == Atari(config("Pong", num_envs=4), 7).seeds[:2]
    )


def test_actions_are_the_whole_joystick_unless_asked_otherwise() -> None:
    spec = Atari(config("Breakout"), 0).spec
    assert spec.num_actions == 18
    assert (
        spec.action_names[NOOP],
        spec.action_names[FIRE],
        spec.action_names[RIGHT],
        spec.action_names[17],
    ) == ("NOOP", "FIRE", "RIGHT", "DOWNLEFTFIRE")
    few = Atari(config("Breakout", full_action_space=False), 0).spec
    assert few.action_names == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert few.num_actions == 4


def keep_firing(env: Atari, steps: int) -> dict[str, Array]:
    """Reset, then press FIRE.

    In Breakout the ball is served again and again, and all lives are lost.
    """
    taken = [env.reset()] + [env.step(np.full(env.spec.num_envs, FIRE)) for _ in range(steps)]
    names = ("first", "reward", "terminal", "truncated")
    return {
        **{name: np.stack([getattr(step, name) for step in taken]) for name in names},
        **{key: np.stack([step.info[key] for step in taken]) for key in taken[0].info},
    }


def test_a_life_lost_ends_nothing_and_the_last_one_the_episode() -> None:
    seen = keep_firing(Atari(config("Breakout"), 0), 150)
    assert set(np.unique(seen["lives"])) == {0, 1, 2, 3, 4, 5}
    np.testing.assert_array_equal(seen["terminal"], seen["lives"] == 0)
    assert (seen["terminal"].sum(0) == 1).all()
    assert not seen["truncated"].any()
    assert (seen["lives"][seen["first"]] == 5).all()
    assert (seen["episode_frames"][seen["first"]] == 0).all()
    assert (np.diff(seen["episode_frames"], axis=0)[~seen["first"][1:]] == 4).all()


def test_episodic_life_ends_the_episode_on_every_life_but_not_the_game() -> None:
    seen = keep_firing(Atari(config("Breakout", episodic_life=True), 0), 110)
    lost = np.diff(seen["lives"], axis=0) < 0
    assert lost.sum() >= 6
    np.testing.assert_array_equal(seen["terminal"][1:], lost)
    np.testing.assert_array_equal(seen["first"][1:], seen["terminal"][:-1])
    assert not seen["truncated"].any()
    assert (np.diff(seen["episode_frames"], axis=0) >= 0)[:100].all(), (
        "the clock of the game goes on"
    )


def test_the_time_limit_truncates_and_never_terminates() -> None:
    over = int(
        np.flatnonzero(keep_firing(Atari(config("Breakout", num_envs=1), 0), 150)["terminal"])[0]
    )
    for limit, ending in (
        (over + 1, "terminal"),
        (over, "truncated"),
        (over - 1, "truncated"),
        (10, "truncated"),
    ):
        env = Atari(config("Breakout", num_envs=1, episode_frames=4 * limit), 0)
        assert env.spec.max_episode_steps == limit
        seen = keep_firing(env, min(limit, over))
        assert seen[ending][-1].all() and not seen[ending][:-1].any()
        assert not seen["terminal" if ending == "truncated" else "truncated"].any()


def test_the_limit_counts_emulator_frames() -> None:
    for skip, steps in ((1, 108_000), (4, 27_000), (5, 21_600)):
        spec = Atari(AtariConfig(num_envs=1, frame_skip=skip), 0).spec
        assert (spec.frames_per_step, spec.max_episode_steps) == (skip, steps)


def test_rewards_are_the_games_own() -> None:
    env = Atari(config("SpaceInvaders"), 0)
    env.reset()
    rewards = np.stack(
        [env.step(np.full(3, (FIRE, 11, 12)[step % 3])).reward for step in range(100)]
    )
    assert set(np.unique(rewards)) - {0, 5, 10, 15, 20, 25, 30, 200} == set()
    assert rewards.max() >= 5


@pytest.mark.parametrize("fire_reset", [False, True])
def test_fire_is_pressed_only_if_asked_for(fire_reset: bool) -> None:
    env = Atari(config("Breakout", fire_reset=fire_reset, noop_max=30), 0)
    env.reset()
    for _ in range(60):
        step = env.step(np.zeros(3, int))
    assert (step.info["lives"] < 5).any() == fire_reset


def test_the_picture_is_what_the_agent_sees() -> None:
    env = Atari(config("Pong", grayscale=False, frame_stack=2), 0)
    env.reset()
    step = env.step(np.zeros(3, int))
    image = env.render()
    assert image.shape == (128, 128, 3)
    np.testing.assert_array_equal(image[::4, ::4].transpose(2, 0, 1), step.observation[0, 3:])
    np.testing.assert_array_equal(image[3::4, 3::4], image[::4, ::4])
    gray = Atari(config("Pong"), 0)
    seen = gray.reset().observation[0, 0]
    np.testing.assert_array_equal(gray.render()[::4, ::4], np.stack([seen] * 3, -1))


def test_every_setting_is_recorded() -> None:
    recorded = Atari(config("Breakout", sticky=0.1, episode_frames=4000), 0).spec.semantics
    expected = {
        "backend": "envpool",
        "task": "Breakout-v5",
        "repeat_action_probability": 0.1,
        "sticky_drawn": "per emulator frame",
        "frame_skip": 4,
        "noop_max": 1,
        "full_action_space": True,
        "use_fire_reset": False,
        "episodic_life": False,
        "reward_clip": False,
        "episode_frames": 4000,
        "max_episode_steps": 1000,
    }
    assert {key: recorded[key] for key in expected} == expected
    assert recorded["backend_version"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"game": "Montezuma"}, "^unknown game 'Montezuma'; did you mean 'MontezumaRevenge'\\?$"),
        ({"game": "space_invaders"}, "did you mean 'SpaceInvaders'"),
        *(
            ({"game": name}, f"^unknown game '{name}'; did you mean 'MontezumaRevenge'\\?$")
            for name in MONTEZUMAS
        ),
        *(({"game": name}, f"did you mean '{right}'") for name, right in OTHERS.items()),
        *(
            ({"game": name}, f"^unknown game '{name}'; EnvPool has")
            for name in ("Nope", "Doom", "none", "go")
        ),
        ({"game": "Tetris99999"}, "unknown game 'Tetris99999'; "),
        ({"num_envs": 0}, "num_envs is 0; it must be at least 1"),
        ({"frame_skip": 0}, "frame_skip is 0"),
        ({"image_size": 0}, "image_size is 0"),
        ({"frame_stack": 0}, "frame_stack is 0"),
        ({"sticky": 1.5}, "sticky is 1.5; it is a probability"),
        ({"sticky": 1.0}, "sticky is 1.0"),
        ({"sticky": -0.25}, "sticky is -0.25"),
        ({"sticky": float("nan")}, "sticky is nan"),
        ({"noop_max": 0}, "noop_max is 0; .* the least is 1"),
        ({"threads": -1}, "threads is -1"),
        (
            {"episode_frames": 3},
            "episode_frames is 3; an episode has at least one agent step .4 emulator frames",
        ),
        ({"episode_frames": 10**12}, "episode_frames is 1000000000000"),
    ],
)
def test_what_envpool_would_take_or_crash_on_is_refused(
    setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "game" not in setting:  # then EnvPool must not even be asked for its list of games
        monkeypatch.setattr(atari_config, "games", lambda: pytest.fail("EnvPool was called"))
    with pytest.raises(ValueError, match=message):
        AtariConfig(**setting)
