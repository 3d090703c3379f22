"""BYOL-Explore's targets as derivatives: closed forms, masks, a slow reference, and callers."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from torch import Tensor, nn

from afterwit.world_models.base import TargetEncoder
from afterwit.world_models.models.byol_explore import BYOLExplore, BYOLExploreConfig
from afterwit.world_models.objectives.vididi import orders
from afterwit.world_models.registry import make_world_model
from afterwit.world_models.target_views import CYCLE, ORDERS, DerivativeTarget, in_one_episode
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import close, look, random_trajectory, seeded, tiny_spec, tiny_torso, unit
from tests.world_models.curiosities import IMAGE, VECTOR, curiosity, steps

VIEWS = ("change", "acceleration", "alternating")


def target(order: int, decay: float | None = None, size: int = 6) -> DerivativeTarget:
    """A target whose encoder returns the observation as a vector."""
    return DerivativeTarget(nn.Flatten(2), size, 0.99, decay, (order,))


def seen(obs: Tensor, resets: tuple[tuple[int, int], ...] = ()) -> Trajectory:
    whole = random_trajectory(len(obs) - 1, obs.shape[1], resets=resets)
    return replace(whole, obs=obs)


def model(view: str, torso: Torso, **options: Any) -> BYOLExplore:
    config = BYOLExploreConfig(target_view=view, **options)  # type: ignore[arg-type]
    made = seeded(lambda: make_world_model(config, torso, tiny_spec(), 0), 1)
    assert isinstance(made, BYOLExplore)
    return made


def test_a_ramp_has_a_constant_change_and_no_acceleration() -> None:
    time = torch.arange(8.0)[:, None, None]
    slope = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(0))
    ramp, bow = seen(5 + time * slope), seen(time.square() * slope)
    close(target(1)(ramp), slope.expand(7, 3, 6))
    close(target(2)(ramp)[1:], torch.zeros(6, 3, 6), 1e-4)
    close(target(2)(bow)[1:], 2 * slope.expand(6, 3, 6), 1e-4)
    close(target(1)(seen((255 * torch.ones(3, 3, 6)).byte())), torch.zeros(2, 3, 6))
    rising = torch.tensor([0, 51, 102]).byte()[:, None, None].expand(3, 3, 6)
    close(target(1)(seen(rising)), torch.full((2, 3, 6), 0.2))


def test_what_stands_still_drops_out_and_noise_grows() -> None:
    noise = torch.randn(5, 400, 6, generator=torch.Generator().manual_seed(0))
    still = torch.randn(1, 400, 6, generator=torch.Generator().manual_seed(1))
    for order, variance in ((0, 1), (1, 2), (2, 6)):
        found = target(order)(seen(noise))[1:]
        assert float(found.var()) == pytest.approx(variance, rel=0.1)
        moved = target(order)(seen(noise + still))[1:]
        assert torch.allclose(moved, found, atol=1e-5) == (order > 0)


def test_no_window_crosses_the_start_of_an_episode_or_of_the_trajectory() -> None:
    random = torch.Generator().manual_seed(3)
    first = torch.rand(40, 5, generator=random) < 0.2
    for order in (0, 1, 2):
        known = in_one_episode(first, order)
        for t, b in np.ndindex(39, 5):
            window = range(t + 1 - max(order, 1), t + 2)  # times of the observations
            one = window[0] >= 0 and not any(bool(first[s, b]) for s in window[1:])
            assert bool(known[t, b]) == one
        assert 0.1 < known.float().mean() < 0.9
    obs = torch.randn(40, 5, 6, generator=random)
    other = obs.clone()
    other[10] += 100  # an episode's last observation must not matter to the next one's
    whole = replace(seen(obs), first=first.index_fill(0, torch.tensor([11]), True))
    for order in (1, 2):
        one, two = (target(order)(replace(whole, obs=each))[10:13] for each in (obs, other))
        known = in_one_episode(whole.first, order)[10:13]
        assert not known[0].any() and (known[1].any() == (order == 1)) and known[2].any()
        assert torch.equal(one[known], two[known])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("horizon", [1, 3])
def test_loss_and_reward_equal_a_loop(view: str, horizon: int) -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    explore = model(view, torso, horizon=horizon, standardise_decay=None, reward_edges="sum")
    beliefs, embeddings = look(torso, trajectory)
    for turn in range(4):
        order = ORDERS[view][turn % len(ORDERS[view])]  # type: ignore[index]
        assert isinstance(explore.target, DerivativeTarget) and explore.target.order == order
        with torch.no_grad():
            out = explore(trajectory, beliefs, embeddings)
            ahead = explore.open_loop(beliefs, trajectory.action)
            predicted = explore.active_predictor(ahead[1:])
        first, obs = trajectory.first, trajectory.obs
        steps_, batch = trajectory.action.shape
        reward, per_start = torch.zeros(steps_, batch), []
        for t, b in np.ndindex(steps_, batch):
            errors = []
            for k in range(1, horizon + 1):
                q = t + k
                start = min(t, q - order)  # of the steps that must have happened
                if q > steps_ or start < 0 or first[start + 1 : q + 1, b].any():
                    continue
                past = [obs[q - i, b] for i in range(order + 1)]
                value = (
                    past[0]
                    if order == 0
                    else past[0] - past[1]
                    if order == 1
                    else past[0] - 2 * past[1] + past[2]
                )
                with torch.no_grad():
                    wanted = explore.target.slow(value[None])[0]
                error = (unit(predicted[k - 1, t, b]) - unit(wanted)).square().sum()
                errors.append(error)
                reward[q - 1, b] += error
            if errors:
                per_start.append(torch.stack(errors).mean())
        close(out.loss, torch.stack(per_start).mean())
        close(out.reward, reward)
        explore.after_step()


def test_orders_have_vididi_s_shares() -> None:
    pairs = Counter(orders(step, more)[1] for step in range(4) for more in (False, True))
    assert {order: 2 * number for order, number in Counter(CYCLE).items()} == pairs
    explore = model("alternating", tiny_torso())
    assert isinstance(explore.target, DerivativeTarget)
    found, heads = [], set()
    for _ in range(8):
        found.append(explore.target.order)
        heads.add(explore.active_predictor)
        explore.after_step()
    assert tuple(found) == CYCLE * 2 and len(heads) == 3


def test_each_order_has_statistics_of_its_own() -> None:
    explore = model("alternating", tiny_torso(), standardise_decay=0.0)
    trajectory = random_trajectory()
    explore.train()
    for _ in CYCLE:
        found = explore.target(trajectory)
        known = explore.target.known(trajectory)
        close(found[known].mean(0), torch.zeros(found.shape[-1]), 1e-4)
        close(found[known].square().sum(-1).mean(), torch.ones(()), 1e-3)
        explore.after_step()
    before = {name: value.clone() for name, value in explore.target.named_buffers()}
    explore.target(random_trajectory(seed=1))  # order 0 again
    changed = {
        name
        for name, value in explore.target.named_buffers()
        if not torch.equal(value, before[name])
    }
    assert changed and all(name.startswith(("mean", "square")) for name in changed)


def test_a_frame_is_what_it_was() -> None:
    explore = model("frame", tiny_torso())
    assert type(explore.target) is TargetEncoder and not list(explore.further.parameters())
    assert not [name for name in explore.state_dict() if "turn" in name or "further" in name]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("space", [VECTOR, IMAGE, Discrete(5)], ids=["vector", "image", "one-hot"])
def test_it_works_through_intrinsic_reward(view: str, space: gymnasium.Space[Any]) -> None:
    config = BYOLExploreConfig(target_view=view)  # type: ignore[arg-type]
    bonus = curiosity(config, space)
    random = np.random.default_rng(1)
    for seed in range(3):
        obs, actions, dones = steps(seed, IMAGE if space is IMAGE else VECTOR)
        if isinstance(space, Discrete):
            obs = random.integers(0, 5, obs.shape[:2])
        state = bonus.initial_state(actions.shape[1])
        raw = bonus.reward(obs, actions, dones, state=state)[0]
        metrics = bonus.update(obs, actions, dones, state=state)
        assert np.isfinite(raw).all() and np.isfinite(metrics["loss"])
    readings = bonus.inspect(obs, actions, dones)
    assert 0 <= readings["still/target"] <= 1
    assert isinstance(space, Discrete) == (readings["still/target"] > 0) or view == "alternating"
    again = curiosity(config, space, seed=5)
    again.load_state_dict(deepcopy(bonus.state_dict()))
    for _ in range(2):  # the saved one goes on with the same order
        assert bonus.update(obs, actions, dones) == again.update(obs, actions, dones)


def test_what_has_no_target_is_not_paid() -> None:
    bonus = curiosity(BYOLExploreConfig(target_view="acceleration", prioritise=False))
    obs, actions, dones = steps()
    paid = bonus.reward(obs, actions, dones)
    known = ~np.concatenate([np.ones((1, dones.shape[1]), bool), dones[:-1]])  # no reset here
    opens = np.zeros_like(known)
    opens[0] = True
    opens[2:] = dones[:-2]  # the first step of an episode
    assert (paid[opens] == 0).all() and (paid[~known] == 0).all()
    assert (paid[known & ~opens] > 0).all()


def test_a_window_longer_than_the_unroll_is_refused() -> None:
    words = "target_view is '{}', which needs 3 observations in a row; 1 steps have 2"
    for view in ("acceleration", "alternating"):
        config = BYOLExploreConfig(target_view=view)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=words.format(view)):
            config.check_batch(1, 4)
        obs, actions, dones = steps(length=9)
        with pytest.raises(ValueError, match=words.format(view)):
            curiosity(config).update(obs[:2], actions[:1], dones[:1])
    BYOLExploreConfig(target_view="change").check_batch(1, 4)
    with pytest.raises(
        ValueError, match=r"unknown world_model\.target_view 'blur'; choose from fr"
    ):
        BYOLExploreConfig(target_view="blur")  # type: ignore[arg-type]


@pytest.mark.parametrize("expected_error", ["off", "difference"])
def test_what_has_no_target_counts_nowhere(expected_error: Any) -> None:
    """Neither in the pay, nor in its statistics, nor as a lesson of the expected error's head."""
    config = BYOLExploreConfig(target_view="acceleration", expected_error=expected_error)
    intrinsic = curiosity(config)
    obs, actions, _ = steps()
    dones = np.zeros_like(actions, bool)
    for _ in range(2):
        bonus = intrinsic.reward(obs, actions, dones)
        assert not bonus[0].any() and bonus[1:].any()
        twin = deepcopy(intrinsic)
        with torch.no_grad():
            trajectory = twin._read(obs, actions, dones, None, None, None).trajectory
            beliefs, embeddings = twin._beliefs_and_embeddings(trajectory)
            out = twin.model(trajectory, beliefs, embeddings)
        judged = out.paid(trajectory)
        assert not judged[0].any() and judged[1:].all()
        wild = torch.where(judged, out.reward, 1e6)
        surprise, loss = twin.expected(wild, out.ignorance, judged, trajectory, beliefs)
        assert loss < 1e3
        twin.normaliser.update(surprise[1:], judged[1:], out.ignorance)
        intrinsic.update(obs, actions, dones)
        close(intrinsic.normaliser.deviation, twin.normaliser.deviation)
        close(intrinsic.normaliser.normalised.mean, twin.normaliser.normalised.mean)
