"""Value targets: n-step returns to the end of the sequence, bootstrapped.

This is BYOL-Explore's V-trace without correction (Guo et al., 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor


def n_step_returns(
    *, reward: Tensor, terminal: Tensor, real: Tensor, value: Tensor, discount: float
) -> Tensor:
    """Returns G_t [T, B], to the end of the sequence or of the episode.

        G_t = r_t + discount * (0            if step t is terminal,
                                V(obs[t+1])  if it is the last step of the episode or sequence,
                                G_{t+1}      otherwise)

    A terminal cuts the return. A time limit bootstraps from the last observation of the episode; it
    shows as a next step that is not real. A step that is not real gets a target too, but it is
    never used.

    Args:
      reward: float [T, B].
      terminal: bool [T, B].
      real: bool [T, B]: steps that happened.
      value: float [T+1, B]: values of the observations.
      discount: gamma, per agent step.
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
        following = reward[t] + factor[t] * torch.where(ends[t], value[t + 1], following)
        returns[t] = following
    return returns


def continuing_returns(*, reward: Tensor, real: Tensor, value: Tensor, discount: float) -> Tensor:
    """Returns G_t [T, B] that go on where an episode ends, to the end of the sequence.

        G_t = r_t + discount * G_{t+1}  if step t happened,
              G_{t+1}                   if it only resets,
        G_T = V(obs[T])

    So what lies behind an ending counts: a bonus for novelty does not fear it (Burda et al., 2018,
    section 2.3).

    Args:
      reward: float [T, B], 0 for steps that only reset.
      real: bool [T, B]: steps that happened.
      value: float [T+1, B]: values of the observations.
      discount: gamma, per agent step.
    """
    factor = torch.where(real, discount, 1.0).to(reward.dtype)
    returns, following = torch.empty_like(reward), value[-1]
    for t in range(len(reward) - 1, -1, -1):
        following = reward[t] + factor[t] * following
        returns[t] = following
    return returns
