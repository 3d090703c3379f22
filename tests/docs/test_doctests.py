"""Examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.house.import_graph import files, package

MODULES = [
    name.removesuffix(".__init__")
    for name, path in files().items()
    if package(name) in ("envs", "world_models", "agents") and ">>>" in path.read_text("utf-8")
]


def test_there_are_some() -> None:
    assert "afterwit.world_models.intrinsic_reward" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_they_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
