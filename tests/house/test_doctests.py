"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import afterwit.agents
import afterwit.envs
import afterwit.world_models


@pytest.mark.parametrize(
    "package", (afterwit.envs, afterwit.agents, afterwit.world_models), ids=lambda p: p.__name__
)
def test_every_example_in_a_docstring_runs(package: ModuleType) -> None:
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    results = {}
    for name in names:
        if ".cluster." not in name:  # it needs the package ray
            results[name] = doctest.testmod(importlib.import_module(name))
    assert {name: result.failed for name, result in results.items() if result.failed} == {}
