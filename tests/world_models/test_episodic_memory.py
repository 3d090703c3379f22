"""Memory that belongs to an environment: it goes on over unrolls, and nothing counts twice."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from afterwit.agents import Learner, LearnerConfig, PolicyConfig
from afterwit.world_models import WORLD_MODELS, IntrinsicReward
from afterwit.world_models.base import ModelConfig, WorldModel
from afterwit.world_models.episodic_memory import EpisodicMemory, EpisodicRing, EpisodicVisits
from afterwit.world_models.registry import MIXTURES, make_world_model
from afterwit.world_models.trajectory import Trajectory, join_trajectories
from tests.helpers import (
    B,
    T,
    close,
    look,
    random_trajectory,
    seeded,
    tiny_spec,
    tiny_torso,
    tiny_torso_config,
)
from tests.world_models.curiosities import ACTIONS, VECTOR


def make(config: ModelConfig) -> WorldModel:
    return seeded(lambda: make_world_model(config, tiny_torso(), tiny_spec(), 3), 3)


MODELS = {**WORLD_MODELS, **MIXTURES}
EPISODIC = [name for name, model in MODELS.items() if make(model.Config()).memory.names]


def pay(model: WorldModel, trajectory: Trajectory) -> Tensor:
    reward: Tensor = model(trajectory, *look(tiny_torso(), trajectory)).reward
    return reward


def frozen(name: str) -> WorldModel:
    """A model that has seen something, and whose statistics stand still from now on."""
    model = make(MODELS[name].Config())
    pay(model, random_trajectory(seed=9))
    return remembering(model.eval())


def remembering(model: WorldModel) -> WorldModel:
    """The model, whose memory alone is in training mode."""
    for module in model.modules():
        if isinstance(module, EpisodicMemory):
            module.train()
    return model


def repeating(seed: int = 0, length: int = 40) -> Trajectory:
    """A stream in which observations come again, with episodes of many lengths."""
    resets = ((0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (9, 1), (10, 1), (17, 3), (30, 0), (40, 2))
    whole = random_trajectory(seed=seed, length=length, resets=resets)
    which = torch.randint(0, 6, (length + 1, B), generator=torch.Generator().manual_seed(seed))
    return replace(whole, obs=whole.obs[:6, 0][which])


def cut(whole: Trajectory, length: int) -> list[Trajectory]:
    """The stream in unrolls of `length` steps, which overlap by one observation."""
    pieces = []
    for start in range(0, len(whole.action), length):
        rows, steps = slice(start, start + length + 1), slice(start, start + length)
        pieces.append(
            replace(
                whole,
                obs=whole.obs[rows],
                first=whole.first[rows],
                **{
                    name: getattr(whole, name)[steps]
                    for name in ("action", "behaviour", "reward", "terminal")
                },
            )
        )
    return pieces


def columns(whole: Trajectory, index: list[int], environments: list[int]) -> Trajectory:
    """These columns, as those of the run's `environments`."""
    return replace(
        whole,
        **{
            name: getattr(whole, name)[:, index]
            for name in ("obs", "first", "action", "behaviour", "reward", "terminal")
        },
        core=whole.core[index],
        prev_action=whole.prev_action[index],
        environments=torch.tensor(environments),
    )


@pytest.mark.parametrize("name", EPISODIC)
class TestEpisodicModel:
    @pytest.mark.parametrize("length", [1, 5, 20])
    def test_a_stream_may_be_cut_anywhere(self, name: str, length: int) -> None:
        whole = repeating()
        expected = pay(frozen(name), whole)
        model = frozen(name)
        close(torch.cat([pay(model, piece) for piece in cut(whole, length)]), expected, 1e-4)

    def test_rows_follow_their_environments(self, name: str) -> None:
        """Columns in another order, and by two actors in turn, are paid as in one batch."""
        whole = repeating()
        expected, model = pay(frozen(name), whole), frozen(name)
        for index, piece in enumerate(cut(whole, 8)):
            order = [4, 2, 0, 1, 3] if index % 2 else [1, 0, 3, 4, 2]
            for part in (order[:2], order[2:]):
                paid = pay(model, columns(piece, part, [7 + column for column in part]))
                close(paid, expected[8 * index : 8 * index + 8, part], 1e-4)

    def test_what_the_episode_has_seen_is_worth_less(self, name: str) -> None:
        whole = random_trajectory(length=20, resets=tuple((0, b) for b in range(B)))
        again = torch.cat([whole.obs[:11], whole.obs[1:11]])
        reward = pay(frozen(name), replace(whole, obs=again))
        # RIDE also pays the way back from obs[10] to obs[1]
        assert float(reward[11:20].sum()) < 0.9 * float(reward[1:10].sum())

    def test_asking_twice_counts_once(self, name: str) -> None:
        first, second = cut(repeating(), 20)
        model, other = frozen(name), frozen(name)
        pay(model, first)
        with other.watching():
            pay(other, second)
        remembering(other)
        pay(other, first)
        with other.watching():
            twice = [pay(other, second) for _ in range(2)]
        assert torch.equal(*twice) and torch.equal(twice[0], pay(model, second))

    def test_memory_is_saved_with_the_model(self, name: str) -> None:
        first, second = cut(repeating(), 20)
        model = frozen(name)
        pay(model, first)
        fresh = make(MODELS[name].Config())
        pay(fresh, random_trajectory(seed=2, batch=3, resets=()))
        fresh.load_state_dict(model.state_dict())
        fresh.eval()
        assert torch.equal(pay(fresh, second), pay(model, second))

    def test_what_did_not_happen_changes_nothing(self, name: str) -> None:
        """The observation of a reset step's start is the old episode's last; its action is void."""
        whole = repeating()
        other = replace(whole, action=torch.where(whole.real, whole.action, 0))
        close(pay(frozen(name), other), pay(frozen(name), whole))

    def test_the_facade_carries_it_in_its_state(self, name: str) -> None:
        rng = np.random.default_rng(0)
        views = rng.normal(size=(6, *VECTOR.shape)).astype(np.float32)
        obs = views[rng.integers(6, size=(21, 4))]
        actions, dones = rng.integers(0, ACTIONS.n, (20, 4)), rng.random((20, 4)) < 0.1
        curiosity = IntrinsicReward(name, VECTOR, ACTIONS, seed=0)
        curiosity.update(obs, actions, dones)
        before = {key: value.clone() for key, value in curiosity.modules.state_dict().items()}
        state = curiosity.initial_state(4)
        whole, _ = curiosity.reward(obs, actions, dones, state=state)
        parts = []
        for start in range(0, 20, 5):
            rows, steps = slice(start, start + 6), slice(start, start + 5)
            bonus, state = curiosity.reward(obs[rows], actions[steps], dones[steps], state=state)
            parts.append(bonus)
        after = curiosity.modules.state_dict()
        assert all(torch.equal(after[key], value) for key, value in before.items())
        # the normaliser sees each call's own rewards, so compare within units of its deviation
        assert np.corrcoef(np.concatenate(parts).ravel(), whole.ravel())[0, 1] > 0.99

    def test_a_resumed_learner_pays_what_an_uninterrupted_one_pays(self, name: str) -> None:
        config = LearnerConfig(
            torso=tiny_torso_config(),
            policy=PolicyConfig(hidden=8),
            world_model=MODELS[name].Config(),
        )

        def learner(seed: int) -> Learner:
            return Learner(config, tiny_spec(), seed, torch.device("cpu"))

        pieces = cut(repeating(), 8)
        one, two = learner(0), learner(1)
        for piece in pieces[:3]:
            one.update(piece)
        two.load_state(deepcopy(one.state()))
        for piece in pieces[3:]:
            assert torch.equal(one.update(piece)["bonus"], two.update(piece)["bonus"])


def test_visits_are_those_of_a_counter() -> None:
    whole = repeating()
    visits = EpisodicVisits(64, 6, 0)
    counted = torch.cat([visits(piece)[1:] for piece in cut(whole, 7)])
    seen: list[Counter[bytes]] = [Counter() for _ in range(B)]
    for t in range(len(whole.first)):
        for b in range(B):
            if whole.first[t, b]:
                seen[b].clear()
            key = whole.obs[t, b].numpy().tobytes()
            seen[b][key] += 1
            if t:
                assert counted[t - 1, b] == seen[b][key]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_keys_tell_observations_apart_by_one_number(dtype: torch.dtype) -> None:
    visits = EpisodicVisits(4, 300, 0)
    obs = torch.zeros(1, 301, 300, dtype=dtype)
    obs[0, torch.arange(300), torch.arange(300)] = 1
    assert len(visits.keys(obs).unique()) == 301
    many = torch.randint(0, 2, (1, 5000, 300)).to(dtype)
    assert len(visits.keys(many).unique()) == len(many[0].unique(dim=0))
    low = (visits.keys(many)[0] & 0xFFFFFF).unique()
    assert len(low) > 4900  # also the low bits differ
    assert torch.equal(visits.keys(-torch.zeros(1, 1, 300)), visits.keys(torch.zeros(1, 1, 300)))


def test_a_ring_forgets_the_oldest() -> None:
    ring = EpisodicRing(3, (1,))
    rows = ring.blank_rows(1)
    for number in range(5):
        assert int(ring.filled(rows).sum()) == min(number, 3)
        ring.insert(rows, torch.tensor([[float(number)]]), torch.tensor([True]))
    ring.insert(rows, torch.tensor([[9.0]]), torch.tensor([False]))
    assert sorted(rows["entries"].flatten().tolist()) == [2, 3, 4]
    ring.clear(rows, torch.tensor([True]))
    assert not ring.filled(rows).any()


def test_rows_grow_with_the_environments_that_are_seen() -> None:
    memory = EpisodicMemory({"row": torch.full((2,), 7.0)})
    trajectory = replace(random_trajectory(), environments=torch.tensor([9, 0, 3, 2, 1]))
    rows = memory.recall(trajectory)
    assert rows["row"].shape == (B, 2) and bool((rows["row"] == 7).all())
    rows["row"][0] = 1
    memory.keep(trajectory, rows)
    assert memory.row.shape == (10, 2) and bool((memory.row[9] == 1).all())
    assert memory.row[:9].eq(7).all()
    with memory.lending(memory.blank_rows(B)):
        assert memory.recall(trajectory)["row"].eq(7).all()
        memory.keep(trajectory, {"row": torch.zeros(B, 2)})
    assert bool((memory.row[9] == 1).all())


def test_a_memory_of_nothing_holds_nothing() -> None:
    memory = EpisodicMemory()
    memory.keep(random_trajectory(), memory.recall(random_trajectory()))
    assert memory.state_dict() == {} and memory.blank_rows(3) == {}


def test_environments_are_joined_with_their_trajectories() -> None:
    parts = [
        replace(random_trajectory(seed=n), environments=torch.arange(B) + n * B) for n in (2, 0)
    ]
    joined = join_trajectories(parts)
    assert joined.rows.tolist() == [*range(2 * B, 3 * B), *range(B)]
    assert Trajectory(**joined.state()).rows.tolist() == joined.rows.tolist()
    assert random_trajectory().rows.tolist() == list(range(B)) and T > 1


def test_a_state_of_another_memory_is_refused() -> None:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(6, 4, *VECTOR.shape)).astype(np.float32)
    actions, dones = rng.integers(0, ACTIONS.n, (5, 4)), np.zeros((5, 4), bool)
    states = {}
    for name in ("ride", "ngu", "rnd"):
        curiosity = IntrinsicReward(name, VECTOR, ACTIONS, seed=0)
        _, states[name] = curiosity.reward(obs, actions, dones, state=curiosity.initial_state(4))
    for name in ("ride", "ngu", "rnd"):
        curiosity = IntrinsicReward("e3b", VECTOR, ACTIONS, seed=0)
        with pytest.raises(ValueError, match="state is the state of 4 environments; it must come"):
            curiosity.reward(obs, actions, dones, state=states[name])
