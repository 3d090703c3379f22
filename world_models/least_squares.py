"""Least squares over the newest steps, solved in closed form.

A network that learns by gradient lags behind a mean that moves. What is solved on a large batch
before it is asked about the same batch does not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel

MEMORY = 32  # all steps before a large batch weigh as much as so many of its own
RIDGE = 1.0  # what is known of a number without data weighs as much as one step
BARE = 1e-6  # the same for the constant, so that there is a solution before any step


class LeastSquares(nn.Module):
    """The mean of y that is linear in N numbers x, and a constant.

        min over w, c of  sum_i k_i (y_i - w x_i - c)^2 + RIDGE sum_j w_j^2

    k_i is 1 for the steps of the newest batch. An update with n steps multiplies the k of all
    earlier ones by MEMORY / (MEMORY + n). So a small batch, as of one environment, is judged
    together with those before it, and a large one by itself. The sums are over all learners.

    Args:
      size: N.
    """

    gram: Tensor
    moment: Tensor
    ridge: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("gram", torch.zeros(size + 1, size + 1))
        self.register_buffer("moment", torch.zeros(size + 1))
        ridge = torch.tensor([*[RIDGE] * size, BARE])
        self.register_buffer("ridge", ridge.diag(), persistent=False)

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor, counts: Tensor) -> None:
        """Include a batch.

        Args:
          x: float32 [T, B, N].
          y: float32 [T, B].
          counts: bool [T, B]: steps that count. The others may hold anything.
        """
        rows = torch.where(counts[..., None], with_constant(x), 0.0)
        targets = torch.where(counts, y, 0.0)
        learners = data_parallel.num_learners()
        gram = learners * data_parallel.average(torch.einsum("tbi,tbj->ij", rows, rows))
        moment = learners * data_parallel.average(torch.einsum("tbi,tb->i", rows, targets))
        kept = MEMORY / (MEMORY + gram[-1, -1])
        self.gram.mul_(kept).add_(gram)
        self.moment.mul_(kept).add_(moment)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The mean of y at x [..., N]: [...]. It is 0 before the first update."""
        # solve_ex, as solve would wait for the device to ask whether there is a solution
        solution = torch.linalg.solve_ex(self.gram + self.ridge, self.moment).result
        return with_constant(x) @ solution


def with_constant(x: Tensor) -> Tensor:
    """[..., N+1]: x [..., N] and a 1 beside it."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)
