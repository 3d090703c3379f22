"""The noisy-TV room in MiniGrid: five rooms in a row, with a television in the first one.

    #####################
    T   #   #   #   #   #
    T   |   |   |   |   #        # wall, T television, | door (closed at first)
    T   #   #   #   #   #
    #####################

Each room has a floor of its own colour. The agent starts at a random place in the first room. The
environment pays nothing. It follows the thought experiment of Burda et al. (2018): an agent that is
paid for surprise alone never leaves the television.

Needs the package minigrid (Chevalier-Boisvert et al., 2023): pip install 'afterwit[minigrid]'.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from afterwit.envs.arrays import Array
from afterwit.envs.infos import with_declared
from afterwit.envs.noise import TVS

try:
    from minigrid.core.actions import Actions
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
    from minigrid.core.grid import Grid
    from minigrid.core.mission import MissionSpace
    from minigrid.core.world_object import Ball, Door, Floor, Key, Wall, WorldObj
    from minigrid.core.world_object import Box as Crate
    from minigrid.minigrid_env import MiniGridEnv
except ImportError as error:
    raise ImportError(
        f"MiniGrid's worlds need a package of their own ({error}): pip install 'afterwit[minigrid]'"
    ) from error

ROOMS = 5
ROOM_WIDTH, ROOM_HEIGHT = 3, 3  # cells, walls not counted
# colour of each room's floor, and of the door into it
COLOURS = ("grey", "blue", "purple", "yellow", "green")
# cells (x, y) of the television, in the first room's left wall
SCREEN = tuple((0, y + 1) for y in range(ROOM_HEIGHT))
LOOKS = {"key": Key, "ball": Ball, "box": Crate}
PICTURES = tuple((look, colour) for look in LOOKS for colour in COLOR_TO_IDX)
# agent steps: MiniGrid's own limit is never reached, since Gymnasium's TimeLimit ends the episodes
ENDLESS = 2**31


class Television(WorldObj):
    """One cell of the screen. It looks like a key, a ball or a box, but it is part of the wall."""

    def __init__(self) -> None:
        super().__init__("ball", "grey")

    def see_behind(self) -> bool:
        return False

    def render(self, image: Array) -> Array:
        LOOKS[self.type](self.color).render(image)
        return image


class NoisyTVEnv(MiniGridEnv):
    """The noisy-TV room as a MiniGrid environment: seven actions, and the 7x7 view in `image`.

    A picture has one of 18 looks in each of the screen's three cells, drawn uniformly.

    `info`, on resets too:

    - `noise_on`: the picture changed in this step, and the agent sees a part of it.
    - `room`: 0..4. A door belongs to the room before it.
    - `trackers`: bool [4]: rooms 1..4 that were entered in this episode.

    Args:
      tv: When the picture changes: "off" (never), "always" (each step), or "on-demand" (when the
          agent takes the action `done`, anywhere).
      render_mode: A render mode of MiniGrid, such as "rgb_array".
    """

    metadata = with_declared(MiniGridEnv.metadata, "noise_on", "room", "trackers")
    # views by the agent's position and the open doors; all instances share them
    views: ClassVar[dict[tuple[int, ...], tuple[Array, bool]]] = {}

    def __init__(self, tv: str = "on-demand", render_mode: str | None = None):
        if tv not in TVS:
            raise ValueError(f"unknown tv {tv!r}; choose from {', '.join(TVS)}")
        self.tv = tv
        self.reached = np.zeros(ROOMS - 1, bool)
        super().__init__(
            MissionSpace(lambda: "explore"),
            width=ROOMS * (ROOM_WIDTH + 1) + 1,
            height=ROOM_HEIGHT + 2,
            max_steps=ENDLESS,
            render_mode=render_mode,
        )
        # MiniGrid reads attributes such as `self.actions.left` in each step. Those of a namespace
        # are faster than those of an enum in Python 3.11.
        self.actions = SimpleNamespace(**Actions.__members__)  # type: ignore[assignment]

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        for x, y in np.ndindex(width - 2, height - 2):
            wall = x % (ROOM_WIDTH + 1) == ROOM_WIDTH
            self.grid.set(x + 1, y + 1, Wall() if wall else Floor(COLOURS[x // (ROOM_WIDTH + 1)]))
        self.doors = [Door(colour) for colour in COLOURS[1:]]
        self.screen = [Television() for _ in SCREEN]
        doorways = [(room * (ROOM_WIDTH + 1), height // 2) for room in range(1, ROOMS)]
        self.changing: dict[int, WorldObj] = {}  # objects that change, by their index in `cells`
        for (x, y), part in zip((*doorways, *SCREEN), (*self.doors, *self.screen), strict=True):
            self.put_obj(part, x, y)
            self.changing[x * height + y] = part
        self.agent_pos = (self._rand_int(1, ROOM_WIDTH + 1), self._rand_int(1, ROOM_HEIGHT + 1))
        self.agent_dir = self._rand_int(0, 4)
        # The whole grid as numbers, which gen_obs reads. The last entry stands for hidden cells.
        self.cells = np.concatenate([self.grid.encode().reshape(-1, 3), np.zeros((1, 3), np.uint8)])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().reset(seed=seed, options=options)
        self.reached = np.zeros(ROOMS - 1, bool)
        return observation, self._facts(redrawn=False)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        redrawn = self.tv == "always" or (self.tv == "on-demand" and int(action) == Actions.done)
        if redrawn:
            drawn = self.np_random.integers(len(PICTURES), size=len(SCREEN))
            for part, index in zip(self.screen, drawn.tolist(), strict=True):
                part.type, part.color = PICTURES[index]
        # an int, since NumPy's integers are slow to compare
        observation, reward, terminal, truncated, _ = super().step(int(action))
        return observation, reward, terminal, truncated, self._facts(redrawn)

    def _facts(self, redrawn: bool) -> dict[str, Any]:
        room = (int(self.agent_pos[0]) - 1) // (ROOM_WIDTH + 1)
        if room:
            self.reached[room - 1] = True
        return {
            "noise_on": redrawn and self._view()[1],
            "room": room,
            "trackers": self.reached.copy(),
        }

    def _view(self) -> tuple[Array, bool]:
        """Which of `cells` each cell [x, y] of the view shows, and whether the screen is in view.

        MiniGrid computes this in each step, which takes most of its time. Here it depends only on
        the agent's position and the doors, so the result is cached.
        """
        key = (*self.agent_pos, self.agent_dir, *(door.is_open for door in self.doors))
        if key not in self.views:
            _, visible = self.gen_obs_grid()
            left, top, right, bottom = self.get_view_exts()
            x, y = np.mgrid[left:right, top:bottom]
            inside = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
            # Outside the grid MiniGrid shows wall. Cell 0, a corner, is a wall.
            numbers = np.where(inside, x * self.height + y, 0)
            turned = np.where(
                visible, np.rot90(numbers, -(self.agent_dir + 1)), len(self.cells) - 1
            )
            screen = [x * self.height + y for x, y in SCREEN]
            self.views[key] = turned, bool(np.isin(turned, screen).any())
        return self.views[key]

    def gen_obs(self) -> dict[str, Any]:
        """The same observation as MiniGrid's gen_obs, computed about ten times faster.

        A test compares the two.
        """
        for index, part in self.changing.items():
            self.cells[index] = part.encode()
        image = self.cells[self._view()[0]]
        half = self.agent_view_size // 2
        image[half, -1] = OBJECT_TO_IDX["empty"], 0, 0
        return {"image": image, "direction": self.agent_dir, "mission": self.mission}


SEEN = [name for name in OBJECT_TO_IDX if name != "unseen"]
CHANNELS = (*SEEN, *COLOR_TO_IDX, *STATE_TO_IDX)


def _codes() -> Array:
    """uint8 [objects, colours, states, channels]: 255 in the channels that describe a cell."""
    table = np.zeros(
        (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX) + 1, len(CHANNELS)), np.uint8
    )
    for name in SEEN:
        number = OBJECT_TO_IDX[name]
        table[number, ..., CHANNELS.index(name)] = 255
        if name != "empty":
            for colour, index in COLOR_TO_IDX.items():
                table[number, index, :, CHANNELS.index(colour)] = 255
        if name == "door":
            for state, index in STATE_TO_IDX.items():
                table[number, :, index, CHANNELS.index(state)] = 255
    return table


CODES = _codes()


class OneHot(gymnasium.ObservationWrapper[Array, Any, Any]):
    """MiniGrid's view as an image for networks: uint8 [19, 7, 7].

    A channel is 255 where a cell has its object, its colour or its door state. MiniGrid encodes
    these as 0..10, 0..5 and 0..2, which would all be black as the bytes of an image. A cell that
    the agent does not see is 0 in all channels. Direction and mission are left out, as in
    MiniGrid's ImgObsWrapper.

    Args:
      env: A MiniGrid environment.

    Raises:
      ValueError: The observation space has no `image`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, Dict) or not isinstance(space.spaces.get("image"), Box):
            raise ValueError(
                f"{env} has observation space {space}; OneHot reads the dict with an `image` that"
                " MiniGrid's worlds give"
            )
        shape = space["image"].shape
        assert shape is not None
        self.observation_space = Box(0, 255, (len(CHANNELS), shape[1], shape[0]), np.uint8)

    def observation(self, observation: dict[str, Any]) -> Array:
        image = observation["image"]
        return np.ascontiguousarray(
            CODES[image[..., 0], image[..., 1], image[..., 2]].transpose(2, 1, 0)
        )
