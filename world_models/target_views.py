"""Targets that are embeddings of temporal derivatives, after ViDiDi (Chen et al., 2024).

    D0 o_t = o_t,   D1 o_t = o_t - o_{t-1},   D2 o_t = o_t - 2 o_{t-1} + o_{t-2}

The slow encoder reads the derivative of an outcome as floats, undivided and unscaled. The window
lies in one episode of one trajectory. So D2 is not known of the first outcome of an episode, nor of
an unroll: these outcomes have no loss, no pay and no part in statistics.

ViDiDi alternates the orders of both views (objectives/vididi.py). Here the belief's view is always
the observation, since acting must not change. What is left is the order of the target, of which
ViDiDi has 0, 1 and 2 in 1/4, 1/2 and 1/4 of its steps. CYCLE has these shares. Each order has
statistics of its own, as sizes of derivatives differ, and a predictor of its own.

A derivative that is 0 everywhere is kept. ViDiDi's pairs of clips then have nothing in common, but
here that nothing moved is an outcome which can be foreseen.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from afterwit.world_models.base import TargetEncoder
from afterwit.world_models.objectives.vididi import differences
from afterwit.world_models.running_scale import RunningMean
from afterwit.world_models.trajectory import Trajectory, masked_mean

View = Literal["frame", "change", "acceleration", "alternating"]
CYCLE = (0, 1, 2, 1)  # orders of four learner steps
ORDERS: dict[View, tuple[int, ...]] = {
    "frame": (0,),
    "change": (1,),
    "acceleration": (2,),
    "alternating": CYCLE,
}


def in_one_episode(first: Tensor, order: int) -> Tensor:
    """bool [T, B]: obs[t+1] and the `order` observations before it are of one episode.

    At least obs[t] and obs[t+1] are, even for order 0: a step that only resets has no outcome.

    Args:
      first: bool [T+1, B]: the observation opens an episode.
      order: 0, 1 or 2.
    """
    known = ~first[1:]
    for back in range(1, order):
        before = torch.ones_like(first[:back]), first[1:-back]  # nothing is before the trajectory
        known = known & ~torch.cat(before)
    return known


class DerivativeTarget(TargetEncoder):
    """A target of which the order changes with each learner step.

    Args:
      online: The encoder that is trained.
      size: N, size of the embedding.
      decay: Share of the slow weights that is kept at each learner step.
      standardise_decay: Share of each order's running mean and size that is kept at each learner
          step in which it is used. None: unit vectors.
      cycle: Orders of as many learner steps, again and again.
    """

    turn: Tensor

    def __init__(
        self,
        online: nn.Module,
        size: int,
        decay: float,
        standardise_decay: float | None,
        cycle: tuple[int, ...],
    ):
        super().__init__(online, size, decay, standardise_decay)
        self.cycle = cycle
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))
        self.further = nn.ModuleDict()  # statistics of all orders but the first
        for order in sorted(set(cycle) - {cycle[0]}):
            if standardise_decay is not None:
                moments = RunningMean(standardise_decay, (size,)), RunningMean(standardise_decay)
                self.further[str(order)] = nn.ModuleList(moments)

    @property
    def order(self) -> int:
        """The order of this learner step."""
        return self.cycle[int(self.turn) % len(self.cycle) if len(self.cycle) > 1 else 0]

    def known(self, trajectory: Trajectory) -> Tensor:
        return in_one_episode(trajectory.first, self.order)

    def view(self, trajectory: Trajectory) -> Tensor:
        """The derivative of each outcome, [T, B, ...]; without meaning where it is not known."""
        order, obs = self.order, trajectory.obs
        if not order:
            return obs[1:]
        found = differences(obs, order)
        return torch.cat([torch.zeros_like(found[: order - 1]), found])

    @torch.no_grad()
    def forward(self, trajectory: Trajectory) -> Tensor:
        mean, square = self.mean, self.square
        if str(self.order) in self.further:
            mean, square = self.further[str(self.order)]  # type: ignore[misc]
        embeddings = self.slow(self.view(trajectory))
        return self.standardised(embeddings, self.known(trajectory), mean, square)

    def still(self, trajectory: Trajectory) -> Tensor:
        """Share [] of the known outcomes whose derivative is 0 everywhere."""
        moves = self.view(trajectory).flatten(2).any(-1)
        return masked_mean((~moves).float(), self.known(trajectory))

    @torch.no_grad()
    def update(self) -> None:
        """Move the slow weights, and turn to the next order."""
        super().update()
        self.turn += 1
