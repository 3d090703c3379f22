"""The noisy maze as a Gymnasium environment: `gymnasium.make("afterwit/NoisyMaze-v0")`.

Import `afterwit.envs` first, or name it: `gymnasium.make("afterwit.envs:afterwit/NoisyMaze-v0",
noise="pixel")`. `gymnasium.make_vec` makes a vector of mazes.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from afterwit.envs.arrays import Array
from afterwit.envs.infos import CELLS, TELLS
from afterwit.envs.maze import ACTIONS, Maze, MazeConfig, tells
from afterwit.envs.maze_map import VIEW, build_map

ID = "afterwit/NoisyMaze-v0"
AUTORESET = {"autoreset_mode": AutoresetMode.NEXT_STEP}


def register() -> None:
    """Register the maze with Gymnasium. Calling it again changes nothing."""
    if ID not in gymnasium.registry:
        gymnasium.register(
            ID,
            entry_point=f"{__name__}:{NoisyMazeEnv.__name__}",
            vector_entry_point=f"{__name__}:{NoisyMazeVectorEnv.__name__}",
        )


def _spaces(layout: str) -> tuple[Box, Discrete]:
    shape = (len(build_map(layout).channel_names), VIEW, VIEW)
    return Box(0, 255, shape, np.uint8), Discrete(len(ACTIONS))


def _metadata(layout: str) -> dict[str, Any]:
    maze = build_map(layout)
    return {
        "render_modes": ["rgb_array"],
        "render_fps": 15,
        TELLS: tells(maze),
        CELLS: maze.walls.size,
    }


class NoisyMazeEnv(gymnasium.Env[Array, np.int64]):
    """One noisy maze.

    `reset(seed=s)` gives the rollout of `Maze(config, s)` bit for bit.

    Args:
      noise: The kind of noise, as in MazeConfig.
      dose: Strength of the noise, as in MazeConfig. None: the default of this noise.
      episode_steps: Agent steps after which an episode is truncated.
      goal_reward: Pay +1 when an episode first reaches the last tracker.
      render_mode: "rgb_array", or None.
      layout: The map, as in MazeConfig.
    """

    metadata = _metadata(MazeConfig.layout)

    def __init__(
        self,
        noise: str = MazeConfig.noise,
        dose: float | None = MazeConfig.dose,
        episode_steps: int = MazeConfig.episode_steps,
        goal_reward: bool = MazeConfig.goal_reward,
        render_mode: str | None = None,
        layout: str = MazeConfig.layout,
    ):
        self.config = MazeConfig(
            1,
            noise,
            dose,
            episode_steps=episode_steps,
            goal_reward=goal_reward,
            stagger=False,
            layout=layout,
        )
        self.metadata = _metadata(layout)
        self.observation_space, self.action_space = _spaces(layout)
        self.render_mode = render_mode
        self.maze: Maze | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start a new episode. With a seed, also restart all random draws."""
        super().reset(seed=seed)
        if seed is not None or self.maze is None:
            self.maze = Maze(
                self.config, int(self.np_random.integers(2**32)) if seed is None else seed
            )
        step = self.maze.reset()
        return step.observation[0], {key: value[0] for key, value in step.info.items()}

    def step(
        self, action: int | np.integer[Any]
    ) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Take one agent step.

        Raises:
          gymnasium.error.ResetNeeded: The episode is over, or has not begun.
        """
        if self.maze is None or self.maze.over[0]:
            raise gymnasium.error.ResetNeeded(
                "the episode is over or has not begun; call reset() before step()"
            )
        step = self.maze.step(np.array([action]))
        info = {key: value[0] for key, value in step.info.items()}
        return (
            step.observation[0],
            float(step.reward[0]),
            bool(step.terminal[0]),
            bool(step.truncated[0]),
            info,
        )

    def render(self) -> Array | None:
        """The whole maze, uint8 [8 * height, 8 * width, 3]. None if the render mode is None."""
        if self.maze is None:
            raise gymnasium.error.ResetNeeded("there is nothing to render yet; call reset() first")
        return self.maze.render() if self.render_mode == "rgb_array" else None


class NoisyMazeVectorEnv(gymnasium.vector.VectorEnv[Array, Array, Array]):
    """Many mazes, stepped together in NumPy, with next-step autoreset.

    This is about a hundred times faster than stepping them one by one. All episodes have their full
    length from the first one on, as in any set of single environments.

    Args:
      num_envs: Number of mazes.
      noise: The kind of noise, as in MazeConfig.
      dose: Strength of the noise, as in MazeConfig. None: the default of this noise.
      episode_steps: Agent steps after which an episode is truncated.
      goal_reward: Pay +1 when an episode first reaches the last tracker.
      render_mode: "rgb_array", or None.
      layout: The map, as in MazeConfig.
    """

    metadata = _metadata(MazeConfig.layout) | AUTORESET

    def __init__(
        self,
        num_envs: int = 1,
        noise: str = MazeConfig.noise,
        dose: float | None = MazeConfig.dose,
        episode_steps: int = MazeConfig.episode_steps,
        goal_reward: bool = MazeConfig.goal_reward,
        render_mode: str | None = None,
        layout: str = MazeConfig.layout,
    ):
        self.config = MazeConfig(
            num_envs,
            noise,
            dose,
            episode_steps=episode_steps,
            goal_reward=goal_reward,
            stagger=False,
            layout=layout,
        )
        self.metadata = _metadata(layout) | AUTORESET
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space, self.single_action_space = _spaces(layout)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.maze: Maze | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes in all mazes. With a seed, also restart all random draws."""
        super().reset(seed=seed)
        if seed is not None or self.maze is None:
            self.maze = Maze(
                self.config, int(self.np_random.integers(2**32)) if seed is None else seed
            )
        step = self.maze.reset()
        return step.observation, dict(step.info)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take one agent step in all mazes."""
        if self.maze is None:
            raise gymnasium.error.ResetNeeded("no episode has begun; call reset() before step()")
        step = self.maze.step(actions)
        return step.observation, step.reward, step.terminal, step.truncated, dict(step.info)

    def render(self) -> tuple[Array, ...] | None:
        """An image of maze 0, as a tuple of one frame. None if the render mode is None."""
        if self.maze is None:
            raise gymnasium.error.ResetNeeded("there is nothing to render yet; call reset() first")
        return (self.maze.render(),) if self.render_mode == "rgb_array" else None
