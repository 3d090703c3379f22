"""NovelD and RE3 against loops and closed forms."""

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
from afterwit.world_models.models.noveld import NovelD, NovelDConfig
from afterwit.world_models.models.re3 import RE3, RE3Config
from afterwit.world_models.registry import make_world_model
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import SHAPE, B, T, close, random_trajectory, seeded, tiny_spec, tiny_torso

NOTHING = torch.zeros(T + 1, B, 1)


def make(config: ModelConfig) -> WorldModel:
    return seeded(lambda: make_world_model(config, tiny_torso(), tiny_spec(), 3), 3)


def stream(obs: Tensor) -> Trajectory:
    """One environment that sees obs [T+1, N]."""
    whole = random_trajectory(length=len(obs) - 1, batch=1, resets=((0, 0),))
    return replace(whole, obs=obs[:, None])


def test_noveld_pays_the_rise_of_novelty_at_first_visits() -> None:
    """Novelty is given: the first number of the observation, squared, is RND's error."""
    model = make(NovelDConfig(normalise_observations=False))
    assert isinstance(model, NovelD)
    model.novelty.error = lambda obs, real=None: obs[..., 0].square()  # type: ignore[method-assign]
    obs = torch.zeros(7, 6)
    obs[:, 0] = torch.tensor([1.0, 3, 1, 3, 2, 0.5, 4])
    reward = model(stream(obs), NOTHING, NOTHING).reward[:, 0]
    # back at the start and at 3: seen before; 2 from 3: 2 - 1.5; 0.5 from 2: less than half
    close(reward, torch.tensor([3 - 0.5, 0, 0, 2 - 1.5, 0, 4 - 0.25]))


def test_noveld_equals_the_loop() -> None:
    model, trajectory = make(NovelDConfig(alpha=0.3)), random_trajectory()
    assert isinstance(model, NovelD)
    out = model(trajectory, NOTHING, NOTHING)
    rnd = model.novelty
    rnd.eval()
    size = rnd.variance.sqrt().clamp(min=1e-2)
    for t in range(T):
        for b in range(B):
            before, after = (
                rnd.error(
                    ((trajectory.obs[i, b] - rnd.mean) / size).clamp(-5, 5)[None, None]
                ).sqrt()
                for i in (t, t + 1)
            )
            expected = max(float(after - 0.3 * before), 0) * bool(trajectory.real[t, b])
            assert float(out.reward[t, b]) == pytest.approx(expected, abs=1e-5)
    with rnd.watching():
        close(out.loss, rnd(trajectory, NOTHING, NOTHING).loss)


def test_noveld_pays_noise_for_ever() -> None:
    """A view that never comes again is always a first visit."""
    model = make(NovelDConfig())
    obs = torch.randn(T + 1, 6, generator=torch.Generator().manual_seed(0))
    assert float(model(stream(obs), NOTHING, NOTHING).metrics["first_visits"]) == 1
    still = model(stream(obs[:1].expand(T + 1, 6)), NOTHING, NOTHING)
    assert not still.reward.any() and float(still.metrics["first_visits"]) == 0


class Given(nn.Module):
    def forward(self, obs: Tensor) -> Tensor:
        return obs


def re3(neighbours: int = 2, memory: int = 16) -> RE3:
    model = make(RE3Config(neighbours=neighbours, memory=memory))
    assert isinstance(model, RE3)
    model.fixed = Given()  # type: ignore[assignment]
    model.store = torch.zeros(memory + 1, 6)
    return model


def line(*places: float) -> Tensor:
    obs = torch.zeros(len(places), 6)
    obs[:, 1] = torch.tensor(places)
    return obs


def apart(model: RE3, features: Tensor) -> Tensor:
    """Distances of features [T, B, N] of steps that all happened."""
    return model.distance(features, features, torch.ones(features.shape[:2], dtype=torch.bool))


def test_re3_knows_the_distances_on_a_line() -> None:
    model = re3()
    first = model(stream(line(0, 10, 20, 40)), NOTHING, NOTHING)
    # at first within the batch: 10, 20 and 40 from the other two
    size = math.sqrt((30**2 + 20**2 + 30**2) / 3)
    close(first.reward[:, 0], torch.tensor([math.log(1 + d / size) for d in (30, 20, 30)]))
    model.eval()
    # 10, 20 and 40 are stored; the start of an episode is no outcome
    close(apart(model, line(10, 15, 0, 41)[:, None])[:, 0], torch.tensor([10.0, 5, 20, 21]))
    out = model(stream(line(0, 10, 15, 0, 41)), NOTHING, NOTHING)
    size = float(model.square.mean.sqrt())
    close(out.reward[:, 0], torch.tensor([math.log(1 + d / size) for d in (10, 5, 20, 21)]))
    # asked twice, counted not at all
    assert int(model.stored) == 3
    close(model(stream(line(0, 10, 15, 0, 41)), NOTHING, NOTHING).reward, out.reward)


def test_re3_s_unit_counts_no_step_that_has_too_few_to_compare_with() -> None:
    """Steps one by one at 10, 13, 17 and 21, k = 2: the first two have no second neighbour."""
    model, paid = re3(), []
    for place in (10.0, 13, 17, 21):
        out = model(stream(line(0, place)), NOTHING, NOTHING)
        assert out.judged is not None
        paid.append((out.judged.item(), out.reward.item()))
    # 17 is 7 from 10, and 21 is 8 from 13; the mean is corrected for its start at zero
    size = math.sqrt((0.99 * 7**2 + 8**2) / 1.99)
    assert float(model.square.mean.sqrt()) == pytest.approx(size, rel=1e-5)
    assert paid == [
        (False, 0.0),
        (False, 0.0),
        (True, pytest.approx(math.log(2))),
        (True, pytest.approx(math.log(1 + 8 / size))),
    ]


def test_re3_forgets_the_oldest_and_stores_only_what_happened() -> None:
    model = re3(1, 4)
    model(stream(line(0, 1, 2, 3)), NOTHING, NOTHING)
    model(stream(line(0, 4, 5, 6)), NOTHING, NOTHING)
    assert sorted(model.store[:4, 1].tolist()) == [3, 4, 5, 6]
    whole = stream(line(0, 7, 8, 9))
    first = torch.tensor([True, False, True, False])[:, None]
    model(replace(whole, first=first), NOTHING, NOTHING)
    assert sorted(model.store[:4, 1].tolist()) == [5, 6, 7, 9]
    assert int(model.stored) == 8


@pytest.mark.parametrize(("level", "size"), ((10, 1), (1000, 0.01)))
def test_re3_s_distances_are_those_of_a_loop(level: float, size: float) -> None:
    """Also where features differ by little of what they are, as those of still pictures do."""
    model = make(RE3Config(neighbours=3, memory=64))
    assert isinstance(model, RE3)
    model(random_trajectory(seed=1), NOTHING, NOTHING)
    model.store.mul_(size).add_(level)
    features = model.fixed(random_trajectory(seed=2).obs[1:]) * size + level
    kept = model.store[: int(model.stored)].double()
    found = apart(model, features)
    for t in range(T):
        for b in range(B):
            known = (kept - features[t, b].double()).norm(dim=-1).sort().values
            assert float(found[t, b]) == pytest.approx(float(known[2]), 1e-4)


def test_re3_pays_nothing_for_places_that_it_has_seen_often() -> None:
    """Equal places are at a distance of exactly 0, not of a rounding error."""
    model = make(RE3Config(neighbours=3, memory=256))
    places = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)) * 3 + 10
    random = torch.Generator().manual_seed(1)
    for _ in range(20):
        which = torch.randint(0, 12, (T + 1, B), generator=random)
        trajectory = replace(random_trajectory(resets=()), obs=places[which])
        reward = model(trajectory, NOTHING, NOTHING).reward
    assert float(reward.max()) < 1e-4


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_re3_has_a_unit_from_the_first_batch_on(size: float) -> None:
    curiosity = IntrinsicReward("re3", Box(-np.inf, np.inf, (6,)), Discrete(3), seed=0)
    rng = np.random.default_rng(0)
    paid = []
    for _ in range(4):
        obs = (size * rng.normal(size=(17, 4, 6))).astype(np.float32)
        block = obs, rng.integers(0, 3, (16, 4)), np.zeros((16, 4), bool)
        paid.append(curiosity.reward(*block).mean())
        curiosity.update(*block)
    assert min(paid) > 0.5 and max(paid) < 8 and max(paid) < 2.5 * min(paid), paid


def test_a_batch_must_fit_re3_s_store() -> None:
    with pytest.raises(ValueError, match="memory is 16; it must hold at least a batch, here 5 x 4"):
        RE3Config(memory=16).check_batch(5, 4)
    RE3Config(memory=20).check_batch(5, 4)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (NovelDConfig, {"alpha": 1.5}, "alpha is 1.5; it must lie between 0 and 1"),
        (NovelDConfig, {"memory": 0}, "memory is 0; it must be at least 1"),
        (NovelDConfig, {"predictor_layers": -1}, "predictor_layers is -1"),
        (RE3Config, {"neighbours": 0}, "neighbours is 0; it must be at least 1"),
        (RE3Config, {"memory": 4}, "memory is 4; it must hold at least the 5 neighbours"),
        (RE3Config, {"distance_decay": 1.0}, "distance_decay is 1.0; it must be at least 0"),
    ],
)
def test_bad_values_are_named(
    kind: type[ModelConfig], values: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


assert SHAPE == (6,)
