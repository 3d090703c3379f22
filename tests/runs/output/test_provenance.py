"""The commit that a result is from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from afterwit.runs.output import provenance


def test_changes_are_those_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study writes its ledger, which is tracked, after each run."""
    files = ("setup.py", "runs/output/provenance.py", "envs/maze.py", "docs/results/ledger.csv")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / files[1]))
    clean = provenance.commit()
    assert clean is not None and len(clean) == 12
    (tmp_path / "docs/results/ledger.csv").write_text("2")
    assert provenance.commit() == clean
    (tmp_path / "envs/maze.py").write_text("2")
    assert provenance.commit() == f"{clean}+changes"
    (tmp_path / "setup.py").unlink()
    assert provenance.commit() is None
