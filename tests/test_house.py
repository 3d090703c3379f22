"""The house: imports run one way, and what is installed is whole and in nobody's way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent
ROOMS = ("envs", "world_models", "agents", "runs")


def files() -> list[Path]:
    return [path for room in ROOMS for path in sorted((SOURCE / room).glob("*.py"))]


def imported(text: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names.append(node.module or "")
    return names


def rooms_imported(text: str) -> set[str]:
    return {name.split(".")[1] for name in imported(text) if name.startswith("afterwit.")}


@pytest.mark.parametrize("path", files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_run_one_way(path: Path) -> None:
    allowed = ROOMS[: ROOMS.index(path.parent.name) + 1]
    assert rooms_imported(path.read_text(encoding="utf-8")) <= set(allowed)


def test_ray_is_imported_in_one_place() -> None:
    importing = [
        path.name
        for path in files()
        if "ray" in {name.split(".")[0] for name in imported(path.read_text(encoding="utf-8"))}
    ]
    assert importing == ["ray_pipeline.py"]


def test_the_check_sees_an_import_that_runs_the_wrong_way() -> None:
    assert rooms_imported("def f():\n    from afterwit.runs.train import train\n") == {"runs"}


def test_training_and_scores_need_no_packages_for_pictures_and_films() -> None:
    """A GPU machine without a network has only the wheels that were carried there
    (runs/gpu_bench.sh).
    """
    program = (
        "import sys\nfor name in ('matplotlib', 'PIL', 'imageio_ffmpeg', 'rliable', 'pandas',"
        " 'minigrid', 'ray'): sys.modules[name] = None\nimport afterwit.runs.cli,"
        " afterwit.runs.train, afterwit.runs.evaluate, afterwit.runs.benchmark\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_wheel_is_whole_and_keeps_out_of_the_way(tmp_path: Path) -> None:
    """From a folder with its own envs/ and agents/, as users' projects have, the wheel's packages
    and theirs both import.
    """
    source = tmp_path / "source"  # a copy: building leaves files behind
    source.mkdir()
    for name in (*ROOMS, "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", str(SOURCE / name), str(source / name)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", str(source), "--no-deps", "--no-build-isolation", "-w", str(tmp_path)],
        check=True,
    )
    (wheel,) = tmp_path.glob("afterwit-*.whl")
    site, project = tmp_path / "site", tmp_path / "project"
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--target", str(site)], check=True)
    for room in ("envs", "agents"):
        (project / room).mkdir(parents=True)
        (project / room / "__init__.py").write_text(f"mine = {room!r}\n")
    program = (
        "import envs, agents, afterwit.envs, afterwit.agents.learner, afterwit.world_models,"
        " afterwit.runs.cli\nassert (envs.mine, agents.mine) == ('envs',"
        " 'agents')\nprint(afterwit.envs.__file__, afterwit.runs.cli.__file__, sep='\\n')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert all(line.startswith(str(site)) for line in result.stdout.split())
    installed = {
        path.relative_to(site / "afterwit").as_posix()
        for path in (site / "afterwit").rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    }
    expected = {path.relative_to(SOURCE).as_posix() for path in files()} | {
        f"{room}/py.typed" for room in ROOMS
    }
    assert installed == expected
    assert (site / "bin" / "afterwit").exists()
