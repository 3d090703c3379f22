"""Separation worlds in which news is a rule, and one in which only the picture is new.

In the worlds of `separation_worlds.py` the never-seen places have pictures and rules of their own,
so "can this picture be coded at all?" tells news as well as "could this have been foreseen?" does.
Here the two are taken apart.

- `Exits`, `Portal`, `Door`: every picture is familiar, and so is every outcome. New is where a step
  leads. A bonus for pictures alone pays nothing for that.
- `Gallery`: the pictures are new, and the rule is an old one.

In the first three a quarter of the familiar places are pits: from there every action throws the
agent to a random familiar place. So the outcomes of news and noise are the same pictures. What is
new is hidden in a state (`State.changed`) that no training log has.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from afterwit.envs.arrays import Array
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

QUARTER = PLACES // 4
PITS, LEVERS = 0, 1  # quarters of the places; in the world of doors the others have one
UNTRIED = ACTIONS - 1  # the action that training logs have in the pits alone


def quarter(state: State) -> Array:
    """Return in which quarter of the familiar or never-seen places each agent is, int [B]."""
    return state.place % PLACES // QUARTER


class Rule(World):
    """Familiar places with pits. Some steps of `changed` environments lead elsewhere."""

    relevant = True

    def place_news(self, state: State, chosen: Array) -> State:
        return replace(state, changed=chosen)

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return quarter(state) == PITS

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(after, place=rng.integers(PLACES, size=len(after.place)))

    def lead(self, state: State, action: Array) -> Array:
        new_way = self.table[state.place + PLACES, action] - PLACES
        return np.where(self.is_news(state, action), new_way, super().lead(state, action))


class Exits(Rule):
    """In every place but the pits, the four actions swap their exits.

    The same place and action were often seen, with another outcome.
    """

    def draw_table(self, rng: np.random.Generator) -> Array:
        # four different exits, so that each action's new exit is another one
        order, shifts = rng.permutation(PLACES), rng.choice(PLACES, ACTIONS, replace=False)
        table = np.zeros((PLACES, ACTIONS), np.int64)
        table[order] = order[(np.arange(PLACES)[:, None] + shifts) % PLACES]
        self.exits = table
        return table

    def draw_unseen_table(self, rng: np.random.Generator) -> Array:
        return np.roll(self.exits, 1, axis=1)

    def is_news(self, state: State, action: Array) -> Array:
        return state.changed & (quarter(state) != PITS)


class Portal(Rule):
    """One action was never tried but in the pits. It leads to a familiar place."""

    def choose(self, state: State, drawn: Array) -> Array:
        tried = state.changed | (drawn != UNTRIED) | (quarter(state) == PITS)
        return np.where(tried, drawn, state.place % UNTRIED)

    def is_news(self, state: State, action: Array) -> Array:
        return state.changed & (action == UNTRIED) & (quarter(state) != PITS)


class Door(Rule):
    """Action 0 turns a lever, which is in view everywhere. Action 1 knocks at a door.

    Training logs know both, and no door ever opened: the knock leaves the agent where it is. Now a
    turned lever opens the doors.
    """

    def draw_things(self, rng: np.random.Generator) -> Array:
        return distinct_looks(2, rng)  # the lever: as it was, and turned

    def place_news(self, state: State, chosen: Array) -> State:
        return replace(super().place_news(state, chosen), thing=np.where(chosen, 1, state.thing))

    def move_thing(self, state: State, action: Array) -> Array:
        turned = (quarter(state) == LEVERS) & (action == 0)
        return np.where(turned, 1 - state.thing, state.thing)

    def draw_table(self, rng: np.random.Generator) -> Array:
        table = permutations(rng)
        doors = np.arange((LEVERS + 1) * QUARTER, PLACES)
        table[doors, 1] = doors
        return table

    def draw_unseen_table(self, rng: np.random.Generator) -> Array:
        # behind each door is another familiar place
        return (np.arange(PLACES) + 1 + rng.integers(PLACES - 1))[:, None].repeat(ACTIONS, 1) % (
            PLACES
        )

    def is_news(self, state: State, action: Array) -> Array:
        return state.changed & (state.thing == 1) & (quarter(state) > LEVERS) & (action == 1)


class Gallery(World):
    """Each action moves a ball by one cell, in familiar places and in never-seen ones.

    The agent stays in its place, so its look stays too: nothing but the look is new. In half of the
    familiar places action 0 throws the ball to a random cell.
    """

    relevant = True

    def draw_table(self, rng: np.random.Generator) -> Array:
        return np.arange(PLACES)[:, None].repeat(ACTIONS, 1)

    draw_unseen_table = draw_table

    def draw_things(self, rng: np.random.Generator) -> Array:
        return np.eye(CELLS, dtype=bool).reshape(CELLS, VIEW, VIEW)

    def move_thing(self, state: State, action: Array) -> Array:
        ways = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
        row, column = np.divmod(state.thing, VIEW)
        return (row + ways[action, 0]) % VIEW * VIEW + (column + ways[action, 1]) % VIEW

    def is_noisy(self, state: State, action: Array, rng: np.random.Generator) -> Array:
        return (state.place < PLACES // 2) & (action == 0)

    def noise(self, state: State, after: State, rng: np.random.Generator) -> State:
        return replace(after, thing=rng.integers(CELLS, size=len(after.thing)))


RULE_WORLDS: dict[str, type[World]] = {
    "exits": Exits,
    "portal": Portal,
    "door": Door,
    "gallery": Gallery,
}
