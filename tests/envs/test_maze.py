"""The noisy maze: how far a random policy gets, what the agent sees, what each noise does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from afterwit.envs.arrays import Array
from afterwit.envs.maze import BLOCK, NOISE, NOISES, NUM_TRACKERS, RADIUS, VIEW, Maze, MazeConfig
from afterwit.envs.maze_art import LAYOUTS
from afterwit.envs.maze_map import DOOR, FLOOR, LEVER, TRACKER, WALL
from afterwit.envs.noise import LAYERS, NoiseLayer
from afterwit.envs.specs import TimeStep

NOOP, UP, DOWN, LEFT, RIGHT = range(5)
MIDDLE = 3  # row of the row's passages, in which blocks move one up and one down


def play(
    maze: Maze, steps: int, actions: tuple[int, ...] = (NOOP, UP, DOWN, LEFT, RIGHT), seed: int = 0
) -> Iterator[tuple[Array, TimeStep]]:
    """Reset, then yield the actions and the results of `steps` random steps."""
    rng = np.random.default_rng(seed)
    maze.reset()
    for _ in range(steps):
        action = rng.choice(actions, maze.spec.num_envs)
        yield action, maze.step(action)


def test_how_far_a_random_policy_gets() -> None:
    maze = Maze(MazeConfig(4000, "brownian", stagger=False), seed=0)
    for _, step in play(maze, 500):
        last = step
    assert last.truncated.all()
    share = last.info["trackers"].mean(0)
    np.testing.assert_array_less([0.54, 0.050, 0.001, -1], share)
    np.testing.assert_array_less(share, [0.62, 0.078, 0.008, 0.0005])


def reference_view(maze: Maze, env: int) -> Array:
    """An agent's view without noise, cell by cell."""
    view = np.zeros((len(maze.map.channel_names), VIEW, VIEW), np.uint8)
    for down in range(VIEW):
        for right in range(VIEW):
            row, column = maze.row[env] + down - RADIUS, maze.column[env] + right - RADIUS
            inside = 0 <= row < maze.map.walls.shape[0] and 0 <= column < maze.map.width
            view[WALL, down, right] = 255 if not inside or maze.map.walls[row, column] else 0
            if not inside:
                continue
            view[FLOOR, down, right] = 255 * maze.map.floor[row, column]
            for index, place in enumerate(maze.map.trackers):
                picture = 0 if maze.map.num_levers else index
                if tuple(place) == (row, column):
                    view[TRACKER + picture, down, right] = 255
            if (row, column) in maze.map.drawing.levers:
                view[LEVER, down, right] = 255
            if any((row, column) in cells for cells in maze.map.drawing.doors):
                view[DOOR, down, right] = 255
            for block_row, block_column in zip(
                maze.block_row[env], maze.map.block_columns, strict=True
            ):
                if (block_row, block_column) == (row, column):
                    view[BLOCK, down, right] = 255
    return view


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("noise", NOISES)
def test_the_view_is_the_map_around_the_agent_under_the_noise(noise: str, layout: str) -> None:
    maze = Maze(MazeConfig(40, noise, episode_steps=30, layout=layout), seed=0)
    others = [index for index in range(len(maze.map.channel_names)) if index != NOISE]
    rng = np.random.default_rng(0)
    maze.reset()
    open_cells = np.argwhere(~maze.map.walls)
    # Spread the agents over the whole map: a walk from the start shows its first rooms only.
    maze.row, maze.column = open_cells[rng.integers(len(open_cells), size=40)].T.copy()
    blocks_seen, hidden, marked = 0, 0, np.zeros(len(others) + 1, bool)
    for _ in range(50):
        step = maze.step(rng.integers(5, size=40))
        for env in range(40):
            clean, seen = reference_view(maze, env), step.observation[env]
            covered = seen[NOISE] > 0
            assert step.info["noise_on"][env] or not covered.any()
            np.testing.assert_array_equal(seen[others], clean[others] * ~covered)
            assert step.info["block_in_view"][env] == (seen[BLOCK] > 0).any()
            blocks_seen += step.info["block_in_view"][env]
            hidden += (clean[others] * covered > 0).sum()
            marked |= (seen > 0).any((1, 2))
        assert np.isin(step.observation, (0, 255)).all()
    assert blocks_seen > 100
    assert (hidden > 100) == (noise in LAYERS)
    unused = [TRACKER + 1, TRACKER + 2, TRACKER + 3] if maze.map.num_levers else []
    assert [index for index in others if not marked[index]] == unused


@pytest.mark.parametrize("noise", NOISES)
def test_agents_and_blocks_keep_to_their_places(noise: str) -> None:
    maze = Maze(MazeConfig(60, noise, episode_steps=150), seed=0)
    start = maze.map.start[0] * maze.map.width + maze.map.start[1]
    cell, crossed = np.full(60, start), 0
    # Walk mostly to the right, so that many agents meet a block.
    for _, step in play(maze, 400, (NOOP, UP, DOWN, LEFT, RIGHT, RIGHT, RIGHT)):
        before, cell = cell, step.info["cell"]
        row, column = np.divmod(cell, maze.map.width)
        assert not maze.map.walls[row, column].any()
        assert (maze.map.block_top <= maze.block_row).all()
        assert (maze.block_row <= maze.map.block_bottom).all()
        assert not (
            (maze.block_row == row[:, None]) & (maze.map.block_columns == column[:, None])
        ).any()
        old_row, old_column = np.divmod(before, maze.map.width)
        far = abs(row - old_row) + abs(column - old_column)
        assert (far[~step.first] <= 1).all()
        assert (cell[step.first] == start).all()
        crossed += (column > maze.map.block_columns[1]).sum()
    assert crossed > 1000


def test_an_agent_cannot_walk_into_a_wall_or_a_block() -> None:
    maze = Maze(MazeConfig(2, "none"), seed=0)
    maze.reset()
    for _ in range(5):
        step = maze.step(np.array([LEFT, UP]))
    assert maze.column[0] == 1 and maze.row[1] == maze.map.block_top[0]
    column = maze.map.block_columns[0]
    maze.row[:], maze.column[:], maze.block_row[:, 0] = 3, column - 1, (3, 2)
    step = maze.step(np.array([RIGHT, RIGHT]))
    assert step.info["cell"].tolist() == [
        3 * maze.map.width + column - 1,
        3 * maze.map.width + column,
    ]


def block_paths(noise: str, dose: float | None) -> Array:
    """Rows of the blocks, [101, 50, blocks], while all agents stay at the start."""
    maze = Maze(MazeConfig(50, noise, dose, stagger=False), seed=0)
    maze.reset()
    paths = [maze.block_row]
    for _ in range(100):
        maze.step(np.zeros(50, int))
        paths.append(maze.block_row)
    return np.stack(paths)


@pytest.mark.parametrize(
    ("noise", "dose"),
    [*((noise, None) for noise in NOISES if noise != "brownian"), ("brownian", 0.0)],
)
def test_blocks_bounce_without_brownian_noise(noise: str, dose: float | None) -> None:
    paths = block_paths(noise, dose)
    assert (abs(np.diff(paths, axis=0)) == 1).all()
    for before, now, after in zip(paths, paths[1:], paths[2:], strict=False):
        inner = now == MIDDLE
        np.testing.assert_array_equal(after[inner], (2 * now - before)[inner])


@pytest.mark.parametrize("dose", [0.3, 1.0])
def test_brownian_blocks_walk_at_random(dose: float) -> None:
    paths = block_paths("brownian", dose)
    middle = paths[:-1] == MIDDLE
    assert (paths[1:] == paths[:-1])[middle].mean() == pytest.approx(dose / 3, abs=0.01)
    assert (paths[1:] == paths[:-1])[~middle].mean() == pytest.approx(dose * 2 / 3, abs=0.01)
    # From the same row, the next move differs between blocks and does not follow from the past.
    if dose == 1.0:
        past, future = paths[2:-1] - paths[1:-2], paths[3:] - paths[2:-1]
        assert abs(np.corrcoef(past[middle[2:]], future[middle[2:]])[0, 1]) < 0.02
        assert len({tuple(path) for path in paths.reshape(len(paths), -1).T}) == paths[0].size


@pytest.mark.parametrize("dose", [0.0, 0.1, 0.25])
def test_sticky_repeats_as_often_as_it_says(dose: float) -> None:
    maze = Maze(MazeConfig(200, "sticky", dose, episode_steps=50, stagger=False), seed=0)
    chances = repeats = overridden = 0
    previous = age = np.zeros(200, int)
    for action, step in play(maze, 500):
        executed = step.info["executed_action"]
        assert (executed[step.first] == NOOP).all()
        opening = ~step.first & (age == 0)
        # there is nothing to repeat yet
        np.testing.assert_array_equal(executed[opening], action[opening])
        assert ((executed == action) | (executed == previous))[~step.first].all()
        np.testing.assert_array_equal(
            step.info["noise_on"][~step.first], (executed != action)[~step.first]
        )
        counted = ~step.first & ~opening
        chances += counted.sum()
        repeats += (executed == previous)[counted].sum()
        overridden += (executed != action)[counted].sum()
        previous = executed
        age = np.where(step.first, 0, age + 1)
    assert chances > 80_000
    assert repeats / chances == pytest.approx(dose + (1 - dose) / 5, abs=0.005)
    assert overridden / chances == pytest.approx(dose * 4 / 5, abs=0.005)


@pytest.mark.parametrize("noise", [noise for noise in NOISES if noise != "sticky"])
def test_other_noises_execute_what_was_chosen(noise: str) -> None:
    for action, step in play(Maze(MazeConfig(7, noise, episode_steps=20), seed=0), 60):
        np.testing.assert_array_equal(
            step.info["executed_action"], np.where(step.first, NOOP, action)
        )


@pytest.mark.parametrize("dose", [0.0, 0.25, 1.0])
def test_pixel_noise_comes_with_its_dose_whatever_is_done(dose: float) -> None:
    on: dict[bool, list[bool]] = {True: [], False: []}
    for action, step in play(Maze(MazeConfig(300, "pixel", dose, density=0.3), seed=0), 100):
        noise_on = step.info["noise_on"]
        covered = step.observation[:, NOISE] > 0
        assert not covered[~noise_on].any()
        if noise_on.sum() > 20:
            assert covered[noise_on].mean() == pytest.approx(0.3, abs=0.1)
            assert len({frame.tobytes() for frame in covered[noise_on]}) > 0.9 * noise_on.sum()
        on[True] += noise_on[action == NOOP].tolist()
        on[False] += noise_on[action != NOOP].tolist()
    assert np.mean(on[True]) == pytest.approx(dose, abs=0.02)
    assert np.mean(on[False]) == pytest.approx(dose, abs=0.02)


@pytest.mark.parametrize("dose", [0.0, 0.5, 1.0])
def test_on_demand_noise_comes_only_when_asked_for(dose: float) -> None:
    asked: list[bool] = []
    maze = Maze(MazeConfig(100, "on-demand", dose, episode_steps=30), seed=0)
    assert not maze.reset().info["noise_on"].any()
    for action, step in play(maze, 200):
        noise_on = step.info["noise_on"]
        assert not noise_on[(action != NOOP) | step.first].any()
        np.testing.assert_array_equal((step.observation[:, NOISE] > 0).any((1, 2)), noise_on)
        asked += noise_on[(action == NOOP) & ~step.first].tolist()
    assert np.mean(asked) == pytest.approx(dose, abs=0.03)


def test_frozen_noise_has_one_pattern_and_one_rhythm() -> None:
    patterns = set()
    for seed in (0, 1):
        elapsed = np.zeros(6, int)
        for _, step in play(
            Maze(MazeConfig(6, "frozen", 0.2, episode_steps=33, stagger=False), seed),
            100,
            seed=seed,
        ):
            elapsed = np.where(step.first, 0, elapsed + 1)
            np.testing.assert_array_equal(step.info["noise_on"], elapsed % 5 == 0)
            patterns |= {
                frame.tobytes() for frame in step.observation[step.info["noise_on"], NOISE]
            }
    assert len(patterns) == 1
    assert 0.2 < np.frombuffer(patterns.pop(), np.uint8).mean() / 255 < 0.8
    assert not any(
        step.info["noise_on"].any() for _, step in play(Maze(MazeConfig(6, "frozen", 0.0), 0), 50)
    )


def test_a_layer_stands_apart_from_the_maze() -> None:
    layer = NoiseLayer("pixel", 1.0, 0.5, (9, 4), np.random.default_rng(0))
    assert layer.active(np.zeros(5, int), np.zeros(5, int), np.zeros(5, bool)).all()
    assert layer.pixels(5).shape == (5, 9, 4)
    with pytest.raises(
        ValueError, match="unknown noise layer 'snow'; choose from pixel, on-demand, frozen"
    ):
        NoiseLayer("snow", 1.0, 0.5, (9, 4), np.random.default_rng(0))


@pytest.mark.parametrize("pays", [True, False])
def test_the_last_tracker_pays_once_an_episode(pays: bool) -> None:
    maze = Maze(MazeConfig(3, "none", goal_reward=pays, episode_steps=12, stagger=False), seed=0)
    maze.reset()
    rewards, firsts = [], []
    for step in range(30):
        if step in (2, 16):
            maze.row[1], maze.column[1] = maze.map.trackers[-1] - (0, 2)
        move = RIGHT if step % 2 == 0 else LEFT  # in and out of the tracker's reach
        result = maze.step(np.array([NOOP, move, NOOP]))
        rewards.append(result.reward)
        firsts.append(result.first[1])
        reached = result.info["trackers"]
        assert not reached[0].any()
        assert reached[1, -1] == (2 <= step < 12 or 16 <= step < 25)
    assert np.flatnonzero(firsts).tolist() == [12, 25]
    assert np.argwhere(rewards).tolist() == ([[2, 1], [16, 1]] if pays else [])
    assert np.max(rewards) == float(pays)


@pytest.mark.parametrize("index", range(NUM_TRACKERS))
def test_a_tracker_is_reached_from_the_nine_cells_around_it(index: int) -> None:
    maze = Maze(MazeConfig(1, "none"), seed=0)
    reached = maze.map.reaches[:, index].reshape(maze.map.walls.shape)
    row, column = maze.map.trackers[index]
    assert reached.sum() == 9
    assert reached[row - 1 : row + 2, column - 1 : column + 2].all()


@pytest.mark.parametrize(
    ("stagger", "expected"), [(True, [20, 15, 10, 5]), (False, [20, 20, 20, 20])]
)
def test_first_episodes_are_staggered(stagger: bool, expected: list[int]) -> None:
    ends = np.array(
        [
            step.truncated
            for _, step in play(Maze(MazeConfig(4, episode_steps=20, stagger=stagger), 0), 60)
        ]
    )
    steps = [np.flatnonzero(column) + 1 for column in ends.T]
    assert [first[0] for first in steps] == expected
    assert all((np.diff(each) == 21).all() for each in steps)  # 20 steps and the one that resets


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("noise", NOISES)
def test_a_saved_maze_goes_on_bit_for_bit(noise: str, layout: str) -> None:
    config = MazeConfig(5, noise, episode_steps=23, goal_reward=True, layout=layout)
    maze, resumed = Maze(config, seed=0), Maze(config, seed=99)
    for _ in play(maze, 37):
        pass
    state = maze.state_dict()
    rng = np.random.default_rng(1)
    actions = rng.integers(5, size=(50, 5))
    expected = [maze.step(action) for action in actions]
    for attempt in range(2):  # twice: what was loaded must not be worked in
        resumed.load_state_dict(state)
        for step, action in zip(expected, actions, strict=True):
            again = resumed.step(action)
            np.testing.assert_array_equal(
                again.observation, step.observation, err_msg=f"attempt {attempt}"
            )
            np.testing.assert_array_equal(again.first, step.first)
            for key in step.info:
                np.testing.assert_array_equal(again.info[key], step.info[key], err_msg=key)


@pytest.mark.parametrize("bad", ({}, {"rng": {}}, {"row": [[0]], "rng": None}), ids=str)
def test_a_state_that_is_refused_changes_nothing(bad: dict[str, Any]) -> None:
    maze, other = (Maze(MazeConfig(5, "sticky"), seed) for seed in (0, 1))
    for _ in play(other, 9):
        pass
    before, state = maze.state_dict(), other.state_dict() | bad
    if not bad:
        del state["over"]
    with pytest.raises((KeyError, TypeError, ValueError)):
        maze.load_state_dict(state)
    assert maze.state_dict() == before


def test_settings_are_recorded_and_bad_ones_refused() -> None:
    assert MazeConfig(noise="on-demand").resolved_dose == 1.0
    assert Maze(MazeConfig(2, "sticky"), 0).spec.semantics["dose"] == 0.25
    for bad, message in (
        ({"num_envs": 0}, "num_envs is 0"),
        ({"layout": "spiral"}, "unknown maze layout 'spiral'; choose from row, branches"),
        ({"noise": "loud"}, "unknown maze noise 'loud'; choose from none, brownian"),
        ({"dose": 1.5}, "dose is 1.5"),
        ({"density": -0.1}, "density is -0.1"),
        ({"episode_steps": 0}, "episode_steps is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            MazeConfig(**bad)


def test_the_picture_shows_agent_and_blocks() -> None:
    maze = Maze(MazeConfig(2, "none"), seed=0)
    maze.reset()
    before = maze.render()
    assert before.shape == (7 * 8, maze.map.width * 8, 3)
    maze.step(np.array([RIGHT, NOOP]))
    assert (before != maze.render()).any()
