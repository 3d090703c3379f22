"""PopArt: statistics against float64 loops, and outputs that an update does not change."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

from afterwit.agents.popart import PopArt
from afterwit.world_models.running_scale import RunningScale
from tests.helpers import B, T, close, random_trajectory, seeded

STEP = 0.05


def targets(seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    real = random_trajectory(resets=((seed, 0), (3, 1), (8, 2))).real
    return (3 + seed + 2 * torch.randn(T, B, generator=random)).masked_fill(~real, 1e6), real


def reference_moments(batches: list[tuple[Tensor, Tensor]], step: float) -> tuple[float, float]:
    """Mean and deviation from bias-corrected exponential averages of batch means."""
    first = second = 0.0
    for values, mask in batches:
        kept = np.array([float(values[t, b]) for t in range(T) for b in range(B) if mask[t, b]])
        first, second = (
            (1 - step) * first + step * kept.mean(),
            (1 - step) * second + step * (kept**2).mean(),
        )
    correction = 1 - (1 - step) ** len(batches)
    mean = first / correction
    return mean, float(np.sqrt(second / correction - mean**2))


def test_mean_and_deviation_follow_the_targets() -> None:
    scale, batches = RunningScale(1 - STEP), [targets(seed) for seed in range(6)]
    assert float(scale.mean) == 0 and float(scale.deviation) == 1  # before the first update
    for count, (values, mask) in enumerate(batches, 1):
        scale.update(values, mask)
        mean, deviation = reference_moments(batches[:count], STEP)
        assert float(scale.mean) == pytest.approx(mean, rel=1e-4)
        assert float(scale.deviation) == pytest.approx(deviation, rel=1e-3)


def test_updates_leave_the_outputs_where_they_were() -> None:
    popart = seeded(lambda: PopArt(6, STEP), 0)
    features = torch.randn(T, B, 6, generator=torch.Generator().manual_seed(1))
    for seed in range(5):
        values, mask = targets(seed)
        before, normalised = popart.denormalise(popart(features)), popart(features)
        popart.update(100 * values, mask)
        close(popart.denormalise(popart(features)), before, 1e-4)
        assert not torch.allclose(popart(features), normalised)


def test_normalise_and_denormalise_are_inverse_and_whiten_the_targets() -> None:
    popart = seeded(lambda: PopArt(6, STEP), 0)
    values, mask = targets(0)
    popart.update(values, mask)
    white = popart.normalise(values)[mask]
    assert float(white.mean()) == pytest.approx(0, abs=1e-4) and float(
        white.std(correction=0)
    ) == pytest.approx(1, abs=1e-3)
    close(popart.denormalise(white), values[mask], 1e-4)


def test_a_batch_of_resets_changes_nothing() -> None:
    popart = seeded(lambda: PopArt(6, STEP), 0)
    for _ in range(2):
        before = deepcopy(popart.state_dict())
        popart.update(torch.full((T, B), 1e6), torch.zeros(T, B, dtype=torch.bool))
        for name, value in popart.state_dict().items():
            close(value, before[name], 1e-7)
        popart.update(*targets(0))


def test_targets_that_never_vary_stay_finite() -> None:
    popart = seeded(lambda: PopArt(6, STEP), 0)
    for _ in range(3):
        popart.update(torch.zeros(T, B), torch.ones(T, B, dtype=torch.bool))
        assert bool(popart(torch.ones(6)).isfinite()) and bool(
            popart.normalise(torch.zeros(())).isfinite()
        )
