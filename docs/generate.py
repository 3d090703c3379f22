"""Pages that are made from the code, so that they cannot be out of date: commands, options, tables.

Sphinx calls `write` before each build. Nothing that it writes is kept in git.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import source_links

from afterwit.envs import ENVS
from afterwit.runs.command_line.commands import COMMANDS
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.studies.definitions import STUDIES
from afterwit.world_models import WORLD_MODELS
from afterwit.world_models.published import SHARED_DEVIATIONS


def write(folder: Path) -> None:
    """Write every generated page into `folder`."""
    folder.mkdir(exist_ok=True)
    pages = {
        "command-line.md": command_line(),
        "options.md": options(),
        "models-table.md": models_table(),
        "deviations.md": deviations(),
        "source.md": source_links.page(folder.parent),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def help_of(*arguments: str) -> str:
    """What `afterwit ARGUMENTS --help` prints, 96 columns wide."""
    printed, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "96"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*arguments, "--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def command_line() -> str:
    """Every command with what it prints as its help."""
    text = ["# Command line", "", "Every command prints this page's part with `--help`.", ""]
    text += [f"```text\n{help_of()}\n```", ""]
    for name in COMMANDS:
        if name == "list":
            continue
        text += [f"## afterwit {name}", "", f"```text\n{help_of(name)}\n```", ""]
    text += ["## Presets", "", "The options of a run are on the page [Options](options.md).", ""]
    for name, preset in PRESETS.items():
        text += [f"**{name}**: {first_paragraph(preset.__doc__)}", ""]
    text += ["## Studies", ""]
    text += [f"- **{name}**: {first_paragraph(make.__doc__)}" for name, make in STUDIES.items()]
    return "\n".join([*text, ""])


def first_paragraph(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())


def options() -> str:
    """Every field of a run's config: what `afterwit train PRESET` takes."""
    text = [
        "# Options of a run",
        "",
        "Each field can be set on the command line, such as `afterwit train maze --seed 3"
        " --learner.world-model.hidden 64`, or in Python with `dataclasses.replace`. Defaults here"
        " are those of the config classes; a preset sets some of them otherwise"
        " (`afterwit train PRESET --help` shows its own).",
        "",
        "## The run",
        "",
        *table(RunConfig, skip=("env", "learner", "preset")),
    ]
    hints = get_type_hints(RunConfig)
    for path, kind in nested(hints["learner"], "learner"):
        text += [f"## {path}", "", *table(kind)]
    for name, model in WORLD_MODELS.items():
        text += [f"## learner.world_model of {name}", "", *table(model.Config)]
    for name, (kind, _) in ENVS.items():
        text += [f"## env of {name}", "", *table(kind)]
    return "\n".join(text)


def nested(kind: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A config class and those of its fields, with their paths; the world model has its own."""
    yield path, kind
    hints = get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]) and field.name != "world_model":
            yield from nested(hints[field.name], f"{path}.{field.name}")


def table(kind: Any, skip: tuple[str, ...] = ()) -> list[str]:
    """The fields of a config class that are no configs themselves, as a Markdown table."""
    hints, helps = get_type_hints(kind), field_helps(kind)
    rows = ["| field | default | what it does |", "|---|---|---|"]
    for field in fields(kind):
        if field.name in skip or is_dataclass(hints[field.name]):
            continue
        value = field.default if field.default is not MISSING else "set by the preset"
        if field.default_factory is not MISSING:
            value = field.default_factory()
        shown = "unset" if value is None else str(value)
        meaning = helps.get(field.name, "").replace("|", "\\|")
        rows.append(f"| `{field.name}` | `{shown}` | {meaning} |")
    return [*rows, ""]


def field_helps(kind: Any) -> dict[str, str]:
    """The strings after the fields of a dataclass and of its bases, by field."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for before, after in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
                assert isinstance(before.target, ast.Name)
                found[before.target.id] = " ".join(ast.literal_eval(after.value).split())
    return found


def models_table() -> str:
    """The table of bonuses."""
    rows = ["---", "orphan: true", "---", "", "| bonus | predicts | pays |", "|---|---|---|"]
    for name, model in WORLD_MODELS.items():
        rows.append(f"| [`{name}`](../models/{name}.md) | {model.predicts} | {model.pays} |")
    return "\n".join([*rows, ""])


def deviations() -> str:
    """What the published forms do not share with their papers."""
    text = ["# What still differs from the papers", ""]
    text += ["This is what `--variant published` does not share with the papers", "(the same as"]
    text += ["`afterwit list published`).", "", "## All models", ""]
    text += [f"- {line}" for line in SHARED_DEVIATIONS]
    for name, model in WORLD_MODELS.items():
        text += ["", f"## {name}", "", f"{model.source}", ""]
        text += [f"- {line}" for line in model.deviations]
    return "\n".join([*text, ""])
