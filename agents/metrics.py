"""Metrics by name, as means over steps, learners or episodes. Not all of them have every name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor


def mean_of_each(entries: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name over the entries that have it, names in the order of appearance."""
    found: dict[str, list[float]] = {}
    for entry in entries:
        for name, value in entry.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


class PendingMetrics:
    """The metrics of some learner steps, on the learner's device, until their means are taken."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add the metrics [] of a step."""
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """The mean of each name over the steps that had it."""
        return {
            name: torch.stack([value.float() for value in values]).mean().item()
            for name, values in self.values.items()
        }

    def clear(self) -> None:
        self.values.clear()

    def state(self) -> dict[str, Tensor]:
        """The values of each name as one tensor [n]."""
        return {name: torch.stack(values) for name, values in self.values.items()}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.values = {name: list(values.to(device)) for name, values in state.items()}
