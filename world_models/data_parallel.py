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

Parts of one batch that go through in turn (objectives/micro_batches.py) are like several learners.
But a part cannot wait for the next ones. So the whole batch goes first, without gradient, and its
averages are put on a `Tape`, which the parts then read. There is no `gather` between parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# Afterwit's own group, apart from a program's own use of torch.distributed
_group: dist.ProcessGroup | None = None


@dataclass
class Tape:
    """Averages over the whole batch, in the order in which a forward pass asks for them."""

    parts: int
    part: int | None = None  # the part that reads; None: the whole batch is recorded
    place: int = 0  # of the next average
    averages: list[Tensor] = field(default_factory=list)

    def read(self, like: Tensor) -> Tensor:
        """The next average.

        Raises:
          RuntimeError: The part does not ask for what the whole batch asked for.
        """
        if self.place == len(self.averages) or self.averages[self.place].shape != like.shape:
            raise RuntimeError("a part of a batch asks for other averages than the whole batch")
        self.place += 1
        return self.averages[self.place - 1]


_tape: Tape | None = None


@contextmanager
def using(tape: Tape, part: int | None) -> Iterator[None]:
    """Inside this context averages are recorded on the tape, or are read from it by a part."""
    global _tape
    _tape, tape.part, tape.place = tape, part, 0
    try:
        yield
    finally:
        _tape = None


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
    """The number of learners that share the batch, or of all their parts of it."""
    learners = 1 if _group is None else dist.get_world_size(_group)
    return learners if _tape is None or _tape.part is None else learners * _tape.parts


@torch.no_grad()
def average(value: Tensor) -> Tensor:
    """Mean over learners, without gradient."""
    if _tape is not None and _tape.part is not None:
        return _tape.read(value)
    if _group is not None:
        total = value.clone() if value.is_floating_point() else value.to(torch.get_default_dtype())
        dist.all_reduce(total, group=_group)
        value = total / num_learners()
    if _tape is not None:
        _tape.averages.append(value)
    return value


def mean_count(mask: Tensor) -> Tensor:
    """The number of True values [], as a mean over learners.

    Over all learners it is at least 1, so that it can be a divisor.
    """
    count = average(mask.sum())
    if _tape is not None and _tape.part is not None:
        count = count / _tape.parts
    return count.clamp(min=1 / num_learners())


def any_true(mask: Tensor) -> Tensor:
    """bool []: whether any value is True in the whole batch."""
    return mask.any() if _group is None and _tape is None else average(mask.any()) > 0


def gather(value: Tensor, dim: int) -> Tensor:
    """The whole batch from all learners' shares, joined along `dim`, in the order of ranks.

    `dim` is the axis of environments.

    Raises:
      RuntimeError: A part asks for the others.
    """
    if _tape is not None and _tape.part is not None:
        raise RuntimeError("a part of a batch cannot be compared with the other parts")
    return value if _group is None else Gather.apply(value, dim)


def own_share(value: Tensor, dim: int) -> Tensor:
    """This learner's share of the whole batch, along the axis of environments."""
    if _group is not None:
        value = value.chunk(dist.get_world_size(_group), dim)[dist.get_rank(_group)]
    if _tape is not None and _tape.part is not None:
        value = value.chunk(_tape.parts, dim)[_tape.part]
    return value


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
