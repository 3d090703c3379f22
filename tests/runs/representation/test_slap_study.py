"""The study of SLAP: its pairs, its training in parts, its measures and its table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from afterwit.envs.atari_sound import SILENCE, spectrum
from afterwit.runs.representation.frame_log import FrameLog
from afterwit.runs.representation.slap_study import (
    AMONG,
    Pairs,
    add_batch_norm,
    judge,
    learn_slap,
    main,
    split,
)
from afterwit.world_models.objectives.slap import SLAP, SLAPConfig
from afterwit.world_models.torso import Encoder
from tests.helpers import EMBEDDING, tiny_torso_config

SHAPE, BANDS = (1, 24, 26), 9
CONFIG = SLAPConfig(hidden=16, projection=8)


def pairs(count: int = 40) -> Pairs:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return Pairs(pixels, random.random((count, BANDS), dtype=np.float32))


def learned(source: Pairs, steps: int = 4, micro_batches: int = 1, seed: int = 0) -> SLAP:
    torch.manual_seed(0)
    encoder = Encoder(tiny_torso_config("small"), SHAPE)
    rate, batch = 1e-3, 10
    return learn_slap(
        source, encoder, EMBEDDING, CONFIG, steps, batch, micro_batches, seed, rate, progress=False
    )


def log(steps: int = 12, batch: int = 4) -> FrameLog:
    """Frames and sounds that hold their step and environment."""
    place = np.arange(steps * batch).reshape(steps, batch)
    obs = np.broadcast_to(place[..., None, None, None], (steps, batch, 1, 6, 5)).astype(np.uint8)
    first = place // batch % 5 == 0
    wave = np.sin(2 * np.pi * np.arange(512) * 20 / 512)
    sound = SILENCE + 2 * place[..., None, None] * wave.reshape(1, 1, 1, 512)
    sound = np.repeat(sound, 2, 2).astype(np.uint8)
    nothing = np.zeros((steps, batch), np.int64)
    return FrameLog(obs, nothing, first, {}, {}, 3, sound, {})


def test_pairs_belong_together_and_no_environment_is_in_both() -> None:
    source = log()
    both = split(source, held_out=1)
    assert source.sound is not None
    for found, envs in zip(both, ((0, 1, 2), (3,)), strict=True):
        places = found.pixels[:, 0, 0, 0]
        assert {int(place) % 4 for place in places} == set(envs)
        assert all(int(place) // 4 % 5 for place in places)  # none only resets
        assert len(places) == len(envs) * 9
        heard = source.sound.reshape(-1, 2, 512)[places]
        assert np.array_equal(found.sound, spectrum(heard).reshape(len(places), -1))


def test_a_log_without_sound_is_refused() -> None:
    silent = log()
    object.__setattr__(silent, "sound", None)
    with pytest.raises(ValueError, match="the log has no sound; play with"):
        split(silent)
    with pytest.raises(ValueError, match="all 40 sounds are silent"):
        learned(pairs()._replace(sound=np.zeros((40, BANDS), np.float32)))


def test_parts_of_a_batch_train_the_same_model() -> None:
    whole, parts = learned(pairs()), learned(pairs(), micro_batches=3)  # 4, 3 and 3 pairs
    untrained, other = learned(pairs(), steps=0), learned(pairs(), seed=1)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, parts.state_dict()[name], atol=1e-5), name
    for another in (untrained, other):
        changed = zip(whole.parameters(), another.parameters(), strict=True)
        assert any(not torch.allclose(a, b, atol=1e-4) for a, b in changed)


def test_batch_norm_takes_away_what_all_vectors_share() -> None:
    source, model = pairs(AMONG), learned(pairs(AMONG), steps=0)
    before = judge(model, source)
    add_batch_norm(model)
    model.train()
    shapes = [[p.shape for p in part.parameters()] for part in (model.slow, *model.online)]
    assert shapes[0] == shapes[1] + shapes[2]  # so that the slow copies follow the right ones
    for p in (p for network in model.online for p in network.parameters()):
        assert p.requires_grad
    assert not any(p.requires_grad for p in model.slow.parameters())
    norms = [
        sum(isinstance(m, torch.nn.BatchNorm1d) for m in part.modules())
        for part in (model.pixels, model.sound, *model.predict, model.slow)
    ]
    assert norms == [1, 2, 1, 1, 3]
    assert judge(model, source)["spread sound"] > 5 * before["spread sound"]


def test_the_best_recall_counts_what_differs() -> None:
    source = pairs(AMONG * 2)
    source.sound[:] = source.sound[:1]
    source.sound[::2] += 1  # two sounds: at most two of 128 frames find their own
    found = judge(learned(source, steps=0), source)
    assert found["best recall"] == 2 / AMONG
    assert found["recall sound"] <= 2 / AMONG
    assert judge(learned(pairs(AMONG), 0), pairs(AMONG))["best recall"] == 1


def test_a_collapsed_model_is_seen_by_its_spread() -> None:
    model, source = learned(pairs(AMONG), steps=0), pairs(AMONG)
    before = judge(model, source)
    model.predict[1][-1].bias.data += 1e3  # every q of sound points the same way
    after = judge(model, source)
    assert after["spread sound"] < 1e-4 < 1e-3 < before["spread sound"]
    assert after["spread pixels"] == before["spread pixels"]
    assert after["rank sound"] > 2  # which a rank alone does not see


def test_the_study_writes_a_row_per_model(tmp_path: Path) -> None:
    main(tmp_path / "new" / "slap.csv", games=("Freeway",), steps=8 * 70, updates=1, batch=4)
    with (tmp_path / "new" / "slap.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["pairs"], float(row["inter_weight"])) for row in rows] == [
        *(("true", weight) for weight in (0, 0.2, 0.5, 0.8, 1, 0.5)),
        ("true, BatchNorm", 0.5),
        ("shuffled", 0.5),
        ("untrained", 0.5),
    ]
    for row in rows:
        weight = float(row["inter_weight"])
        mixed = weight * float(row["inter"]) + (1 - weight) * float(row["intra"])
        assert float(row["loss"]) == pytest.approx(mixed, rel=2e-3)
        assert 0 <= float(row["silent"]) < 1
