"""Metrics by name: means over the entries that have a name, also where others lack it."""

from __future__ import annotations

import pytest
import torch

from afterwit.agents.metrics import PendingMetrics, mean_of_each
from tests.helpers import same


def test_a_name_is_averaged_over_the_entries_that_have_it() -> None:
    entries = [{"loss": 1.0}, {"loss": 3.0, "rare": 5.0}, {"loss": 2.0, "rare": 7.0, "other": 1.0}]
    assert mean_of_each(entries) == {"loss": 2.0, "rare": 6.0, "other": 1.0}
    assert list(mean_of_each(reversed(entries))) == ["loss", "rare", "other"]
    assert mean_of_each([]) == {}


def test_pending_metrics_survive_a_checkpoint() -> None:
    pending, again = PendingMetrics(), PendingMetrics()
    for number in range(3):
        pending.add({"loss": torch.tensor(float(number)), "kl": torch.tensor(number)})
    pending.add({"loss": torch.tensor(5.0), "rare": torch.tensor(4.0)})
    assert pending.means() == {"loss": 2.0, "kl": 1.0, "rare": 4.0}
    again.load_state(pending.state(), torch.device("cpu"))
    assert same(again.values, pending.values)
    again.add({"rare": torch.tensor(6.0)})
    assert again.means()["rare"] == 5.0
    pending.clear()
    assert pending.means() == {} and pending.state() == {}


def test_the_metrics_of_learners_are_their_means_by_name() -> None:
    pytest.importorskip("ray")
    from afterwit.agents.cluster.remote_learner import RemoteLearner

    values, bonus = torch.tensor([1.0, 4.0]).numpy(), torch.zeros(2, 1).numpy()
    results = [(["loss", "one"], values, bonus, 1, 0), (["loss", "other"], values * 2, bonus, 1, 0)]
    learner = RemoteLearner.__new__(RemoteLearner)
    learner.version, learner.learners = 0, []

    setattr(learner, "_shares", lambda trajectory: [])  # noqa: B010
    setattr(learner, "_all", lambda method, arguments: results)  # noqa: B010
    metrics = learner.update(None)  # type: ignore[arg-type]
    assert metrics.pop("bonus").shape == (2, 2)
    assert {name: float(value) for name, value in metrics.items()} == {
        "loss": 1.5,
        "one": 4.0,
        "other": 8.0,
    }
    assert all(value.dtype == torch.float32 for value in metrics.values())
