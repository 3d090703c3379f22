"""What `info` tells of MiniGrid worlds, against the worlds' own grids and views."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import pytest
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

from afterwit.envs.gym_make import make_vector
from afterwit.envs.infos import DOORS
from afterwit.envs.minigrid import MiniGrid, MiniGridConfig
from afterwit.envs.minigrid_labels import NAMES, Labels, number_of

TURNS = {(1, 0): 0, (0, 1): 1, (-1, 0): 2, (0, -1): 3}  # the agent's direction, as a vector
STATES = {"closed": 1, "locked": 2, "open": 3}
KEYS = "minigrid:MiniGrid-DoorKey-5x5-v0"


def truth(world: Any) -> dict[str, Any]:
    """The labels, read from the encoded grid and from the agent's view."""
    grid = world.grid.encode()  # [columns, rows, 3]: kinds, colours, states
    names = {number: name for name, number in STATE_TO_IDX.items()}
    doors = [
        STATES[names[int(state)]]
        for kind, _, state in grid.reshape(-1, 3)
        if kind == OBJECT_TO_IDX["door"]
    ][:DOORS]
    # MiniGrid shows what is carried in the agent's own cell, the middle of the last row
    kind, colour, _ = world.gen_obs()["image"][world.agent_view_size // 2, -1]
    nothing = kind == OBJECT_TO_IDX["empty"]
    kinds = len(COLOR_TO_IDX)
    return {
        "x": world.agent_pos[0],
        "y": world.agent_pos[1],
        "direction": TURNS[tuple(map(int, world.dir_vec))],
        "carrying": 0 if nothing else 1 + colour + kinds * kind,
        "doors": doors + [0] * (DOORS - len(doors)),
    }


@pytest.mark.parametrize(
    ("id", "doors"),
    [
        (KEYS, 1),
        ("minigrid:MiniGrid-MultiRoom-N4-S5-v0", 5),
        ("minigrid:MiniGrid-LockedRoom-v0", 6),
        ("minigrid:MiniGrid-Fetch-5x5-N2-v0", 0),
        ("afterwit/NoisyTV-v0", 4),
    ],
)
def test_labels_are_what_the_grid_and_the_view_show(id: str, doors: int) -> None:
    config = MiniGridConfig(id, num_envs=2, episode_steps=400, labels=True)
    rng, seen = np.random.default_rng(0), []
    with closing(MiniGrid(config, 1)) as env:
        worlds = [each.unwrapped for each in env.venv.envs]
        step = env.reset()
        for _ in range(1500):
            for index, world in enumerate(worlds):
                told = {name: step.info[name][index].tolist() for name in NAMES}
                assert told == truth(world)
                seen.append(told)
            step = env.step(rng.choice([0, 1, 2, 2, 2, 3, 4, 5], 2))
    assert {len(set(told["doors"]) - {0}) > 0 for told in seen} == {doors > 0}
    assert {sum(state > 0 for state in told["doors"]) for told in seen} == {doors}
    if doors and "LockedRoom" not in id:
        assert STATES["open"] in {state for told in seen for state in told["doors"]}
    if id == KEYS:
        assert {told["carrying"] for told in seen} == {0, number_of("key", "yellow")}
        assert {told["doors"][0] for told in seen} == set(STATES.values())
    assert {told["direction"] for told in seen} == {0, 1, 2, 3}


def test_labels_change_nothing_else() -> None:
    plain, labelled = (
        MiniGrid(MiniGridConfig(KEYS, num_envs=2, labels=labels), 3) for labels in (False, True)
    )
    assert not set(NAMES) & set(plain.spec.tells)
    assert plain.interface == labelled.interface
    one, two, rng = plain.reset(), labelled.reset(), np.random.default_rng(0)
    for _ in range(300):
        assert (one.observation == two.observation).all() and (one.first == two.first).all()
        assert (one.reward == two.reward).all() and not set(NAMES) & one.info.keys()
        action = rng.integers(0, 7, 2)
        one, two = plain.step(action), labelled.step(action)


def test_a_world_of_another_kind_is_left_as_it_is() -> None:
    env = Labels(gymnasium.make("CartPole-v1"))
    _, info = env.reset(seed=0)
    assert info == {} and env.step(0)[4] == {}
    assert "afterwit_tells" not in env.metadata
    with closing(make_vector("CartPole-v1", 2, {}, (Labels,), None, False)) as vector:
        assert "x" not in vector.reset()[1]
