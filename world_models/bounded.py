"""A number within bounds, such as a log variance, that can always come back from beyond them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Inward(torch.autograd.Function):
    """Clamp, with a gradient beyond the bounds where a step down it leads back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, least: float, most: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.bounds = least, most
        return values.clamp(least, most)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (values,), (least, most), (gradient,) = ctx.saved_tensors, ctx.bounds, gradients
        outward = ((values < least) & (gradient > 0)) | ((values > most) & (gradient < 0))
        return gradient.masked_fill(outward, 0), None, None


def within(values: Tensor, least: float, most: float) -> Tensor:
    """`values` within [least, most].

    A plain clamp has no gradient beyond its bounds, so what was once there stays. Here the gradient
    stops only where it would lead further out.
    """
    return Inward.apply(values, least, most)
