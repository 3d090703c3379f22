"""The expected error: closed forms, what noise and news are paid, and the absolute zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete
from torch import Tensor, nn

from afterwit.world_models.base import ModelConfig
from afterwit.world_models.expected_error import ExpectedError, Form, Takes, head_groups
from afterwit.world_models.intrinsic_reward import IntrinsicReward
from afterwit.world_models.models.mix import MixConfig
from afterwit.world_models.models.rnd import RNDConfig
from afterwit.world_models.registry import MIXTURES, WORLD_MODELS, make_world_model
from afterwit.world_models.reward_normaliser import RewardNormaliser
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import BELIEF, A, close, look, random_trajectory, seeded, tiny_spec, tiny_torso

STEPS, WIDE = 6, 40
NOISY, UNIT = 0, torch.tensor(4.0)  # the action whose error is random; the unit of errors
FORMS: tuple[Form, ...] = ("difference", "relative", "log")


def batch(seed: int) -> tuple[Tensor, Trajectory, Tensor]:
    """Raw rewards in units of 4: Gamma of mean 0.8 after one action, 0.04 after the others."""
    trajectory = random_trajectory(STEPS, WIDE, seed=seed, resets=((0, 0), (3, 1), (4, 1)))
    random = torch.Generator().manual_seed(seed)
    gamma = -(torch.rand(2, STEPS, WIDE, generator=random)).log().mean(0)  # mean 1
    mean = torch.where(trajectory.action == NOISY, 0.8, 0.04)
    return UNIT * mean * gamma, trajectory, torch.randn(STEPS + 1, WIDE, BELIEF, generator=random)


def trained(
    form: Form,
    steps: int = 400,
    takes: Takes = "all",
    lesson: Callable[[int], tuple[Tensor, Trajectory, Tensor]] = batch,
) -> ExpectedError:
    expected = seeded(lambda: ExpectedError(form, 0.02, BELIEF, A, takes=takes), 0)
    optimiser = torch.optim.Adam(expected.parameters(), 1e-2)
    for step in range(steps):
        reward, trajectory, beliefs = lesson(step)
        optimiser.zero_grad()
        expected(reward, UNIT, trajectory.real, trajectory, beliefs, learning=True)[1].backward()
        optimiser.step()
    return expected


@pytest.mark.parametrize("form", FORMS)
def test_surprise_and_loss_are_the_formulas(form: Form) -> None:
    expected = seeded(lambda: ExpectedError(form, 0.02, BELIEF, A), 0)
    reward, trajectory, beliefs = batch(0)
    surprise, loss = expected(reward, UNIT, trajectory.real, trajectory, beliefs)
    losses = []
    for t in range(STEPS):
        for b in range(WIDE):
            if not trajectory.real[t, b]:
                assert surprise[t, b] == 0
                continue
            chosen = torch.zeros(A)
            chosen[trajectory.action[t, b]] = 1
            h = expected.head(torch.cat([beliefs[t, b], chosen]))[0]
            r = reward[t, b] / UNIT
            close(
                surprise[t, b],
                UNIT
                * {
                    "difference": r - h.exp(),
                    "relative": (r - h.exp()) / (h.exp() + 0.02),
                    "log": (r + 0.02).log() - h,
                }[form].detach(),
                1e-5,
            )
            losses.append((h - (r + 0.02).log()).square() if form == "log" else r / h.exp() + h)
    close(loss, torch.stack(losses).mean(), 1e-5)
    assert not surprise.requires_grad and loss.requires_grad


def rare_places(seed: int) -> tuple[Tensor, Trajectory, Tensor]:
    """Raw rewards of 0.2, in units of 4, in one place of ten, and of 0.04 elsewhere."""
    _, trajectory, _ = batch(seed)
    rare = torch.rand(STEPS + 1, WIDE, generator=torch.Generator().manual_seed(seed)) < 0.1
    beliefs = rare[..., None].float().expand(-1, -1, BELIEF)
    return UNIT * torch.where(rare[:-1], 0.2, 0.04), trajectory, beliefs


def noise_in_places(seed: int) -> tuple[Tensor, Trajectory, Tensor]:
    """Raw rewards, in units of 4: 0.8 after one action, else 0.2 in one place of ten and 0.04."""
    reward, trajectory, beliefs = rare_places(seed)
    return (
        torch.where(trajectory.action == NOISY, reward + 0.76 * UNIT, reward),
        trajectory,
        beliefs,
    )


def step_after_noise(seed: int) -> tuple[Tensor, Trajectory, Tensor]:
    """Raw rewards, in units of 4: 0.8 after one action, 0.2 a step later, 0.04 elsewhere."""
    trajectory = random_trajectory(12, WIDE, seed=seed, resets=())
    after = trajectory.previous_actions[:-1] == NOISY
    error = torch.where(after, 0.2, 0.04).masked_fill(trajectory.action == NOISY, 0.8)
    return UNIT * error, trajectory, torch.zeros(13, WIDE, BELIEF)


@pytest.mark.parametrize("form", ("difference", "log"))
def test_what_the_action_adds_is_the_formula(form: Form) -> None:
    expected = seeded(lambda: ExpectedError(form, 0.02, BELIEF, A, takes="action"), 0)
    reward, trajectory, beliefs = batch(0)
    surprise, _ = expected(reward, UNIT, trajectory.real, trajectory, beliefs, learning=True)
    rows, pay = [], []
    for t in range(STEPS):
        for b in range(WIDE):
            h = expected.head(torch.cat([beliefs[t, b].expand(A, -1), torch.eye(A)], 1))[:, 0]
            e = (h if form == "log" else h.exp()).detach().numpy()
            r = float(reward[t, b] / UNIT)
            r = np.log(r + 0.02) if form == "log" else r
            pay.append(r - e[trajectory.action[t, b]] + e.mean())
            row = np.zeros(2 * A + 1)
            row[[trajectory.action[t, b], -1]] = 1
            if not trajectory.first[t, b]:
                row[A + trajectory.previous_actions[t, b]] = 1
            rows.append(row)
    table, y, real = np.stack(rows), np.array(pay), trajectory.real.flatten().numpy()
    lesson, ridge = table[real], np.diag([1.0] * 2 * A + [0.0])
    usual = table @ np.linalg.solve(lesson.T @ lesson + ridge, lesson.T @ y[real])
    should = float(UNIT) * np.where(real, y - usual, 0).reshape(STEPS, WIDE)
    np.testing.assert_allclose(surprise, should, atol=1e-4)
    # without a lesson nothing is learnt
    before = {name: value.clone() for name, value in expected.state_dict().items()}
    again, _ = expected(reward, UNIT, trajectory.real, trajectory, beliefs)
    assert torch.equal(again, surprise)
    assert all(torch.equal(value, before[name]) for name, value in expected.state_dict().items())


@pytest.mark.parametrize(("count", "continuous"), ((2, True), (129, False)))
def test_actions_that_cannot_be_compared_are_refused(count: int, continuous: bool) -> None:
    config = ModelConfig(expected_error="difference", expected_takes="action")
    spec = replace(tiny_spec(), num_actions=count, continuous=continuous)
    found = "continuous actions" if continuous else "129 actions"
    with pytest.raises(ValueError, match=f"but there are {found}; .* at most 128. Set it to all"):
        config.make_expected_error(BELIEF, spec)
    spaces = Box(-1, 1, (3,)), Box(-1, 1, (2,)) if continuous else MultiDiscrete([3, 43])
    with pytest.raises(ValueError, match=f"but there are {found}"):
        IntrinsicReward(RNDConfig(expected_error="log", expected_takes="action"), *spaces, seed=0)


def paid_more_where_little_is_known(takes: Takes) -> float:
    """How much more a place pays where the error is 0.2 than one where it is 0.04."""
    expected = trained("difference", takes=takes, lesson=rare_places)
    reward, trajectory, beliefs = rare_places(399)
    surprise = expected(reward, UNIT, trajectory.real, trajectory, beliefs)[0] / UNIT
    rare, real = reward == reward.max(), trajectory.real
    return float(surprise[rare & real].mean() - surprise[~rare & real].mean())


def test_an_expectation_that_is_all_taken_off_leaves_no_place_to_seek() -> None:
    """A head that knows every place takes off all that tells one from another."""
    assert abs(paid_more_where_little_is_known("all")) < 0.01
    # in the batch that it judges, least squares takes a little of what has nothing to do with it
    assert paid_more_where_little_is_known("action") == pytest.approx(0.16, abs=0.02)


def test_noise_is_no_refuge_from_a_place_that_is_well_known() -> None:
    """The place pays, whatever is done in it: 0.16 more where it is rare, for noise and quiet."""
    expected = trained("difference", takes="action", lesson=noise_in_places)
    reward, trajectory, beliefs = noise_in_places(399)
    surprise = expected(reward, UNIT, trajectory.real, trajectory, beliefs)[0] / UNIT
    noisy, rare, real = trajectory.action == NOISY, beliefs[:-1, :, 0] == 1, trajectory.real
    for one in (rare, ~rare):
        difference = surprise[one & noisy & real].mean() - surprise[one & ~noisy & real].mean()
        assert abs(difference) < 0.05
    assert surprise[rare & real].mean() - surprise[~rare & real].mean() > 0.1


def test_the_step_after_noise_pays_no_more() -> None:
    paid = {}
    choices: tuple[Takes, ...] = ("all", "action")
    for takes in choices:
        expected = trained("difference", 300, takes, step_after_noise)
        reward, trajectory, beliefs = step_after_noise(299)
        surprise = expected(reward, UNIT, trajectory.real, trajectory, beliefs)[0] / UNIT
        after, quiet = trajectory.previous_actions[:-1] == NOISY, trajectory.action != NOISY
        paid[takes] = float(surprise[quiet & after].mean() - surprise[quiet & ~after].mean())
    assert abs(paid["action"]) < 0.02 < 0.15 < paid["all"]


def test_what_is_solved_on_the_batch_does_not_lag() -> None:
    """Noise whose error doubles from batch to batch is paid nothing, and by a head alone it is."""
    paid = {}
    choices: tuple[Takes, ...] = ("all", "action")
    for takes in choices:
        expected = trained("difference", 200, takes)
        optimiser = torch.optim.Adam(expected.parameters(), 1e-2)
        for seed in range(300, 304):
            reward, trajectory, beliefs = batch(seed)
            noisy, real = (trajectory.action == NOISY), trajectory.real
            reward = torch.where(noisy, 2.0 ** (seed - 299) * reward, reward)
            surprise, loss = expected(reward, UNIT, real, trajectory, beliefs, learning=True)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        difference = surprise[noisy & real].mean() - surprise[~noisy & real].mean()
        paid[takes] = float(difference / reward[noisy & real].mean())
    assert abs(paid["action"]) < 0.15 < 0.5 < paid["all"]


@pytest.mark.parametrize("form", FORMS)
def test_noise_is_paid_as_anything_known_and_news_more(form: Form) -> None:
    expected = trained(form)
    reward, trajectory, beliefs = batch(10**6)
    noisy, real = trajectory.action == NOISY, trajectory.real
    surprise = expected(reward, UNIT, trajectory.real, trajectory, beliefs)[0] / UNIT
    paid, quiet = surprise[noisy & real].mean(), surprise[~noisy & real].mean()
    # the same place and a quiet action, and now as large an error as noise has on average
    news = torch.full_like(reward, 0.8 * UNIT)
    news = expected(news, UNIT, trajectory.real, trajectory, beliefs)[0] / UNIT
    news = news[~noisy & real].mean()
    assert abs(quiet) < 0.12 and abs(paid) < 0.12 and news > (8 if form == "relative" else 0.6)


@pytest.mark.parametrize("raw", (50.0, -50.0))
def test_a_head_that_says_far_too_much_is_bounded_and_comes_back(raw: float) -> None:
    expected = seeded(lambda: ExpectedError("difference", 0.02, BELIEF, A), 0)
    reward, trajectory, beliefs = batch(0)
    last = expected.head[-1]
    assert isinstance(last, torch.nn.Linear) and last.bias is not None
    with torch.no_grad():
        last.bias += raw
    surprise, loss = expected(reward, UNIT, trajectory.real, trajectory, beliefs)
    assert surprise.abs().max() < 5 * UNIT
    loss.backward()
    assert last.bias.grad is not None and last.bias.grad.sign() == torch.tensor(raw).sign()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["ama", "lpm"])
def test_what_may_pay_less_than_nothing_has_no_expected_size(name: str, form: Form) -> None:
    with pytest.raises(ValueError, match=f"expected_error is {form}, but {name} .*; leave it off"):
        WORLD_MODELS[name].Config(expected_error=form)


def test_no_other_bonus_pays_less_than_nothing() -> None:
    for name, model in WORLD_MODELS.items():
        config = model.Config() if name not in MIXTURES else MixConfig(parts=("e3b", "rnd"))
        world_model = seeded(lambda c=config: make_world_model(c, tiny_torso(), tiny_spec(), 3), 3)
        lowest = 0.0
        for seed in range(4):
            trajectory = random_trajectory(seed=seed)
            reward = world_model(trajectory, *look(tiny_torso(), trajectory)).reward
            lowest = min(lowest, float(reward.min()))
        assert (lowest < 0) == bool(config.below_zero()), name


def test_off_pays_the_error_and_has_nothing_to_learn() -> None:
    expected = ExpectedError("off", 0.02, BELIEF, A)
    reward, trajectory, beliefs = batch(0)
    surprise, loss = expected(reward, UNIT, trajectory.real, trajectory, beliefs)
    assert surprise is reward and loss == 0 and not list(expected.state_dict())


def test_heads_learn_at_rates_of_their_own() -> None:
    rates = [10.0, 3.0, 10.0]
    heads = nn.ModuleList(ExpectedError("difference", 0.02, BELIEF, A, rate) for rate in rates)
    groups = head_groups(heads, 1e-3)
    assert [group["lr"] for group in groups] == pytest.approx([1e-2, 3e-3])
    assert set(groups[0]["params"]) == {*heads[0].parameters(), *heads[2].parameters()}
    assert groups[1]["params"] == [*heads[1].parameters()]
    assert head_groups(ExpectedError("off", 0.02, BELIEF, A), 1e-3) == []


def test_its_loss_reaches_the_head_alone() -> None:
    expected = ExpectedError("difference", 0.02, BELIEF, A)
    reward, trajectory, beliefs = batch(0)
    reward, beliefs = reward.requires_grad_(), beliefs.requires_grad_()
    expected(reward, UNIT, trajectory.real, trajectory, beliefs)[1].backward()
    assert reward.grad is None and beliefs.grad is None
    assert all(p.grad is not None and p.grad.any() for p in expected.parameters())


def test_pay_ends_when_everything_is_known() -> None:
    """Errors that fall to a thousandth and stay: relative pay never ends, absolute pay does."""
    ends = {}
    for zero in (0.0, 0.02):
        normaliser, real = RewardNormaliser(False, 0.9, zero), torch.ones(3, 8, dtype=torch.bool)
        random, paid = torch.Generator().manual_seed(0), []
        for step in range(150):
            reward = UNIT * max(0.5 ** (step / 4), 1e-3) * torch.rand(3, 8, generator=random)
            normaliser.update(reward, real, UNIT)
            paid.append(float(normaliser(reward, real).mean()))
        ends[zero] = paid
    assert ends[0.0][-1] > 0.1 * ends[0.0][0]
    assert ends[0.02][-1] < 0.02 * ends[0.02][0]
    assert ends[0.02][0] == pytest.approx(ends[0.0][0])


def test_the_zero_is_in_units_of_ignorance_and_part_of_the_state() -> None:
    normaliser, twin = RewardNormaliser(True, 0.9, 0.1), RewardNormaliser(True, 0.9, 0.1)
    real = torch.ones(2, 2, dtype=torch.bool)
    normaliser.update(torch.full((2, 2), 1e-6), real, UNIT)
    close(normaliser.deviation, 0.1 * UNIT)
    twin.load_state_dict(normaliser.state_dict())
    close(twin.deviation, 0.1 * UNIT)
    assert "least" not in RewardNormaliser(True, 0.9).state_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"expected_error": "square"}, "expected_error 'square'; choose from off, difference"),
        ({"expected_floor": 0.0}, "expected_floor is 0.0; it must be above 0"),
        ({"expected_rate": 0.0}, "expected_rate is 0.0; it must be above 0"),
        ({"expected_takes": "place"}, "expected_takes 'place'; choose from all, action"),
        (
            {"expected_error": "relative", "expected_takes": "action"},
            "expected_takes is action, but expected_error is relative; action goes with",
        ),
        (
            {"expected_takes": "action"},
            "expected_takes is action, but expected_error is off; action goes with",
        ),
        ({"absolute_zero": 2.0}, "absolute_zero is 2.0; it is a share, between 0 and 1"),
    ),
)
def test_mistakes_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ModelConfig(), **changes)  # type: ignore[arg-type]
