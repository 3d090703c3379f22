"""Least squares over the newest steps: the solution of NumPy, and what it forgets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from afterwit.world_models.least_squares import BARE, MEMORY, RIDGE, LeastSquares
from tests.helpers import close

SIZE = 3


def lesson(steps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [steps, 4, 3], y [steps, 4] and which of them count."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, 4, SIZE, generator=random)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + seed + torch.randn(steps, 4, generator=random)
    return x, y, torch.rand(steps, 4, generator=random) < 0.8


def test_it_is_the_weighted_solution_and_forgets_by_steps() -> None:
    model, weights, rows, targets = LeastSquares(SIZE), np.zeros(0), [], []
    for seed, steps in enumerate((5, 50, 200)):
        x, y, counts = lesson(steps, seed)
        model.update(x, y, counts)
        n = int(counts.sum())
        weights = np.concatenate([weights * MEMORY / (MEMORY + n), np.ones(n)])
        rows.append(np.concatenate([x[counts].numpy(), np.ones((n, 1))], 1))
        targets.append(y[counts].numpy())
    table, target = np.concatenate(rows), np.concatenate(targets)
    gram = (table * weights[:, None]).T @ table + np.diag([RIDGE] * SIZE + [BARE])
    solution = np.linalg.solve(gram, (table * weights[:, None]).T @ target)
    np.testing.assert_allclose(model(x), x.numpy() @ solution[:-1] + solution[-1], atol=1e-4)


def test_it_knows_nothing_before_a_step_and_from_steps_that_do_not_count() -> None:
    model, (x, y, counts) = LeastSquares(SIZE), lesson(6, 0)
    wild = torch.full_like(y, torch.nan)
    assert (model(x) == 0).all()
    model.update(x, wild, torch.zeros_like(counts))
    assert (model(x) == 0).all()
    model.update(x, torch.where(counts, y, wild), counts)
    known = model(x)
    model.update(torch.full_like(x, torch.inf), wild, torch.zeros_like(counts))
    assert torch.equal(model(x), known) and known.isfinite().all()


@pytest.mark.parametrize("size", (1e-6, 1e6))
def test_one_step_says_the_mean_and_little_of_what_it_depends_on(size: float) -> None:
    model = LeastSquares(SIZE)
    x = torch.eye(SIZE)[:1, None]
    model.update(x, torch.full((1, 1), size), torch.ones(1, 1, dtype=torch.bool))
    close(model(x) / size, torch.ones(1, 1), 1e-3)
    close(model(torch.zeros(1, 1, SIZE)) / size, torch.ones(1, 1), 1e-3)


def test_its_sums_are_part_of_its_state() -> None:
    model, twin = LeastSquares(SIZE), LeastSquares(SIZE)
    x, y, counts = lesson(6, 1)
    model.update(x, y, counts)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x)) and set(model.state_dict()) == {"gram", "moment"}


@pytest.mark.parametrize(("steps", "left"), ((320, 0.89), (20, 0.45)))
def test_what_it_takes_of_pure_noise_from_the_batch_that_it_judges(steps: int, left: float) -> None:
    """The shares of expected_error.py, for two of 18 actions."""
    random, shares = torch.Generator().manual_seed(0), []
    for _ in range(40):
        model = LeastSquares(36)
        for _ in range(5):
            draws = torch.randint(18, (2, steps, 1), generator=random)
            x = torch.cat([*torch.nn.functional.one_hot(draws, 18).float()], -1)
            y = torch.randn(steps, 1, generator=random)
            model.update(x, y, torch.ones(steps, 1, dtype=torch.bool))
        shares.append(float((y - model(x)).square().mean()))
    assert np.mean(shares) == pytest.approx(left, abs=0.04)
