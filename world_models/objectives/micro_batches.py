"""Large batches in parts: gradients of a mean over samples, added up.

This is exact where the loss is a mean over independent samples, as for SLAP, BYOL-Explore, RND and
ICM. It is not for a loss that compares the samples of a batch with each other: a contrast, VICReg,
or BatchNorm. Slow copies and statistics are to move once per optimiser step, not per part.

`accumulate` takes any such loss. `in_parts` takes a world model, with its masks, draws and running
statistics (`learner.micro_batches`):

1. The whole batch goes through without gradient, in training mode. Statistics move, and the reward
   is what it would be.
2. It goes through again with these statistics, and what is counted and averaged is put on a tape.
3. Each part goes through with gradient. It reads counts and averages from the tape and its share of
   the same draws.

So the gradient is the whole batch's, up to rounding, and networks keep the activations of one part
only. It takes two more forward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afterwit.world_models import data_parallel
from afterwit.world_models.base import WorldModel
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.trajectory import Trajectory, cut_trajectory

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


class Known(torch.autograd.Function):
    """A value whose gradient is known: of `inputs` it is `gradients`."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *inputs: Tensor
    ) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        given = (None if each is None else each * upstream for each in ctx.gradients)
        return None, None, *given


def in_parts(
    model: WorldModel,
    trajectory: Trajectory,
    beliefs: Tensor,
    embeddings: Tensor,
    parts: int,
    check: bool,
) -> WorldModelOutput:
    """What `model(trajectory, beliefs, embeddings)` returns, computed in parts.

    Gradients are computed here. The loss that is returned hands them on.

    Args:
      model: A world model whose loss couples no environments (ModelConfig.couples).
      trajectory: T steps of B environments.
      beliefs: float32 [T+1, B, M].
      embeddings: float32 [T+1, B, N].
      parts: Parts of as many environments each.
      check: Whether to compare the parts' loss with the batch's, for which a GPU waits.

    Raises:
      ValueError: B does not divide into so many parts, or the loss is another in parts.
    """
    generators = [each.random for each in model.modules() if isinstance(each, WorldModel)]
    before = [generator.get_state() for generator in generators]

    def run(*batch: Any) -> WorldModelOutput:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)  # all passes have the same draws
        output: WorldModelOutput = model(*batch)
        return output

    with torch.no_grad():
        whole = run(trajectory, beliefs, embeddings)
    trained = [each for each in model.parameters() if each.requires_grad]
    sums: list[Tensor | None] = [None] * len(trained)
    inner: list[list[Tensor | None]] = [[], []]  # gradients of beliefs and embeddings, by part
    tape, total = data_parallel.Tape(parts), torch.zeros_like(whole.loss)
    with model.watching():
        with torch.no_grad(), data_parallel.using(tape, None):
            run(trajectory, beliefs, embeddings)
        columns = zip(beliefs.chunk(parts, 1), embeddings.chunk(parts, 1), strict=True)
        for index, (part, read) in enumerate(
            zip(cut_trajectory(trajectory, parts), columns, strict=True)
        ):
            leaves = [each.detach().requires_grad_() for each in read]
            with data_parallel.using(tape, index):
                loss = run(part, *leaves).loss / parts
            total = total + loss.detach()
            if not loss.requires_grad:  # a model may have nothing to train
                return whole
            found = torch.autograd.grad(loss, [*leaves, *trained], allow_unused=True)
            for rows, gradient in zip(inner, found, strict=False):
                rows.append(gradient)
            sums = [
                one if two is None else two if one is None else one + two
                for one, two in zip(sums, found[2:], strict=True)
            ]
    if check and not torch.allclose(total, whole.loss, rtol=1e-3, atol=1e-6):
        raise ValueError(
            f"learner.micro_batches is {parts}, and the loss of {type(model).__name__} is"
            f" {float(total):.6g} in parts and {float(whole.loss):.6g} in one: it couples the"
            " environments of a batch; set learner.micro_batches to 1"
        )
    joined = [None if rows[0] is None else torch.cat(rows, 1) for rows in inner]  # type: ignore[arg-type]
    used = [
        (each, gradient)
        for each, gradient in zip((beliefs, embeddings, *trained), (*joined, *sums), strict=True)
        if gradient is not None
    ]
    loss = Known.apply(whole.loss, [each for _, each in used], *(each for each, _ in used))
    return replace(whole, loss=loss)
