"""Logs as AtariARI's authors made them: full grey frames, no sticky actions, a life an episode.

The source is Anand et al. (2019), arXiv 1906.08226, with their code (mila-iqia/
atari-representation-learning) where the paper is silent. Their wrappers, in order: 1 to 30 no-ops
when a game opens; 4 emulator frames an agent step, of which the last two are pooled by their
maximum; a lost life ends an episode; where the game has FIRE, an episode opens with the actions
number 1 and 2. The random agent draws from the game's own actions without the first, NOOP.

Their labels slip by one frame where an episode opens: that frame is the first of the new episode,
and its labels are of the last frame of the old one. We keep the slip, as their numbers contain it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.atari_ale import emulator, open_with_noops
from afterwit.envs.atari_config import games
from afterwit.envs.atari_labels import labels_of
from afterwit.envs.seeds import stream
from afterwit.runs.representation.frame_log import FrameLog, on_disk

STREAMS = 8  # games side by side
SKIP, NOOPS = 4, 30
HEIGHT, WIDTH = 210, 160  # of all games that have labels
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue


class Game:
    """One game behind the authors' wrappers. Frames are uint8 [210, 160], grey.

    Args:
      name: the game, such as "MontezumaRevenge".
      random: draws the no-ops.
      seed: of the emulator.
    """

    def __init__(self, name: str, random: np.random.Generator, seed: int):
        import ale_py

        self.ale, self.random = emulator(games()[name], seed), random
        self.actions = self.ale.getMinimalActionSet()
        self.fires = ale_py.Action.FIRE in self.actions
        self.lives, self.lost = 0, True  # the whole game is over
        self.screens = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)

    def step(self, action: int) -> bool:
        """Take one agent step with action `action`. Returns whether the episode ended."""
        for frame in range(SKIP):
            self.ale.act(self.actions[action])
            if frame >= SKIP - 2:
                self.ale.getScreenRGB(self.screens[frame - SKIP + 2])
            if self.ale.game_over():
                break
        lives, before = self.ale.lives(), self.lives
        self.lives, self.lost = lives, self.ale.game_over()
        return self.lost or 0 < lives < before

    def reset(self) -> None:
        """Open an episode: a new game, or the next life."""
        self._next_life()
        if self.fires:
            for action in (1, 2):
                if self.step(action):
                    self._next_life()

    def _next_life(self) -> None:
        if not self.lost:
            self.step(0)
            return
        open_with_noops(self.ale, self.random, NOOPS)
        for screen in self.screens:
            self.ale.getScreenRGB(screen)
        self.lives, self.lost = self.ale.lives(), False

    def frame(self) -> Array:
        """The maximum of the last two screens, in grey: uint8 [210, 160]."""
        grey: Array = (self.screens.max(0) @ GREY + 0.5).astype(np.uint8)
        return grey


def published_log(
    game: str, seed: int, folder: Path | None, steps: int, streams: int = STREAMS
) -> FrameLog:
    """Log a game with the authors' random agent.

    Args:
      game: its name, such as "MontezumaRevenge".
      seed: of games and agent. The authors used one seed, 42.
      folder: where the frames go, as a file that is mapped into memory. Unset: they stay in memory.
      steps: agent steps of all games together.
      streams: games side by side.

    Returns:
      The log. `obs` is [T, streams, 1, 210, 160]. `first` opens an episode, which is a life.

    Raises:
      ValueError: the game has no labels, or there is no room for the frames.
    """
    table = labels_of(game)
    running = []
    for index in range(streams):
        own = stream(seed, "published game", index)
        running.append(Game(game, np.random.default_rng(own), own >> 33))
    shape = (steps // streams, streams)
    number = len(running[0].actions)
    obs = on_disk(folder, np.uint8, (*shape, 1, HEIGHT, WIDTH))
    rams, first = np.zeros((*shape, 128), np.uint8), np.zeros(shape, bool)
    random = np.random.default_rng(stream(seed, "published actions"))
    played = random.integers(1, number, (shape[0] + 1, streams))
    for one in running:
        one.reset()
    for time in range(shape[0]):
        for index, one in enumerate(running):
            over = one.step(int(played[time, index]))
            rams[time, index] = one.ale.getRAM()  # before the reset: the slip of the labels
            if over:
                one.reset()
            obs[time, index, 0] = one.frame()
            first[time, index] = over or time == 0
    return FrameLog(
        obs,
        played[1:],
        first,
        {name: rams[..., byte].copy() for name, (byte, _) in table.items()},
        {name: category for name, (_, category) in table.items()},
        number,
        None,
        {"environment": f"atari-{game}", "game": game, "seed": seed, "mode": "published"},
    )
