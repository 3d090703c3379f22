"""WORLDS: small worlds whose logs say of each transition whether it is familiar, noisy or novel. No
policy is in the loop.

Every world is a set of places. A place has a look, a fixed pattern of 5x5 pixels, and an action
leads from it to one fixed other place. Half of the places are familiar: all training logs lie
there. The other half, the never-seen ones, appear in held-out logs only. They are made by the same
draws as the familiar ones, so nothing but experience tells them apart; but their looks are others
and where an action leads is another table, so neither can be known from training. (What some worlds
show beside the look, a flag, a ticket or a ball, is known: new rooms have the walls of old ones.)
What a world adds is noise, in the familiar half:

    familiar   deterministic, often seen
    noisy      often seen too (a quarter of all steps or so), drawn anew each time
    novel      deterministic, never in a training log

The state is in full view: outside of noise, obs[t] and action[t] decide obs[t+1], and a test checks
it by brute force. The worlds differ in what noise means. In two it means nothing for what follows,
and a model that predicts latents can learn to drop it from them. In the others it decides what
follows: it has to be seen, and cannot be foreseen. (Ours; after the kinds of noise in Jarrett et
al., 2023, section 5.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from afterwit.envs.arrays import Array

KINDS = ("familiar", "noisy", "novel")
FAMILIAR, NOISY, NOVEL = range(3)

PLACES = 16  # familiar ones; as many again are never seen in training
ACTIONS = 4
VIEW = 5
CELLS = VIEW * VIEW
CHANNELS = ("look", "thing", "pixels")
DISTRICT = 4  # places of one district, in the world of jumps
BOOTHS, STATIONS = PLACES // 4, PLACES // 4  # in the world of tickets
# places of the hall, and of each of two corridors, in the world of the coin
HALL, CORRIDOR = PLACES // 2, PLACES // 4
DOSE = 0.25  # probability of random pixels, a step
NEIGHBOURS = np.array(
    [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
)


@dataclass(frozen=True)
class State:
    """Where B environments are: all of it is in view."""

    place: Array  # int [B]: below PLACES familiar, from there on never seen in training
    # int [B]: which of the world's `things` is in view, where that is a state of its own (a ball's
    # cell, a ticket)
    thing: Array
    pixels: Array  # bool [B, 5, 5]: random pixels of this frame


@dataclass(frozen=True)
class Log:
    """T steps of B environments, as `IntrinsicReward` takes them, and what each step was."""

    obs: Array  # uint8 [T+1, B, 3, 5, 5], values 0 and 255
    action: Array  # int64 [T, B]
    done: Array  # bool [T, B]: an episode is as long as the log
    kind: Array  # int64 [T, B]: FAMILIAR, NOISY or NOVEL


class World(ABC):
    """A map drawn from `seed`, and the noise that a subclass adds to it."""

    relevant: bool
    """Does the noise decide what follows?"""

    def __init__(self, seed: int):
        rng = np.random.default_rng([seed, 0])
        self.looks = distinct_looks(2 * PLACES, rng)
        self.things = self.draw_things(rng)  # bool [n, 5, 5]
        self.table = np.concatenate(
            [self.draw_table(rng), PLACES + self.draw_unseen_table(rng)]
        )  # [2 * PLACES, A]: place and action to place

    def draw_table(self, rng: np.random.Generator) -> Array:
        """Where each action leads in the familiar half, int [PLACES, A]. Permutations: no place is
        visited more than others.
        """
        return permutations(rng)

    def draw_unseen_table(self, rng: np.random.Generator) -> Array:
        """The same for the never-seen half, counted from its first place."""
        return permutations(rng)

    def draw_things(self, rng: np.random.Generator) -> Array:
        """The things that can be in view beside a look, bool [n, 5, 5]. Here: nothing."""
        return np.zeros((1, VIEW, VIEW), bool)

    def lead(self, state: State, action: Array) -> Array:
        """The place where `action` leads, int [B], if nothing intervenes."""
        return self.table[state.place, action]

    def thing_in_view(self, state: State) -> Array:
        """Which thing is in view, int [B]."""
        return state.thing

    def move_thing(self, state: State) -> Array:
        """The thing in view one step later, int [B], if left alone. Here: the same."""
        return state.thing

    @abstractmethod
    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        """bool [B]: does noise decide this step? (Asked of all environments; those in never-seen
        places have none.)
        """

    @abstractmethod
    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        """What noise makes of a step that would have led from `state` to `after`."""

    def step(self, state: State, action: Array, rng: np.random.Generator) -> tuple[State, Array]:
        """One step of B environments: the state reached, and the kind of the step [B]."""
        unseen = state.place >= PLACES
        quiet = State(self.lead(state, action), self.move_thing(state), np.zeros_like(state.pixels))
        noisy = self.is_noisy(state, action, rng) & ~unseen
        drawn = self.noise(state, quiet, rng)
        after = State(
            np.where(noisy, drawn.place, quiet.place),
            np.where(noisy, drawn.thing, quiet.thing),
            noisy[:, None, None] & drawn.pixels,
        )
        return after, np.where(unseen, NOVEL, np.where(noisy, NOISY, FAMILIAR))

    def observe(self, state: State) -> Array:
        """uint8 [B, 3, 5, 5]: look, thing and pixels, each in its own channel, so that none hides
        another.
        """
        obs = np.zeros((len(state.place), len(CHANNELS), VIEW, VIEW), np.uint8)
        obs[:, 0] = self.looks[state.place]
        obs[:, 1] = self.things[self.thing_in_view(state)]
        obs[:, 2] = state.pixels
        return obs * np.uint8(255)

    def log(self, steps: int, batch: int, unseen: float, rng: np.random.Generator) -> Log:
        """`steps` random actions in each of `batch` environments, of which a share `unseen` starts
        among never-seen places.
        """
        place = rng.integers(PLACES, size=batch)
        place[: round(unseen * batch)] += PLACES
        state = State(
            place, rng.integers(len(self.things), size=batch), np.zeros((batch, VIEW, VIEW), bool)
        )
        action = rng.integers(ACTIONS, size=(steps, batch))
        kind = np.zeros((steps, batch), np.int64)
        obs = [self.observe(state)]
        for t in range(steps):
            state, kind[t] = self.step(state, action[t], rng)
            obs.append(self.observe(state))
        done = np.zeros((steps, batch), bool)
        done[-1] = True
        return Log(np.stack(obs), action, done, kind)


class Pixels(World):
    """With probability 0.25 a step, random pixels lie beside the look of the place reached, and are
    gone with the next step.

    They hide nothing and change nothing: where the agent is and where actions lead stays as it was.
    """

    relevant = False

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return rng.random(len(action)) < DOSE

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(after, pixels=rng.random(after.pixels.shape) < 0.5)


class OnDemand(Pixels):
    """Action 0 is a button: the agent stays where it is, and random pixels lie beside the look
    until the next step.
    """

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return action == 0

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(super().noise(state, after, rng), place=state.place)


class Jump(World):
    """Four districts of four places, each with a flag in view. Actions stay in the district; but
    from one place of each, a pit, every action throws the agent to one of all familiar places, each
    as likely as the others.

    Where it lands decides all that follows. Never-seen districts fly the same four flags, as new
    rooms have the walls of old ones: under them, looks and tables are of their own.
    """

    relevant = True

    def draw_table(self, rng: np.random.Generator) -> Array:
        return np.concatenate(
            [start + permutations(rng, DISTRICT) for start in range(0, PLACES, DISTRICT)]
        )

    def draw_unseen_table(self, rng: np.random.Generator) -> Array:
        return self.draw_table(rng)

    def draw_things(self, rng: np.random.Generator) -> Array:
        return distinct_looks(PLACES // DISTRICT, rng)

    def thing_in_view(self, state: State) -> Array:
        return state.place % PLACES // DISTRICT

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return state.place % DISTRICT == 0

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(after, place=rng.integers(PLACES, size=len(after.place)))


class Lever(Jump):
    """The districts again, without pits: it is the agent who throws itself. Action 0 leads to one
    of all familiar places, each as likely as the others, from wherever it is taken; the other
    actions stay in the district.

    What it lands on decides all that follows, and the noise is there for the asking. Never-seen
    districts have no lever.
    """

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return action == 0


class Ticket(World):
    """The agent holds a ticket, as large in its view as the look, to one of the familiar places. A
    quarter of them are booths, where it is dealt a new one, whatever it does; another quarter are
    stations, where every action leads to the ticket's place.

    The ticket dealt is in every later view and decides where the agent gets to. Never-seen places
    have neither booths nor stations: the ticket in hand, a known one, stays as it is.
    """

    relevant = True

    def draw_things(self, rng: np.random.Generator) -> Array:
        return distinct_looks(PLACES, rng)

    def lead(self, state: State, action: Array) -> Array:
        station = (state.place >= BOOTHS) & (state.place < BOOTHS + STATIONS)
        return np.where(station, state.thing, super().lead(state, action))

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return state.place < BOOTHS

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(after, thing=rng.integers(PLACES, size=len(after.thing)))


class Ball(World):
    """A ball is in view, and in half of the familiar places it walks at random, to one of the eight
    cells around it.

    Everywhere else it goes on by one cell, from where chance has left it: all later views depend on
    that.
    """

    relevant = True

    def draw_things(self, rng: np.random.Generator) -> Array:
        return np.eye(CELLS, dtype=bool).reshape(CELLS, VIEW, VIEW)

    def move_thing(self, state: State) -> Array:
        row, column = np.divmod(state.thing, VIEW)
        down, right = (row + 1) % VIEW * VIEW + column, row * VIEW + (column + 1) % VIEW
        return np.where(state.place >= PLACES, down, right)

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return state.place < PLACES // 2

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        cell = (
            np.stack(np.divmod(state.thing, VIEW), 1)
            + NEIGHBOURS[rng.integers(len(NEIGHBOURS), size=len(state.thing))]
        )
        return replace(after, thing=(cell % VIEW) @ np.array([VIEW, 1]))


class Coin(World):
    """Half of the familiar places are a hall. From two of them every action leads into one of two
    corridors; a coin picks which.

    A corridor carries the agent along four places of its own, whatever it does, and ends in the
    hall. The coin decides the next four views; only its fall is noise, for from the first place of
    a corridor on all is known.
    """

    relevant = True

    def draw_table(self, rng: np.random.Generator) -> Array:
        along = np.arange(HALL, PLACES) + 1
        along[CORRIDOR - 1 :: CORRIDOR] = 2, 3  # the ends, each at a place of the hall
        return np.concatenate([permutations(rng, HALL), np.repeat(along[:, None], ACTIONS, 1)])

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return state.place < 2

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(after, place=HALL + CORRIDOR * rng.integers(2, size=len(after.place)))


WORLDS: dict[str, type[World]] = {
    "pixels": Pixels,
    "on-demand": OnDemand,
    "jump": Jump,
    "lever": Lever,
    "ticket": Ticket,
    "ball": Ball,
    "coin": Coin,
}


def permutations(rng: np.random.Generator, count: int = PLACES) -> Array:
    """int [count, A]: each action leads from every one of `count` places to another place of its
    own.
    """
    return np.stack([rng.permutation(count) for _ in range(ACTIONS)], 1)


def distinct_looks(count: int, rng: np.random.Generator) -> Array:
    """bool [count, 5, 5]: patterns of random pixels, no two of them the same."""
    codes = rng.choice(2**CELLS, size=count, replace=False)
    return (codes[:, None] >> np.arange(CELLS) & 1).astype(bool).reshape(count, VIEW, VIEW)
