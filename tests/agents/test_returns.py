"""Value targets against their definitions: sums of rewards, and their mean over how far they go."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from afterwit.agents.returns import lambda_returns
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import RESETS, B, T, close, random_trajectory

DISCOUNT = 0.9


def value_of_rows(seed: int) -> Tensor:
    return torch.randn(T + 1, B, generator=torch.Generator().manual_seed(seed))


def returns(trajectory: Trajectory, value: Tensor, trace: float = 1.0) -> Tensor:
    return lambda_returns(
        reward=trajectory.reward,
        terminal=trajectory.terminal,
        real=trajectory.real,
        value=value,
        discount=DISCOUNT,
        trace=trace,
    )


def reference_return(
    trajectory: Trajectory, value: Tensor, t: int, b: int, steps: int = T
) -> Tensor:
    """Walk forward from obs[t], adding discounted rewards, to the end of episode or sequence.

    Or for a number of steps.
    """
    total, weight = torch.zeros(()), 1.0
    for time in range(t, T):
        total = total + weight * trajectory.reward[time, b]
        weight *= DISCOUNT
        if trajectory.terminal[time, b]:
            return total
        # the next step only resets: a time limit
        over = time + 1 in (T, t + steps) or bool(trajectory.first[time + 2, b])
        if over:
            return total + weight * value[time + 1, b]
    raise AssertionError("unreachable")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "resets",
    (RESETS, (), ((1, 0), (8, 1), (2, 2), (6, 2), (2, 3), (8, 4), (3, 4))),
    ids=("awkward", "none", "more"),
)
def test_returns_equal_a_walk_to_the_end(resets: tuple[tuple[int, int], ...], seed: int) -> None:
    trajectory, value = random_trajectory(resets=resets, seed=seed), value_of_rows(seed)
    found = returns(trajectory, value)
    assert found.shape == (T, B)
    for t in range(T):
        for b in range(B):
            if trajectory.real[t, b]:
                close(found[t, b], reference_return(trajectory, value, t, b))


@pytest.mark.parametrize("trace", (0.0, 0.3, 0.9, 1.0))
def test_lambda_returns_are_a_mean_over_how_far_the_walk_goes(trace: float) -> None:
    """(1 - lambda) sum_n lambda^(n-1) G_n, where all walks past the end are the one to the end."""
    trajectory, value = random_trajectory(), value_of_rows(1)
    found = returns(trajectory, value, trace)
    for t in range(T):
        for b in range(B):
            if trajectory.real[t, b]:
                walks = [reference_return(trajectory, value, t, b, n) for n in range(1, T + 1)]
                weights = [(1 - trace) * trace**n for n in range(T - 1)] + [trace ** (T - 1)]
                mean = sum(w * walk for w, walk in zip(weights, walks, strict=True))
                close(found[t, b], torch.as_tensor(mean))


def test_terminal_truncation_and_the_end_of_the_sequence_are_three_things() -> None:
    """Three environments: one terminates at t = 2, one is truncated, and one does not end."""
    trajectory = random_trajectory(batch=3, resets=((4, 0), (4, 1)))
    reward, terminal = torch.ones(T, 3), torch.zeros(T, 3, dtype=torch.bool)
    reward[3, :2] = 0
    terminal[2, 0] = True
    value = torch.full((T + 1, 3), 100.0)
    found = lambda_returns(
        reward=reward, terminal=terminal, real=trajectory.real, value=value, discount=0.5
    )
    assert found[0, 0] == 1 + 0.5 + 0.25
    assert found[0, 1] == 1 + 0.5 + 0.25 + 0.125 * 100
    assert found[T - 1, 2] == 1 + 0.5 * 100
    assert found[2, 0] == 1 and found[2, 1] == 51


def test_what_did_not_happen_and_what_comes_after_an_ending_changes_no_return() -> None:
    trajectory, value = random_trajectory(), value_of_rows(0)
    found = returns(trajectory, value)
    garbage = trajectory.reward.masked_fill(~trajectory.real, 1e6)
    other = lambda_returns(
        reward=garbage,
        terminal=trajectory.terminal | ~trajectory.real,
        real=trajectory.real,
        value=value,
        discount=DISCOUNT,
    )
    close(other[trajectory.real], found[trajectory.real])
    later = value.clone()
    later[4:, 1] += 9  # environment 1 opens an episode at 4
    close(returns(trajectory, later)[:3, 1], found[:3, 1])


def test_shapes_are_checked() -> None:
    trajectory = random_trajectory()
    with pytest.raises(AssertionError):
        returns(trajectory, value_of_rows(0)[:-1])
    with pytest.raises(AssertionError):
        returns(trajectory, value_of_rows(0).T)
