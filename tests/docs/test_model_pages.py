"""The pages of the bonuses: what they say of the code is so, and their numbers are measured."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from afterwit.agents.learner_config import LearnerConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.training.run_log import read_metrics
from afterwit.world_models import WORLD_MODELS
from afterwit.world_models.registry import ALL_MODELS, MIXTURES, ORACLES
from tests.house.import_graph import SOURCE

DOCS = SOURCE / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "models").glob("*.md")}
HEADINGS = [
    "Idea",
    "Use it",
    "From equation to line of code",
    "Where ours differs",
    "Options",
    "Logged numbers",
    "Results",
    "Tests",
    "Source",
]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.S)


def section(page: str, heading: str) -> str:
    return PAGES[page].split(f"\n## {heading}\n")[1].split("\n## ")[0]


def names_in(path: Path) -> set[str]:
    """Every function, class and method of a file, as Name or Name.attr."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = (n for n in node.body if isinstance(n, ast.FunctionDef))
            found |= {f"{node.name}.{function.name}" for function in inner}
    return found


def test_each_model_has_a_page_with_the_fixed_headings() -> None:
    assert set(PAGES) == {*ALL_MODELS, "which-bonus"}
    for name in ALL_MODELS:
        assert re.findall(r"^## (.*)", PAGES[name], re.M) == HEADINGS


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_function_that_is_named_exists(page: str) -> None:
    paths = set(re.findall(r"`([\w/]+\.py)\b", PAGES[page]))
    assert [path for path in paths if not (SOURCE / path).is_file()] == []
    named = re.findall(r"`([\w/]+.py): ([\w.]+)`", PAGES[page])
    assert page == "which-bonus" or len(named) > 5
    assert [(path, name) for path, name in named if name not in names_in(SOURCE / path)] == []
    assert len(re.findall(r"`[\w/]+\.py:", PAGES[page])) == len(named)


@pytest.mark.parametrize("page", WORLD_MODELS)
def test_the_python_runs(page: str) -> None:
    (code,) = blocks(page, "python")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["bonus"].shape == (20, 4)  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", WORLD_MODELS)
def test_the_table_of_differences_is_the_configs(page: str) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `(.*?)` \| `(.*?)` \|", section(page, "Where ours differs"), re.M
    )
    ours, published = WORLD_MODELS[page].Config(), WORLD_MODELS[page].Config.published()
    differ = [
        field.name
        for field in fields(ours)
        if getattr(ours, field.name) != getattr(published, field.name)
    ]
    assert sorted(name for name, _, _ in rows) == sorted(differ)
    for name, default, value in rows:
        assert ast.literal_eval(default) == getattr(ours, name), name
        assert ast.literal_eval(value) == getattr(published, name), name


@pytest.mark.parametrize("page", ALL_MODELS)
def test_every_option_that_is_named_exists(page: str) -> None:
    model = {field.name for field in fields(ALL_MODELS[page].Config)}
    learner = {field.name for field in fields(LearnerConfig)}
    for option in re.findall(r"--learner\.([a-z.-]+)", PAGES[page]):
        name = option.removeprefix("world-model.").removeprefix("no-").replace("-", "_")
        assert name in (model if option.startswith("world-model.") else learner), option


@pytest.mark.slow
@pytest.mark.parametrize("page", ALL_MODELS)
def test_the_command_runs_and_every_number_that_it_logs_is_explained(
    page: str, tmp_path: Path
) -> None:
    (command,) = blocks(page, "sh")
    folder = tmp_path / "run"
    arguments = [*shlex.split(command)[1:], "--total-steps", "2560", "--log-interval", "1280"]
    assert main([*arguments, "--out", str(folder), "--quiet"]) == 0
    logged = {name for entry in read_metrics(folder) for name in entry}
    here = set(
        re.findall(r"^\| `(.*?)` \| (?!.*logged only)", section(page, "Logged numbers"), re.M)
    )
    everywhere = set(
        re.findall(r"`([\w/]+)`", (DOCS / "is-it-curiosity.md").read_text(encoding="utf-8"))
    )
    assert here and here <= logged
    optional = set(re.findall(r"^\| `(.*?)` \|.*logged only", PAGES[page], re.M))
    assert logged - here - optional - everywhere == set()
    own = {name for name in logged if name.startswith(("learner/model_", "learner/intrinsic_rec"))}
    assert own <= here | optional


@pytest.mark.parametrize("page", PAGES)
def test_every_number_with_an_interval_is_in_the_results(page: str) -> None:
    measured = " ".join(
        " ".join(path.read_text(encoding="utf-8").split()) for path in DOCS.glob("results/*.md")
    )
    prose = " ".join(re.sub(r"```.*?```|`[^`\n]*`", "", PAGES[page], flags=re.S).split())
    numbers = re.findall(r"-?[\d.]+%? \[-?[\d.,]+%?, -?[\d.,]+%?\]", prose)
    # two or three seeds have none that says much
    few = "two seeds" in PAGES[page]
    assert numbers or few or page in ("which-bonus", *MIXTURES, *ORACLES)
    assert [number for number in numbers if number not in measured] == []
