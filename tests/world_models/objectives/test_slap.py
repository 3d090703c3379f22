"""SLAP, the modality gap, retrieval, and gradients in parts."""

from __future__ import annotations

from copy import deepcopy
from math import erf, sqrt

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.world_models.objectives.micro_batches import accumulate
from afterwit.world_models.objectives.slap import (
    SLAP,
    SLAPConfig,
    apart,
    centroid_distance,
    recall,
    separability,
)
from afterwit.world_models.torso import Encoder
from tests.helpers import EMBEDDING, tiny_torso_config

SHAPE, SOUND = (1, 24, 26), 9


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slap(**options: float) -> SLAP:
    torch.manual_seed(0)
    encoder = Encoder(tiny_torso_config(), SHAPE)
    config = SLAPConfig(hidden=32, projection=16, **options)  # type: ignore[arg-type]
    return SLAP(config, encoder, EMBEDDING, SOUND)


def pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pixels and sound that share a hidden number."""
    hidden = drawn(count, 4, seed=seed)
    frames = torch.sigmoid(hidden @ drawn(4, 24 * 26, seed=90)).view(count, *SHAPE)
    return (frames * 255).to(torch.uint8), torch.tanh(hidden @ drawn(4, SOUND, seed=91))


def test_the_loss_is_the_weighted_sum_of_four_cosines() -> None:
    model = slap(inter_weight=0.3)
    for p in model.slow.parameters():
        p.data += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    pixels, sound = pairs(5)
    loss, parts = model(pixels, sound)
    q = [model.predict[0](model.pixels(pixels)), model.predict[1](model.sound(sound))]
    y = [model.slow[0](pixels), model.slow[1](sound)]

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).mean()

    inter = 2 - cosine(q[0], y[1]) - cosine(q[1], y[0])
    intra = 2 - cosine(q[0], y[0]) - cosine(q[1], y[1])
    assert torch.allclose(parts["inter"], inter, atol=1e-5)
    assert torch.allclose(parts["intra"], intra, atol=1e-5)
    assert torch.allclose(loss, 0.3 * inter + 0.7 * intra, atol=1e-5)
    # the published code has halves of 2 - 2 cos
    assert torch.allclose(apart(q[0], y[1]), (2 - 2 * F.cosine_similarity(q[0], y[1])) / 2)


@pytest.mark.parametrize(("weight", "other"), [(1.0, "sound"), (0.0, "pixels")])
def test_the_weight_is_that_of_the_loss_between_modalities(weight: float, other: str) -> None:
    """At 1 the pixels' gradient depends on the sound's target; at 0 it does not."""

    def gradient(change: bool) -> Tensor:
        model = slap(inter_weight=weight)
        if change:
            for p in model.slow[1].parameters():
                p.data += 0.1
        model(*pairs(5))[0].backward()
        found = model.predict[0][0].weight.grad
        assert found is not None
        return found

    same = torch.allclose(gradient(False), gradient(True), atol=1e-7)
    assert same == (other == "pixels")


def test_targets_get_no_gradient_and_follow() -> None:
    model = slap(target_decay=0.9)
    model(*pairs(5))[0].backward()
    assert all(p.grad is None for p in model.slow.parameters())
    for p in [*model.pixels.parameters(), *model.sound.parameters()]:
        p.data += 1
    before = [p.clone() for p in model.slow.parameters()]
    model.after_step()
    online = [p for network in model.online for p in network.parameters()]
    for old, new, now in zip(before, model.slow.parameters(), online, strict=True):
        assert torch.allclose(new, 0.9 * old + 0.1 * now, atol=1e-6)


def trained(weight: float, shuffled: bool = False) -> tuple[Tensor, Tensor]:
    """Embeddings of 256 new pairs after training."""
    model = slap(inter_weight=weight, target_decay=0.99)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    for step in range(400):
        pixels, sound = pairs(64, seed=step)
        if shuffled:
            sound = sound[torch.randperm(64, generator=torch.Generator().manual_seed(step))]
        optimiser.zero_grad()
        model(pixels, sound)[0].backward()
        optimiser.step()
        model.after_step()
    return model.embed(*pairs(256, seed=999))


def test_it_relates_the_modalities_only_through_the_loss_between_them() -> None:
    assert recall(*trained(0.5)) > 0.05  # chance: 0.008
    assert recall(*trained(0.0)) < 0.04
    assert recall(*trained(0.5, shuffled=True)) < 0.04


def test_the_gap_of_equal_clouds_is_none() -> None:
    one, two = drawn(2000, 5), drawn(2000, 5, seed=1)
    assert centroid_distance(one, one) == 0
    assert separability(one, two) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_two_gaussians_are_told_apart_as_often_as_possible(distance: float) -> None:
    one, two = drawn(4000, 3), drawn(4000, 3, seed=1)
    two[:, 1] += distance
    best = 0.5 * (1 + erf(distance / 2 / sqrt(2)))  # Phi(D / 2)
    assert separability(one, two) == pytest.approx(best, abs=0.02)
    assert centroid_distance(one, two) == pytest.approx(distance, abs=0.1)


def test_recall_finds_partners_and_chance() -> None:
    one = F.normalize(drawn(512, 16), dim=-1)
    assert recall(one, one) == 1
    assert recall(one, one.roll(1, 0)) < 0.05
    with pytest.raises(ValueError, match="there are 100 pairs"):
        recall(one[:100], one[:100])


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_slap_s_gradient_is_the_sum_over_parts(parts: int) -> None:
    model, pixels_sound = slap(), pairs(10)
    other = deepcopy(model)
    loss = model(*pixels_sound)[0]
    loss.backward()
    total = accumulate(lambda *part: other(*part)[0], pixels_sound, parts)
    assert torch.allclose(total, loss.detach(), atol=1e-6)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        if one.requires_grad:
            assert one.grad is not None
            assert two.grad is not None
            assert torch.allclose(one.grad, two.grad, atol=1e-6)


def test_a_contrast_s_gradient_is_not() -> None:
    def contrast(a: Tensor, b: Tensor) -> Tensor:
        return F.cross_entropy(layer(a) @ b.T, torch.arange(len(a)))

    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 6)
    batch = drawn(8, 6), drawn(8, 6, seed=1)
    contrast(*batch).backward()
    whole = layer.weight.grad.clone() if layer.weight.grad is not None else torch.zeros(())
    layer.zero_grad()
    accumulate(contrast, batch, 4)
    assert layer.weight.grad is not None
    assert (layer.weight.grad - whole).norm() > 0.1 * whole.norm()


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"inter_weight is 1.5; it must lie between 0 and 1"):
        SLAPConfig(inter_weight=1.5)
    with pytest.raises(ValueError, match="hidden is 0; it must be at least 1"):
        SLAPConfig(hidden=0)
    with pytest.raises(ValueError, match="micro_batches is 9; it must be from 1 to the 4 samples"):
        accumulate(lambda x: x.mean(), [torch.zeros(4)], 9)


def test_the_published_settings() -> None:
    config = SLAPConfig.published()
    assert (config.inter_weight, config.target_decay) == (0.5, 0.95)
    assert (config.hidden, config.projection) == (4096, 512)
