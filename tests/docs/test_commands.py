"""Every command that a page shows is one that `afterwit` takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from afterwit.runs.command_line.commands import COMMANDS
from afterwit.runs.command_line.options import (
    Benchmark,
    Demo,
    Drill,
    Evaluate,
    Objectives,
    Pretrain,
    Probe,
    Report,
    Scores,
    Separation,
    StateProbe,
    StudyOptions,
    Train,
    Watch,
)
from afterwit.runs.command_line.preset_options import from_preset, parsed, some
from afterwit.runs.configs.overrides import assignments
from afterwit.runs.drills.drill import FAULTS
from afterwit.runs.studies.definitions import STUDIES
from tests.house.import_graph import SOURCE

OPTIONS = {
    "demo": Demo,
    "evaluate": Evaluate,
    "objectives": Objectives,
    "pretrain": Pretrain,
    "probe": Probe,
    "report": Report,
    "state-probe": StateProbe,
    "scores": Scores,
    "drill": Drill,
    "watch": Watch,
}
# docs/results/ keeps the commands of the commits that were measured
PAGES = [SOURCE / "README.md", *(SOURCE / "docs").glob("*.md")]
PAGES += [path for part in ("guides", "models") for path in (SOURCE / "docs" / part).glob("*.md")]


def commands(page: Path) -> list[str]:
    """The commands in a page's blocks of shell, and those of `afterwit` in its sentences."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"(?<!`)`(afterwit [^`]+)`(?!`)", re.sub(r"\s+", " ", text))
    return [line for line in lines if line.startswith("afterwit ")]


def parse(line: str) -> None:
    """Read a command line as `afterwit` does. Nothing is begun."""
    _, command, *words = shlex.split(line, comments=True)
    words = [word for word in words if word != "..."]
    if command == "train" and words[:1] == ["--resume"]:
        assert len(words) <= 2 or words[2] == "--total-steps"
    elif command == "train" or (command == "benchmark" and "--separation" not in words):
        first = [] if words and not words[0].startswith("-") else ["maze"]
        if words != ["PRESET", "--help"]:
            from_preset([*first, *words], Train if command == "train" else Benchmark, command)
    elif command == "benchmark":
        parsed(Separation, [word for word in words if word != "--separation"], "")
    elif command == "study":
        chosen = parsed(StudyOptions, words[1:], "")
        if words and words[0] != "NAME":
            changes = assignments(chosen.set)
            worlds, methods, seeds = some(chosen, "worlds", "methods", "seeds")
            STUDIES[words[0]]().select(worlds, methods, seeds, changes).cells()
    elif command == "list":
        assert words in ([], ["published"])
    elif words:
        options = parsed(OPTIONS[command], words, "")
        assignments(getattr(options, "set", ()))
        assert set(getattr(options, "faults", None) or ()) <= {*FAULTS, "NAME"}
    else:
        assert command in COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SOURCE / "examples")  # where my_bonus and my_world are
    wrong = []
    for line in commands(page):
        if "--help" in line or "my_package" in line:
            continue
        try:
            parse(line)
        except (Exception, SystemExit) as error:
            wrong.append(f"{line}: {error!r}")
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    (
        "afterwit train labyrinth",
        "afterwit train maze --noise loud",
        "afterwit benchmark maze --stand-ins 10",
        "afterwit study maze --worlds sticky loud",
        "afterwit evaluate RUN --episode 3",
        "afterwit drill --faults boredom",
        "afterwit dream",
    ),
)
def test_a_command_that_is_wrong_is_found(line: str) -> None:
    with pytest.raises((ValueError, KeyError, AssertionError, SystemExit)):
        parse(line)


def test_pages_have_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60


def test_the_worlds_alone_are_made_as_the_page_says() -> None:
    text = (SOURCE / "docs" / "worlds.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["observation"] in names["env"].observation_space  # type: ignore[attr-defined]
