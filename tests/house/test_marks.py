"""The marks: what is called slow is there."""

from __future__ import annotations

from tests.conftest import SLOW
from tests.house.import_graph import SOURCE


def test_what_is_called_slow_is_there() -> None:
    for entry in SLOW:
        path, _, name = entry.partition("::")
        assert (SOURCE / "tests" / path).exists(), entry
        assert not name or name in (SOURCE / "tests" / path).read_text("utf-8"), entry
