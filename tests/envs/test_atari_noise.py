"""Noise on Atari: where and when it shows, and that the game and the frame stack are right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from afterwit.envs.arrays import Array
from afterwit.envs.atari import Atari, AtariConfig
from afterwit.envs.atari_noise import NOISES, FrameNoise
from afterwit.envs.specs import TimeStep
from afterwit.runs.configs.presets import atari, atari_small

SIZE, STEPS, ENVS = 32, 25, 3


def config(**settings: Any) -> AtariConfig:
    return AtariConfig(
        "Breakout",
        **{
            "num_envs": ENVS,
            "noop_max": 1,
            "image_size": SIZE,
            "threads": 1,
            "episode_frames": 40,
            **settings,
        },
    )


def play(settings: AtariConfig, seed: int = 3) -> tuple[list[TimeStep], Array]:
    """A rollout over several short episodes, and its actions."""
    env = Atari(settings, seed)
    actions = np.random.default_rng(0).integers(18, size=(STEPS, ENVS))
    steps = [env.reset(), *(env.step(action) for action in actions)]
    env.close()
    return steps, np.concatenate([np.zeros((1, ENVS), np.int64), actions])


def newest(steps: list[TimeStep], channels: int = 1) -> Array:
    return np.stack([step.observation[:, -channels:] for step in steps])


@pytest.mark.parametrize("kind", [kind for kind in NOISES if kind != "none"])
@pytest.mark.parametrize("grayscale", (True, False))
def test_the_game_below_goes_on_unchanged_and_only_the_strip_is_covered(
    kind: str, grayscale: bool
) -> None:
    plain, _ = play(config(grayscale=grayscale))
    noisy, _ = play(config(grayscale=grayscale, noise=kind, noise_height=0.25))
    again, _ = play(config(grayscale=grayscale, noise=kind, noise_height=0.25))
    on = np.stack([step.info["noise_on"] for step in noisy])
    assert on.any()
    for index, (one, other) in enumerate(zip(plain, noisy, strict=True)):
        for name in ("first", "reward", "terminal", "truncated"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.info["lives"], other.info["lives"])
        np.testing.assert_array_equal(
            one.observation[:, :, SIZE // 4 :], other.observation[:, :, SIZE // 4 :]
        )
        np.testing.assert_array_equal(other.observation, again[index].observation)
        changed = (one.observation != other.observation).any((1, 2, 3))
        # the walk may add 0 everywhere, but not for long
        assert (changed == on[index]).all() or kind == "walk"
    assert (newest(plain) != newest(noisy)).any()


@pytest.mark.parametrize("kind", ("pixel", "on-demand"))
def test_random_bytes_cover_their_share_when_they_should(kind: str) -> None:
    plain, actions = play(config())
    noisy, _ = play(config(noise=kind, density=0.3))
    first = np.stack([step.first for step in noisy])
    on = np.stack([step.info["noise_on"] for step in noisy])
    np.testing.assert_array_equal(
        on, np.ones_like(on) if kind == "pixel" else (actions == 0) & ~first
    )
    differs = (newest(plain) != newest(noisy))[on]
    assert differs.mean() == pytest.approx(0.3 * 255 / 256, abs=0.02)
    values = newest(noisy)[on][differs]
    assert abs(values.mean() - 127.5) < 6 and values.min() < 5 and values.max() > 250


def test_a_dose_is_a_share_of_frames() -> None:
    noisy, _ = play(config(noise="pixel", dose=0.3, num_envs=ENVS))
    on = np.stack([step.info["noise_on"] for step in noisy])
    assert 0.15 < on.mean() < 0.45
    assert not np.stack(
        [step.info["noise_on"] for step in play(config(noise="pixel", dose=0.0))[0]]
    ).any()


def test_the_frozen_layer_is_the_same_in_every_frame_and_run() -> None:
    plain, _ = play(config())
    shows = [newest(play(config(noise="frozen"), seed)[0]) for seed in (3, 4)]
    covered = (newest(plain) != shows[0]).any((0, 1, 2))
    assert 0.4 < covered.mean() < 0.6
    for show in shows:
        values = show[:, :, 0][:, :, covered]
        assert (values == values[0, 0]).all()


@pytest.mark.parametrize("overflow", ("clip", "wrap"))
def test_the_walk_adds_a_walk_whose_step_follows_the_action(overflow: Any) -> None:
    """The noise is added to a known frame, so that the walk can be read off."""
    noise = FrameNoise(
        "walk",
        2,
        1,
        8,
        np.random.default_rng(0),
        dose=1.0,
        density=0.5,
        height=1.0,
        walk_modulus=50,
        walk_steps=(1, 11),
        walk_overflow=overflow,
        walk_restarts=False,
    )
    base, before = 220, None
    for step in range(60):
        action = np.array([step % 18, 7 * step % 18])
        frames, on = noise.cover(
            np.full((2, 1, 8, 8), base, np.uint8), action, np.array([step == 0, step == 30])
        )
        assert on.all()
        added = (frames.astype(int) - base) % 256
        if overflow == "clip":
            assert frames.max() <= 255 and (frames >= base).all()
            continue
        assert added.max() < 50
        if before is not None:
            for env in range(2):
                opens = step == 30 and env == 1
                size = 11 if action[env] % 2 and not opens else 1
                assert set(np.unique((added - before)[env] % 50)) == {size, 50 - size}
        before = added


def test_a_walk_that_restarts_is_drawn_anew_where_an_episode_opens() -> None:
    def jumps(restarts: bool) -> tuple[int, int]:
        rng = np.random.default_rng(0)
        noise = FrameNoise(
            "walk",
            2,
            1,
            8,
            rng,
            dose=1.0,
            density=0.5,
            height=1.0,
            walk_modulus=50,
            walk_steps=(1, 11),
            walk_overflow="clip",
            walk_restarts=restarts,
        )
        frame, action = np.zeros((2, 1, 8, 8), np.uint8), np.zeros(2, np.int64)
        old = noise.cover(frame, action, np.zeros(2, bool))[0].astype(int)
        new = noise.cover(frame, action, np.array([True, False]))[0].astype(int)
        far = [len(set(np.unique((new - old)[env] % 50))) for env in range(2)]
        return far[0], far[1]

    assert jumps(False) == (2, 2)
    assert jumps(True)[0] > 10 and jumps(True)[1] == 2


@pytest.mark.parametrize("grayscale", (True, False))
def test_a_stack_holds_the_frames_that_were_shown(grayscale: bool) -> None:
    channels = 1 if grayscale else 3
    stacked, _ = play(config(grayscale=grayscale, noise="pixel", frame_stack=3))
    shown = newest(stacked, channels)
    for t, step in enumerate(stacked):
        for env in range(ENVS):
            for back in range(3):
                opened = max(index for index in range(t + 1) if stacked[index].first[env])
                expected = shown[max(opened, t - back), env]
                start = (2 - back) * channels
                np.testing.assert_array_equal(
                    step.observation[env, start : start + channels], expected
                )


@pytest.mark.parametrize(
    "settings",
    [{}, {"episodic_life": True, "episode_frames": 4000}, {"backend": "ale"}],
    ids=("envpool", "lives", "ale"),
)
def test_a_dose_of_nothing_changes_no_stack(settings: dict[str, Any]) -> None:
    """Also where an episode ends with a life, and the frames before stay in the stack."""
    rollouts = []
    more: dict[str, Any]
    for more in ({}, {"noise": "pixel", "dose": 0.0}):
        env = Atari(config(**{"num_envs": 2, "frame_stack": 4} | settings | more), 3)
        actions = np.random.default_rng(0).integers(18, size=(250, 2))
        rollouts.append([env.reset(), *(env.step(action) for action in actions)])
        env.close()
    assert sum(int(step.first.sum()) for step in rollouts[0]) > 2, "no episode ended"
    for plain, noisy in zip(*rollouts, strict=True):
        np.testing.assert_array_equal(plain.observation, noisy.observation)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": "snow"}, "unknown Atari noise 'snow'; choose from none, pixel"),
        ({"dose": 1.5}, "dose is 1.5"),
        ({"density": -0.1}, "density is -0.1"),
        ({"noise_height": 2.0}, "noise_height is 2.0"),
        ({"walk_modulus": 300}, "walk_modulus is 300"),
        ({"walk_steps": (1, 60)}, r"walk_steps is \(1, 60\)"),
    ],
)
def test_values_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_presets_take_the_noise_and_say_what_they_did_with_it() -> None:
    assert atari_small(noise="walk").env == replace(atari_small().env, noise="walk")
    mixed, alone = atari(), atari(reward="intrinsic")
    assert mixed.learner.extrinsic_weight == 1 and alone == replace(
        mixed, learner=replace(mixed.learner, extrinsic_weight=0.0)
    )
    semantics = Atari(config(noise="on-demand"), 0).spec.semantics
    assert semantics["noise"] == "on-demand" and semantics["noise_action"] == 0
    assert "noise" not in Atari(config(), 0).spec.semantics
