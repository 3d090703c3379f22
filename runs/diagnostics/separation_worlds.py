"""WORLDS: small worlds whose logs say which transitions are familiar, noisy or novel.

No policy is in the loop. Every world is a set of places. A place has a look, which is a fixed
pattern of 5x5 pixels, and each action leads from it to a fixed other place. Half of the places are
familiar: all training logs are there. The other half appears in held-out logs only. Both halves are
drawn in the same way, so only experience distinguishes them. The looks and the table of the second
half cannot be known from training. What some worlds show beside the look (a flag, a ticket or a
ball) is the same in both halves, as new rooms have the walls of old ones. A world adds noise to the
familiar half:

  familiar   deterministic, often seen
  noisy      also often seen (about a quarter of all steps), drawn anew each time
  novel      deterministic, never in a training log

The state is in full view: without noise, obs[t] and action[t] decide obs[t+1]. A test checks that
by brute force. The worlds differ in what noise means. In two of them nothing depends on it, so a
model that predicts latents can learn to ignore it. In the others it decides what follows: it must
be seen and cannot be foreseen. The worlds are our own, after the kinds of noise in Jarrett et al.
(2023), section 5.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.runs.diagnostics.separation_rules import RULE_WORLDS
from afterwit.runs.diagnostics.separation_world import (
    ACTIONS,
    CELLS,
    PLACES,
    VIEW,
    State,
    World,
    distinct_looks,
    permutations,
)

DISTRICT = 4  # places of one district, in the world of jumps
BOOTHS, STATIONS = PLACES // 4, PLACES // 4  # in the world of tickets
# places of the hall, and of each of two corridors, in the world of the coin
HALL, CORRIDOR = PLACES // 2, PLACES // 4
DOSE = 0.25  # probability of random pixels, a step
NEIGHBOURS = np.array(
    [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
)


class Pixels(World):
    """With probability 0.25 per step, random pixels appear beside the look for one step.

    They hide nothing and change nothing: the agent's place and the actions stay as they were.
    """

    relevant = False

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return rng.random(len(action)) < DOSE

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(after, pixels=rng.random(after.pixels.shape) < 0.5)


class OnDemand(Pixels):
    """Action 0 is a button: the agent stays, and random pixels appear for one step."""

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return action == 0

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(super().noise(state, after, rng), place=state.place)


class Jump(World):
    """Four districts of four places, each with a flag in view. Actions stay within the district.

    Each district has one pit. From there every action throws the agent to a random familiar place.
    Where it lands decides everything that follows. Never-seen districts have the same four flags,
    but looks and tables of their own.
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
    """Districts without pits: action 0 throws the agent to a random familiar place from anywhere.

    The other actions stay in the district. Where the agent lands decides everything that follows,
    and the agent can have this noise whenever it likes. Never-seen districts have no lever.
    """

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return action == 0


class Ticket(World):
    """The agent holds a ticket to one of the familiar places, as large in its view as the look.

    A quarter of the familiar places are booths: there it is dealt a new ticket, whatever it does.
    Another quarter are stations: there every action leads to the ticket's place. So the ticket is
    in every later view and decides where the agent gets to. Never-seen places have neither booths
    nor stations, and the ticket in hand stays as it is.
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
    """A ball is in view. In half of the familiar places it moves to a random neighbouring cell.

    Everywhere else it moves on by one cell. All later views depend on where chance has left it.
    """

    relevant = True

    def draw_things(self, rng: np.random.Generator) -> Array:
        return np.eye(CELLS, dtype=bool).reshape(CELLS, VIEW, VIEW)

    def move_thing(self, state: State, action: Array) -> Array:
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
    """Half of the familiar places are a hall, from which a coin chooses one of two corridors.

    From two places of the hall every action leads into a corridor. The corridor carries the agent
    along four places of its own, whatever it does, and ends in the hall. The coin decides the next
    four views, but only its fall is noise: from the corridor's first place on, everything is known.
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
    **RULE_WORLDS,
}
