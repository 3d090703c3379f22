"""The noisy-TV room: its views, its noise, its rooms, and what networks see of it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.minigrid_env import MiniGridEnv

from afterwit.envs import minigrid
from afterwit.envs.minigrid import ACTIONS, MiniGrid, MiniGridConfig
from afterwit.envs.minigrid_tv import CHANNELS, ROOM_HEIGHT, SCREEN, NoisyTVEnv, OneHot
from afterwit.envs.noise import TVS
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.training.run import Run

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(len(ACTIONS))
EAST = 0


def test_an_environment_goes_by_the_name_that_minigrid_gives_it() -> None:
    """In a process that has not imported minigrid, too, such as an actor of a cluster."""
    for name in ("MiniGrid-Unlock-v0", "BabyAI-Unlock-v0"):
        assert MiniGridConfig(name) == MiniGridConfig(f"minigrid:{name}")
        assert MiniGridConfig(name).id == f"minigrid:{name}"


def noisy_tv(tv: str = "on-demand", seed: int = 0) -> NoisyTVEnv:
    env = NoisyTVEnv(tv)
    env.reset(seed=seed)
    return env


def walk(env: NoisyTVEnv, rooms: int) -> list[dict[str, Any]]:
    """Walk from the middle of the row of doors to room `rooms`, opening doors.

    Returns the infos of all steps.
    """
    env.agent_pos, env.agent_dir = (2, ROOM_HEIGHT // 2 + 1), EAST
    infos = []
    while not infos or infos[-1]["room"] < rooms:
        door = env.grid.get(*env.front_pos)
        infos.append(env.step(FORWARD if door is None or door.can_overlap() else TOGGLE)[4])
    return infos


def picture(env: NoisyTVEnv) -> list[tuple[int, int, int]]:
    return [env.grid.get(*cell).encode() for cell in SCREEN]


@pytest.mark.parametrize("tv", TVS)
def test_the_agent_sees_what_minigrid_shows_and_noise_is_a_new_picture_in_view(tv: str) -> None:
    env, rng, noisy, hidden, rooms = noisy_tv(tv), np.random.default_rng(0), 0, 0, set()
    for step in range(1500):
        if step % 300 == 0:
            observation, info = env.reset(seed=step)
            if step == 600:
                walk(env, 4)
                walk(env, 1)
                observation = env.gen_obs()
            redrawn, before = False, picture(env)
        else:
            before = picture(env)
            action = rng.choice(
                [LEFT, RIGHT, FORWARD, FORWARD, FORWARD, PICKUP, DROP, TOGGLE, DONE]
            )
            observation, reward, terminal, truncated, info = env.step(action)
            assert not (reward or terminal or truncated)
            redrawn = tv == "always" or (tv == "on-demand" and int(action) == DONE)
        expected = MiniGridEnv.gen_obs(env)
        np.testing.assert_array_equal(observation["image"], expected["image"])
        assert observation["direction"] == expected["direction"]
        assert redrawn or picture(env) == before
        seen = any(env.agent_sees(*cell) for cell in SCREEN)
        assert info["noise_on"] is (redrawn and seen), (
            "a bool of Python's own: vectors drop NumPy's"
        )
        noisy += redrawn and seen
        hidden += redrawn and not seen
        rooms.add(info["room"])
    assert tv == "off" or (noisy > 20 and hidden > 20)
    assert len(rooms) > 1


def test_every_picture_comes_up_and_none_is_preferred() -> None:
    env = noisy_tv("always")
    shown = []
    for _ in range(900):
        env.step(LEFT)
        shown += picture(env)
    looks, counts = np.unique(np.array(shown), axis=0, return_counts=True)
    assert len(looks) == 18 and counts.min() > 100 and counts.max() < 200
    assert {look for look, _, _ in looks.tolist()} == {
        OBJECT_TO_IDX[name] for name in ("key", "ball", "box")
    }


def test_rooms_are_counted_and_forgotten_on_reset() -> None:
    env = noisy_tv()
    infos = walk(env, 4)
    assert [info["room"] for info in infos] == sorted(info["room"] for info in infos)
    assert {info["room"] for info in infos} == {0, 1, 2, 3, 4}
    for info in infos:
        assert info["trackers"].tolist() == [info["room"] > index for index in range(4)]
    _, info = env.reset()
    assert info["room"] == 0 and not info["trackers"].any() and not info["noise_on"]
    assert infos[-1]["trackers"].all(), "what was told stays as it was"
    starts = {(tuple(map(int, env.agent_pos)), env.agent_dir) for _ in range(40) if env.reset()}
    assert len(starts) > 10 and all(0 < x < 4 and 0 < y < 4 for (x, y), _ in starts)


def test_closed_doors_hide_the_television_and_nothing_can_be_carried() -> None:
    env = noisy_tv("always")
    assert walk(env, 1)[-1]["noise_on"] is False
    env.agent_dir = 2  # back to the door, which stands open
    # closes nothing: the agent stands behind the doorway's cell
    assert env.step(TOGGLE)[4]["noise_on"] is False
    env = noisy_tv()
    env.agent_pos, env.agent_dir = (1, 2), 2
    for action in (PICKUP, TOGGLE, FORWARD):
        env.step(action)
    assert env.carrying is None and tuple(env.agent_pos) == (1, 2) and len(picture(env)) == 3


def name_of(indices: dict[str, int], index: int) -> str:
    return next(name for name, other in indices.items() if other == index)


def test_one_hot_says_all_that_the_view_says() -> None:
    env = noisy_tv("always")
    channel, rng, states = CHANNELS.index, np.random.default_rng(0), set()
    for _ in range(300):
        view = env.step(rng.choice([LEFT, FORWARD, TOGGLE]))[0]
        image = OneHot(env).observation(view)
        assert (
            image.shape == (len(CHANNELS), 7, 7)
            and image.dtype == np.uint8
            and set(np.unique(image)) <= {0, 255}
        )
        for x, y in np.ndindex(7, 7):
            thing, colour, state = view["image"][x, y].tolist()
            expected = np.zeros(len(CHANNELS), bool)
            name = name_of(OBJECT_TO_IDX, thing)
            if name != "unseen":
                expected[channel(name)] = True
                if name != "empty":
                    expected[channel(name_of(COLOR_TO_IDX, colour))] = True
                if name == "door":
                    states.add(state)
                    expected[channel(name_of(STATE_TO_IDX, state))] = True
            np.testing.assert_array_equal(image[:, y, x] == 255, expected)
    assert states == {STATE_TO_IDX["open"], STATE_TO_IDX["closed"]}
    with pytest.raises(ValueError, match="dict with an `image`"):
        OneHot(gymnasium.make("CartPole-v1"))


def test_gymnasium_knows_it_and_its_checker_is_content() -> None:
    env = gymnasium.make("afterwit.envs:afterwit/NoisyTV-v0", tv="always", render_mode="rgb_array")
    assert env.spec is not None and env.spec.max_episode_steps == minigrid.EPISODE_STEPS
    check_env(env.unwrapped)
    env.reset(seed=0)
    frame: Any = env.render()
    assert frame.dtype == np.uint8 and frame.shape[2] == 3
    check_env(OneHot(NoisyTVEnv()), skip_render_check=True)


def test_the_spec_tells_which_action_makes_noise() -> None:
    def semantics(**options: Any) -> Any:
        return MiniGrid(MiniGridConfig(num_envs=1, **options), 0).spec.semantics

    assert {tv: semantics(tv=tv)["noise_action"] for tv in TVS} == {
        "off": None,
        "always": None,
        "on-demand": DONE,
    }
    assert semantics(noise="on-demand", noise_action=PICKUP)["noise_action"] == PICKUP
    assert semantics(tv="always")["tv"] == "always"
    own = MiniGrid(MiniGridConfig("minigrid:MiniGrid-Empty-5x5-v0", num_envs=1), 0).spec
    assert (
        own.semantics["noise_action"] is None
        and "tv" not in own.semantics
        and own.action_names == ACTIONS
    )


def test_a_run_counts_rooms_and_noise() -> None:
    config = PRESETS["minigrid"]()
    run = Run(
        replace(
            config, env=MiniGridConfig(num_envs=2, episode_steps=30), unroll_length=40, threads=1
        )
    )
    for _ in range(2):
        run.step()
    counted = run.statistics.pop()
    assert counted["episode/count"] == 4 and counted["episode/length"] == 30
    assert {"reached/R1", "reached/R4", "episode/rooms"} <= set(counted)
    assert counted["episode/rooms"] >= 1
    assert 0 < counted["share_of_time/noise"] == counted["share_of_time/noise_on"] < 0.5


def test_bad_values_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (NoisyTVEnv, lambda tv: MiniGridConfig(tv=tv)):
        with pytest.raises(
            ValueError, match="unknown tv 'loud'; choose from off, always, on-demand"
        ):
            make("loud")
    with (
        pytest.raises(ValueError, match=r"pip install 'afterwit\[minigrid\]'"),
        monkeypatch.context() as patch,
    ):
        patch.setattr(minigrid, "find_spec", lambda name: None)
        MiniGridConfig()
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "afterwit.envs.minigrid_tv")
        patch.setitem(sys.modules, "minigrid.core.actions", None)
        with pytest.raises(ImportError, match=r"pip install 'afterwit\[minigrid\]'"):
            importlib.import_module("afterwit.envs.minigrid_tv")
