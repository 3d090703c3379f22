"""Games with sound: the same games as EnvPool's, and what is heard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterwit.envs.arrays import Array
from afterwit.envs.atari import Atari, AtariConfig
from afterwit.envs.atari_sound import SAMPLES, SILENCE, area_means, silent_share, spectrum

FIELDS = ("reward", "terminal", "truncated", "first")


def game(backend: str, name: str = "Breakout", num_envs: int = 3, **settings: Any) -> Atari:
    options = {"num_envs": num_envs, "noop_max": 1, "image_size": 42, "threads": 1, **settings}
    return Atari(AtariConfig(name, backend=backend, **options), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Breakout", {"sticky": 0.25}),
        ("MontezumaRevenge", {"sticky": 0.25, "frame_stack": 3}),
        ("Pong", {"sticky": 0.0, "frame_skip": 3, "full_action_space": False}),
        ("Freeway", {"sticky": 0.25, "episode_frames": 200}),
    ],
)
def test_it_plays_envpool_s_games(name: str, settings: dict[str, Any]) -> None:
    one, two = game("envpool", name, **settings), game("sound", name, **settings)
    assert one.spec.num_actions == two.spec.num_actions
    random, steps = np.random.default_rng(0), [(one.reset(), two.reset())]
    for _ in range(150):
        action = random.integers(0, one.spec.num_actions, 3)
        steps.append((one.step(action), two.step(action)))
        assert one.ram is not None
        assert two.ram is not None
        assert np.array_equal(one.ram, two.ram)
        for field in FIELDS:
            assert np.array_equal(getattr(steps[-1][0], field), getattr(steps[-1][1], field)), field
        seen, ours = (step.observation.astype(int) for step in steps[-1])
        assert abs(seen - ours).max() <= 2
        for key in steps[-1][0].info:
            assert np.array_equal(steps[-1][0].info[key], steps[-1][1].info[key]), key
    ended = sum(step.terminal.sum() + step.truncated.sum() for step, _ in steps)
    assert ended or name in ("MontezumaRevenge", "Pong")


def rollout(num_envs: int, steps: int = 60) -> tuple[Array, Array]:
    env = game("sound", "Qbert", num_envs, sticky=0.25, noop_max=30)
    env.reset()
    seen, heard = [], []
    for _ in range(steps):
        seen.append(env.step(np.full(num_envs, 3)).observation)
        assert env.sound is not None
        heard.append(env.sound.copy())
    return np.stack(seen), np.stack(heard)


def test_the_same_seed_sounds_the_same_and_games_are_apart() -> None:
    one, two, more = rollout(2), rollout(2), rollout(4)
    for first, second, third in zip(one, two, more, strict=True):
        assert np.array_equal(first, second)
        assert np.array_equal(first, third[:, :2])
    assert one[1].shape == (60, 2, 4, SAMPLES)
    assert (one[1] != SILENCE).any()
    assert not np.array_equal(one[0][:, 0], one[0][:, 1])


def test_envpool_and_ale_give_no_sound() -> None:
    for backend in ("envpool", "ale"):
        env = game(backend)
        env.reset()
        assert env.sound is None


def test_area_means_average_equal_parts() -> None:
    assert np.allclose(area_means(np.arange(6), 3, 0), [0.5, 2.5, 4.5])
    five = np.array([1, 10, 100, 1000, 10000])
    expected = [(1 + 10 + 50) / 2.5, (50 + 1000 + 10000) / 2.5]  # 2.5 cells each
    assert np.allclose(area_means(five, 2, 0), expected)
    table = np.arange(210 * 160).reshape(210, 160) % 251
    assert np.allclose(area_means(table, 42, 0), table.reshape(42, 5, 160).mean(1))
    assert np.allclose(area_means(table, 40, 1), table.reshape(210, 40, 4).mean(-1))


def test_a_tone_is_loudest_in_its_band_and_silence_is_nothing() -> None:
    time = np.arange(SAMPLES)
    for cycles in (5, 60, 200):
        wave = SILENCE + 100 * np.sin(2 * np.pi * cycles * time / SAMPLES)
        loudness = spectrum(wave.astype(np.uint8)[None, None])
        assert loudness.shape == (1, 1, 32)
        assert loudness.dtype == np.float32
        assert loudness.argmax() == (cycles - 1) // 8
        assert 0.8 < loudness.max() <= 1.01
    assert not spectrum(np.full((2, SAMPLES), SILENCE, np.uint8)).any()


def test_silence_is_a_level_that_stays() -> None:
    sound = np.full((2, 2, SAMPLES), SILENCE, np.uint8)
    sound[0, 1] = 7
    assert silent_share(sound) == 1
    sound[1, 1, 3] += 1
    assert silent_share(sound) == 0.75


@pytest.mark.parametrize("name", ["episodic_life", "fire_reset"])
def test_what_it_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is True, which backend 'sound' does not have"):
        AtariConfig("Breakout", backend="sound", **{name: True})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="grayscale is False, which backend 'sound'"):
        AtariConfig("Breakout", backend="sound", grayscale=False)
