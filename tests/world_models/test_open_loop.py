"""The open loop and its masks against loops over t, k and b that stop at boundaries."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from afterwit.world_models.open_loop import (
    Edges,
    OpenLoop,
    TransitionReward,
    future,
    pair_mask,
    pair_mean,
)
from tests.helpers import (
    BELIEF,
    RESETS,
    A,
    B,
    T,
    close,
    gru_step,
    pair_is_valid,
    random_trajectory,
    seeded,
)

HORIZONS = (1, 3, T)
RESET_SETS = {
    "none": (),
    "awkward": RESETS,
    "all": tuple((t, b) for t in range(T + 1) for b in range(B)),
}


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("resets", RESET_SETS.values(), ids=RESET_SETS)
def test_a_pair_is_valid_if_all_its_steps_happened(
    horizon: int, resets: tuple[tuple[int, int], ...]
) -> None:
    trajectory = random_trajectory(resets=resets)
    valid = pair_mask(trajectory.real, horizon)
    assert valid.shape == (horizon, T, B) and valid.dtype == torch.bool
    for k in range(1, horizon + 1):
        for t in range(T):
            for b in range(B):
                assert bool(valid[k - 1, t, b]) == pair_is_valid(trajectory.first, t, k, b), (
                    k,
                    t,
                    b,
                )


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
def test_loss_and_reward_of_an_error_tensor(
    horizon: int, resets: tuple[tuple[int, int], ...]
) -> None:
    first = random_trajectory(resets=resets).first
    errors = torch.rand(
        horizon, T, B, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    means, reward = [], torch.zeros(T, B)
    for t in range(T):
        for b in range(B):
            here = [
                errors[k - 1, t, b] for k in range(1, horizon + 1) if pair_is_valid(first, t, k, b)
            ]
            means += [torch.stack(here).mean()] if here else []
    for t in range(T):  # the transition into obs[t + 1]: all pairs p + q = t + 1
        for b in range(B):
            for p in range(T):
                q = t + 1 - p
                if 1 <= q <= horizon and pair_is_valid(first, p, q, b):
                    reward[t, b] += errors[q - 1, p, b].detach()
    valid = pair_mask(~first[1:], horizon)
    loss, summed = pair_mean(errors, valid), TransitionReward(horizon, "sum")(errors, valid)
    close(loss, torch.stack(means).mean() if means else torch.zeros(()))
    close(summed, reward)
    assert summed.shape == (T, B) and not summed.requires_grad
    assert bool((summed[first[1:]] == 0).all())
    # whole: by the share of the whole that pairs at these distances have on average
    size = [
        [
            errors[k - 1, t, b].item()
            for t in range(T)
            for b in range(B)
            if pair_is_valid(first, t, k, b)
        ]
        for k in range(1, horizon + 1)
    ]
    size_of = [sum(values) / len(values) if values else 1.0 for values in size]  # of a fresh one: 1
    whole = torch.zeros(T, B)
    for t in range(T):
        for b in range(B):
            there = sum(
                size_of[q - 1]
                for q in range(1, horizon + 1)
                if t + 1 - q >= 0 and pair_is_valid(first, t + 1 - q, q, b)
            )
            whole[t, b] = reward[t, b] * sum(size_of) / there if there else 0.0
    close(TransitionReward(horizon, "whole")(errors, valid), whole)


@pytest.mark.parametrize("resets", RESET_SETS.values(), ids=RESET_SETS)
@pytest.mark.parametrize("growth", (1.0, 1.5))
def test_where_unrolls_and_episodes_begin_makes_no_difference(
    growth: float, resets: tuple[tuple[int, int], ...]
) -> None:
    """With errors that depend only on the distance, every transition is paid alike.

    The published sum underpays the first transitions.
    """
    real = random_trajectory(resets=resets).real
    errors = (growth ** torch.arange(4.0)).view(4, 1, 1).expand(4, T, B)
    whole, summed = (
        TransitionReward(4, edges)(errors, pair_mask(real, 4)) for edges in get_args(Edges)
    )
    if not real.any():
        assert not whole.any()
        return
    close(whole[real], torch.full_like(whole[real], float(whole[real].max())))
    assert not torch.allclose(summed[real], whole[real])
    assert not whole[~real].any()
    once = errors[:1]
    assert torch.equal(
        *(TransitionReward(1, edges)(once, pair_mask(real, 1)) for edges in get_args(Edges))
    )


def test_nor_does_it_while_near_errors_fall_faster_than_far_ones() -> None:
    """As in every run. An average over past steps would overestimate the near errors."""
    random, reward = torch.Generator().manual_seed(0), TransitionReward(8, "whole")
    valid, paid = pair_mask(torch.ones(20, 64, dtype=torch.bool), 8), []
    for step in range(60):
        size = torch.exp(-step / torch.linspace(10, 200, 8)).view(8, 1, 1)
        errors = size * torch.empty(8, 20, 64).exponential_(generator=random)
        worth = reward(errors, valid).mean(1)
        paid.append(worth / worth[8:].mean())
    relative = torch.stack(paid).mean(0)
    assert bool(((relative > 0.95) & (relative < 1.05)).all()), relative
    summed = TransitionReward(8, "sum")(errors, valid).mean(1)
    assert summed[0] < 0.2 * summed[8:].mean()


def test_distances_that_a_batch_lacks_keep_their_size() -> None:
    """Batches of full unrolls alternate with batches of episodes of one step."""
    reward, ones = TransitionReward(3, "whole"), torch.ones(3, T, B)
    full, short = (
        torch.ones(T, B, dtype=torch.bool),
        (torch.arange(T) % 2 == 0)[:, None].expand(T, B),
    )
    for _ in range(5):
        for real in (full, short, short, short):
            close(reward(ones, pair_mask(real, 3))[real], torch.full((int(real.sum()),), 3.0))


def test_errors_of_pairs_that_do_not_count_are_not_read() -> None:
    valid = pair_mask(random_trajectory().real, 3)
    errors = torch.rand(3, T, B)
    poisoned = errors.masked_fill(~valid, torch.nan).requires_grad_()
    assert torch.equal(pair_mean(poisoned, valid), pair_mean(errors, valid))
    for edges in get_args(Edges):
        assert torch.equal(
            TransitionReward(3, edges)(poisoned, valid), TransitionReward(3, edges)(errors, valid)
        )
    pair_mean(poisoned, valid).backward()
    assert (
        poisoned.grad is not None
        and bool((poisoned.grad[~valid] == 0).all())
        and bool((poisoned.grad[valid] > 0).all())
    )


def test_sizes_at_each_distance_follow_training_alone() -> None:
    reward, valid = TransitionReward(3, "whole"), pair_mask(random_trajectory(resets=()).real, 3)
    ones = torch.ones(3, T, B)
    close(reward.eval()(ones, valid), torch.full((T, B), 3.0))  # before any training: equal ones
    reward.train()(ones * torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1), valid)
    close(reward.size, torch.tensor([1.0, 2.0, 5.0]))
    expected = torch.full((T, B), 3.0)
    expected[0], expected[1] = 8.0, 2 * 8 / 3
    close(reward.eval()(ones, valid), expected)
    close(reward.size, torch.tensor([1.0, 2.0, 5.0]))


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
                state = gru_step(
                    loop.rnn, loop.action_embedding.weight[trajectory.action[t + k - 1, b]], state
                )
                close(ahead[k, t, b], state)


def test_a_horizon_longer_than_the_trajectory_is_refused() -> None:
    with pytest.raises(ValueError, match=f"horizon is {T + 1} but the trajectory has {T} steps"):
        OpenLoop(BELIEF, 4, A, T + 1)(
            torch.zeros(T + 1, B, BELIEF), torch.zeros(T, B, dtype=torch.int64)
        )
