"""Fixtures that several packages of tests/runs use."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterwit.runs.configs.run_config import write_config
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run


@pytest.fixture
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a run of the test file's CONFIG, after one learner step."""
    folder = tmp_path / "run"
    run = Run(request.module.CONFIG)
    run.step()
    write_config(run.config, folder)
    checkpoint.save(folder, run.state())
    return folder
