"""A world of the separation benchmark: places, steps, views and logs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from afterwit.envs.arrays import Array

KINDS = ("familiar", "noisy", "novel")
FAMILIAR, NOISY, NOVEL = range(3)
UNJUDGED = -1
PLACES = 16  # familiar ones; as many again are never seen in training
ACTIONS = 4
VIEW = 5
CELLS = VIEW * VIEW
CHANNELS = ("look", "thing", "pixels")
UNSEEN = 1 / 3  # share of judged environments that start in never-seen places
JUDGED = 8  # judged logs


@dataclass(frozen=True)
class Sizes:
    """How long a training is, where no option says otherwise."""

    updates: int
    steps: int
    batch: int


@dataclass(frozen=True)
class State:
    """The state of B environments. All of it is in view, but for `changed`."""

    place: Array  # int [B]: below PLACES familiar, the others never seen in training
    # int [B]: which of the world's `things` is in view, such as a ball's cell or a ticket
    thing: Array
    pixels: Array  # bool [B, 5, 5]: random pixels of this frame
    changed: Array  # bool [B]: a rule is new here; never in training


@dataclass(frozen=True)
class Log:
    """T steps of B environments, as `IntrinsicReward` takes them, and the kind of each step."""

    obs: Array  # uint8 [T+1, B, ...]; here [..., 3, 5, 5] of values 0 and 255
    action: Array  # int64 [T, B]
    done: Array  # bool [T, B]: an episode is as long as the log
    kind: Array  # int64 [T, B]: FAMILIAR, NOISY, NOVEL or UNJUDGED
    # by name, bool [T, B]: which noise makes a step noisy, and which steps are entries
    parts: dict[str, Array] = field(default_factory=dict)


class World(ABC):
    """A map drawn from `seed`. Subclasses add noise to it."""

    relevant: bool
    """Whether the noise decides what follows."""
    sizes = Sizes(updates=600, steps=10, batch=64)
    observations = Box(0, 255, (len(CHANNELS), VIEW, VIEW), np.uint8)
    actions = Discrete(ACTIONS)
    torso = None  # the encoder follows the observations
    facts: Mapping[str, Any] = MappingProxyType({})  # what JSON says of the world

    def __init__(self, seed: int):
        rng = np.random.default_rng([seed, 0])
        self.looks = distinct_looks(2 * PLACES, rng)
        self.things = self.draw_things(rng)  # bool [n, 5, 5]
        self.table = np.concatenate(
            [self.draw_table(rng), PLACES + self.draw_unseen_table(rng)]
        )  # [2 * PLACES, A]: place and action to place

    def draw_table(self, rng: np.random.Generator) -> Array:
        """Return where each action leads in the familiar half, int [PLACES, A].

        They are permutations, so that all places are visited equally often.
        """
        return permutations(rng)

    def draw_unseen_table(self, rng: np.random.Generator) -> Array:
        """Return the same for the never-seen half, counted from its first place."""
        return permutations(rng)

    def draw_things(self, rng: np.random.Generator) -> Array:
        """Return the things that can be in view beside a look, bool [n, 5, 5]. Here: nothing."""
        return np.zeros((1, VIEW, VIEW), bool)

    def lead(self, state: State, action: Array) -> Array:
        """Return the place to which `action` leads without noise, int [B]."""
        return self.table[state.place, action]

    def thing_in_view(self, state: State) -> Array:
        """Return which thing is in view, int [B]."""
        return state.thing

    def move_thing(self, state: State, action: Array) -> Array:
        """Return the thing one step later without noise, int [B]. Here: the same."""
        return state.thing

    def place_news(self, state: State, chosen: Array) -> State:
        """Return first states in which news awaits the `chosen` environments, bool [B].

        Here they are in never-seen places.
        """
        return replace(state, place=state.place + PLACES * chosen)

    def is_news(self, state: State, action: Array) -> Array:
        """Return whether this step is news, bool [B]."""
        return state.place >= PLACES

    def choose(self, state: State, drawn: Array) -> Array:
        """Return what the agent does, int [B], where it drew these actions. Here: just that."""
        return drawn

    @abstractmethod
    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        """Return whether noise decides this step, bool [B].

        The result is ignored where the step is news: news has no noise.
        """

    @abstractmethod
    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        """Return what noise makes of a step that would have led from `state` to `after`."""

    def step(self, state: State, action: Array, rng: np.random.Generator) -> tuple[State, Array]:
        """Take one step in B environments. Returns the next state, and the step's kind [B]."""
        news = self.is_news(state, action)
        quiet = State(
            self.lead(state, action),
            self.move_thing(state, action),
            np.zeros_like(state.pixels),
            state.changed,
        )
        noisy = self.is_noisy(state, action, rng) & ~news
        drawn = self.noise(state, quiet, rng)
        after = State(
            np.where(noisy, drawn.place, quiet.place),
            np.where(noisy, drawn.thing, quiet.thing),
            noisy[:, None, None] & drawn.pixels,
            state.changed,
        )
        return after, np.where(news, NOVEL, np.where(noisy, NOISY, FAMILIAR))

    def observe(self, state: State) -> Array:
        """Return views, uint8 [B, 3, 5, 5].

        Look, thing and pixels have a channel each, so that none hides another.
        """
        obs = np.zeros((len(state.place), len(CHANNELS), VIEW, VIEW), np.uint8)
        obs[:, 0] = self.looks[state.place]
        obs[:, 1] = self.things[self.thing_in_view(state)]
        obs[:, 2] = state.pixels
        return obs * np.uint8(255)

    def training_log(self, steps: int, batch: int, random: np.random.Generator) -> Log:
        """Return a log without news."""
        return self.log(steps, batch, 0.0, random)

    def judged_logs(self, steps: int, batch: int, random: np.random.Generator) -> list[Log]:
        """Return logs of all three kinds."""
        return [self.log(steps, batch, UNSEEN, random) for _ in range(JUDGED)]

    def log(self, steps: int, batch: int, unseen: float, rng: np.random.Generator) -> Log:
        """Return a log of `steps` random actions in `batch` environments.

        News awaits a share `unseen` of the environments.
        """
        place = rng.integers(PLACES, size=batch)
        state = State(
            place,
            rng.integers(len(self.things), size=batch),
            np.zeros((batch, VIEW, VIEW), bool),
            np.zeros(batch, bool),
        )
        state = self.place_news(state, np.arange(batch) < round(unseen * batch))
        action = rng.integers(ACTIONS, size=(steps, batch))
        kind = np.zeros((steps, batch), np.int64)
        obs = [self.observe(state)]
        for t in range(steps):
            action[t] = self.choose(state, action[t])
            state, kind[t] = self.step(state, action[t], rng)
            obs.append(self.observe(state))
        done = np.zeros((steps, batch), bool)
        done[-1] = True
        return Log(np.stack(obs), action, done, kind)


def permutations(rng: np.random.Generator, count: int = PLACES) -> Array:
    """Return int [count, A]: each action permutes the `count` places."""
    return np.stack([rng.permutation(count) for _ in range(ACTIONS)], 1)


def distinct_looks(count: int, rng: np.random.Generator) -> Array:
    """Return bool [count, 5, 5]: different patterns of random pixels."""
    codes = rng.choice(2**CELLS, size=count, replace=False)
    return (codes[:, None] >> np.arange(CELLS) & 1).astype(bool).reshape(count, VIEW, VIEW)
