"""ATARI_WORLDS: the separation benchmark on real frames, from logs of random play.

A log is 64,000 agent steps of 16 games at 42x42 with sticky actions (`separation_play.py`). The
same rules hold for all games and models.

  Places     The rooms of the game. Where random play sees too few rooms, the 16x16 squares of its
             rooms.
  Familiar   The most visited places, as few of them as hold 80% of the log's observations. All
             others are held out. If no room is left to hold out, the places are squares.
  Training   Stretches of T steps without a reset, in the first three quarters of the games, whose
             T+1 observations are all in familiar places.

What is judged was never trained on. The first quarter of a stretch is not judged, because the
model's memory is still blank there.

  noisy      Steps in familiar places of the other games that nobody can foresee, though they were
             often seen. Such are steps into another familiar room, and the two steps before and
             after them: under sticky actions nobody can tell in which step the picture changes.
             With noise on demand no-ops are noisy as well, because they cover the picture.
  familiar   All other steps in familiar places of the other games.
  novel      Steps of all games from a familiar place into a held-out one, and the two after them
             whose outcome is held out too. No-ops do not count if they cover the picture.

A change between squares of a room is no noise. With noise `walk` every pixel of every step is
noisy, so it is part of what is familiar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from gymnasium.spaces import Box, Discrete

from afterwit.envs.arrays import Array
from afterwit.envs.atari import AtariConfig, action_names
from afterwit.envs.noise import NOOP
from afterwit.runs.configs.presets import AtariNoise, atari_small
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.diagnostics.separation_play import ENVIRONMENTS, Play
from afterwit.runs.diagnostics.separation_world import (
    FAMILIAR,
    KINDS,
    NOISY,
    NOVEL,
    UNJUDGED,
    Log,
    Sizes,
)

KNOWN = 0.8  # least share of the log's observations that are in familiar places
TRAINING = 0.75  # share of the games that models are trained on
NEAR = 2  # steps before and after a crossing, and after an entry, that count too
TOGETHER = 64  # stretches that are judged in one call, at most


@dataclass(frozen=True)
class AtariWorld:
    """A game with a noise."""

    game: str
    noise: AtariNoise
    noisy: str  # what is noisy, in words

    sizes = Sizes(updates=240, steps=20, batch=16)

    def config(self) -> AtariConfig:
        """Return the settings of the games: those of the preset atari-small, on one thread."""
        config = cast(AtariConfig, self.preset().env)
        return replace(config, num_envs=ENVIRONMENTS, threads=1)

    def preset(self) -> RunConfig:
        """Return what an agent would be trained with here."""
        return atari_small(game=self.game, noise=self.noise)


BORDERS, NO_OPS = "steps over familiar borders", "no-ops, whose picture is covered"
ATARI_WORLDS = {
    "private-eye": AtariWorld("PrivateEye", "none", BORDERS),
    "private-eye-on-demand": AtariWorld("PrivateEye", "on-demand", f"{BORDERS}, and {NO_OPS}"),
    "private-eye-walk": AtariWorld("PrivateEye", "walk", f"{BORDERS}, all under a random walk"),
    "pitfall": AtariWorld("Pitfall", "none", BORDERS),
    "pitfall-on-demand": AtariWorld("Pitfall", "on-demand", f"{BORDERS}, and {NO_OPS}"),
    "pitfall-walk": AtariWorld("Pitfall", "walk", f"{BORDERS}, all under a random walk"),
    # random play crosses no familiar border there
    "montezuma-on-demand": AtariWorld("MontezumaRevenge", "on-demand", NO_OPS),
    "venture-on-demand": AtariWorld("Venture", "on-demand", NO_OPS),
}


class AtariLogs:
    """The training logs and the judged logs of a play.

    Args:
      world: The game and noise that were played.
      play: What was played.

    Raises:
      ValueError: From its methods: the play has too little of something.
    """

    def __init__(self, world: AtariWorld, play: Play):
        config = world.config()
        self.world, self.play = world, play
        self.observations = Box(0, 255, play.obs.shape[2:], np.uint8)
        self.actions = Discrete(len(action_names(config.game, config.full_action_space)))
        self.torso = world.preset().learner.torso
        self.places, place = "rooms", play.room
        self.familiar = familiar_places(place)
        if np.isin(place, self.familiar).all():
            self.places, place = "squares", play.cell
            self.familiar = familiar_places(place)
        self.known = np.isin(place, self.familiar)  # bool [N+1, B]
        self.trained = round(TRAINING * place.shape[1])  # games
        happened = ~play.first[1:]
        crossed = (place[1:] != place[:-1]) & self.known[1:] & self.known[:-1] & happened
        # bool [N, B]: steps into another familiar room, and steps near them
        self.crossed = crossed & (self.places == "rooms")
        self.border = near(self.crossed, NEAR)
        # bool [N, B]: steps from familiar places into held-out ones, and the first steps there
        self.entered = self.known[:-1] & ~self.known[1:] & happened
        self.news = near(self.entered, 0) & ~self.known[1:]
        self.facts = {
            "places": self.places,
            "familiar_places": sorted(self.familiar.tolist()),
            "held_out_places": sorted(set(place.ravel().tolist()) - set(self.familiar.tolist())),
        }
        self.covered = (play.action == NOOP) & (world.noise == "on-demand")

    def training_log(self, steps: int, batch: int, random: np.random.Generator) -> Log:
        """Return random stretches of familiar places."""
        starts = self.familiar_starts(steps)
        starts = starts[starts[:, 1] < self.trained]
        if not len(starts):
            raise ValueError(
                f"no {steps} steps of {self.world.game}'s log stay in familiar places; set a"
                " larger log_steps, or fewer steps"
            )
        return self.log(starts[random.integers(len(starts), size=batch)], steps)

    def judged_logs(self, steps: int, batch: int, random: np.random.Generator) -> list[Log]:
        """Return all stretches that are judged, in random order. `batch` is not used."""
        starts = self.familiar_starts(steps)
        familiar = starts[(starts[:, 1] >= self.trained) & (starts[:, 0] % steps == 0)]
        novel = self.novel_starts(steps)
        logs = []
        for chosen, kinds in ((familiar, (FAMILIAR, NOISY)), (novel, (NOVEL,))):
            parts = math.ceil(len(chosen) / TOGETHER) or 1
            for part in np.array_split(random.permutation(chosen), parts):
                log = self.log(part, steps)
                log.kind[~np.isin(log.kind, kinds)] = UNJUDGED
                logs.append(log)
        for kind, name in enumerate(KINDS):
            if not any((log.kind == kind).any() for log in logs):
                raise ValueError(
                    f"{self.world.game}'s log has no {name} steps to judge; set a larger log_steps"
                )
        return logs

    def unbroken(self, steps: int) -> Array:
        """Return from which times `steps` steps without a reset follow, bool [N+1-steps, B]."""
        return ~any_within(self.play.first[1:], steps)

    def familiar_starts(self, steps: int) -> Array:
        """Return times and games of all stretches of familiar places, int [n, 2]."""
        return np.argwhere(~any_within(~self.known, steps + 1) & self.unbroken(steps))

    def novel_starts(self, steps: int) -> Array:
        """Return times and games of stretches that come to a held-out place, int [n, 2].

        It is entered in their middle. Stretches of a game do not overlap.
        """
        unbroken, found = self.unbroken(steps), []
        for b in range(unbroken.shape[1]):
            free = 0
            for t in (np.flatnonzero(self.entered[:, b]) - steps // 2).tolist():
                if free <= t < len(unbroken) and unbroken[t, b]:
                    found.append((t, b))
                    free = t + steps
        return np.array(found, np.int64).reshape(-1, 2)

    def log(self, starts: Array, steps: int) -> Log:
        """Return the stretches that begin at `starts`, times and games, int [B, 2]."""
        time, game = starts[:, 0] + np.arange(steps + 1)[:, None], starts[:, 1]
        known, step = self.known[time, game], (time[:-1], game)
        noisy = self.border[step] | self.covered[step]
        kind = np.where(noisy, NOISY, FAMILIAR)
        kind[~(known[1:] & known[:-1])] = UNJUDGED
        kind[self.news[step] & ~self.covered[step]] = NOVEL
        kind[: steps // 4] = UNJUDGED
        parts = {
            "border": self.border[step],
            "crossing": self.crossed[step],
            "no-op": self.covered[step],
            "entry": self.entered[step],
        }
        done = np.zeros_like(noisy)
        return Log(self.play.obs[time, game], self.play.action[step], done, kind, parts)


def familiar_places(place: Array) -> Array:
    """Return the most visited numbers in `place`, as few of them as hold a share KNOWN of it."""
    numbers, visits = np.unique(place, return_counts=True)
    order = np.argsort(-visits, kind="stable")
    share = visits[order].cumsum() / place.size
    return numbers[order][: np.searchsorted(share, KNOWN) + 1]


def near(steps: Array, before: int) -> Array:
    """Return steps at most `before` before one of `steps`, or NEAR after it, bool [N, B]."""
    return any_within(np.pad(steps, ((NEAR, before), (0, 0))), NEAR + 1 + before)


def any_within(values: Array, length: int) -> Array:
    """Return whether any of `length` rows from each row on is true, bool [n + 1 - length, B].

    With fewer rows than `length` the result has none.
    """
    if len(values) < length:
        return np.zeros((0, *values.shape[1:]), bool)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(values, length, axis=0).any(-1))
