"""The contract that every world model must meet: those in WORLD_MODELS, and the example of one."""

from __future__ import annotations

import sys
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from afterwit.world_models import WORLD_MODELS, find_model, make_world_model
from afterwit.world_models.base import WorldModel
from afterwit.world_models.instruments import effective_rank
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.models.lpm import LPM
from afterwit.world_models.models.mix import Mix
from afterwit.world_models.registry import MIXTURES
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import (
    EMBEDDING,
    A,
    B,
    T,
    close,
    look,
    random_trajectory,
    seeded,
    tiny_spec,
    tiny_torso,
)
from tests.house.import_graph import SOURCE

sys.path.append(str(SOURCE / "examples"))
OWN = "my_bonus:Disagreement"
MODELS = {**WORLD_MODELS, **MIXTURES, OWN: find_model(OWN)}
UNTRAINED = ("re3",)
EVERYWHERE = tuple((t, b) for t in range(T + 1) for b in range(B))
IMAGE = (2, 9, 12)


def make(
    name: str,
    seed: int = 0,
    shape: tuple[int, ...] = (6,),
    encoder: str = "mlp",
    dtype: str = "float32",
) -> tuple[Torso, WorldModel]:
    torso = tiny_torso(seed, shape, encoder)
    config = MODELS[name].Config()
    return torso, seeded(
        lambda: make_world_model(config, torso, tiny_spec(shape, dtype=dtype), seed), seed + 100
    )


def see(pair: tuple[Torso, WorldModel], trajectory: Trajectory) -> WorldModelOutput:
    torso, model = pair
    output: WorldModelOutput = model(trajectory, *look(torso, trajectory))
    return output


def reconstruction(output: WorldModelOutput) -> Tensor:
    """The reward [T, B] without what depends on other environments, the invariance of z."""
    return output.parts.get("reconstruction", output.reward)


def warm_up(pair: tuple[Torso, WorldModel], trajectory: Trajectory) -> None:
    """Some bonuses compare with what was seen before, so the first batch is worth nothing."""
    for _ in range(2):
        if isinstance(pair[1], LPM | Mix):
            see(pair, trajectory)


def train(pair: tuple[Torso, WorldModel], seeds: range) -> torch.optim.Optimizer:
    torso, model = pair
    optimiser = torch.optim.Adam(
        [p for p in [*model.parameters(), *torso.parameters()] if p.requires_grad], 1e-3
    )
    for seed in seeds:
        out = see(pair, random_trajectory(seed=seed))
        optimiser.zero_grad()
        if out.loss.requires_grad:
            out.loss.backward()
        optimiser.step()
        model.after_step()
    return optimiser


def same(left: WorldModelOutput, right: WorldModelOutput) -> bool:
    return torch.equal(left.loss, right.loss) and torch.equal(left.reward, right.reward)


@pytest.mark.parametrize("name", MODELS)
class TestWorldModel:
    def test_it_is_made_from_its_config(self, name: str) -> None:
        _, model = make(name)
        assert type(model) is MODELS[name]

    @pytest.mark.parametrize("dtype", ("float32", "uint8"))
    @pytest.mark.parametrize("encoder", ("mlp", "resnet"))
    def test_reward_is_a_float_per_transition_without_gradient(
        self, name: str, encoder: str, dtype: str
    ) -> None:
        trajectory = random_trajectory(shape=IMAGE, dtype=getattr(torch, dtype))
        pair = make(name, 0, IMAGE, encoder, dtype)
        warm_up(pair, random_trajectory(seed=1, shape=IMAGE, dtype=getattr(torch, dtype)))
        out = see(pair, trajectory)
        assert (
            out.reward.shape == (T, B)
            and out.reward.dtype == torch.float32
            and not out.reward.requires_grad
        )
        assert not out.reward[~trajectory.real].any()
        paid = out.reward[trajectory.real] != 0
        assert bool(paid.any() if name == "noveld" else paid.all())
        assert out.loss.shape == () and bool(out.loss.isfinite())
        assert out.loss.requires_grad == (name not in UNTRAINED)
        assert all(
            value.shape == () and not value.requires_grad and bool(value.isfinite())
            for value in out.metrics.values()
        )
        assert all(part.shape == (T, B) and not part.requires_grad for part in out.parts.values())
        close(sum(out.parts.values(), torch.zeros(T, B)), out.reward)

    def test_the_seed_decides(self, name: str) -> None:
        trajectory, pairs = random_trajectory(), (make(name), make(name), make(name, 1))
        for pair in pairs:
            warm_up(pair, random_trajectory(seed=1))
        torch.manual_seed(1)
        left = see(pairs[0], trajectory)
        torch.manual_seed(2)  # nothing may draw from the global state
        assert same(left, see(pairs[1], trajectory))
        assert not same(left, see(pairs[2], trajectory))

    def test_the_global_random_state_is_left_alone(self, name: str) -> None:
        pair = make(name)
        before = torch.random.get_rng_state()
        see(pair, random_trajectory())
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_a_trajectory_of_resets_teaches_nothing(self, name: str) -> None:
        torso, model = pair = make(name)
        out = see(pair, random_trajectory(resets=EVERYWHERE))
        assert float(out.loss.detach()) == 0 and not out.reward.any()
        assert all(bool(value.isfinite()) for value in out.metrics.values())
        if name in UNTRAINED:
            return
        out.loss.backward()
        for p in [*model.parameters(), *torso.parameters()]:
            assert p.grad is None or not p.grad.any()  # NaN would count as any

    def test_one_environment_is_enough(self, name: str) -> None:
        trajectory = random_trajectory(batch=1, resets=((3, 0), (7, 0)))
        pair = make(name)
        warm_up(pair, random_trajectory(seed=1))
        out = see(pair, trajectory)
        if out.loss.requires_grad:
            out.loss.backward()
        assert (
            out.reward.shape == (T, 1)
            and bool(out.loss.isfinite())
            and bool(out.reward.isfinite().all())
        )
        assert not out.reward[~trajectory.real].any() and bool(out.reward.any())

    def test_every_trainable_parameter_gets_a_gradient(self, name: str) -> None:
        _, model = pair = make(name)
        if name in UNTRAINED:
            assert not any(p.requires_grad for p in model.parameters())
            return
        see(pair, random_trajectory()).loss.backward()
        for parameter, p in model.named_parameters():
            if p.requires_grad:
                assert p.grad is not None and bool(p.grad.isfinite().all()), parameter
                assert p.grad.any(), parameter
            else:
                assert p.grad is None, parameter

    def test_it_shapes_shared_beliefs_or_leaves_them_alone(self, name: str) -> None:
        torso, model = make(name)
        if name in UNTRAINED:
            pytest.skip("it trains nothing")
        trajectory = random_trajectory()
        beliefs, embeddings = (x.detach().requires_grad_() for x in look(torso, trajectory))
        model(trajectory, beliefs, embeddings).loss.backward()
        if not name.startswith("byol"):
            assert beliefs.grad is None and embeddings.grad is None
            return
        # A belief is trained where a real step starts from it: b_t with K = 1.
        assert beliefs.grad is not None
        assert (
            torch.equal(beliefs.grad[:-1].abs().sum(-1) > 0, trajectory.real)
            and not beliefs.grad[-1].any()
        )

    def test_environments_do_not_mix(self, name: str) -> None:
        """The reward of environment 0 does not depend on what environment 1 sees.

        The negatives of z are the exception.
        """
        trajectory = random_trajectory()
        obs = trajectory.obs.clone()
        obs[:, 1] += 1
        changed = Trajectory(**{**trajectory.__dict__, "obs": obs})
        left, right = (make(name) for _ in range(2))
        for _, model in (left, right):
            see((left[0], model), random_trajectory(seed=1))  # before, units are the batch's
            model.eval()
        out, other = see(left, trajectory), see(right, changed)
        part, other_part = reconstruction(out), reconstruction(other)
        close(other_part[:, [0, 2, 3, 4]], part[:, [0, 2, 3, 4]], 1e-6)
        assert not torch.allclose(other_part[:, 1], part[:, 1])

    def test_a_restored_model_goes_on_as_the_saved_one(self, name: str) -> None:
        torso, model = pair = make(name)
        optimiser = train(pair, range(3))
        saved = deepcopy(
            {
                "torso": torso.state_dict(),
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
        )
        expected = [see(pair, random_trajectory(seed=seed)) for seed in (7, 8)]
        other_torso, other_model = other = make(name, 5)
        see(other, random_trajectory(seed=3))
        other_torso.load_state_dict(saved["torso"])
        other_model.load_state_dict(saved["model"])
        assert all(
            same(see(other, random_trajectory(seed=seed)), out)
            for seed, out in zip((7, 8), expected, strict=True)
        )

    def test_what_is_seen_again_is_worth_less(self, name: str) -> None:
        pair = make(name)
        if pair[1].memory.names:
            pytest.skip("each episode begins anew; see test_episodic_memory.py")
        if name in ("disagreement", "ama", "lpm"):
            pytest.skip("at first it pays little; see below. LPM pays as long as the error falls")
        warm_up(pair, random_trajectory(seed=1))
        before = reconstruction(see(pair, random_trajectory(seed=0))).sum()
        for _ in range(100):
            train(pair, range(1))
        assert reconstruction(see(pair, random_trajectory(seed=0))).sum() < 0.8 * before


def test_a_config_of_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown world model config object"):
        make_world_model(object(), tiny_torso(), tiny_spec(), 0)  # type: ignore[arg-type]


def test_effective_rank_counts_directions() -> None:
    random = torch.Generator().manual_seed(0)

    def rank(vectors: Tensor) -> float:
        return float(effective_rank(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool)))

    assert rank(torch.randn(6, 40, 1, generator=random) * torch.ones(EMBEDDING)) == pytest.approx(
        1, abs=0.05
    )
    assert rank(torch.randn(5000, A, generator=random)) == pytest.approx(A, rel=0.01)
    two = (
        torch.randn(5000, 2, generator=random)
        @ torch.linalg.qr(torch.randn(A, 2, generator=random)).Q.T
    )
    assert rank(two) == pytest.approx(2, rel=0.05)
    assert rank(torch.ones(B, A)) == 0


@pytest.mark.parametrize("name", ["disagreement", "ama"])
def test_at_first_it_pays_little_and_in_the_end_nothing(name: str) -> None:
    """Members agree before they learn, and AMA expects a variance of 1."""
    pair, paid = make(name), []
    for _ in range(60):
        train(pair, range(1))
        paid.append(float(see(pair, random_trajectory(seed=0)).reward.abs().sum()))
    for _ in range(600):
        train(pair, range(1))
    after = float(see(pair, random_trajectory(seed=0)).reward.abs().sum())
    assert after < 0.5 * max(paid)
