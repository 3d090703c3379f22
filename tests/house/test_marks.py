"""The marks: what is called slow is there."""

from __future__ import annotations

import os

import pytest

from tests.conftest import SLOW, THOROUGH
from tests.house.import_graph import SOURCE


def test_what_is_called_slow_or_thorough_is_there() -> None:
    for entry in (*SLOW, *THOROUGH):
        path, _, rest = entry.partition("::")
        name = rest.partition("[")[0].partition("::")[0]
        assert (SOURCE / "tests" / path).exists(), entry
        assert not name or name in (SOURCE / "tests" / path).read_text("utf-8"), entry


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
@pytest.mark.xdist_group("marks")
def test_groups_stay_in_one_process(request: pytest.FixtureRequest) -> None:
    """Otherwise each process starts a cluster of its own, and slows the other's down."""
    assert request.node.nodeid.endswith("@marks")
