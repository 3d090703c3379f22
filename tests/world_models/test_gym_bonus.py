"""IntrinsicBonus pays and learns as calls of IntrinsicReward do, in all autoreset modes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from afterwit.world_models import IntrinsicBonus, IntrinsicReward
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig
from afterwit.world_models.step_window import Window
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


class Named(gymnasium.ObservationWrapper):  # type: ignore[type-arg]
    """The walk's place, and its first number in words."""

    observation_space = Dict({"place": Walk.observation_space, "positive": Discrete(2)})

    def observation(self, observation: Any) -> dict[str, Any]:
        return {"place": observation, "positive": int(observation[0] > 0)}


def walks(mode: Any = AutoresetMode.NEXT_STEP, count: int = B) -> SyncVectorEnv:
    return SyncVectorEnv([Walk] * count, autoreset_mode=mode)


def bonus_on(env: Any, model: Any = "rnd", **options: Any) -> IntrinsicBonus:
    options = {"weight": 0.5, "update_every": T, "seed": 0, "torso": tiny_torso_config(), **options}
    return IntrinsicBonus(env, model, **options)


def kept(wrapped: IntrinsicBonus) -> Window:
    """The steps that wait for an update."""
    assert wrapped.window is not None
    return wrapped.window


def roll(env: Any, steps: int) -> list[tuple[Any, ...]]:
    """What `steps` steps of random actions return, the actions first.

    Where autoreset is disabled, episodes that ended are followed by new ones.
    """
    draw, result = np.random.default_rng(0), []
    for _ in range(steps):
        actions = draw.integers(3, 3 + A, env.num_envs)
        result.append((actions, *env.step(actions)))
        dones = result[-1][3] | result[-1][4]
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and dones.any():
            env.reset(options={"reset_mask": dones})
    return result


def final_of(paid: list[tuple[Any, ...]]) -> Any:
    """What the steps led to that ended an episode with same-step autoreset: object [T, B]."""
    return np.stack([step[-1].get("final_obs", np.full(B, None, object)) for step in paid])


def by_hand(env: Any, model: str, autoreset: Any) -> IntrinsicReward:
    """The IntrinsicReward that `bonus_on` makes, for calls by hand."""
    return IntrinsicReward(
        model,
        env.single_observation_space,
        env.single_action_space,
        seed=0,
        torso=tiny_torso_config(),
        autoreset=autoreset,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ("rnd", "icm", "byol-explore"))
def test_it_pays_and_learns_as_calls_by_hand(model: str, mode: AutoresetMode) -> None:
    wrapped, plain = bonus_on(walks(mode), model), walks(mode)
    twin = by_hand(plain, model, mode)
    first, _ = wrapped.reset(seed=1)
    np.testing.assert_array_equal(plain.reset(seed=1)[0], first)
    # T steps are paid one by one; the last update is due after 3 T
    paid, own = roll(wrapped, 3 * T + 2), roll(plain, 3 * T + 2)
    actions, seen, rewards, terminated, truncated, _ = map(np.array, zip(*own, strict=True))
    final = final_of(own) if mode is AutoresetMode.SAME_STEP else None
    dones, seen = terminated | truncated, np.concatenate([first[None], seen])
    assert dones[:T].any() and dones[T - 1 :: T].any(), "episodes end within and between updates"
    state = twin.initial_state(B)
    expected = []
    for start in range(0, 3 * T + 2, T):
        stop = min(start + T, 3 * T + 2)
        before = state
        for t in range(start, stop):
            bonus, state = twin.reward(
                seen[t : t + 2],
                actions[t : t + 1],
                dones[t : t + 1],
                state=state,
                final_observations=None if final is None else final[t : t + 1],
            )
            expected.append(bonus[0] if start else 0 * bonus[0])  # no unit before an update
        if stop == start + T:
            steps = seen[start : stop + 1], actions[start:stop], dones[start:stop]
            ends = None if final is None else final[start:stop]
            metrics = twin.update(*steps, state=before, final_observations=ends)
    for t, (_, obs, reward, end, limit, info) in enumerate(paid):
        np.testing.assert_array_equal(obs, seen[t + 1])
        np.testing.assert_array_equal(info["extrinsic_reward"], rewards[t])
        np.testing.assert_array_equal(info["intrinsic_reward"], expected[t])
        np.testing.assert_array_equal(reward, rewards[t] + 0.5 * expected[t])
        np.testing.assert_array_equal([end, limit], [terminated[t], truncated[t]])
    assert equal_states(wrapped.curiosity.state_dict(), twin.state_dict())
    assert wrapped.metrics == metrics
    if mode is AutoresetMode.NEXT_STEP:
        assert not np.array(expected)[1:][dones[:-1]].any(), "steps that only reset"
    elif model != "byol-explore":  # it pays what is above the mean
        assert np.array(expected)[T:][dones[T:]].all(), "the last steps of episodes"


class Quiet(gymnasium.vector.VectorWrapper):
    """Environments that do not say what the last step of an episode led to."""

    def step(self, actions: Any) -> Any:
        *rest, infos = self.env.step(actions)
        return *rest, {name: value for name, value in infos.items() if "final" not in name}


class Stacked(gymnasium.vector.VectorWrapper):
    """Environments whose final_obs are one array, as vectorised environments have it."""

    def step(self, actions: Any) -> Any:
        *rest, infos = self.env.step(actions)
        if "final_obs" in infos:
            rows = [np.full(6, np.nan) if row is None else row for row in infos["final_obs"]]
            infos["final_obs"] = np.stack(rows)
        return *rest, infos


def paid_by(wrapped: IntrinsicBonus) -> np.ndarray:
    wrapped.reset(seed=1)
    return np.stack([step[-1]["intrinsic_reward"] for step in roll(wrapped, 3 * T)])


def test_the_last_step_gets_no_bonus_if_its_outcome_is_not_told() -> None:
    told, quiet, stacked = (
        bonus_on(wrapper(walks(AutoresetMode.SAME_STEP)), "icm")
        for wrapper in (lambda env: env, Quiet, Stacked)
    )
    paid, unpaid = paid_by(told), paid_by(quiet)
    plain = walks(AutoresetMode.SAME_STEP)
    plain.reset(seed=1)
    dones = np.stack([step[3] | step[4] for step in roll(plain, 3 * T)])
    assert dones[T:].any() and paid[T:].all()
    np.testing.assert_array_equal(unpaid[T:] == 0, dones[T:])
    np.testing.assert_array_equal(paid_by(stacked), paid)
    assert equal_states(stacked.curiosity.state_dict(), told.curiosity.state_dict())


@pytest.mark.parametrize("make", (Walk, lambda: Named(Walk())), ids=("array", "dict"))
@pytest.mark.parametrize("model", ("byol-explore", "ngu"))
def test_reset_by_hand_is_same_step_autoreset(model: str, make: Any) -> None:
    same, hand = (
        bonus_on(SyncVectorEnv([make] * B, autoreset_mode=mode), model, update_every=5)
        for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
    )
    np.testing.assert_array_equal(paid_by(hand), paid_by(same))
    assert equal_states(hand.curiosity.state_dict(), same.curiosity.state_dict())


@pytest.mark.parametrize("mode", (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP))
def test_a_reset_in_mid_episode_is_an_ending_that_is_paid_and_learned_from(mode: Any) -> None:
    """Also right after an update, and for all environments at once."""
    wrapped = bonus_on(walks(mode, 3), "byol-explore", update_every=4)
    twin = by_hand(wrapped, "byol-explore", "same-step")
    seen, actions, dones, final = [wrapped.reset(seed=2)[0]], [], [], []
    draw, state = np.random.default_rng(1), twin.initial_state(3)
    for t in range(16):
        actions.append(draw.integers(3, 3 + A, 3))
        obs, _, terminated, truncated, infos = wrapped.step(actions[-1])
        over = terminated | truncated
        final.append(np.full(3, None, object))
        for b in np.flatnonzero(over):
            final[-1][b] = obs[b] if mode is AutoresetMode.DISABLED else infos["final_obs"][b]
        mask = draw.random(3) < 0.3 if t != 7 else np.ones(3, bool)
        mask |= over & (mode is AutoresetMode.DISABLED)
        if mask.any():
            begun, _ = wrapped.reset(options={"reset_mask": mask.copy()})
            for b in np.flatnonzero(mask & ~over):
                final[-1][b] = obs[b]
            np.testing.assert_array_equal(begun[~mask], obs[~mask])
            obs = begun
        dones.append(over | mask)
        seen.append(obs)
        assert len(kept(wrapped)) == (t + 1) % 4
        if t % 4 == 3:
            rows = slice(t - 3, t + 1)
            steps = np.stack(seen[t - 3 :]), np.stack(actions[rows]), np.stack(dones[rows])
            ends = np.stack(final[rows])
            before = state
            for i in range(4):
                step = steps[0][i : i + 2], steps[1][i : i + 1], steps[2][i : i + 1]
                _, state = twin.reward(*step, state=state, final_observations=ends[i : i + 1])
            metrics = twin.update(*steps, state=before, final_observations=ends)
            assert wrapped.metrics == metrics
    assert mask.any() and equal_states(wrapped.curiosity.state_dict(), twin.state_dict())


def test_a_reset_of_all_where_autoreset_is_disabled_keeps_the_steps() -> None:
    wrapped = bonus_on(walks(AutoresetMode.DISABLED), update_every=5)
    for _ in range(2):  # both shorter than an update
        wrapped.reset(seed=1)
        roll(wrapped, 3)
    assert wrapped.metrics and len(kept(wrapped)) == 1


def decided(env: Any, steps: int) -> list[list[float]]:
    """The bonus of each step that happened, by environment. Observations decide the actions."""
    obs, _ = env.reset(seed=4)
    paid: list[list[float]] = [[] for _ in range(env.num_envs)]
    only_resets = np.zeros(env.num_envs, bool)
    for _ in range(steps):
        obs, _, terminated, truncated, infos = env.step(
            3 + (np.abs(obs[:, 0]) * 10).astype(int) % A
        )
        for b in np.flatnonzero(~only_resets):
            paid[b].append(float(infos["intrinsic_reward"][b]))
        over = terminated | truncated
        only_resets = over & (env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP)
    return paid


def no_noise(target: torch.Tensor, size: int) -> torch.Tensor:
    return target.new_zeros(*target.shape[:-1], size)


@pytest.mark.parametrize("model", ("byol-hindsight", "byol-explore", "rnd", "icm", "ngu", "e3b"))
def test_the_same_episodes_get_the_same_bonuses_in_both_modes(model: str) -> None:
    paid = []
    for mode in MODES:
        wrapped = bonus_on(walks(mode), model, update_every=None)
        if isinstance(wrapped.curiosity.model, BYOLHindsight):  # it has noise of its own each step
            wrapped.curiosity.model.draw = no_noise  # type: ignore[method-assign]
        draw = np.random.default_rng(0)
        obs = draw.normal(size=(T + 1, B, 6)).astype(np.float32)
        actions = draw.integers(3, 3 + A, (T, B))
        wrapped.curiosity.update(obs, actions, np.zeros((T, B), bool))
        paid.append(decided(wrapped, 40))
    assert sum(map(len, paid[0])) < sum(map(len, paid[1])) == 40 * B
    for next_step, same_step in zip(*paid, strict=True):
        np.testing.assert_allclose(same_step[: len(next_step)], next_step, rtol=1e-4, atol=1e-4)
        assert np.any(next_step)


def test_steps_paid_one_by_one_are_paid_as_a_whole_rollout() -> None:
    wrapped = bonus_on(walks(), "byol-explore", update_every=None)
    first, _ = wrapped.reset(seed=1)
    roll(wrapped, 1)
    wrapped.curiosity.update(  # so that there are statistics
        np.stack([first + t for t in range(5)]), np.full((4, B), 3), np.zeros((4, B), bool)
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
    assert not kept(wrapped), "what is never learned from is not kept"


@pytest.mark.parametrize("name", ["byol-explore", "byol-hindsight", "rnd", "ama"])
@pytest.mark.parametrize("update_every", [1, 2])
def test_updates_with_one_error_set_no_unit_of_billions(name: str, update_every: int) -> None:
    """A single error has no deviation. The next one was paid 4e9."""
    wrapped = bonus_on(walks(count=1), name, update_every=update_every)
    wrapped.reset(seed=0)
    bonuses = [step[-1]["intrinsic_reward"] for step in roll(wrapped, 40)]
    assert 0 < np.abs(bonuses).max() < 100


def test_nothing_is_paid_before_the_first_update_unless_a_state_is_loaded() -> None:
    """With few environments the first rewards are nearly equal: their deviation is no unit."""
    wrapped = bonus_on(walks(count=1))
    wrapped.reset(seed=0)
    bonuses = np.array([step[-1]["intrinsic_reward"] for step in roll(wrapped, 3 * T)])
    assert not bonuses[:T].any() and bonuses[T:].any() and bonuses.max() < 20
    step = np.ones((2, 1, 6), np.float32), np.full((1, 1), 3), np.zeros((1, 1), bool)
    assert not bonus_on(walks(count=1)).curiosity.reward(*step).any()
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
    assert len(kept(wrapped)) == T


def test_what_it_gives_away_it_does_not_change_later() -> None:
    """A vector environment may write into the same arrays at each step."""
    env = SyncVectorEnv([Walk] * B, copy=False)
    wrapped, other = bonus_on(env), bonus_on(walks())
    wrapped.reset(seed=1), other.reset(seed=1)
    for one, two in zip(roll(wrapped, 2 * T), roll(other, 2 * T), strict=True):
        np.testing.assert_array_equal(one[-1]["intrinsic_reward"], two[-1]["intrinsic_reward"])
    assert equal_states(wrapped.curiosity.state_dict(), other.curiosity.state_dict())


def test_what_it_cannot_be_laid_on_is_named() -> None:
    env = walks()
    env.metadata = {}
    with pytest.raises(ValueError, match=r"no metadata\[.autoreset_mode"):
        bonus_on(env)
    env.metadata = {"autoreset_mode": "sometimes"}
    with pytest.raises(ValueError, match="unknown autoreset 'sometimes'"):
        bonus_on(env)
    with pytest.raises(ValueError, match="an IntrinsicBonus already; lay on only one"):
        bonus_on(Quiet(bonus_on(walks())))
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
    with pytest.raises(ValueError, match=r"reset_mask is for .* disabled or same-step"):
        wrapped.reset(options={"reset_mask": np.ones(B, bool)})
    by_hand = bonus_on(walks(AutoresetMode.DISABLED))
    with pytest.raises(gymnasium.error.ResetNeeded, match="without a reset_mask first"):
        by_hand.reset(options={"reset_mask": np.ones(B, bool)})
    for mask in (np.ones(B + 1, bool), np.ones(B, int), None):
        with pytest.raises(ValueError, match=r"reset_mask is .*it must be bool of shape"):
            by_hand.reset(options={"reset_mask": mask})
