"""Large batches in parts: gradients of a mean over samples, added up.

This is exact where the loss is a mean over independent samples, as for SLAP, BYOL-Explore, RND and
ICM. It is not for a loss that compares the samples of a batch with each other: a contrast, VICReg,
or BatchNorm. Slow copies and statistics are to move once per optimiser step, not per part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[..., Tensor]  # tensors [n, ...] -> the mean over n, []


def accumulate(loss: Loss, batch: Sequence[Tensor], parts: int) -> Tensor:
    """Add the gradient of the batch's mean loss to the parameters' gradients, part by part.

    Args:
      loss: A mean over independent samples.
      batch: Tensors [n, ...] of the same n.
      parts: Parts; they may have different sizes, and weigh by them.

    Returns:
      The batch's loss [], without gradient.

    Raises:
      ValueError: There are fewer samples than parts.
    """
    count = len(batch[0])
    if not 1 <= parts <= count:
        raise ValueError(
            f"micro_batches is {parts}; it must be from 1 to the {count} samples of a batch"
        )
    total = torch.zeros((), device=batch[0].device)
    for part in zip(*(torch.tensor_split(each, parts) for each in batch), strict=True):
        value = loss(*part) * (len(part[0]) / count)
        value.backward()
        total = total + value.detach()
    return total
