"""Value targets: lambda-returns to the end of the sequence, bootstrapped.

With lambda = 1 these are n-step returns: BYOL-Explore's V-trace without correction (Guo et al.,
2022). Below 1 they trust the value more: they vary less, and have more of its errors (Sutton, 1988;
the advantages are then those of GAE, Schulman et al., 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(
    *,
    reward: Tensor,
    terminal: Tensor,
    real: Tensor,
    value: Tensor,
    discount: float,
    trace: float = 1.0,
) -> Tensor:
    """Returns G_t [T, B], to the end of the sequence or of the episode.

        G_t = r_t + discount * (0            if step t is terminal,
                                V(obs[t+1])  if it is the last step of the episode or sequence,
                                (1 - lambda) V(obs[t+1]) + lambda G_{t+1}  otherwise)

    A terminal cuts the return. A time limit bootstraps from the last observation of the episode; it
    shows as a next step that is not real. A step that is not real gets a target too, but it is
    never used.

    Args:
      reward: float [T, B].
      terminal: bool [T, B].
      real: bool [T, B]: steps that happened.
      value: float [T+1, B]: values of the observations.
      discount: gamma, per agent step.
      trace: lambda, from 0 to 1.
    """
    assert reward.shape == terminal.shape == real.shape and value.shape == (
        len(reward) + 1,
        *reward.shape[1:],
    )
    factor = discount * (~terminal).to(reward.dtype)
    # the next step is a reset, or past the end of the sequence
    ends = torch.cat([~real[1:], torch.ones_like(real[:1])])
    returns, following = torch.empty_like(reward), value[-1]
    for t in range(len(reward) - 1, -1, -1):
        ahead = torch.lerp(value[t + 1], following, trace)
        following = reward[t] + factor[t] * torch.where(ends[t], value[t + 1], ahead)
        returns[t] = following
    return returns


def continuing_returns(
    *, reward: Tensor, real: Tensor, value: Tensor, discount: float, trace: float = 1.0
) -> Tensor:
    """Returns G_t [T, B] that go on where an episode ends, to the end of the sequence.

        G_t = r_t + discount * ((1 - lambda) V' + lambda G_{t+1})  if step t happened,
              G_{t+1}                                              if it only resets,
        G_T = V(obs[T])

    V' is the value of the observation at which the next real step begins (obs[T] if there is none).
    So what lies behind an ending counts: a bonus for novelty does not fear it (Burda et al., 2018,
    section 2.3).

    Args:
      reward: float [T, B].
      real: bool [T, B]: steps that happened.
      value: float [T+1, B]: values of the observations.
      discount: gamma, per agent step.
      trace: lambda, from 0 to 1.
    """
    returns, following, ahead = torch.empty_like(reward), value[-1], value[-1]
    for t in range(len(reward) - 1, -1, -1):
        stepped = reward[t] + discount * torch.lerp(ahead, following, trace)
        following = torch.where(real[t], stepped, following)
        ahead = torch.where(real[t], value[t], ahead)
        returns[t] = following
    return returns
