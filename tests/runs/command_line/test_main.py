"""The command `afterwit` itself: help, version, and what cannot be."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version

import pytest

from afterwit.runs.command_line.commands import COMMANDS
from afterwit.runs.command_line.main import main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):  # tyro ends the process
        assert main([name, "--help"]) == 0
    assert "afterwit" in capsys.readouterr().out


def test_the_program_has_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"afterwit {version('afterwit')}\n"


def test_a_folder_that_cannot_be_named_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "maze", "--out", 300 * "x"]) == 2
    error = capsys.readouterr().err
    assert "File name too long); choose another --out" in error and error.count("\n") == 1
