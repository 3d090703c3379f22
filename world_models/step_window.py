"""The steps of B environments that have been paid and wait to be learned from.

A window is a piece of the stream of steps, with the stream's state at both of its ends:

    before                              state
      | first -> step -> step -> ... -> last |

A step joins the window when it has been paid, so a step that is refused is never in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.world_models.caller_spaces import choose_rows, row_of, stack
from afterwit.world_models.stream_state import StreamState


@dataclass
class Step:
    """One step of B environments."""

    actions: Array  #: [B, ...] as the action space says
    dones: Array  #: bool [B]: the step ended an episode
    #: object [B]: what an ending led to, or None. With next-step autoreset it is in `after`: None
    final: Array | None
    after: Any  #: the observations [B, ...] after the step


def arguments(first: Any, steps: Sequence[Step]) -> dict[str, Any]:
    """Steps that begin at observations `first`, as IntrinsicReward's methods take them."""
    finals = [step.final for step in steps if step.final is not None]
    return {
        "obs": stack([first, *(step.after for step in steps)]),
        "actions": np.stack([step.actions for step in steps]),
        "dones": np.stack([step.dones for step in steps]),
        "final_observations": np.stack(finals) if finals else None,
    }


class Window:
    """A piece of the stream.

    Args:
      first: The observations [B, ...] that it begins with.
      state: The state of the stream there.
    """

    def __init__(self, first: Any, state: StreamState):
        self.first, self.before, self.state = first, state, state
        self.steps: list[Step] = []

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> Any:
        """The newest observations."""
        return self.steps[-1].after if self.steps else self.first

    def append(self, step: Step, state: StreamState) -> None:
        """Add a step that has been paid, and the state of the stream after it."""
        self.steps.append(step)
        self.state = state

    def take(self) -> dict[str, Any]:
        """Take all steps out, as arguments of IntrinsicReward.update.

        The next ones begin where these end. What is taken out before it is learned from cannot fail
        twice.
        """
        taken = {**arguments(self.first, self.steps), "state": self.before}
        self.drop()
        return taken

    def drop(self) -> None:
        """Drop all steps. The next begin where they end."""
        self.first, self.before, self.steps = self.last, self.state, []

    def open(self, begun: Any, opens: Array) -> None:
        """Begin episodes where `opens`, bool [B], with the rows of observations `begun`.

        Episodes that had not ended end with the last step.
        """
        last, chosen = self.last, choose_rows(opens, begun, self.last)
        self.state = self.state.opened(opens)
        if not self.steps:
            self.first, self.before = chosen, self.before.opened(opens)
            return
        step = self.steps[-1]
        assert step.final is not None
        for b in np.flatnonzero(opens & ~step.dones):
            step.final[b] = row_of(last, int(b))
        step.dones |= opens
        step.after = chosen
