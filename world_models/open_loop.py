"""The K-step open loop and its pair masks, written once for every model.

From each belief b_t the open-loop RNN runs on actions only: b_{t,k} = h(b_{t,k-1}, a_{t+k-1}). A pair (t, k) is
valid if the K steps from t to t+k all happened; nothing is predicted across an episode's end. Arrays over pairs
are [K, T, B, ...] with k = 1 first; rows past the end of the trajectory are padding, and never valid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models import shares


def pair_mask(real: Tensor, horizon: int) -> Tensor:
    """bool [K, T, B]: steps t .. t+k-1 of `real` [T, B] all lie inside the trajectory and happened."""
    padded = F.pad(real.float(), (0, 0, 0, horizon - 1))
    return padded.unfold(0, horizon, 1).cumprod(-1).permute(2, 0, 1) > 0


def future(values: Tensor, horizon: int, length: int) -> Tensor:
    """values[t + k] for k = 0 .. K-1 and t < `length`: [K, length, ...]; past the end, the last row is repeated."""
    time = torch.arange(length, device=values.device) + torch.arange(horizon, device=values.device)[:, None]
    return values[time.clamp(max=len(values) - 1)]


def pair_mean(errors: Tensor, valid: Tensor) -> Tensor:
    """The loss: mean over the valid k of each (t, b), then over all (t, b) that have any. [K, T, B] to []; see masked_mean."""
    count = valid.sum(0)
    per_start = torch.where(valid, errors, 0.0).sum(0) / count.clamp(min=1)
    return per_start.sum() / shares.count(count > 0)


def sum_by_transition(errors: Tensor, valid: Tensor) -> Tensor:
    """The reward: all valid errors that concern obs[t+1], sum over p + q = t + 1. [K, T, B] to [T, B]."""
    errors = torch.where(valid, errors, 0.0).detach()
    total = torch.zeros_like(errors[0])
    for index, row in enumerate(errors):  # the pair (p, q = index + 1) concerns transition p + q - 1
        total[index:] += row[: len(row) - index]
    return total


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
                f"horizon is {self.horizon} but the trajectory has {length} steps; make the unroll longer or the horizon shorter"
            )
        start = beliefs[:length]
        inputs = self.action_embedding(future(action, self.horizon, length)).flatten(1, 2)  # [K, T*B, E]
        ahead, _ = self.rnn(inputs, start.flatten(0, 1)[None].contiguous())
        return torch.cat([start[None], ahead.unflatten(1, (length, batch))])
