"""E3B, RIDE and NGU against loops in float64, and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from afterwit.world_models import IntrinsicReward
from afterwit.world_models.base import ModelConfig, WorldModel
from afterwit.world_models.models.e3b import E3B, E3BConfig
from afterwit.world_models.models.ngu import NGU, NGUConfig
from afterwit.world_models.models.ride import RIDE, RIDEConfig
from afterwit.world_models.registry import make_world_model
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import SHAPE, B, T, close, look, random_trajectory, seeded, tiny_spec, tiny_torso

OPENS = tuple((0, b) for b in range(B))
NOTHING = torch.zeros(T + 1, B, 1)


class Given(nn.Module):
    """Stands for InverseDynamics: the features are the observations."""

    def forward(self, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        return trajectory.obs, torch.zeros((), requires_grad=True)


def make(config: ModelConfig, given: bool = True) -> WorldModel:
    model = seeded(lambda: make_world_model(config, tiny_torso(), tiny_spec(), 3), 3)
    if given:
        model.inverse = Given()
    return model


def stream(obs: Tensor, first: Tensor | None = None) -> Trajectory:
    """One environment that sees obs [T+1, N]."""
    whole = random_trajectory(length=len(obs) - 1, batch=1, resets=((0, 0),))
    return replace(whole, obs=obs[:, None], first=whole.first if first is None else first[:, None])


# E3B

PLAIN = E3BConfig(features=SHAPE[0], unit_features=False)


def test_e3b_pays_one_over_lambda_plus_visits_for_features_of_their_own() -> None:
    visits = torch.tensor([0, 1, 0, 1, 1, 2, 1])
    model = make(PLAIN)
    reward = model(stream(torch.eye(6)[visits]), NOTHING, NOTHING).reward[:, 0]
    # of obs[1..6], how often each was seen before in this episode, obs[0] included
    close(reward, 1 / (0.1 + torch.tensor([0.0, 1, 1, 2, 0, 3])))


def test_e3b_equals_the_inverse_of_the_sum_in_float64() -> None:
    model, trajectory = make(PLAIN), random_trajectory(length=40, resets=((0, 0), (11, 0), (7, 3)))
    rewards = model(trajectory, NOTHING, NOTHING).reward.double()
    for b in range(B):
        matrix = torch.eye(6, dtype=torch.float64) * 0.1
        for t in range(41):
            feature = trajectory.obs[t, b].double()
            if trajectory.first[t, b]:
                matrix = torch.eye(6, dtype=torch.float64) * 0.1
            elif t:
                close(rewards[t - 1, b], feature @ torch.linalg.solve(matrix, feature), 1e-4)
            if t or trajectory.first[t, b]:
                matrix += torch.outer(feature, feature)


def test_e3b_has_no_unit() -> None:
    """Features twice as long, with lambda four times as large, pay the same."""
    trajectory = random_trajectory(resets=OPENS)
    doubled = replace(trajectory, obs=2 * trajectory.obs)
    plain = make(PLAIN)(trajectory, NOTHING, NOTHING).reward
    close(make(replace(PLAIN, ridge=0.4))(doubled, NOTHING, NOTHING).reward, plain)
    # in units of their length, the features' size makes no difference at all
    unit = replace(PLAIN, unit_features=True)
    one, two = (make(unit)(x, NOTHING, NOTHING).reward for x in (trajectory, doubled))
    close(one, two)
    assert not torch.allclose(one, plain)


def test_e3b_stays_right_over_a_long_episode() -> None:
    model, worst = make(PLAIN), 0.0
    random = torch.Generator().manual_seed(0)
    total = torch.eye(6, dtype=torch.float64) * 0.1
    for part in range(40):
        obs = torch.randn(101, 6, generator=random) * torch.tensor([10.0, 1, 1, 1, 0.1, 0.01])
        first = torch.zeros(101, dtype=torch.bool)
        first[0] = part == 0
        reward = model(stream(obs, first), NOTHING, NOTHING).reward[:, 0]
        for t in range(101):
            if t:
                exact = obs[t].double() @ torch.linalg.solve(total, obs[t].double())
                worst = max(worst, abs(float(reward[t - 1]) / float(exact) - 1))
            if t or part == 0:
                total += torch.outer(obs[t].double(), obs[t].double())
    assert worst < 1e-3


# RIDE


def test_ride_pays_the_step_over_the_root_of_visits() -> None:
    """On a line, to and fro in steps of length 3: the n-th visit pays 3 / sqrt(n)."""
    places = torch.tensor([0.0, 3, 0, 3, 0, 3])
    obs = torch.zeros(6, 6)
    obs[:, 2] = places
    reward = make(RIDEConfig(features=6))(stream(obs), NOTHING, NOTHING).reward[:, 0]
    close(reward, 3 / torch.tensor([1.0, 2, 2, 3, 3]).sqrt())


def test_ride_equals_the_loop() -> None:
    config = RIDEConfig(features=5)
    model, trajectory = make(config, given=False), random_trajectory()
    assert isinstance(model, RIDE)
    out = model(trajectory, *look(tiny_torso(), trajectory))
    features = model.inverse.encoder(trajectory.obs)
    lengths, entropies = [], []
    for t in range(T):
        for b in range(B):
            if trajectory.first[t + 1, b]:
                assert out.reward[t, b] == 0
                continue
            action = trajectory.action[t, b]
            one_hot = nn.functional.one_hot(action, model.num_actions).float()
            guess = model.forward_model(torch.cat([features[t, b], one_hot]))
            lengths.append(torch.linalg.vector_norm(guess - features[t + 1, b]))
            logits = model.inverse.head(torch.cat([features[t, b], features[t + 1, b]]))
            entropies.append(-logits.log_softmax(-1)[action])
            # random observations come only once
            close(out.reward[t, b], (features[t + 1, b] - features[t, b]).norm().detach())
    mean = torch.stack(lengths).mean() * 10 + torch.stack(entropies).mean() * 0.1
    close(out.loss, mean)
    names = dict(model.named_parameters())
    ours = torch.autograd.grad(out.loss, list(names.values()), retain_graph=True, allow_unused=True)
    loops = torch.autograd.grad(mean, list(names.values()), allow_unused=True)
    for left, right in zip(ours, loops, strict=True):
        assert left is not None and right is not None
        close(left, right, 1e-4)


def test_ride_calls_every_noisy_view_new() -> None:
    obs = torch.zeros(21, 6)
    obs[:, 5] = torch.rand(21, generator=torch.Generator().manual_seed(0)) * 1e-3
    model = make(RIDEConfig(features=6))
    assert float(model(stream(obs), NOTHING, NOTHING).metrics["visits"]) == 1
    obs[:, 5] = 0
    assert float(model(stream(obs), NOTHING, NOTHING).metrics["visits"]) == pytest.approx(11.5)


# NGU

EPISODIC = NGUConfig(features=6, lifelong=False)


def episodic(model: WorldModel, obs: Tensor) -> Tensor:
    reward: Tensor = model(stream(obs), NOTHING, NOTHING).reward[:, 0]
    return reward


def test_ngu_counts_visits_of_equal_features() -> None:
    """n < k equal neighbours pay 1 / (sqrt(n) + c), and k or more 1 / (sqrt(k) + c)."""
    reward = episodic(make(EPISODIC), torch.ones(16, 6))
    expected = [1 / (math.sqrt(min(n, 10)) + 0.001) for n in range(1, 16)]
    close(reward, torch.tensor(expected))
    assert float(reward[-1]) == pytest.approx(0.31613, abs=1e-5)


def test_ngu_equals_the_formula_in_float64() -> None:
    model = make(EPISODIC).eval()
    assert isinstance(model, NGU)
    model.train()
    warm = random_trajectory(seed=5)
    model(warm, NOTHING, NOTHING)  # a running mean of distances
    model.eval()
    mean = float(model.distance.mean)
    trajectory = random_trajectory(length=30, resets=((0, 0), (0, 1), (9, 1)))
    reward = model(columns_of(trajectory, 2), NOTHING, NOTHING).reward
    for b in range(2):
        seen: list[Tensor] = []
        for t in range(31):
            feature = trajectory.obs[t, b].double()
            if trajectory.first[t, b]:
                seen = []
            elif t:
                near = sorted(float((feature - old).square().sum()) for old in seen)[:10]
                kernel = [1e-4 / (max(d / mean - 0.008, 0) + 1e-4) for d in near]
                s = math.sqrt(sum(kernel)) + 0.001
                assert float(reward[t - 1, b]) == pytest.approx(0 if s > 8 else 1 / s, rel=1e-4)
            seen.append(feature)


def columns_of(trajectory: Trajectory, count: int) -> Trajectory:
    names = ("obs", "first", "action", "behaviour", "reward", "terminal")
    parts = {name: getattr(trajectory, name)[:, :count] for name in names}
    return replace(trajectory, **parts, environments=None)


def test_ngu_calls_a_small_relative_distance_none() -> None:
    """Distances of exactly xi d_m are none; with all at the mean, s is small and much is paid."""
    model = make(EPISODIC).eval()
    assert isinstance(model, NGU)
    model.distance.total.fill_(1.0)
    model.distance.weight.fill_(1.0)
    near = torch.zeros(12, 6)
    near[1::2, 0] = math.sqrt(0.008) * 0.999
    flat = episodic(model, torch.zeros(12, 6))
    close(episodic(model, near), flat)
    apart = torch.eye(12)[:, :12] / math.sqrt(2)  # squared distance 1 of each other
    far = make(replace(EPISODIC, features=12)).eval()
    assert isinstance(far, NGU)
    far.distance.total.fill_(1.0)
    far.distance.weight.fill_(1.0)
    reward = far(stream(apart), NOTHING, NOTHING).reward[:, 0]
    assert float(reward[-1]) == pytest.approx(30.5, abs=0.2)


def test_ngu_s_lifelong_factor_is_between_one_and_five() -> None:
    model = make(NGUConfig(), given=False)
    assert isinstance(model, NGU)
    real = torch.ones(5, 2, dtype=torch.bool)
    errors = torch.arange(10.0).view(5, 2)
    model.factor(errors, real)
    model.eval()
    mean, deviation = float(errors.mean()), float(errors.std(correction=0))
    close(model.factor(torch.full((5, 2), mean), real), torch.ones(5, 2), 1e-3)
    close(model.factor(torch.zeros(5, 2), real), torch.ones(5, 2))
    close(
        model.factor(torch.full((5, 2), mean + 2 * deviation), real), torch.full((5, 2), 3.0), 1e-3
    )
    close(model.factor(torch.full((5, 2), 1e3), real), torch.full((5, 2), 5.0))


def test_the_whole_of_ngu_is_its_parts() -> None:
    whole, part = make(NGUConfig(), given=False), make(NGUConfig(lifelong=False), given=False)
    assert isinstance(whole, NGU) and isinstance(part, NGU) and whole.life is not None
    part.inverse.load_state_dict(whole.inverse.state_dict())
    trajectory = random_trajectory()
    out, alone = (m(trajectory, NOTHING, NOTHING) for m in (whole, part))
    assert whole.life is not None and part.life is None
    with whole.watching():
        known = whole.life(trajectory, NOTHING, NOTHING)
        factor = whole.factor(known.reward, trajectory.real)
    assert bool((factor >= 1).all())
    assert out.loss > alone.loss and bool((out.reward >= alone.reward - 1e-6).all())


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (E3BConfig, {"ridge": 0.0}, "ridge is 0.0; it must be above 0"),
        (E3BConfig, {"features": 0}, "features is 0; it must be at least 1"),
        (RIDEConfig, {"memory": 0}, "memory is 0; it must be at least 1"),
        (RIDEConfig, {"inverse_weight": -1.0}, "inverse_weight is -1.0; it must be at least 0"),
        (NGUConfig, {"memory": 9}, "memory is 9; it must hold at least the 10 neighbours"),
        (NGUConfig, {"kernel": 0.0}, "kernel is 0.0; it must be above 0"),
        (NGUConfig, {"cluster": -0.1}, "cluster is -0.1; it must be at least 0"),
        (NGUConfig, {"most_lifelong": 0.5}, "most_lifelong is 0.5; it must be at least 1"),
    ],
)
def test_bad_values_are_named(
    kind: type[ModelConfig], values: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_e3b_knows_what_ignorance_pays() -> None:
    """One that knows nothing has seen nothing: a feature of length 1 pays 1 / lambda."""
    model = make(PLAIN)
    assert isinstance(model, E3B)
    obs = torch.eye(6)[torch.tensor([0, 1])]
    out = model(stream(obs), NOTHING, NOTHING)
    close(out.reward[0, 0], out.ignorance)


def test_before_the_first_update_ngu_s_unit_is_that_of_the_batch() -> None:
    """Two places with a little jitter: the way between them stands out from the first call on."""
    jitter = 1e-5 * torch.randn(13, 6, generator=torch.Generator().manual_seed(0))
    obs = jitter + torch.cat([torch.zeros(6, 6), torch.ones(7, 6)])
    reward = episodic(make(EPISODIC).eval(), obs)
    assert float(reward[5]) > 20 * float(reward[[0, 1, 2, 3, 4, 7, 8, 9]].max())
    whole = make(NGUConfig(), given=False).eval()
    assert isinstance(whole, NGU)
    errors = torch.arange(10.0).view(5, 2)
    factor = whole.factor(errors, torch.ones(5, 2, dtype=torch.bool))
    assert float(factor.max()) == pytest.approx(1 + 4.5 / float(errors.std(correction=0)), rel=1e-3)


@pytest.mark.parametrize("size", [1.0, 30.0, 1000.0])
def test_e3b_s_unit_holds_from_the_first_call_on(size: float) -> None:
    curiosity = IntrinsicReward("e3b", Box(-np.inf, np.inf, (6,)), Discrete(3), seed=0)
    rng, ranges = np.random.default_rng(0), []
    state = curiosity.initial_state(4)
    raw: list[Tensor] = []
    curiosity.model.register_forward_hook(lambda module, inputs, output: raw.append(output.reward))
    for _ in range(3):
        obs = (size * rng.normal(size=(51, 4, 6))).astype(np.float32)
        block = obs, rng.integers(0, 3, (50, 4)), np.zeros((50, 4), bool)
        _, after = curiosity.reward(*block, state=state)
        real = raw[-1][raw[-1] != 0]
        ranges.append((float(real.min()), float(real.max())))
        curiosity.update(*block, state=state)
        state = after
    assert all(low > 0 and high < 60 for low, high in ranges), ranges


def test_e3b_is_exact_for_features_that_are_thousands_of_times_lambda() -> None:
    obs = 1000 * torch.randn(201, 6, generator=torch.Generator().manual_seed(0)) + 3000
    reward = make(PLAIN)(stream(obs), NOTHING, NOTHING).reward[:, 0].double()
    total = torch.eye(6, dtype=torch.float64) * 0.1
    for t, feature in enumerate(obs.double()):
        if t:
            close(reward[t - 1], feature @ torch.linalg.solve(total, feature), 1e-3)
        total += torch.outer(feature, feature)
