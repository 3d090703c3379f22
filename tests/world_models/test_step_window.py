"""IntrinsicBonus after a call that failed: it goes on, and joins no steps across the failure."""

from __future__ import annotations

import math
from contextlib import suppress
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorWrapper

from afterwit.world_models import IntrinsicBonus
from tests.helpers import A, B, T, equal_states
from tests.world_models.test_gym_bonus import bonus_on, by_hand, kept, walks

MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
FAULTS = ("before", "after", "nan", "own key")


class Recorded(VectorWrapper):
    """Writes down the steps that the environments have taken."""

    def reset(self, **options: Any) -> Any:
        self.now, self.taken = self.env.reset(**options)[0], list[tuple[Any, ...]]()
        return self.now, {}

    def step(self, actions: Any) -> Any:
        result = self.env.step(actions)
        obs, _, terminated, truncated, infos = result
        self.now = obs
        self.taken.append((actions, obs, terminated | truncated, infos.get("final_obs")))
        return result


class Broken(Exception):
    """What the environments raise."""


class Faulty(VectorWrapper):
    """Fails in the calls of `step` that `faults` names: before or after the environments step, by
    an observation that is no number, or by an info that has a name of ours.
    """

    def __init__(self, env: Any, faults: dict[int, str]):
        super().__init__(env)
        self.faults, self.calls = faults, 0

    def step(self, actions: Any) -> Any:
        fault, self.calls = self.faults.get(self.calls), self.calls + 1
        if fault == "before":
            raise Broken
        obs, *rest, infos = self.env.step(actions)
        if fault == "after":
            raise Broken
        if fault == "nan":
            obs = obs.copy()
            obs[1, 2] = np.nan
        if fault == "own key":
            infos = {**infos, "intrinsic_reward": 1}
        return obs, *rest, infos


def faulty(
    mode: Any, model: str, faults: dict[int, str], **options: Any
) -> tuple[IntrinsicBonus, Recorded]:
    recorded = Recorded(walks(mode))
    return bonus_on(Faulty(recorded, faults), model, **options), recorded


def go_on(wrapped: IntrinsicBonus, env: Any, steps: int) -> list[Any]:
    """The bonus of each step of random actions, [B]; the error, where the step failed.

    Where autoreset is disabled, episodes that ended are followed by new ones.
    """
    draw, result = np.random.default_rng(0), list[Any]()
    for _ in range(steps):
        try:
            infos = wrapped.step(draw.integers(3, 3 + A, B))[-1]
            result.append(infos["intrinsic_reward"])
        except (Broken, ValueError, FloatingPointError) as error:
            result.append(error)
        if wrapped.autoreset == "disabled" and env.taken and env.taken[-1][2].any():
            wrapped.reset(options={"reset_mask": env.taken[-1][2]})
    return result


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize("model", ("icm", "ngu"))
def test_after_a_step_that_failed_it_goes_on_as_calls_by_hand(
    model: str, mode: AutoresetMode, fault: str
) -> None:
    """Steps before and after it are two streams. The step in between is neither paid nor kept."""
    failed = T + 3  # one update before it; 3 steps are dropped
    wrapped, env = faulty(mode, model, {failed: fault})
    first, _ = wrapped.reset(seed=1)
    paid = go_on(wrapped, env, 4 * T + 5)
    twin = by_hand(env, model, mode)
    moved = fault != "before"
    assert len(env.taken) == len(paid) - (not moved) and isinstance(paid[failed], Exception)
    assert not paid[failed + 1].any()
    actions, obs, dones, told = zip(*env.taken, strict=True)
    seen, paid_steps = [first, *obs], [*paid[:failed], *paid[failed + 1 + moved :]]
    start = failed + moved + 1  # the number of steps that were taken until it began anew
    if not moved:
        paid_steps = [*paid[:failed], *paid[failed + 2 :]]
    final = [np.full(B, None, object) if each is None else each for each in told]
    ends: Any = np.stack(final) if mode is AutoresetMode.SAME_STEP else None
    number = 0
    for begin, stop, state in (
        (0, failed, twin.initial_state(B)),
        (start, len(env.taken), twin.initial_state(B).after(dones[start - 1])),
    ):
        for at in range(begin, stop, T):
            before, until = state, min(at + T, stop)
            for t in range(at, until):
                bonus, state = twin.reward(
                    np.stack(seen[t : t + 2]),
                    actions[t][None],
                    dones[t][None],
                    state=state,
                    final_observations=None if ends is None else ends[t : t + 1],
                )
                expected = bonus[0] if at else 0 * bonus[0]
                np.testing.assert_array_equal(paid_steps[number], expected)
                number += 1
            if until == at + T:
                twin.update(
                    np.stack(seen[at : until + 1]),
                    np.stack(actions[at:until]),
                    np.stack(dones[at:until]),
                    state=before,
                    final_observations=None if ends is None else ends[at:until],
                )
    assert number == len(paid_steps)
    assert equal_states(wrapped.curiosity.state_dict(), twin.state_dict())


@pytest.mark.parametrize("fault", ("after", "nan"))
def test_reset_by_hand_after_a_failure_is_same_step_autoreset(fault: str) -> None:
    same, hand = (
        faulty(mode, "ngu", {3: fault, 4: fault, T + 6: fault}, update_every=5)
        for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
    )
    paid = []
    for wrapped, env in (same, hand):
        wrapped.reset(seed=1)
        result = go_on(wrapped, env, 5 * T)
        assert [t for t, each in enumerate(result) if isinstance(each, Exception)] == [3, 4, T + 6]
        paid.append([each for each in result if not isinstance(each, Exception)])
    np.testing.assert_array_equal(*paid)
    assert equal_states(same[0].curiosity.state_dict(), hand[0].curiosity.state_dict())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", MODES)
def test_failures_cost_a_few_updates_and_no_room(mode: AutoresetMode, fault: str) -> None:
    """Also those of the first step, of several steps on end, and of the step of an update."""
    faults = dict.fromkeys((0, 5, 6, 7, 19, 34), fault)
    wrapped, env = faulty(mode, "rnd", faults, update_every=4)
    wrapped.reset(seed=0)
    updates, update = [0], wrapped.curiosity.update

    def count(**steps: Any) -> Any:
        updates[0] += 1
        return update(**steps)

    wrapped.curiosity.update = count  # type: ignore[method-assign]
    for _ in range(20):
        go_on(wrapped, env, 10)
        assert wrapped.window is None or len(wrapped.window) < 4
    # each failure costs at most the window, itself and the next step
    assert 200 // 4 - 2 * len(faults) <= updates[0] <= 200 // 4
    # a reset mends it too
    wrapped.env.faults = {wrapped.env.calls: fault}  # type: ignore[attr-defined]
    with suppress(Broken, ValueError):
        wrapped.step(np.full(B, 3))
    assert wrapped.window is None
    wrapped.reset(seed=1)
    assert len(kept(wrapped)) == 0
    assert go_on(wrapped, env, 2)[1].any(), "the first step after it is paid"


def test_observations_that_stay_broken_are_refused_each_time() -> None:
    wrapped, env = faulty(MODES[0], "rnd", dict.fromkeys(range(2, 9), "nan"))
    wrapped.reset(seed=0)
    result = go_on(wrapped, env, 12)
    assert [isinstance(each, ValueError) for each in result] == [2 <= t < 9 for t in range(12)]
    assert len(kept(wrapped)) == 2


def test_a_reset_that_failed_joins_nothing() -> None:
    wrapped, env = faulty(MODES[2], "rnd", {})
    real_reset = env.reset
    env.reset = lambda **options: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        wrapped.reset(seed=0)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        wrapped.step(np.full(B, 3))
    env.reset = real_reset  # type: ignore[method-assign]
    wrapped.reset(seed=0)
    wrapped.step(np.full(B, 3))
    env.reset = lambda **options: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        wrapped.reset(options={"reset_mask": np.arange(B) == 0})
    env.reset = real_reset  # type: ignore[method-assign]
    # the others have no known place yet
    wrapped.reset(options={"reset_mask": np.arange(B) == 0})
    assert wrapped.window is None
    wrapped.reset(options={"reset_mask": np.ones(B, bool)})
    assert len(kept(wrapped)) == 0


@pytest.mark.parametrize("mode", MODES)
def test_an_update_that_failed_costs_its_steps_only(mode: AutoresetMode) -> None:
    """Its last step was paid, and the next one is paid from where it led to."""
    wrapped, env = faulty(mode, "icm", {}, update_every=4)
    wrapped.reset(seed=1)
    go_on(wrapped, env, 8)
    before, update = deepcopy(wrapped.curiosity.state_dict()), wrapped.curiosity.update

    def fail(**steps: Any) -> Any:
        raise FloatingPointError("the gradient is nan")

    wrapped.curiosity.update = fail  # type: ignore[method-assign]
    result = go_on(wrapped, env, 4)
    assert isinstance(result[-1], FloatingPointError) and len(kept(wrapped)) == 0
    assert equal_states(wrapped.curiosity.state_dict(), before)
    wrapped.curiosity.update = update  # type: ignore[method-assign]
    state, at = kept(wrapped).state, kept(wrapped).last
    np.testing.assert_array_equal(at, env.now)
    bonus = wrapped.step(np.full(B, 3))[-1]["intrinsic_reward"]
    actions, obs, dones, told = env.taken[-1]
    final = None
    if mode is not AutoresetMode.NEXT_STEP:
        final = np.full((1, B), None, object)
        for b in np.flatnonzero(dones):
            final[0, b] = obs[b] if told is None else told[b]
    expected, _ = wrapped.curiosity.reward(
        np.stack([at, obs]), actions[None], dones[None], state=state, final_observations=final
    )
    np.testing.assert_array_equal(bonus, expected[0])
    if mode is AutoresetMode.DISABLED and dones.any():
        wrapped.reset(options={"reset_mask": dones})
    go_on(wrapped, env, 3)
    assert not equal_states(wrapped.curiosity.state_dict(), before), "it learns again"
    assert math.isfinite(wrapped.metrics["loss"])


def test_update_every_may_be_lowered_between_updates() -> None:
    wrapped, env = faulty(MODES[0], "rnd", {})
    wrapped.reset(seed=1)
    go_on(wrapped, env, 6)
    wrapped.update_every = 4
    go_on(wrapped, env, 1)
    assert wrapped.metrics and len(kept(wrapped)) == 0


@pytest.mark.parametrize("mode", MODES)
def test_rewards_that_are_no_numbers_are_passed_on_and_change_nothing(mode: AutoresetMode) -> None:
    class NoReward(VectorWrapper):
        def step(self, actions: Any) -> Any:
            obs, rewards, *rest = self.env.step(actions)
            return obs, np.full_like(rewards, np.nan), *rest

    twins = []
    for wrap in (NoReward, lambda env: env):
        recorded = Recorded(walks(mode))
        wrapped = bonus_on(wrap(recorded), "icm")
        wrapped.reset(seed=1)
        twins.append((go_on(wrapped, recorded, 3 * T), wrapped))
    np.testing.assert_array_equal(twins[0][0], twins[1][0])
    assert np.isnan(twins[0][1].step(np.full(B, 3))[1]).all()
    assert equal_states(*(wrapped.curiosity.state_dict() for _, wrapped in twins))


@pytest.mark.parametrize("mode", MODES)
def test_what_is_saved_after_a_failure_goes_on_elsewhere(mode: AutoresetMode) -> None:
    wrapped, env = faulty(mode, "ngu", {T + 3: "nan"})
    wrapped.reset(seed=1)
    go_on(wrapped, env, T + 4)
    assert wrapped.window is None
    other, others = faulty(mode, "ngu", {}, seed=5)
    other.curiosity.load_state_dict(deepcopy(wrapped.curiosity.state_dict()))
    wrapped.reset(seed=2), other.reset(seed=2)
    for one, two in zip(go_on(wrapped, env, 2 * T), go_on(other, others, 2 * T), strict=True):
        np.testing.assert_array_equal(one, two)
    assert one.any() and equal_states(wrapped.curiosity.state_dict(), other.curiosity.state_dict())
