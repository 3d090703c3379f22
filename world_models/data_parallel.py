"""One batch, several learners: each takes the share of some environments.

Together they do what one learner would do with the whole batch. The objective is a mean over the
whole batch. Each learner's loss is its contribution to this mean, scaled so that the *average* over
learners is the objective. So gradients and metrics are averaged. Everything that is counted, ranked
or compared must be the whole batch's. These functions do that:

    mean_count  The denominator of every mean (trajectory.masked_mean, open_loop.pair_mean): shares
                may have different numbers of real steps.
    average     Running statistics of rewards, value targets (PopArt), embeddings and observations.
                Without it the learners' copies would drift apart.
    gather      V-MPO's top half and temperature rank the advantages of the whole batch. The
                contrastive critic compares each z with those of all other environments, and its
                score depends on their number.
    own_share   Random draws are made for the whole batch and cut to size, so that they do not
                depend on the number of learners.

In one process, which is the usual case, each of these returns what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# Afterwit's own group, apart from a program's own use of torch.distributed
_group: dist.ProcessGroup | None = None


def join(address: str, rank: int, learners: int, timeout: float) -> None:
    """Become one of several learners. Waits for the others.

    An exchange raises RuntimeError if another learner is gone or takes too long.

    Args:
      address: "host:port", where learner 0 is.
      rank: Number of this learner.
      learners: Number of learners.
      timeout: Seconds to wait for the others, now and at each exchange.
    """
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
    """Leave the group of learners."""
    global _group
    if _group is not None:
        dist.destroy_process_group()
        _group = None


def num_learners() -> int:
    """The number of learners that share the batch."""
    return 1 if _group is None else dist.get_world_size(_group)


@torch.no_grad()
def average(value: Tensor) -> Tensor:
    """Mean over learners, without gradient."""
    if _group is None:
        return value
    total = value.clone() if value.is_floating_point() else value.to(torch.get_default_dtype())
    dist.all_reduce(total, group=_group)
    return total / num_learners()


def mean_count(mask: Tensor) -> Tensor:
    """The number of True values [], as a mean over learners.

    Over all learners it is at least 1, so that it can be a divisor.
    """
    return average(mask.sum()).clamp(min=1 / num_learners())


def any_true(mask: Tensor) -> Tensor:
    """bool []: whether any value is True in the whole batch."""
    return mask.any() if _group is None else average(mask.any()) > 0


def gather(value: Tensor, dim: int) -> Tensor:
    """The whole batch from all learners' shares, joined along `dim`, in the order of ranks.

    `dim` is the axis of environments.
    """
    return value if _group is None else Gather.apply(value, dim)


def own_share(value: Tensor, dim: int) -> Tensor:
    """This learner's share of the whole batch, along the axis of environments."""
    return value if _group is None else value.chunk(num_learners(), dim)[dist.get_rank(_group)]


class Gather(torch.autograd.Function):
    """The differentiable form of `gather`.

    Backward, each learner gets the sum of all learners' gradients for its share.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        sent = value.to(torch.uint8) if value.dtype == torch.bool else value
        parts = [
            torch.empty_like(sent, memory_format=torch.contiguous_format)
            for _ in range(num_learners())
        ]
        dist.all_gather(parts, sent.contiguous(), group=_group)
        return torch.cat(parts, dim).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=_group)
        return own_share(total, ctx.dim).contiguous(), None


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace all gradients by their mean over learners, in one exchange."""
    if _group is None:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = average(torch.cat([g.flatten() for g in gradients]))
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
