"""The maze with arms: its drawing, levers, doors and portal, and how far a random policy gets."""

from __future__ import annotations

import hashlib
from collections import deque

import gymnasium
import numpy as np
import pytest
from PIL import Image

from afterwit.envs.arrays import Array
from afterwit.envs.maze import NOISES, Maze, MazeConfig
from afterwit.envs.maze_art import BRANCHES, LAYOUTS, Cell, read_drawing
from afterwit.envs.maze_map import PALETTE, build_map
from tests.envs.test_maze import DOWN, LEFT, NOOP, RIGHT, UP, play
from tests.house.import_graph import SOURCE

MOVES = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}
# shares of episodes in which a uniform policy reaches R1..R4: at least and at most
RANDOM_LEAST, RANDOM_MOST = [0.36, 0.19, 0.001, -1], [0.46, 0.26, 0.012, 0.0005]
ROW_DIGEST = "4885ee290bdc38244f084ca50afb073c92ff5c4b42244306ce7ade4d60019610"
TINY = """
#########
#S aA1  #
##### ###
#43.> b2#
#< . #oB#
#########
"""


def make(num_envs: int = 1, noise: str = "none", **options: object) -> Maze:
    maze = Maze(MazeConfig(num_envs, noise, layout="branches", **options), seed=0)  # type: ignore[arg-type]
    maze.reset()
    return maze


def act(maze: Maze, action: int) -> dict[str, Array]:
    return maze.step(np.full(maze.spec.num_envs, action)).info


def place(maze: Maze, cell: Cell) -> None:
    maze.row[:], maze.column[:] = cell


def beside(maze: Maze, cell: Cell) -> tuple[Cell, int]:
    """A free cell beside `cell`, and the action that leads from there to it."""
    blocked = {c for doors in maze.map.drawing.doors for c in doors}
    for action, (down, right) in MOVES.items():
        other = cell[0] - down, cell[1] - right
        if not maze.map.walls[other] and other not in blocked:
            return other, action
    raise AssertionError(cell)


def test_how_far_a_random_policy_gets() -> None:
    maze = make(4000, "brownian", stagger=False)
    for _, step in play(maze, 500):
        last = step
    assert last.truncated.all()
    share = last.info["trackers"].mean(0)
    np.testing.assert_array_less(RANDOM_LEAST, share)
    np.testing.assert_array_less(share, RANDOM_MOST)


@pytest.mark.parametrize("lever", range(3))
def test_a_lever_opens_its_doors_until_the_episode_ends(lever: int) -> None:
    maze = make(2, episode_steps=40, stagger=False)
    door = maze.map.drawing.doors[lever][0]
    before, onto_door = beside(maze, door)
    start, onto_lever = beside(maze, maze.map.drawing.levers[lever])
    place(maze, before)
    closed = maze.step(np.full(2, onto_door))
    assert (np.stack([maze.row, maze.column], 1) == before).all()
    assert not closed.info["state"].any()
    place(maze, start)
    moves = np.array([onto_lever, NOOP])  # the second agent stays beside the lever
    assert maze.step(moves).info["state"].tolist() == [2**lever, 0]
    place(maze, before)
    np.testing.assert_array_equal(
        maze.step(np.array([NOOP, NOOP])).observation[0], closed.observation[0]
    )  # an open door looks as a closed one does
    info = maze.step(np.full(2, onto_door)).info
    assert info["cell"].tolist() == [
        row * maze.map.width + column for row, column in (door, before)
    ]
    assert info["state"].tolist() == [2**lever, 0]
    while not (step := maze.step(np.full(2, NOOP))).first.all():
        assert step.info["state"].tolist() == [2**lever, 0]
    assert not step.info["state"].any()


def test_a_portal_leads_to_its_place() -> None:
    maze = make()
    (portal, leads_to), *rest = maze.map.drawing.portals
    assert not rest
    start, action = beside(maze, portal)
    place(maze, start)
    assert act(maze, action)["cell"].tolist() == [leads_to[0] * maze.map.width + leads_to[1]]


def walk(without: int | None = None) -> set[Cell]:
    """Every cell that an episode can come to if it never pulls the lever `without`."""
    maze, seen = build_map("branches"), set[Cell]()
    while True:
        pulled = {i for i, at in enumerate(maze.drawing.levers) if at in seen and i != without}
        closed = {c for i, cells in enumerate(maze.drawing.doors) for c in cells if i not in pulled}
        before, queue, seen = seen, deque([maze.start]), set()
        while queue:
            cell = queue.popleft()
            cell = dict(maze.drawing.portals).get(cell, cell)
            if cell not in seen | closed and not maze.walls[cell]:
                seen.add(cell)
                queue.extend((cell[0] + down, cell[1] + right) for down, right in MOVES.values())
        if seen == before:
            return seen


@pytest.mark.parametrize(
    ("without", "lost"), [(None, set()), (0, {2, 3}), (1, {3}), (2, set())], ids=str
)
def test_what_can_be_reached_without_a_lever(without: int | None, lost: set[int]) -> None:
    maze = build_map("branches")
    reached = {
        index
        for row, column in walk(without)
        for index in np.flatnonzero(maze.reaches[row * maze.width + column])
    }
    assert {0, 1, 2, 3} - reached == lost


@pytest.mark.parametrize("noise", NOISES)
def test_agents_and_blocks_keep_to_their_places(noise: str) -> None:
    maze = make(60, noise, episode_steps=150)
    rng, tables = np.random.default_rng(0), maze.map
    lanes = np.isin(np.arange(tables.width), tables.block_columns)  # no agent begins in a block
    free = ~tables.walls & ~(tables.doors > 0) & ~lanes
    free[tuple(tables.drawing.portals[0][0])] = False
    open_cells = np.argwhere(free)
    maze.row, maze.column = open_cells[rng.integers(len(open_cells), size=60)].T.copy()
    portals = {row * tables.width + column for (row, column), _ in tables.drawing.portals}
    lever_at = {cell: index for index, cell in enumerate(tables.drawing.levers)}
    door_at = {cell: i for i, cells in enumerate(tables.drawing.doors) for cell in cells}
    pulled, onto_portal, pulls = [set[int]() for _ in range(60)], np.zeros(60, bool), 0
    for _ in range(400):
        step = maze.step(rng.integers(5, size=60))
        row, column = np.divmod(step.info["cell"], tables.width)
        for env, cell in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
            if step.first[env]:
                pulled[env] = set()
            if cell in lever_at:
                pulled[env].add(lever_at[cell])
            assert cell not in door_at or door_at[cell] in pulled[env]
            assert step.info["state"][env] == sum(2**index for index in pulled[env])
            pulls += len(pulled[env])
        assert not tables.walls[row, column].any()
        onto_portal |= np.isin(step.info["cell"], list(portals))
        assert (tables.block_top <= maze.block_row).all()
        assert (maze.block_row <= tables.block_bottom).all()
        assert not (
            (maze.block_row == row[:, None]) & (tables.block_columns == column[:, None])
        ).any()
    assert not onto_portal.any() and pulls > 1000


def test_a_drawing_is_read() -> None:
    drawing = read_drawing(TINY, painted="2")
    assert drawing.start == (1, 1) and drawing.trackers == ((1, 5), (3, 7), (3, 2), (3, 1))
    assert drawing.levers == ((1, 3), (3, 6)) and drawing.doors == (((1, 4),), ((4, 7),))
    assert drawing.portals == (((3, 4), (4, 1)),) and drawing.blocks == ((6, 4, 4),)
    assert np.argwhere(drawing.floor).tolist() == [[3, 3], [3, 7], [4, 3]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("#S aA1  #", "#S aA1   #", r"lines have \[9, 10\] characters; make them equally long"),
        ("#S a", " S a", "edge has an opening; close it with #"),
        ("#S a", "#  a", "0 times 'S'; it needs one"),
        ("1  #", "1S #", "2 times 'S'; it needs one"),
        ("#S a", "#S ?", r"has '\?'; use only the characters of envs/maze_art.py"),
        ("#S a", "#S  ", "0 times 'a'; it needs one"),
        (">", " ", "0 times '>'; it needs one"),
        ("##### ###", "#########", r"cell \(3, \d\) cannot be reached from the start"),
        ("#S aA1", "#S Aa1", r"cell \(1, 3\) cannot be reached from the start"),
    ],
)
def test_a_wrong_drawing_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_drawing(TINY.replace(old, new))


def test_the_row_is_as_it_was() -> None:
    """Its rollouts, bit for bit, are those of commit 1eb04d9, before there were layouts."""
    digest = hashlib.sha256()
    for noise in NOISES:
        maze = Maze(MazeConfig(16, noise, episode_steps=60, goal_reward=True), seed=3)
        for action, step in play(maze, 100, (NOOP, UP, DOWN, LEFT, RIGHT, RIGHT, RIGHT)):
            arrays = (action, step.observation, step.first, step.reward, *step.info.values())
            for array in arrays:
                digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(maze.render().tobytes() + str(sorted(maze.state_dict().items())).encode())
    assert digest.hexdigest() == ROW_DIGEST


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_a_gymnasium_environment_too(layout: str) -> None:
    env = gymnasium.make("afterwit.envs:afterwit/NoisyMaze-v0", noise="pixel", layout=layout)
    observation, info = env.reset(seed=4)
    maze = Maze(MazeConfig(1, "pixel", layout=layout, stagger=False), seed=4)
    np.testing.assert_array_equal(observation, maze.reset().observation[0])
    assert env.observation_space.shape == maze.spec.observation_shape
    assert set(info) == set(maze.spec.tells) == set(env.metadata["afterwit_tells"])
    assert env.metadata["afterwit_cells"] == maze.map.walls.size


def test_the_picture_shows_levers_doors_and_the_portal() -> None:
    maze = make()
    picture, drawing = maze.render()[::8, ::8], maze.map.drawing
    assert picture.shape == (*maze.map.walls.shape, 3)

    def shows(cell: Cell, name: str) -> bool:  # outside the agent's view, colours are dimmed
        dimmed = (np.array(PALETTE[name]) * 0.65).astype(np.uint8)
        return bool((maze.render()[::8, ::8][cell] == dimmed).all())

    assert all(shows(cell, "lever") for cell in drawing.levers)
    assert all(shows(cell, "door") for cells in drawing.doors for cell in cells)
    assert shows(drawing.portals[0][0], "portal")
    maze.pulled[0] = 1
    assert all(shows(cell, "open door") for cell in drawing.doors[0])
    assert all(shows(cell, "door") for cell in drawing.doors[1])


def test_the_default_layout_is_the_row() -> None:
    assert MazeConfig().layout == "row" and Maze(MazeConfig(2), 0).spec.observation_shape[0] == 8
    spec = make(2).spec
    assert spec.observation_shape == (10, 5, 5) and "state" in spec.tells
    assert spec.semantics["layout"] == "branches" and spec.semantics["states"] == 8
    assert build_map("branches").drawing.walls.shape == read_drawing(BRANCHES).walls.shape


def test_the_picture_in_the_docs_is_this_map() -> None:
    with Image.open(SOURCE / "docs" / "maze-branches.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB"))[::2, ::2], make().render())
