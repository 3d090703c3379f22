"""The README: one page, its tables are the code's, its links lead somewhere, its Python runs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from afterwit.envs import ENVS
from afterwit.world_models.registry import ALL_MODELS
from tests.house.import_graph import SOURCE

README = (SOURCE / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_it_is_one_page_with_one_picture() -> None:
    assert len(README.splitlines()) <= 90 and len(README.split()) <= 600
    assert README.count("![") == 1
    assert blocks("sh")[0].split()[:2] == ["make", "demo"]


def test_its_tables_are_the_registrys() -> None:
    bonuses, worlds = README.split("| what is paid |")[1].split("| world | noise |")
    assert set(re.findall(r"`([a-z0-9-]+)`", bonuses)) == {*ALL_MODELS}
    assert set(re.findall(r"^\| `([a-z-]+)`", worlds, re.M)) == {*ENVS}


@pytest.mark.parametrize("page", PAGES)
def test_its_links_lead_somewhere(page: str) -> None:
    text = (SOURCE / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert page != "README.md" or links
    assert [link for link in links if not (SOURCE / link).exists()] == []


def test_its_python_runs() -> None:
    random = np.random.default_rng(0)
    names = {
        "num_envs": 3,
        "observation_space": Box(-1, 1, (4,)),
        "action_space": Discrete(2),
        "obs": random.uniform(-1, 1, (6, 3, 4)),
        "actions": random.integers(0, 2, (5, 3)),
        "dones": np.zeros((5, 3), bool),
    }
    (code,) = blocks("python")
    exec(code, names)
    assert names["bonus"].shape == (5, 3)  # type: ignore[attr-defined]
