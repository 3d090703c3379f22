"""The open loop and its masks against loops over t, k and b that stop at boundaries."""

from __future__ import annotations

import pytest
import torch

from afterwit.world_models.open_loop import OpenLoop, future, pair_mask, pair_mean, sum_by_transition
from tests.helpers import BELIEF, RESETS, A, B, T, close, gru_step, pair_is_valid, random_trajectory, seeded

HORIZONS = (1, 3, T)
RESET_SETS = {"none": (), "awkward": RESETS, "all": tuple((t, b) for t in range(T + 1) for b in range(B))}


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("resets", RESET_SETS.values(), ids=RESET_SETS)
def test_a_pair_is_valid_if_all_its_steps_happened(horizon: int, resets: tuple[tuple[int, int], ...]) -> None:
    trajectory = random_trajectory(resets=resets)
    valid = pair_mask(trajectory.real, horizon)
    assert valid.shape == (horizon, T, B) and valid.dtype == torch.bool
    for k in range(1, horizon + 1):
        for t in range(T):
            for b in range(B):
                assert bool(valid[k - 1, t, b]) == pair_is_valid(trajectory.first, t, k, b), (k, t, b)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_future_is_the_row_k_later(horizon: int) -> None:
    values = torch.randn(T, B, 2)
    rows = future(values, horizon, T)
    assert rows.shape == (horizon, T, B, 2)
    for k in range(horizon):
        for t in range(T):
            assert torch.equal(rows[k, t], values[min(t + k, T - 1)])


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("resets", RESET_SETS.values(), ids=RESET_SETS)
def test_loss_and_reward_of_an_error_tensor(horizon: int, resets: tuple[tuple[int, int], ...]) -> None:
    first = random_trajectory(resets=resets).first
    errors = torch.rand(horizon, T, B, generator=torch.Generator().manual_seed(1), requires_grad=True)
    means, reward = [], torch.zeros(T, B)
    for t in range(T):
        for b in range(B):
            here = [errors[k - 1, t, b] for k in range(1, horizon + 1) if pair_is_valid(first, t, k, b)]
            means += [torch.stack(here).mean()] if here else []
    for t in range(T):  # the transition into obs[t + 1]: all pairs p + q = t + 1
        for b in range(B):
            for p in range(T):
                q = t + 1 - p
                if 1 <= q <= horizon and pair_is_valid(first, p, q, b):
                    reward[t, b] += errors[q - 1, p, b].detach()
    valid = pair_mask(~first[1:], horizon)
    loss, summed = pair_mean(errors, valid), sum_by_transition(errors, valid)
    close(loss, torch.stack(means).mean() if means else torch.zeros(()))
    close(summed, reward)
    assert summed.shape == (T, B) and not summed.requires_grad
    assert bool((summed[first[1:]] == 0).all())


def test_errors_of_pairs_that_do_not_count_are_not_read() -> None:
    valid = pair_mask(random_trajectory().real, 3)
    errors = torch.rand(3, T, B)
    poisoned = errors.masked_fill(~valid, torch.nan).requires_grad_()
    assert torch.equal(pair_mean(poisoned, valid), pair_mean(errors, valid))
    assert torch.equal(sum_by_transition(poisoned, valid), sum_by_transition(errors, valid))
    pair_mean(poisoned, valid).backward()
    assert poisoned.grad is not None and bool((poisoned.grad[~valid] == 0).all()) and bool((poisoned.grad[valid] > 0).all())


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_open_loop_is_a_gru_on_actions_alone(horizon: int) -> None:
    loop = seeded(lambda: OpenLoop(BELIEF, 4, A, horizon), 0)
    trajectory = random_trajectory()
    beliefs = torch.randn(T + 1, B, BELIEF, generator=torch.Generator().manual_seed(2))
    ahead = loop(beliefs, trajectory.action)
    assert ahead.shape == (horizon + 1, T, B, BELIEF)
    for t in range(T):
        for b in range(B):
            state = beliefs[t, b]
            close(ahead[0, t, b], state)
            for k in range(1, min(horizon, T - t) + 1):  # b_{t,k} = h(b_{t,k-1}, a_{t+k-1})
                state = gru_step(loop.rnn, loop.action_embedding.weight[trajectory.action[t + k - 1, b]], state)
                close(ahead[k, t, b], state)


def test_a_horizon_longer_than_the_trajectory_is_refused() -> None:
    with pytest.raises(ValueError, match=f"horizon is {T + 1} but the trajectory has {T} steps"):
        OpenLoop(BELIEF, 4, A, T + 1)(torch.zeros(T + 1, B, BELIEF), torch.zeros(T, B, dtype=torch.int64))
