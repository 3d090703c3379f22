"""One batch, several learners: each has the share of some environments, and all do what one learner
would do with the whole.

The objective is a mean over the whole batch. Each learner's loss is its contribution to it, on such
a scale that the *average* over learners is the whole; so gradients and metrics are averaged. For
that, what is counted, ranked or compared must be the whole batch's, and this is what the functions
here are for:

count     the denominator of every mean (trajectory.masked_mean, open_loop.pair_mean): shares may
          hold unlike numbers of real steps
average   running statistics: of rewards, value targets (PopArt), embeddings and observations, else
          replicas would drift apart
gather    V-MPO's top half and temperature rank advantages over the whole batch, and the contrastive
          critic tells each z from those
          of all other environments: its score depends on how many there are
own       random draws are made for the whole batch and cut to size, so that they do not depend on
          the number of learners

In one process, which is the rule, all of these return what they are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# ours alone: a program that uses torch.distributed for itself is left in peace
_group: dist.ProcessGroup | None = None


def join(address: str, rank: int, learners: int, timeout: float) -> None:
    """Become learner `rank` of `learners`, which meet at `address` ("host:port", where learner 0
    is). Waits at most `timeout` seconds for the others, now and at each exchange; then, or where
    one of them is gone, the exchange raises RuntimeError."""
    global _group
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend,
        f"tcp://{address}",
        timeout=timedelta(seconds=timeout),
        rank=rank,
        world_size=learners,
    )
    _group = dist.group.WORLD


def leave() -> None:
    global _group
    if _group is not None:
        dist.destroy_process_group()
        _group = None


def learners() -> int:
    """How many share the batch."""
    return 1 if _group is None else dist.get_world_size(_group)


@torch.no_grad()
def average(value: Tensor) -> Tensor:
    """Mean over learners, without gradient."""
    if _group is None:
        return value
    total = value.clone() if value.is_floating_point() else value.to(torch.get_default_dtype())
    dist.all_reduce(total, group=_group)
    return total / learners()


def count(mask: Tensor) -> Tensor:
    """[]: how many are True, on average over learners; of all together at least 1, so that one can
    divide by it.
    """
    return average(mask.sum()).clamp(min=1 / learners())


def anywhere(mask: Tensor) -> Tensor:
    """bool []: is any True in the whole batch?"""
    return mask.any() if _group is None else average(mask.any()) > 0


def gather(value: Tensor, dim: int) -> Tensor:
    """The whole batch from everybody's share: joined along `dim`, which counts environments, in the
    order of ranks.
    """
    return value if _group is None else Gather.apply(value, dim)


def own(value: Tensor, dim: int) -> Tensor:
    """This learner's share of the whole batch."""
    return value if _group is None else value.chunk(learners(), dim)[dist.get_rank(_group)]


class Gather(torch.autograd.Function):
    """Backwards, each learner gets what all of them ask of its share."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        sent = value.to(torch.uint8) if value.dtype == torch.bool else value
        parts = [
            torch.empty_like(sent, memory_format=torch.contiguous_format) for _ in range(learners())
        ]
        dist.all_gather(parts, sent.contiguous(), group=_group)
        return torch.cat(parts, dim).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=_group)
        return own(total, ctx.dim).contiguous(), None


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give all learners the mean gradient, in one exchange."""
    if _group is None:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = average(torch.cat([g.flatten() for g in gradients]))
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
