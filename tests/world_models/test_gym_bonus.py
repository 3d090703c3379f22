"""IntrinsicBonus pays and learns as calls of IntrinsicReward do, in both autoreset modes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from afterwit.world_models import IntrinsicBonus, IntrinsicReward
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from tests.helpers import A, B, T, equal_states, tiny_torso_config

MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)


class Walk(gymnasium.Env[np.ndarray, Any]):
    """Six random numbers; an episode ends at random, and pays its length at each step."""

    observation_space = Box(-5, 5, (6,), np.float32)
    action_space = Discrete(A, start=3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.age = self.np_random.normal(size=6).astype(np.float32), 0
        return self.place, {}

    def step(self, action: Any) -> Any:
        assert action in self.action_space
        self.place = (
            (0.9 * self.place + self.np_random.normal(size=6)).astype(np.float32).clip(-5, 5)
        )
        self.age += 1
        over = self.np_random.random(2) < 0.1
        return self.place, float(self.age), bool(over[0]), bool(over[1]), {}


def walks(mode: Any = AutoresetMode.NEXT_STEP, count: int = B) -> SyncVectorEnv:
    return SyncVectorEnv([Walk] * count, autoreset_mode=mode)


def bonus_on(env: Any, model: Any = "rnd", **options: Any) -> IntrinsicBonus:
    options = {"weight": 0.5, "update_every": T, "seed": 0, "torso": tiny_torso_config(), **options}
    return IntrinsicBonus(env, model, **options)


def roll(env: Any, steps: int) -> list[tuple[Any, ...]]:
    """What `steps` steps of random actions return, the actions first."""
    draw, result = np.random.default_rng(0), []
    for _ in range(steps):
        actions = draw.integers(3, 3 + A, env.num_envs)
        result.append((actions, *env.step(actions)))
    return result


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ("rnd", "icm", "byol-explore"))
def test_it_pays_and_learns_as_calls_by_hand(model: str, mode: AutoresetMode) -> None:
    wrapped, plain = bonus_on(walks(mode), model), walks(mode)
    twin = IntrinsicReward(
        model,
        plain.single_observation_space,
        plain.single_action_space,
        seed=0,
        torso=tiny_torso_config(),
        autoreset=mode,
    )
    first, _ = wrapped.reset(seed=1)
    np.testing.assert_array_equal(plain.reset(seed=1)[0], first)
    # T steps are paid one by one; the last update is due after 3 T
    paid, own = roll(wrapped, 3 * T + 2), roll(plain, 3 * T + 2)
    actions, seen, rewards, terminated, truncated, _ = map(np.array, zip(*own, strict=True))
    dones, seen = terminated | truncated, np.concatenate([first[None], seen])
    assert dones[:T].any() and dones[T - 1 :: T].any(), "episodes end within and between updates"
    state = twin.initial_state(B)
    expected = []
    for start in range(0, 3 * T + 2, T):
        stop = min(start + T, 3 * T + 2)
        before = state
        for t in range(start, stop):
            bonus, state = twin.reward(
                seen[t : t + 2], actions[t : t + 1], dones[t : t + 1], state=state
            )
            expected.append(bonus[0] if start else 0 * bonus[0])  # no unit before an update
        if stop == start + T:
            steps = seen[start : stop + 1], actions[start:stop], dones[start:stop]
            metrics = twin.update(*steps, state=before)
    for t, (_, obs, reward, end, limit, info) in enumerate(paid):
        np.testing.assert_array_equal(obs, seen[t + 1])
        np.testing.assert_array_equal(info["extrinsic_reward"], rewards[t])
        np.testing.assert_array_equal(info["intrinsic_reward"], expected[t])
        np.testing.assert_array_equal(reward, rewards[t] + 0.5 * expected[t])
        np.testing.assert_array_equal([end, limit], [terminated[t], truncated[t]])
    assert equal_states(wrapped.curiosity.state_dict(), twin.state_dict())
    assert wrapped.metrics == metrics
    nothing = dones if mode is AutoresetMode.SAME_STEP else np.roll(dones, 1, 0)
    nothing[0] &= mode is AutoresetMode.SAME_STEP
    assert not np.array(expected)[nothing].any(), (
        "no outcome to predict, or a step that only resets"
    )


def test_steps_paid_one_by_one_are_paid_as_a_whole_rollout() -> None:
    wrapped = bonus_on(walks(), "byol-explore", update_every=None)
    first, _ = wrapped.reset(seed=1)
    roll(wrapped, 1)
    wrapped.curiosity.update(  # so that there are statistics
        np.stack([first, first + 1]), np.full((1, B), 3), np.zeros((1, B), bool)
    )
    before = deepcopy(wrapped.curiosity.state_dict())
    first, _ = wrapped.reset(seed=2)
    actions, seen, _, terminated, truncated, infos = zip(*roll(wrapped, 4 * T), strict=True)
    steps = np.stack([first, *seen]), np.stack(actions), np.stack(terminated) | np.stack(truncated)
    whole, _ = wrapped.curiosity.reward(*steps, state=wrapped.curiosity.initial_state(B))
    np.testing.assert_allclose(
        np.stack([info["intrinsic_reward"] for info in infos]), whole, atol=1e-4
    )
    assert equal_states(wrapped.curiosity.state_dict(), before) and wrapped.metrics == {}
    assert len(wrapped.observations) == 1, "what is never learned from is not kept"


def test_nothing_is_paid_before_the_first_update_unless_a_state_is_loaded() -> None:
    """With few environments the first rewards are nearly equal: their deviation is no unit."""
    wrapped = bonus_on(walks(count=1))
    wrapped.reset(seed=0)
    bonuses = np.array([step[-1]["intrinsic_reward"] for step in roll(wrapped, 3 * T)])
    assert not bonuses[:T].any() and bonuses[T:].any() and bonuses.max() < 20
    step = np.ones((2, 1, 6), np.float32), np.full((1, 1), 3), np.zeros((1, 1), bool)
    assert bonus_on(walks(count=1)).curiosity.reward(*step) == pytest.approx(100, rel=0.01)
    loaded = bonus_on(walks(count=1), update_every=None)
    loaded.curiosity.load_state_dict(wrapped.curiosity.state_dict())
    loaded.reset(seed=0)
    assert any(step[-1]["intrinsic_reward"].any() for step in roll(loaded, T))


def test_a_reset_begins_anew() -> None:
    wrapped = bonus_on(walks(), update_every=3 * T)
    wrapped.reset(seed=3)
    roll(wrapped, 3 * T)  # one update
    bonuses = []
    for _ in range(2):
        wrapped.reset(seed=3)
        infos = [step[-1] for step in roll(wrapped, T)]
        bonuses.append(np.stack([info["intrinsic_reward"] for info in infos]))
    np.testing.assert_array_equal(*bonuses)
    assert bonuses[0].any()
    assert len(wrapped.dones) == T


def test_what_it_gives_away_it_does_not_change_later() -> None:
    """A vector environment may write into the same arrays at each step."""
    env = SyncVectorEnv([Walk] * B, copy=False)
    wrapped, other = bonus_on(env), bonus_on(walks())
    wrapped.reset(seed=1), other.reset(seed=1)
    for one, two in zip(roll(wrapped, 2 * T), roll(other, 2 * T), strict=True):
        np.testing.assert_array_equal(one[-1]["intrinsic_reward"], two[-1]["intrinsic_reward"])
    assert equal_states(wrapped.curiosity.state_dict(), other.curiosity.state_dict())


def test_what_it_cannot_be_laid_on_is_named() -> None:
    with pytest.raises(ValueError, match="autoreset is disabled"):
        bonus_on(walks(AutoresetMode.DISABLED))
    env = walks()
    env.metadata = {}
    with pytest.raises(ValueError, match=r"no metadata\[.autoreset_mode"):
        bonus_on(env)
    env.metadata = {"autoreset_mode": "sometimes"}
    with pytest.raises(ValueError, match="unknown autoreset 'sometimes'"):
        bonus_on(env)
    twice = bonus_on(bonus_on(walks()))
    twice.reset(seed=0)
    with pytest.raises(ValueError, match="extrinsic_reward already"):
        roll(twice, 1)
    with pytest.raises(ValueError, match="horizon is 2"):
        bonus_on(walks(), BYOLExploreConfig(horizon=2))
    with pytest.raises(ValueError, match="at least 2 environments"):
        bonus_on(walks(count=1), BYOLHindsightConfig(purity="critic"))


@pytest.mark.parametrize(
    "options",
    (
        *({"weight": weight} for weight in (-1, np.nan, None, "much")),
        *({"update_every": count} for count in (0, 2.5, True, "often")),
    ),
    ids=str,
)
def test_bad_arguments_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} is {options[name]!r}; it must be"):
        bonus_on(walks(), **options)


def test_the_order_of_calls() -> None:
    wrapped = bonus_on(walks())
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        roll(wrapped, 1)
    with pytest.raises(ValueError, match="reset_mask"):
        wrapped.reset(options={"reset_mask": np.ones(B, bool)})
