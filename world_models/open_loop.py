"""The K-step open loop and its pair masks, written once for every model.

From each belief b_t the open-loop RNN runs on actions only: b_{t,k} = h(b_{t,k-1}, a_{t+k-1}). A
pair (t, k) is valid if the K steps from t to t+k all happened; nothing is predicted across an
episode's end. Arrays over pairs are [K, T, B, ...] with k = 1 first; rows past the end of the
trajectory are padding, and never valid.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models import data_parallel

Edges = Literal["whole", "sum"]


def pair_mask(real: Tensor, horizon: int) -> Tensor:
    """bool [K, T, B]: steps t .. t+k-1 of `real` [T, B] all lie inside the trajectory and
    happened.
    """
    padded = F.pad(real.float(), (0, 0, 0, horizon - 1))
    return padded.unfold(0, horizon, 1).cumprod(-1).permute(2, 0, 1) > 0


def future(values: Tensor, horizon: int, length: int) -> Tensor:
    """values[t + k] for k = 0 .. K-1 and t < `length`: [K, length, ...]; past the end, the last row
    is repeated.
    """
    time = (
        torch.arange(length, device=values.device)
        + torch.arange(horizon, device=values.device)[:, None]
    )
    return values[time.clamp(max=len(values) - 1)]


def pair_mean(errors: Tensor, valid: Tensor) -> Tensor:
    """The loss: mean over the valid k of each (t, b), then over all (t, b) that have any. [K, T, B]
    to []; see masked_mean.
    """
    count = valid.sum(0)
    per_start = torch.where(valid, errors, 0.0).sum(0) / count.clamp(min=1)
    return per_start.sum() / data_parallel.count(count > 0)


def by_transition(values: Tensor) -> Tensor:
    """Sum over p + q = t + 1, [K, T, B] to [T, B]."""
    total = torch.zeros_like(values[0])
    # the pair (p, q = index + 1) concerns transition p + q - 1
    for index, row in enumerate(values):
        total[index:] += row[: len(row) - index]
    return total


class TransitionReward(nn.Module):
    """From errors of pairs to what transitions are worth: all that concern obs[t+1], those with p +
    q = t + 1.

    The first K - 1 transitions of an unroll and of an episode have fewer than K such pairs. edges
    "sum": the sum over those that exist, as BYOL-Explore publishes it (for unrolls of 128 steps);
    transition n then has n of K parts of the pay, and after prioritisation close to none. "whole":
    that sum by the share of the whole that such pairs have in the batch (errors far ahead are
    larger), so that on average the raw reward does not depend on where unrolls and episodes begin.
    (Our choice. One error times K varies more than a sum of K, so after prioritisation beginnings
    may be paid more than others.)
    """

    size: Tensor

    def __init__(self, horizon: int, edges: Edges):
        super().__init__()
        self.whole = edges == "whole" and horizon > 1
        # mean error at each distance, in the last batch of training that had such pairs
        if self.whole:
            self.register_buffer("size", torch.ones(horizon))

    @torch.no_grad()
    def forward(self, errors: Tensor, valid: Tensor) -> Tensor:
        """Errors of at least 0 [K, T, B] to [T, B]; 0 where no pair is valid. In training the sizes
        are taken from them.
        """
        errors = torch.where(valid, errors, 0.0)
        total = by_transition(errors)
        if not self.whole:
            return total
        if self.training:
            count = data_parallel.average(valid.sum((1, 2)))  # [K]
            mean = data_parallel.average(errors.sum((1, 2))) / torch.where(count > 0, count, 1.0)
            self.size.copy_(torch.where(count > 0, mean, self.size))
        present = by_transition(torch.where(valid, self.size[:, None, None], 0.0))
        return total * (self.size.sum() / torch.where(present > 0, present, torch.inf))


class OpenLoop(nn.Module):
    """The open-loop RNN, started from every belief at once."""

    def __init__(self, belief: int, action_embedding: int, num_actions: int, horizon: int):
        super().__init__()
        self.horizon = horizon
        self.action_embedding = nn.Embedding(num_actions, action_embedding)
        self.rnn = nn.GRU(action_embedding, belief)

    def forward(self, beliefs: Tensor, action: Tensor) -> Tensor:
        """b_{t,k} for k = 0 .. K: [K+1, T, B, M], from beliefs [T+1, B, M] and actions [T, B]."""
        length, batch = action.shape
        if self.horizon > length:
            raise ValueError(
                f"horizon is {self.horizon} but the trajectory has {length} steps; make the unroll"
                " longer or the horizon shorter"
            )
        start = beliefs[:length]
        # [K, T*B, E]
        inputs = self.action_embedding(future(action, self.horizon, length)).flatten(1, 2)
        ahead, _ = self.rnn(inputs, start.flatten(0, 1)[None].contiguous())
        return torch.cat([start[None], ahead.unflatten(1, (length, batch))])
