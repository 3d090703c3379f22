"""Linear probes of state labels from features of frames, as in AtariARI.

Anand et al. (2019, arXiv 1906.08226) and their code: each label is a class problem of its own. A
linear layer learns it with cross-entropy and Adam, with its own learning rate, which falls when the
validation accuracy does not rise, and its own early stop. The score is the weighted F1 on test
frames. Here all labels are one layer whose losses are summed. A label's loss touches only its own
weights, and Adam works on each weight alone, so this equals separate probes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.envs.arrays import Array
from afterwit.envs.seeds import stream
from afterwit.runs.representation.log_split import Parts

# Frames are numbered t * B + b. Features of frames [n] are [n, N].
Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ProbeConfig:
    """How probes learn. The defaults are those of the authors' command line."""

    rate: float = 3e-4  # of Adam
    epsilon: float = 1e-5  # of Adam
    batch: int = 64
    epochs: int = 100  # at most
    patience: int = 15  # epochs without a better validation accuracy, before a label stops
    plateau: int = 5  # the same, before its rate falls
    factor: float = 0.2  # by which it falls
    least_rate: float = 1e-5
    min_episode: int = 64  # only longer episodes are used
    min_entropy: float = 0.6  # nats; labels with less are dropped
    # Frozen features are centred and scaled by their deviations in the training frames. Otherwise a
    # probe of features that hardly vary does not get far, and scores compare sizes of features.
    standardise: bool = False


# For a run's networks, whose features have any size (our default; not published).
HOUSE = ProbeConfig(rate=1e-3, min_episode=1, standardise=True)


def weighted_f1(truth: Array, guess: Array) -> float:
    """The F1 of each class, weighted by how often it is true. Both arrays are [n].

    A class's F1 is 2 * hits / (times true + times guessed), as in scikit-learn's f1_score with
    average="weighted".
    """
    values, codes = np.unique(np.concatenate([truth, guess]), return_inverse=True)
    truth, guess = codes[: len(truth)], codes[len(truth) :]
    true, guessed = (np.bincount(each, minlength=len(values)) for each in (truth, guess))
    hits = np.bincount(truth[truth == guess], minlength=len(values))
    f1 = 2 * hits / np.maximum(true + guessed, 1)
    return float((f1 * true).sum() / len(truth))


def majority(targets: Mapping[str, Array], parts: Parts) -> dict[str, float]:
    """The F1 of each label by always guessing its most frequent value in the training frames."""
    train, test = np.concatenate(parts.train), np.concatenate(parts.test)
    scores = {}
    for name, values in targets.items():
        found, counts = np.unique(values[train], return_counts=True)
        scores[name] = weighted_f1(values[test], np.full(len(test), found[counts.argmax()]))
    return scores


def standardised(features: Tensor, parts: Parts) -> Tensor:
    """Features [F, N] less their mean over the training frames, and over their deviation there.

    Features that do not vary there become 0.
    """
    train = features[torch.from_numpy(np.concatenate(parts.train))]
    deviation, mean = torch.std_mean(train, 0, correction=0)
    alive = deviation > 1e-6 * mean.abs().clamp(min=1e-6)
    return torch.where(alive, (features - mean) / deviation.clamp(min=1e-12), 0.0)


class Schedule:
    """The learning rate of one label, and whether it goes on.

    Both follow the validation accuracy, as PyTorch's ReduceLROnPlateau and the authors' early stop
    do.
    """

    def __init__(self, config: ProbeConfig):
        self.config, self.rate, self.stopped = config, config.rate, False
        self.best, self.waited = -1.0, 0  # of the early stop
        self.plateau_best, self.plateau_waited = -1.0, 0  # of the rate

    def follow(self, accuracy: float) -> None:
        """Take the accuracy of another epoch."""
        self.waited = 0 if accuracy > self.best else self.waited + 1
        self.best = max(self.best, accuracy)
        if self.waited >= self.config.patience:
            self.stopped = True
            return
        if accuracy > self.plateau_best * (1 + 1e-4):
            self.plateau_best, self.plateau_waited = accuracy, 0
            return
        self.plateau_waited += 1
        if self.plateau_waited > self.config.plateau:
            self.rate = max(self.rate * self.config.factor, self.config.least_rate)
            self.plateau_waited = 0


class Probes(nn.Module):
    """Linear layers from N features to the values that each label has in the training frames.

    Args:
      size: N.
      values: label -> the values that can be guessed, int64 [C], sorted.
      seed: of the initial weights. Those of a label depend on its name alone.
    """

    def __init__(self, size: int, values: Mapping[str, Array], seed: int):
        super().__init__()
        self.values = {name: torch.from_numpy(found) for name, found in values.items()}
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for name, found in values.items():
            random = torch.Generator().manual_seed(stream(seed, "probe", name))
            bound = size**-0.5  # as nn.Linear
            for shape, into in (((len(found), size), self.weights), ((len(found),), self.biases)):
                into.append(nn.Parameter((torch.rand(shape, generator=random) * 2 - 1) * bound))

    def forward(self, features: Tensor, labels: list[int]) -> list[Tensor]:
        """Logits [n, C] of each of the labels with these numbers, from features [n, N]."""
        weight = torch.cat([self.weights[label] for label in labels])
        bias = torch.cat([self.biases[label] for label in labels])
        sizes = [len(self.biases[label]) for label in labels]
        return list(F.linear(features, weight, bias).split(sizes, -1))

    def guess(self, features: Tensor, labels: list[int]) -> list[Tensor]:
        """The likeliest values [n] of these labels."""
        found = list(self.values.values())
        logits = self(features, labels)
        return [found[k][each.argmax(-1)] for k, each in zip(labels, logits, strict=True)]


def probe(
    features: Features,
    size: int,
    targets: Mapping[str, Array],
    parts: Parts,
    config: ProbeConfig,
    seed: int,
    network: nn.Module | None = None,
) -> dict[str, float]:
    """Learn the labels from features, and score them on the test frames.

    Frames are drawn as in the authors' code, in all parts: an episode, all equally likely, and then
    one of its frames. The last weights are scored, not the best.

    Args:
      features: frames' numbers [n] -> their features, float32 [n, N].
      size: N.
      targets: label -> values [T * B].
      parts: the split.
      config: how to learn.
      seed: of weights and draws.
      network: what `features` calls, to be trained too (a supervised encoder). Unset: nothing.

    Returns:
      The weighted F1 of each label, 0 to 1.

    Raises:
      ValueError: a part has fewer frames than a batch.
    """
    random = np.random.default_rng(stream(seed, "probe draws"))
    truth = [torch.from_numpy(np.array(values, np.int64)) for values in targets.values()]
    train = torch.from_numpy(np.concatenate(parts.train))
    values = {
        name: np.unique(each[train].numpy()) for name, each in zip(targets, truth, strict=True)
    }
    probes = Probes(size, values, seed)
    coded = [
        torch.searchsorted(found, each).clamp(max=len(found) - 1)
        for found, each in zip(probes.values.values(), truth, strict=True)
    ]
    groups = [
        {"params": [weight, bias], "lr": config.rate}
        for weight, bias in zip(probes.weights, probes.biases, strict=True)
    ]
    if network is not None:
        groups.append({"params": list(network.parameters()), "lr": config.rate})
    optimiser = torch.optim.Adam(groups, eps=config.epsilon, fused=True)
    schedules = [Schedule(config) for _ in targets]
    for _ in range(config.epochs):
        active = [label for label, schedule in enumerate(schedules) if not schedule.stopped]
        if not active:
            break
        for label in active:
            optimiser.param_groups[label]["lr"] = schedules[label].rate
        for frames in batches(parts.train, config.batch, random):
            logits = probes(features(frames), active)
            losses = [
                F.cross_entropy(each, coded[label][frames])
                for label, each in zip(active, logits, strict=True)
            ]
            optimiser.zero_grad()
            torch.stack(losses).sum().backward()
            optimiser.step()
        guesses, frames = guess_all(probes, features, parts.validation, active, config, random)
        for label, guessed in zip(active, guesses, strict=True):
            schedules[label].follow(float((guessed == truth[label][frames]).float().mean()))
    everything = list(range(len(truth)))
    guesses, frames = guess_all(probes, features, parts.test, everything, config, random)
    return {
        name: weighted_f1(each[frames].numpy(), guessed.numpy())
        for name, each, guessed in zip(targets, truth, guesses, strict=True)
    }


@torch.no_grad()
def guess_all(
    probes: Probes,
    features: Features,
    episodes: list[Array],
    labels: list[int],
    config: ProbeConfig,
    random: np.random.Generator,
) -> tuple[list[Tensor], Tensor]:
    """Guess labels of drawn frames. Returns a guess [n] for each label, and the frames [n]."""
    drawn = list(batches(episodes, config.batch, random))
    parts = [probes.guess(features(frames), labels) for frames in drawn]
    return [torch.cat(each) for each in zip(*parts, strict=True)], torch.cat(drawn)


def batches(episodes: list[Array], size: int, random: np.random.Generator) -> tuple[Tensor, ...]:
    """Draw as many frames as the episodes have, in whole batches.

    Raises:
      ValueError: the episodes have fewer frames than one batch.
    """
    lengths = np.array([len(each) for each in episodes])
    count = lengths.sum() // size * size
    if not count:
        raise ValueError(
            f"a part of the log has {lengths.sum()} frames, and a batch {size}; log more steps"
        )
    chosen = random.integers(0, len(episodes), count)
    start = np.concatenate([[0], lengths.cumsum()[:-1]])
    place = start[chosen] + (random.random(count) * lengths[chosen]).astype(np.int64)
    return torch.from_numpy(np.concatenate(episodes)[place]).split(size)
