"""Instruments: each finds what is planted, and nothing if nothing is planted."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.agents.learner import Learner
from afterwit.agents.learner_config import LearnerConfig
from afterwit.envs.make import make_env
from afterwit.envs.maze import MazeConfig
from afterwit.envs.specs import EnvSpec
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.training.episode_statistics import Statistics, uniform_noise_share
from afterwit.world_models.instruments import alarm, effective_rank, explained_variance, spread
from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig
from afterwit.world_models.models.hindsight_critic import contrast
from tests.helpers import (
    BELIEF,
    EMBEDDING,
    A,
    B,
    T,
    close,
    random_trajectory,
    same,
    seeded,
    tiny_spec,
    tiny_torso,
)

LONG, WIDE = 60, 24  # enough steps and environments for a probe to be fitted
CONFIG = BYOLHindsightConfig(
    generator_reads="outcome", purity="critic", noise=4, latent=A, hidden=16, critic_embedding=8
)


def hindsight(config: BYOLHindsightConfig = CONFIG, spec: EnvSpec | None = None) -> BYOLHindsight:
    return seeded(lambda: BYOLHindsight(config, tiny_torso(), spec or tiny_spec(), 0), 1)


def everywhere(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def test_spread_is_the_error_of_the_best_guess_that_never_changes() -> None:
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(T, B, 3, generator=random) + 1
    mask = torch.rand(T, B, generator=random) < 0.7
    units = F.normalize(vectors, dim=-1)[mask]
    angles = torch.stack(
        torch.meshgrid(
            torch.linspace(0, math.pi, 60), torch.linspace(-math.pi, math.pi, 120), indexing="ij"
        ),
        -1,
    )
    polar, around = angles.flatten(0, 1).unbind(-1)
    guesses = torch.stack([polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()], -1)
    least = (units[:, None] - guesses).square().sum(-1).mean(0).min()
    assert least - 2e-3 < spread(vectors, mask) <= least
    close(spread(torch.ones(T, B, 3), everywhere(T, B)), torch.zeros(()))
    changed = torch.where(mask[..., None], vectors, -100.0)
    close(spread(changed, mask), spread(vectors, mask))


@pytest.mark.parametrize(("noise", "expected"), ((0.0, 1.0), (1.0, 0.5)))
def test_the_probe_tells_the_share_of_variance_that_is_linear(
    noise: float, expected: float
) -> None:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, WIDE, 5, generator=random)
    signal = inputs @ torch.eye(5, 3)
    outputs = 7 + 2 * (signal + noise * torch.randn(signal.shape, generator=random))
    assert explained_variance(inputs, outputs, everywhere(400, WIDE)).item() == pytest.approx(
        expected, abs=0.02
    )


def test_the_probe_finds_nothing_in_noise_and_does_not_boast_of_what_it_learnt_by_heart() -> None:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 20, 30, generator=random)
    outputs = torch.randn(4, 20, 2, generator=random)
    # 30 weights from 40 rows fit those rows well
    assert explained_variance(inputs, outputs, everywhere(4, 20)).item() < 0
    inputs = torch.randn(200, WIDE, 5, generator=random)
    outputs = torch.randn(200, WIDE, 2, generator=random)
    assert abs(explained_variance(inputs, outputs, everywhere(200, WIDE)).item()) < 0.02


def test_the_probe_reads_only_where_the_mask_is() -> None:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(LONG, WIDE, 4, generator=random)
    mask = torch.rand(LONG, WIDE, generator=random) < 0.5
    outputs = torch.where(
        mask[..., None], inputs, 1e4 * torch.randn(inputs.shape, generator=random)
    )
    assert explained_variance(inputs, outputs, mask).item() > 0.99
    assert explained_variance(inputs, outputs, everywhere(LONG, WIDE)).item() < 0.5
    assert math.isnan(explained_variance(inputs, torch.ones(LONG, WIDE, 2), mask).item())
    assert math.isnan(explained_variance(inputs, outputs, torch.zeros_like(mask)).item())


def test_the_alarm_names_what_collapsed() -> None:
    healthy = {
        "rank/embedding": 20.0,
        "rank/belief": 9.0,
        "spread/target": 0.4,
        "leak/critic": 0.0,
        "use/latent": 1.0,
    }
    assert alarm(healthy) == []
    assert alarm(healthy | {"rank/embedding": 1.5}) == ["the rank of the embedding is 1.5, below 2"]
    assert alarm(healthy | {"spread/target": 0.001}) == [
        "the spread of the target is 0.001, below 0.01"
    ]
    assert len(alarm(healthy | {"rank/belief": math.nan})) == 1


# --- what BYOL-Hindsight's instruments find


def readings(
    generate: Callable[[Tensor, Tensor], Tensor],
    reconstruct: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """The instruments of a model with a planted generator and, optionally, reconstructor.

    The generator maps (s, target) to z. The reconstructor maps (b, z) to the outcome.
    """
    model = hindsight()
    model.generate = lambda state, foreseen, target: (  # type: ignore[method-assign]
        generate(state, target),
        torch.zeros_like(target[..., 0]),
    )
    if reconstruct is not None:
        model.reconstruct = lambda ahead, latent, foreseen: reconstruct(  # type: ignore[method-assign]
            ahead, latent
        )
    trajectory = random_trajectory(LONG, WIDE, resets=((0, 0), (9, 1), (10, 1), (30, 5)))
    beliefs = torch.randn(LONG + 1, WIDE, BELIEF, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), model.watching():
        return {
            name: float(value)
            for name, value in model.inspect(trajectory, beliefs, torch.empty(0)).items()
        }


def independent(state: Tensor, target: Tensor) -> Tensor:
    return torch.randn(*state.shape[:-1], A, generator=torch.Generator().manual_seed(7))


def test_a_latent_that_is_the_action_is_found_out() -> None:
    found = readings(lambda state, target: state[..., BELIEF:])
    assert found["leak/action_from_latent"] > 0.99
    assert found["leak/place_from_latent"] < 0.1


def test_a_latent_that_is_the_place_is_found_out() -> None:
    # of the belief's 10 numbers as many as z has
    found = readings(lambda state, target: state[..., :A])
    assert found["leak/place_from_latent"] == pytest.approx(A / BELIEF, abs=0.1)
    assert found["leak/action_from_latent"] < 0.1


def test_a_latent_of_noise_leaks_nothing() -> None:
    found = readings(independent)
    for name in (
        "leak/action_from_latent",
        "leak/place_from_latent",
        "leak/action_from_noise",
        "leak/place_from_noise",
    ):
        assert abs(found[name]) < 0.1, name
    assert found["leak/critic"] < 0.05  # untrained, it is below 0: a bound from beneath


def test_use_tells_whether_the_reconstruction_listens_to_z() -> None:
    use = readings(
        lambda state, target: target[..., :A],
        lambda ahead, latent: F.pad(latent, (0, EMBEDDING - A)),
    )
    assert use["use/latent"] > 1.5
    unused = readings(independent, lambda ahead, latent: ahead @ torch.ones(BELIEF, EMBEDDING))
    assert unused["use/latent"] == pytest.approx(1.0)


def test_the_rank_of_z_counts_its_directions() -> None:
    line = readings(lambda state, target: independent(state, target)[..., :1].repeat(1, 1, 1, A))
    assert line["rank/latent"] == pytest.approx(1.0, abs=0.05)
    assert readings(independent)["rank/latent"] > A - 0.5


def test_a_critic_that_knows_reads_as_a_share_of_log_n() -> None:
    model = hindsight()
    model.critic.forward = lambda state, latent: (
        50 * torch.eye(state.shape[-2]).expand(*state.shape[:-1], state.shape[-2])
    )  # type: ignore[method-assign]
    with torch.no_grad():
        found = model.inspect(
            random_trajectory(LONG, WIDE), torch.randn(LONG + 1, WIDE, BELIEF), torch.empty(0)
        )
    close(found["leak/critic"], torch.ones(()), 1e-4)


def test_in_a_world_of_cells_the_place_is_the_row_and_column_before_the_action() -> None:
    trajectory = random_trajectory()
    cell = torch.randint(0, 21, (T, B), generator=torch.Generator().manual_seed(0))
    trajectory = replace(trajectory, info={"cell": cell})
    place, known = hindsight(spec=replace(tiny_spec(), semantics={"map": (3, 7)})).place(
        trajectory, torch.zeros(T + 1, B, BELIEF)
    )
    assert not known[0].any() and torch.equal(known[1:], trajectory.real[1:])
    for t in range(1, T):
        for b in range(B):
            assert place[t, b].tolist() == [cell[t - 1, b] // 7, cell[t - 1, b] % 7]


@pytest.mark.parametrize("size", (2, B, 4 * B))
def test_contrasts_are_over_groups_of_the_size_that_is_asked_for(size: int) -> None:
    batch = 6 if size == 2 else B
    model = hindsight(replace(CONFIG, contrast_size=size))
    random = torch.Generator().manual_seed(0)
    state = torch.randn(3, T, batch, BELIEF + A, generator=random)
    latent = torch.randn(3, T, batch, A, generator=random)
    valid = torch.rand(3, T, batch, generator=random) < 0.8
    assert model.invariance is not None
    found = model.invariance.of_pairs(state, latent, valid)
    for k in range(3):
        flat = [(t, b) for t in range(T) for b in range(batch)]
        for start in range(0, len(flat), size):
            t, b = map(list, zip(*flat[start : start + size], strict=True))
            close(
                found[k, t, b],
                contrast(model.critic(state[k, t, b], latent[k, t, b]), valid[k, t, b]),
            )


def test_a_contrast_that_does_not_divide_the_pairs_is_named() -> None:
    trajectory, beliefs = random_trajectory(), torch.zeros(T + 1, B, BELIEF)
    with pytest.raises(
        ValueError, match=rf"contrast_size is 7, but {B} environments x {T} steps are {B * T} pairs"
    ):
        hindsight(replace(CONFIG, contrast_size=7))(trajectory, beliefs, torch.empty(0))
    with pytest.raises(
        ValueError, match=r"contrast_size is 7, but 4 environments x 5 steps are 20 pairs"
    ):
        RunConfig(
            env=MazeConfig(num_envs=4),
            unroll_length=5,
            learner=LearnerConfig(world_model=replace(CONFIG, contrast_size=7)),
        )


# --- the learner's and the run's instruments


def test_inspecting_leaves_no_trace() -> None:
    spec = tiny_spec()
    learner = Learner(LearnerConfig(world_model=CONFIG), spec, 0, torch.device("cpu"))
    trajectory = random_trajectory(belief=learner.policy.torso.config.belief)
    before = deepcopy(learner.state_dict())
    found = learner.inspect(trajectory)
    assert {
        "rank/embedding",
        "rank/belief",
        "rank/latent",
        "spread/target",
        "leak/critic",
        "use/latent",
    } <= found.keys()
    assert all(value.shape == () and not value.requires_grad for value in found.values())
    assert same(dict(learner.state_dict()), dict(before))
    again = learner.inspect(trajectory)
    assert all(torch.equal(again[name], value) for name, value in found.items() if value.isfinite())


def test_who_does_not_care_is_measured_by_a_uniform_policy() -> None:
    quiet, noisy, shown = (
        MazeConfig(num_envs=8, noise=noise, episode_steps=60)
        for noise in ("none", "on-demand", "brownian")
    )
    assert uniform_noise_share(quiet, make_env(quiet, 0).spec) is None
    assert uniform_noise_share(noisy, make_env(noisy, 0).spec) == 1 / 5
    env = make_env(shown, 11)
    random, near, real = np.random.default_rng(5), 0, 0
    env.reset()
    for _ in range(4000):
        step = env.step(random.integers(0, 5, 8))
        near += int(step.info["block_in_view"][~step.first].sum())
        real += int((~step.first).sum())
    assert uniform_noise_share(shown, env.spec) == pytest.approx(near / real, abs=0.03)


def test_noise_share_and_seeking_are_ratios_over_real_steps() -> None:
    spec = replace(tiny_spec(num_actions=5), semantics={"noise_action": 0})
    statistics = Statistics(spec, 1000, noise_share=1 / 5)
    trajectory = random_trajectory(num_actions=5)
    noise_on = torch.rand(T, B, generator=torch.Generator().manual_seed(2)) < 0.4
    trajectory = replace(
        trajectory, info={"noise_on": noise_on, "block_in_view": torch.zeros_like(noise_on)}
    )
    bonus = torch.rand(T, B, generator=torch.Generator().manual_seed(3)) * trajectory.real
    statistics.add(trajectory, bonus, 0)
    entry, real = statistics.pop(), trajectory.real
    paid, time = bonus[real & noise_on].sum() / bonus.sum(), (real & noise_on).sum() / real.sum()
    assert entry["noise/share"] == pytest.approx(float(paid / time), rel=1e-5)
    gain = bonus[real & noise_on].mean() - bonus[real & ~noise_on].mean()
    assert entry["noise/gain"] == pytest.approx(
        float(gain / bonus[real].square().mean().sqrt()), rel=1e-5
    )
    assert entry["noise/seeking"] == pytest.approx(
        float((trajectory.action[real] == 0).float().mean()) * 5, rel=1e-5
    )


def test_noise_that_pays_nothing_on_average_has_a_share_and_no_gain() -> None:
    """A bonus that swings about zero is paid above it half of the time, and below it the other."""
    statistics, trajectory = Statistics(tiny_spec(), 1000), random_trajectory(resets=())
    noise_on = torch.arange(T * B).view(T, B) % 4 < 2
    info = {"noise_on": noise_on, "block_in_view": torch.zeros_like(noise_on)}
    swing = torch.where(noise_on, 1 - 2.0 * (torch.arange(T * B).view(T, B) % 2), 0.0)
    statistics.add(replace(trajectory, info=info), swing, 0)
    kept = statistics.state()
    entry = statistics.pop()
    assert entry["noise/share"] == pytest.approx(T * B / int(noise_on.sum()))
    assert entry["noise/gain"] == pytest.approx(0, abs=1e-6)
    other = Statistics(tiny_spec(), 1000)
    other.load_state(kept)
    assert other.pop() == entry


def test_a_rank_that_cannot_be_computed_is_no_number_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(matrix: Tensor) -> Tensor:
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigvalsh", fail)
    assert effective_rank(torch.randn(5, 3), everywhere(5)).isnan()
