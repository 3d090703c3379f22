"""How actions enter networks.

Of discrete actions, int64 [...], a network reads a learned row each, or A numbers that are 1 where
the action was taken and else 0. Continuous actions are A numbers already, float32 [..., A], and a
network reads them or a linear map of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def action_numbers(action: Tensor, num_actions: int) -> Tensor:
    """Actions as A numbers, [..., A]."""
    return action if action.is_floating_point() else F.one_hot(action, num_actions)


def with_action(inputs: Tensor, action: Tensor, num_actions: int) -> Tensor:
    """Inputs [..., N] and the numbers of an action beside each other: [..., N+A]."""
    return torch.cat([inputs, action_numbers(action, num_actions).to(inputs.dtype)], -1)


def action_map(num_actions: int, size: int, continuous: bool) -> nn.Embedding | nn.Linear:
    """From actions to vectors [..., size] that are learned.

    Args:
      num_actions: A, the number of actions, or of numbers of a continuous action.
      size: Size of the vectors.
      continuous: Whether actions are numbers.
    """
    return nn.Linear(num_actions, size) if continuous else nn.Embedding(num_actions, size)
