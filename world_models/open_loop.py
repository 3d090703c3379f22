"""The K-step open loop and its pair masks, written once for every model.

    b_{t,0} = b_t,   b_{t,k} = h(b_{t,k-1}, a_{t+k-1})   for k = 1 .. K

From each belief b_t the open-loop RNN h runs on actions only. A pair (t, k) is valid if the K steps
from t to t+k all happened: nothing is predicted across the end of an episode. Arrays over pairs are
[K, T, B, ...], with k = 1 first. Rows past the end of the trajectory are padding and never valid.

K predictions of each outcome cost K times as much. With a stride, only some steps t are starts
(`draw_starts`), and arrays over pairs are [K, S, B, ...] with S rows. At stride K about one
prediction of each outcome is left, from 1 to K steps before.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models import data_parallel
from afterwit.world_models.actions import action_map
from afterwit.world_models.trajectory import masked_mean

Edges = Literal["whole", "sum"]


class Starts(NamedTuple):
    """The steps from which the open loop starts."""

    times: Tensor  # int64 [S], rising, on the host
    length: int  # T


def draw_starts(length: int, stride: int, random: torch.Generator) -> Starts | None:
    """Step 0, and every `stride`-th from a random one on.

    Args:
      length: T.
      stride: At most the horizon, so that no transition is left out, but for fewer than `stride`
          after a reset.
      random: Draws where the second start is. Nothing is drawn at stride 1.

    Returns:
      None means every step.
    """
    if stride == 1:
        return None
    second = int(torch.randint(1, stride + 1, (), generator=random))
    return Starts(torch.tensor([0, *range(second, length, stride)]), length)


def pair_mask(real: Tensor, horizon: int, starts: Starts | None = None) -> Tensor:
    """Which pairs (t, k) are valid: steps t .. t+k-1 lie inside the trajectory and happened.

    Args:
      real: bool [T, B]: steps that happened.
      horizon: K.
      starts: The times t. None: all.

    Returns:
      bool [K, T, B], or [K, S, B].
    """
    padded = F.pad(real.float(), (0, 0, 0, horizon - 1))
    valid = padded.unfold(0, horizon, 1).cumprod(-1).permute(2, 0, 1) > 0
    return valid if starts is None else valid[:, starts.times.to(valid.device)]


def future(values: Tensor, horizon: int, length: int, starts: Starts | None = None) -> Tensor:
    """values[t + k] for k = 0 .. K-1 and t < `length`. Past the end, the last row is repeated.

    Args:
      values: [T or more, ...].
      horizon: K.
      length: T.
      starts: The times t. None: all.

    Returns:
      [K, T, ...], or [K, S, ...].
    """
    every = torch.arange(length, device=values.device)
    start = every if starts is None else starts.times.to(values.device)
    time = start + torch.arange(horizon, device=values.device)[:, None]
    return values[time.clamp(max=len(values) - 1)]


def pair_mean(errors: Tensor, valid: Tensor) -> Tensor:
    """The loss: the mean over the valid k of each (t, b), then over all (t, b) that have any.

    With several learners each gets its contribution (see masked_mean).

    Args:
      errors: float [K, T, B].
      valid: bool [K, T, B].

    Returns:
      The loss [].
    """
    count = valid.sum(0)
    per_start = torch.where(valid, errors, 0.0).sum(0) / count.clamp(min=1)
    return per_start.sum() / data_parallel.mean_count(count > 0)


def by_transition(values: Tensor, starts: Starts | None = None) -> Tensor:
    """Sum over p + q = t + 1, [K, T or S, B, ...] to [T, B, ...]."""
    total = values.new_zeros(starts.length if starts else values.shape[1], *values.shape[2:])
    # the pair (p, q = index + 1) concerns transition p + q - 1
    for index, row in enumerate(values):
        if starts is None:
            total[index:] += row[: len(row) - index]
        else:
            rows = starts.times[starts.times + index < starts.length]  # they come first
            total.index_add_(0, (rows + index).to(row.device), row[: len(rows)])
    return total


def predicted(valid: Tensor, starts: Starts | None = None) -> Tensor:
    """bool [T, B]: transitions that any valid pair [K, T or S, B] concerns."""
    return by_transition(valid.float(), starts) > 0


def outcome_loss(
    error: Tensor, views: Tensor, valid: Tensor, forgiven: float, starts: Starts | None = None
) -> Tensor:
    """The mean error of each outcome's predictions, less a share of their disagreement: [].

    The mean squared distance of the predictions p of one outcome y is that of their centroid c, and
    the mean squared distance of p from c, their disagreement.

    Args:
      error: Squared distance of p and y, of the pairs, float [K, T, B].
      views: Their predictions p, float [K, T, B, N].
      valid: bool [K, T, B].
      forgiven: Share of the disagreement that costs nothing, from 0 to 1.
      starts: The rows of the pairs. None: all steps.
    """

    def summed(values: Tensor) -> Tensor:
        return by_transition(values, starts)

    count = summed(valid.float())  # [T, B]: predictions of each outcome
    views = torch.where(valid.unsqueeze(-1), views, 0.0)
    centroid = summed(views) / count.clamp(min=1).unsqueeze(-1)
    square = summed(views.square().sum(-1)) / count.clamp(min=1)
    disagreement = square - centroid.square().sum(-1)
    mean = summed(torch.where(valid, error, 0.0)) / count.clamp(min=1)
    return masked_mean(mean - forgiven * disagreement, count > 0)


class TransitionReward(nn.Module):
    """The reward of a transition: the sum of all errors that concern obs[t+1], p + q = t + 1.

    The first K - 1 transitions of an unroll and of an episode have fewer than K such pairs. There
    are two ways to pay them:

    - "sum": the sum over the existing pairs, as BYOL-Explore publishes it (for unrolls of 128
      steps). Then transition n gets only n of K parts of the pay, and almost nothing after
      prioritisation.
    - "whole" (our default; not published): this sum, divided by the share of the whole that these
      pairs have in the batch. Errors far ahead are larger, so the share is not n / K. On average
      the raw reward then does not depend on where unrolls and episodes begin. One error times K
      varies more than a sum of K errors, so after prioritisation beginnings may be paid more than
      other transitions.

    Args:
      horizon: K.
      edges: "whole" or "sum".
    """

    size: Tensor

    def __init__(self, horizon: int, edges: Edges):
        super().__init__()
        self.whole = edges == "whole" and horizon > 1
        # mean error at each distance k, in the last training batch that had such pairs
        if self.whole:
            self.register_buffer("size", torch.ones(horizon))

    @torch.no_grad()
    def forward(self, errors: Tensor, valid: Tensor, starts: Starts | None = None) -> Tensor:
        """The reward of each transition. In training mode it also updates the mean errors.

        Args:
          errors: float [K, T or S, B], at least 0.
          valid: bool [K, T or S, B].
          starts: The rows of the pairs. None: all steps.

        Returns:
          float [T, B]. It is 0 if no pair is valid.
        """
        errors = torch.where(valid, errors, 0.0)
        total = by_transition(errors, starts)
        if not self.whole:
            return total
        if self.training:
            count = data_parallel.average(valid.sum((1, 2)))  # [K]
            mean = data_parallel.average(errors.sum((1, 2))) / torch.where(count > 0, count, 1.0)
            self.size.copy_(torch.where(count > 0, mean, self.size))
        present = by_transition(torch.where(valid, self.size[:, None, None], 0.0), starts)
        return total * (self.size.sum() / torch.where(present > 0, present, torch.inf))


class OpenLoop(nn.Module):
    """The open-loop RNN, started from every belief at once.

    Args:
      belief: M, size of the belief.
      action_embedding: Size of an action's embedding.
      num_actions: Number of actions, or of numbers of a continuous action.
      horizon: K.
      continuous: Whether actions are numbers.
    """

    def __init__(
        self,
        belief: int,
        action_embedding: int,
        num_actions: int,
        horizon: int,
        continuous: bool = False,
    ):
        super().__init__()
        self.horizon = horizon
        self.action_embedding = action_map(num_actions, action_embedding, continuous)
        self.rnn = nn.GRU(action_embedding, belief)

    def forward(self, beliefs: Tensor, action: Tensor, starts: Starts | None = None) -> Tensor:
        """Run K steps from each belief, or from those of some times.

        Args:
          beliefs: float [T+1, B, M].
          action: int64 [T, B], or float32 [T, B, A].
          starts: The times. None: all.

        Returns:
          b_{t,k} for k = 0 .. K: float [K+1, T or S, B, M].

        Raises:
          ValueError: The trajectory is shorter than the horizon.
        """
        length, batch = action.shape[:2]
        if self.horizon > length:
            raise ValueError(
                f"horizon is {self.horizon} but the trajectory has {length} steps; make the unroll"
                " longer or the horizon shorter"
            )
        start = beliefs[:length] if starts is None else beliefs[starts.times.to(beliefs.device)]
        # [K, T*B, E]
        inputs = self.action_embedding(future(action, self.horizon, length, starts)).flatten(1, 2)
        ahead, _ = self.rnn(inputs, start.flatten(0, 1)[None].contiguous())
        return torch.cat([start[None], ahead.unflatten(1, (len(start), batch))])
