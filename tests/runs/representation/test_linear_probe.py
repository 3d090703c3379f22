"""Linear probes: scores by hand, one layer that equals separate probes, and fair splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from afterwit.runs.representation.linear_probe import (
    ProbeConfig,
    Schedule,
    batches,
    majority,
    probe,
    standardised,
    weighted_f1,
)
from afterwit.runs.representation.log_split import (
    Parts,
    entropy,
    episodes_of,
    split,
    usable_targets,
)
from tests.runs.representation.logs import made_up


@pytest.mark.parametrize(
    ("truth", "guess", "score"),
    [
        ([0, 1, 2], [0, 1, 2], 1.0),
        ([0, 0, 1], [1, 1, 0], 0.0),
        # class 0: 2 hits, 3 true, 2 guessed, F1 4/5; class 1: 1 hit, 1 true, 2 guessed, F1 2/3
        ([0, 0, 0, 1], [0, 0, 1, 1], (3 * 4 / 5 + 2 / 3) / 4),
        # one guess for all: F1 2*3/(3+4) with weight 3/4
        ([5, 5, 5, 9], [5, 5, 5, 5], 0.75 * 6 / 7),
        # a class that is guessed and never true has no weight, but takes from the others
        ([1, 1], [1, 7], 2 / 3),
    ],
)
def test_f1_by_hand(truth: list[int], guess: list[int], score: float) -> None:
    assert weighted_f1(np.array(truth), np.array(guess)) == pytest.approx(score)


def test_the_schedule_is_that_of_pytorch() -> None:
    random = np.random.default_rng(0)
    config = ProbeConfig(patience=1000)
    ours, parameter = Schedule(config), torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=config.rate)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=0.2, patience=5, min_lr=1e-5
    )
    rates = []
    for epoch in range(60):
        accuracy = float(np.clip(epoch / 30, 0, 0.7) + random.integers(0, 4) / 20)
        ours.follow(accuracy)
        theirs.step(accuracy)
        rates.append(ours.rate)
        assert ours.rate == pytest.approx(optimiser.param_groups[0]["lr"])
    assert len(set(rates)) > 2


def test_a_label_stops_after_its_patience() -> None:
    schedule = Schedule(ProbeConfig(patience=3))
    for accuracy in (0.1, 0.4, 0.4, 0.3):
        schedule.follow(accuracy)
    assert not schedule.stopped
    schedule.follow(0.4)  # not better: the third in a row
    assert schedule.stopped


def fixed(length: int = 20, episodes: int = 20) -> Parts:
    frames = np.split(np.arange(length * episodes), episodes)
    cut, end = int(0.7 * episodes), int(0.8 * episodes)
    return Parts(frames[:cut], frames[cut:end], frames[end:], np.arange(length * episodes))


def test_one_layer_for_all_labels_equals_separate_probes() -> None:
    """Also though the labels stop after different numbers of epochs."""
    random = np.random.default_rng(3)
    parts = fixed()
    features = torch.from_numpy(random.normal(size=(400, 6))).float()
    targets = {
        "easy": (features[:, 0] > 0).long().numpy(),
        "hard": random.integers(0, 5, 400),
        "wide": (features[:, 1] * 3).round().long().numpy() + 40,
    }
    config = ProbeConfig(rate=0.02, batch=16, epochs=12, patience=2, plateau=1)

    def table(frames: torch.Tensor) -> torch.Tensor:
        return features[frames]

    # the same draws in both: all parts have whole batches, and draws do not depend on the labels
    joint = probe(table, 6, targets, parts, replace(config, patience=99), 0)
    for name, values in targets.items():
        alone = probe(table, 6, {name: values}, parts, replace(config, patience=99), 0)
        assert alone[name] == pytest.approx(joint[name], abs=1e-6), name
    stopping = probe(table, 6, targets, parts, config, 0)
    assert stopping != joint  # some label did stop
    assert stopping["easy"] > 0.8


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    random = np.random.default_rng(1)
    parts, values = fixed(40), random.integers(0, 4, 800)
    config = ProbeConfig(rate=0.05, batch=16, epochs=15)
    told = torch.nn.functional.one_hot(torch.from_numpy(values), 4).float()
    noise = torch.from_numpy(random.normal(size=(800, 4))).float()
    targets = {"value": values}
    assert probe(told.__getitem__, 4, targets, parts, config, 0)["value"] == 1.0
    # chance is 0.25, of 160 test frames
    assert probe(noise.__getitem__, 4, targets, parts, config, 0)["value"] < 0.4
    assert majority(targets, parts)["value"] < 0.2


def test_features_are_standardised_by_the_training_frames() -> None:
    """Tiny features are read as well as large ones. Of test frames nothing is used."""
    parts, values = fixed(40), np.random.default_rng(1).integers(0, 4, 800)
    told = torch.nn.functional.one_hot(torch.from_numpy(values), 4).float()
    small = torch.cat([3 + 1e-4 * told, torch.full((800, 1), 0.7)], 1)
    config = ProbeConfig(rate=0.05, batch=16, epochs=15)
    found = standardised(small, parts)
    train = found[torch.from_numpy(np.concatenate(parts.train))]
    assert torch.allclose(train[:, :4].mean(0), torch.zeros(4), atol=1e-2)
    assert torch.allclose(train[:, :4].std(0), torch.ones(4), atol=1e-2)
    assert (found[:, 4] == 0).all()
    score = probe(found.__getitem__, 5, {"value": values}, parts, config, 0)["value"]
    assert score == 1.0 > probe(small.__getitem__, 5, {"value": values}, parts, config, 0)["value"]
    moved = small.clone()
    moved[torch.from_numpy(np.concatenate(parts.test))] *= 9
    kept = torch.from_numpy(np.concatenate(parts.train))
    assert torch.equal(standardised(moved, parts)[kept], found[kept])


def test_a_network_may_be_trained_too() -> None:
    log = made_up(200, 4, 10)
    parts = split(log, 1)
    frames = torch.from_numpy(log.obs.reshape(-1, 30)).float() / 4
    shade = {"shade": log.labels["shade"].reshape(-1)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = torch.nn.Linear(30, 32)
    network, before = torch.nn.Sequential(layer, torch.nn.ReLU()), layer.weight.clone()
    config = ProbeConfig(rate=1e-2, batch=32, epochs=20)
    quick = torch.cat([frames[:, :1], frames[:, 1:] / 64], 1)

    def encode(numbers: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = network(quick[numbers])
        return features

    found = probe(encode, 32, shade, parts, config, 0, network)
    assert found["shade"] > 0.9 and not torch.equal(before, layer.weight)


def test_episodes_go_stream_by_stream_in_order_of_time() -> None:
    first = np.zeros((5, 2), bool)
    first[0], first[3, 1] = True, True
    assert [each.tolist() for each in episodes_of(first)] == [[0, 2, 4, 6, 8], [1, 3, 5], [7, 9]]


def test_a_split_is_by_episodes_in_order_and_without_short_ones() -> None:
    log = made_up(40, 5, 10)
    parts = split(log, 1)
    every = episodes_of(log.first)
    assert len(every) == 20
    given = [*parts.train, *parts.validation, *parts.test]
    assert all(np.array_equal(a, b) for a, b in zip(given, every, strict=True))
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [14, 2, 4]
    with pytest.raises(ValueError, match="0 episodes of more than 10 frames"):
        split(log, 10)


def test_test_frames_that_were_learnt_from_are_removed() -> None:
    log = made_up(40, 5, 10)
    last = split(log, 1).test[-1]
    flat = log.obs.reshape(200, -1)
    flat[last[3]] = flat[0]  # of the first part
    flat[last[5]] = flat[last[6]]  # twice in the test part alone: both stay
    parts = split(log, 1)
    assert parts.duplicates == 1 and last[3] not in parts.test[-1]
    assert {last[5], last[6]} <= set(parts.test[-1])
    assert len(split(log, 1, deduplicate=False).test[-1]) == 10
    flat[:] = 7
    with pytest.raises(ValueError, match="every test frame also occurs"):
        split(log, 1)


def test_labels_that_hardly_vary_are_dropped() -> None:
    log = made_up()
    log.labels["luck"][:] = 0
    log.labels["luck"][0, :2] = 1
    parts = split(log, 1)
    assert list(usable_targets(log, parts, 0.6)) == ["shade"]
    assert entropy(np.array([1, 1, 2, 2])) == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="no label of the log"):
        usable_targets(log, parts, 3.0)


def test_frames_are_drawn_evenly_over_episodes() -> None:
    """A long episode counts as much as a short one, as in the authors' code."""
    episodes = [np.arange(100), np.arange(100, 1000)]
    drawn = torch.cat(batches(episodes, 10, np.random.default_rng(0)))
    assert len(drawn) == 1000 and abs(int((drawn < 100).sum()) - 500) < 80
    assert len(torch.unique(drawn[drawn < 100])) > 95
    with pytest.raises(ValueError, match="a part of the log has 5 frames"):
        batches([np.arange(5)], 10, np.random.default_rng(0))
