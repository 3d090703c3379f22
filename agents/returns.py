"""Value targets: n-step returns to the end of the sequence, bootstrapped (BYOL-Explore's V-trace
without correction).
"""

from __future__ import annotations

import torch
from torch import Tensor


def n_step_returns(
    *, reward: Tensor, terminal: Tensor, real: Tensor, value: Tensor, discount: float
) -> Tensor:
    """G_t [T, B] = r_t + discount * (0 after a terminal, V(obs[t+1]) at an episode's end, else
    G_{t+1}).

    reward, terminal, real [T, B]; value [T+1, B]. Terminal, truncation and reset step are three
    things: a terminal cuts the return; a time limit bootstraps from the last observation it saw,
    and shows as a next step that is not real; a step that is not real gets a target that nothing
    reads, and that nothing before it bootstraps from.
    """
    assert reward.shape == terminal.shape == real.shape and value.shape == (
        len(reward) + 1,
        *reward.shape[1:],
    )
    factor = discount * (~terminal).to(reward.dtype)
    # the next step is a reset, or lies past the sequence
    ends = torch.cat([~real[1:], torch.ones_like(real[:1])])
    returns, following = torch.empty_like(reward), value[-1]
    for t in range(len(reward) - 1, -1, -1):
        following = reward[t] + factor[t] * torch.where(ends[t], value[t + 1], following)
        returns[t] = following
    return returns
