"""The noisy maze: chambers behind moving blocks, four of them with a tracker.

It follows the Pycolab maze of BYOL-Hindsight (Jarrett et al., 2023, section 5.1), whose map is not
public. The agent sees the 5x5 cells around it, and has 500 steps. Only the last tracker can pay, if
a flag is set. All mazes are stepped together in NumPy, without a loop over them.

There are two layouts, drawn in envs/maze_art.py. In `row`, four chambers are in a row. In
`branches`, arms of chambers that look alike branch off a hall, with levers, doors and a portal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.checks import check_numbers
from afterwit.envs.maze_art import LAYOUTS, NUM_TRACKERS
from afterwit.envs.maze_map import BLOCK, NOISE, PALETTE, RADIUS, VIEW, MazeMap, build_map, draw_map
from afterwit.envs.noise import LAYERS, NOOP, NoiseLayer
from afterwit.envs.specs import EnvSpec, TimeStep, check_action

ACTIONS = ("no-op", "up", "down", "left", "right")
MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
NOISES = ("none", "brownian", *LAYERS, "sticky")
DEFAULT_DOSE = {
    "none": 0.0,
    "brownian": 1.0,
    "pixel": 0.25,
    "on-demand": 1.0,
    "frozen": 0.25,
    "sticky": 0.25,
}
INFOS = ("noise_on", "block_in_view", "trackers", "cell", "executed_action")


@dataclass(frozen=True)
class MazeConfig:
    """A batch of noisy mazes."""

    num_envs: int = 32
    """Number of mazes that are stepped together."""
    noise: str = "brownian"
    """none: blocks bounce; brownian: blocks walk at random; pixel, on-demand or frozen: a layer of
    pixels on the view; sticky: the previous action is repeated. The layer shows at random (pixel),
    on no-op (on-demand), or in a fixed pattern and rhythm (frozen)."""
    dose: float | None = None
    """Strength of the noise: probability per agent step (brownian: share of random block moves;
    on-demand: per no-op; frozen: share of frames). Unset: 1 for brownian and on-demand, 0.25 for
    the others; 0: no noise."""
    density: float = 0.5
    """Share of the view that a noise layer covers."""
    episode_steps: int = 500
    """Agent steps after which an episode is truncated."""
    goal_reward: bool = False
    """Pay +1 when an episode first reaches the last tracker. Off: the maze pays nothing."""
    stagger: bool = True
    """Cut the first episode of each maze at a different length, so that they do not all reset
    together."""
    layout: str = "row"
    """The map. row: four chambers in a row; branches: arms of chambers that look alike, with levers
    that open doors in other arms, and a portal."""

    def __post_init__(self) -> None:
        check_numbers(self, counts=("episode_steps",))
        if self.num_envs < 1:
            raise ValueError(f"num_envs is {self.num_envs}; a maze needs at least 1 environment")
        if self.noise not in NOISES:
            raise ValueError(f"unknown maze noise {self.noise!r}; choose from {', '.join(NOISES)}")
        if self.layout not in LAYOUTS:
            raise ValueError(
                f"unknown maze layout {self.layout!r}; choose from {', '.join(LAYOUTS)}"
            )
        if self.dose is not None and not 0 <= self.dose <= 1:
            raise ValueError(f"dose is {self.dose}; it is a probability, between 0 and 1")
        if not 0 <= self.density <= 1:
            raise ValueError(
                f"density is {self.density}; it is a share of the view, between 0 and 1"
            )
        if self.episode_steps < 1:
            raise ValueError(
                f"episode_steps is {self.episode_steps}; an episode has at least 1 agent step"
            )

    @property
    def resolved_dose(self) -> float:
        """The dose, or the default dose of this noise if none is set."""
        return DEFAULT_DOSE[self.noise] if self.dose is None else self.dose


class Maze:
    """B noisy mazes as a VectorEnv.

    Observations are uint8 [B, C, 5, 5] with values 0 and 255. C is 8, with levers 10.

    `info` per environment:

    - `noise_on`: a layer is on the frame, or the last action was overridden.
    - `block_in_view`: a block is in the 5x5 view and not covered.
    - `trackers` [B, 4]: reached in this episode.
    - `cell`: row * width + column.
    - `executed_action`: differs from the chosen action under sticky noise. 0 on reset steps.
    - `state`, only in maps with levers: the levers pulled in this episode, as the bits of a number.

    A lever is pulled by standing on it. Its doors then are open for the rest of the episode. They
    look the same, open or closed. A step onto a portal ends where the portal leads.

    Args:
      config: Size, noise and length of the episodes.
      seed: Seed of all random draws.
    """

    def __init__(self, config: MazeConfig, seed: int):
        self.config = config
        self.map = build_map(config.layout)
        self.rng = np.random.default_rng([seed, 0])
        self.spec = EnvSpec(
            name="maze",
            num_envs=config.num_envs,
            observation_shape=(len(self.map.channel_names), VIEW, VIEW),
            observation_dtype="uint8",
            num_actions=len(ACTIONS),
            max_episode_steps=config.episode_steps,
            action_names=ACTIONS,
            tells=tells(self.map),
            semantics={
                "noise": config.noise,
                "dose": config.resolved_dose,
                "density": config.density,
                "random_blocks": config.noise == "brownian" and config.resolved_dose > 0,
                "noise_action": (
                    NOOP if config.noise == "on-demand" and config.resolved_dose > 0 else None
                ),
                "goal_reward": config.goal_reward,
                "autoreset": "next-step",
                "map": [self.map.height, self.map.width],
                **({"layout": config.layout} if config.layout != "row" else {}),
                **({"states": 2**self.map.num_levers} if self.map.num_levers else {}),
            },
        )
        dose = config.resolved_dose
        self.layer = (
            NoiseLayer(config.noise, dose, config.density, (VIEW, VIEW), self.rng)
            if config.noise in LAYERS
            else None
        )
        self.brownian = dose if config.noise == "brownian" else 0.0
        self.sticky = dose if config.noise == "sticky" else 0.0
        batch, blocks = config.num_envs, len(self.map.block_columns)
        self.index = np.arange(batch)
        self.row, self.column = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        self.block_row = np.zeros((batch, blocks), np.int64)
        self.block_way = np.ones((batch, blocks), np.int64)
        self.elapsed = np.zeros(batch, np.int64)
        self.executed = np.zeros(batch, np.int64)
        self.reached = np.zeros((batch, NUM_TRACKERS), bool)
        self.pulled = np.zeros(batch, np.int64)  # bits: the levers pulled in this episode
        self.over = np.ones(batch, bool)  # the next step is a reset
        self.started = False

    def reset(self) -> TimeStep:
        """Start new episodes in all mazes."""
        self.over[:] = True
        step = self._advance(np.zeros(self.config.num_envs, np.int64))
        if self.config.stagger and not self.started:
            self.elapsed[:] = self.index * self.config.episode_steps // self.config.num_envs
        self.started = True
        return step

    def step(self, action: Array) -> TimeStep:
        """Take one agent step with integer actions [B]. See VectorEnv."""
        if not self.started:
            raise RuntimeError("step() before reset(): call reset() once to start the mazes")
        return self._advance(check_action(action, self.spec))

    def _advance(self, action: Array) -> TimeStep:
        first = self.over
        overridden = np.zeros(len(action), bool)
        if self.sticky:
            overridden = (self.rng.random(len(action)) < self.sticky) & ~first & (self.elapsed > 0)
        executed = np.where(overridden, self.executed, action)
        executed[first] = NOOP
        # a repeated action that equals the chosen one is not an override
        overridden &= executed != action
        self._move_agent(executed)
        self._move_blocks()
        if first.any():
            self._restart(first)
        self.executed = executed
        self.elapsed = np.where(first, 0, self.elapsed + 1)
        cell = self.row * self.map.width + self.column
        if self.map.num_levers:
            self.pulled = self.pulled * ~first | self.map.levers[self.row, self.column]
        reached_before = self.reached[:, -1]
        self.reached = self.reached & ~first[:, None] | self.map.reaches[cell]
        goal = self.reached[:, -1] & ~reached_before & ~first
        observation, block_in_view = self._look(cell)
        noise_on = overridden
        if self.layer is not None:
            noise_on = self.layer.active(action, self.elapsed, first)
            covered = self._cover(observation, noise_on)
            block_in_view &= ~noise_on | (covered[:, BLOCK] > 0).any((1, 2))
        truncated = self.elapsed >= self.config.episode_steps
        self.over = truncated.copy()
        info = {
            "noise_on": noise_on,
            "block_in_view": block_in_view,
            "trackers": self.reached.copy(),
            "cell": cell,
            "executed_action": executed.copy(),
        }
        if self.map.num_levers:
            info["state"] = self.pulled.copy()
        reward = (
            goal.astype(np.float32)
            if self.config.goal_reward
            else np.zeros(len(action), np.float32)
        )
        return TimeStep(
            observation, first.copy(), reward, np.zeros(len(action), bool), truncated, info
        )

    def _restart(self, first: Array) -> None:
        count = int(first.sum())
        self.row[first], self.column[first] = self.map.start
        shape = (count, len(self.map.block_columns))
        self.block_row[first] = self.rng.integers(
            self.map.block_top, self.map.block_bottom + 1, shape
        )
        self.block_way[first] = self.rng.choice((-1, 1), shape)

    def _move_agent(self, action: Array) -> None:
        row, column = self.row + MOVES[action, 0], self.column + MOVES[action, 1]
        block = (self.block_row == row[:, None]) & (self.map.block_columns == column[:, None])
        free = ~self.map.walls[row, column] & ~block.any(1)
        if self.map.num_levers:
            free &= (self.map.doors[row, column] & ~self.pulled) == 0
        if self.map.drawing.portals:
            row, column = self.map.arrivals[:, row, column]
        self.row, self.column = np.where(free, row, self.row), np.where(free, column, self.column)

    def _move_blocks(self) -> None:
        """Blocks bounce between the ends of their ways, or walk at random (brownian).

        No block enters the agent's cell.
        """
        top, bottom = self.map.block_top, self.map.block_bottom
        target = self.block_row + self.block_way
        outside = (target < top) | (target > bottom)
        self.block_way = np.where(outside, -self.block_way, self.block_way)
        target = self.block_row + self.block_way
        if self.brownian:
            walk = self.block_row + self.rng.integers(-1, 2, self.block_row.shape)
            random = self.rng.random(self.block_row.shape) < self.brownian
            target = np.where(random, walk.clip(top, bottom), target)
        agent = (target == self.row[:, None]) & (self.map.block_columns == self.column[:, None])
        self.block_row = np.where(agent, self.block_row, target)

    def _look(self, cell: Array) -> tuple[Array, Array]:
        observation = self.map.views[cell]
        down = self.block_row - self.row[:, None] + RADIUS
        right = self.map.block_columns - self.column[:, None] + RADIUS
        env, block = np.nonzero((down >= 0) & (down < VIEW) & (right >= 0) & (right < VIEW))
        observation[env, BLOCK, down[env, block], right[env, block]] = 255
        seen = np.zeros(len(cell), bool)
        seen[env] = True
        return observation, seen

    def _cover(self, observation: Array, active: Array) -> Array:
        """Cover active frames with noise pixels, which hide the other channels. Returns frames."""
        assert self.layer is not None
        pixels = self.layer.pixels(int(active.sum()))
        observation[active] *= ~pixels[:, None]
        observation[active, NOISE] = pixels * np.uint8(255)
        return observation

    def render(self) -> Array:
        """The whole of maze 0 in colour, with the cells outside the agent's view dimmed.

        Returns:
          uint8 [height * 8, width * 8, 3]. An open door is lighter.
        """
        image = draw_map(self.map)
        image[(self.map.doors & self.pulled[0]) > 0] = PALETTE["open door"]
        image[self.block_row[0], self.map.block_columns] = PALETTE["block"]
        image[self.row[0], self.column[0]] = PALETTE["agent"]
        dimmed = (image * 0.65).astype(np.uint8)
        top, left = max(0, self.row[0] - RADIUS), max(0, self.column[0] - RADIUS)
        window = np.s_[top : self.row[0] + RADIUS + 1, left : self.column[0] + RADIUS + 1]
        dimmed[window] = image[window]
        return dimmed.repeat(8, 0).repeat(8, 1)

    def close(self) -> None:
        """Does nothing: no resource is open."""

    def state_dict(self) -> dict[str, Any]:
        """The complete state, including the random state, as lists and plain values."""
        arrays = {name: getattr(self, name).tolist() for name in self._state_names()}
        return {**arrays, "started": self.started, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned. If that raises, nothing was changed."""
        arrays = {name: np.array(state[name]) for name in self._state_names()}
        started, self.rng.bit_generator.state = state["started"], state["rng"]
        self.started = started
        for name, value in arrays.items():
            setattr(self, name, value)

    def _state_names(self) -> tuple[str, ...]:
        return (*STATE, "pulled") if self.map.num_levers else STATE


def tells(maze: MazeMap) -> tuple[str, ...]:
    """The entries of `info` in a maze with this map."""
    return (*INFOS, "state") if maze.num_levers else INFOS


STATE = ("row", "column", "block_row", "block_way", "elapsed", "executed", "reached", "over")
