"""What is installed is whole and in nobody's way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.house.import_graph import ROOMS, SOURCE, files


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
    program = """
import agents, envs
import afterwit.agents.learner, afterwit.envs, afterwit.runs.command_line.main
assert (envs.mine, agents.mine) == ("envs", "agents")
print(afterwit.envs.__file__, afterwit.runs.command_line.main.__file__, sep="\\n")
"""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    python = [sys.executable, "-c", program]
    result = subprocess.run(python, cwd=project, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(line.startswith(str(site)) for line in result.stdout.split())
    installed = {
        path.relative_to(site / "afterwit").as_posix()
        for path in (site / "afterwit").rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    }
    expected = {path.relative_to(SOURCE).as_posix() for path in files().values()}
    expected |= {f"{room}/py.typed" for room in ROOMS}
    expected |= {"__init__.py", "__main__.py"}  # of `python -m afterwit`
    assert installed == expected
    assert (site / "bin" / "afterwit").exists()
    command = [sys.executable, "-m", "afterwit", "--help"]
    result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert "usage: afterwit COMMAND" in result.stdout, result.stderr
