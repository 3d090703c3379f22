"""The house: imports run one way, through rooms and through the packages of runs/."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.import_graph import (
    ORDER,
    SOURCE,
    allowed,
    circle,
    files,
    graph,
    imported,
    longest_chain,
    module_of,
    package,
)


@pytest.mark.parametrize("name", [name for name in files() if package(name) != "runs"])
def test_imports_run_one_way(name: str) -> None:
    assert {package(other) for other in graph()[name]} <= allowed(package(name))


def test_there_is_no_circle_of_imports() -> None:
    assert circle(graph()) == []


def test_the_order_names_every_package_of_runs() -> None:
    folders = {path.name for path in (SOURCE / "runs").iterdir() if (path / "__init__.py").exists()}
    assert folders == {name for row in ORDER for name in row}


def test_importing_runs_imports_nothing() -> None:
    assert (SOURCE / "runs" / "__init__.py").read_text(encoding="utf-8") == ""


def test_ray_is_imported_in_one_package() -> None:
    importing = {
        path.parent.name
        for path in files().values()
        if "ray" in {name.split(".")[0] for name in imported(path.read_text(encoding="utf-8"))}
    }
    assert importing == {"cluster"}


def test_the_checks_see_what_they_are_for() -> None:
    late = "def f():\n    from afterwit.runs.training.loop import train\n"
    assert {module_of(name) for name in imported(late)} == {"afterwit.runs.training.loop"}
    assert "runs.training" not in allowed("agents") and "runs.studies" not in allowed("runs.output")
    assert "runs.reports" not in allowed("runs.diagnostics")  # of one line
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert longest_chain({"a": {"b", "c"}, "b": {"c"}}) == ["a", "b", "c"]


def test_training_and_scores_need_no_packages_for_pictures_and_films() -> None:
    """A GPU machine without a network has only the wheels that were carried there
    (runs/benchmarks/gpu_bench.sh).
    """
    program = """
import sys
for name in ("matplotlib", "PIL", "imageio_ffmpeg", "rliable", "pandas", "minigrid", "ray"):
    sys.modules[name] = None
import afterwit.runs.benchmarks.speed
import afterwit.runs.command_line.main
import afterwit.runs.evaluation.evaluate
import afterwit.runs.training.loop
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
