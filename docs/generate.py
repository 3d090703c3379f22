"""Pages that are made from the code, so that they cannot be out of date: commands, options, tables.

Sphinx calls `write` before each build. What other pages link to is kept in git, so that the links
work there too; a test says when it is out of date.
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

from afterwit.agents.learner_config import LearnerConfig
from afterwit.envs import ENVS
from afterwit.runs.command_line.commands import COMMANDS
from afterwit.runs.command_line.main import main
from afterwit.runs.command_line.preset_options import own_options
from afterwit.runs.configs.comparison import flat
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.configs.run_config import RunConfig, to_dict
from afterwit.runs.drills.cluster_faults import CLUSTER_FAULTS
from afterwit.runs.drills.faults import FAULTS
from afterwit.runs.studies.definitions import STUDIES
from afterwit.runs.studies.study import Study, Variant
from afterwit.world_models import WORLD_MODELS
from afterwit.world_models.published import SHARED_DEVIATIONS
from afterwit.world_models.registry import ALL_MODELS


def write(docs: Path) -> None:
    """Write every generated page, and the tables in pages that are written by hand."""
    (docs / "generated").mkdir(exist_ok=True)
    generated = {
        **kept(docs),
        docs / "generated/command-line.md": command_line(),
        docs / "generated/source.md": source_links.page(docs),
    }
    for path, text in generated.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def kept(docs: Path) -> dict[Path, str]:
    """The text of each page that is kept in git and made here, wholly or in part."""
    made = {
        "options": options(),
        "presets": presets(),
        "studies": studies(),
        "faults": faults(),
        "deviations": deviations(),
    }
    tables = {"models/which-bonus.md": models_table(), "worlds.md": worlds_table()}
    return {
        **{docs / f"generated/{name}.md": text for name, text in made.items()},
        **{docs / name: with_table(docs / name, table) for name, table in tables.items()},
    }


def with_table(page: Path, table: str) -> str:
    """The text of a page, with another table between its two marks."""
    marks = "<!-- generated -->", "<!-- /generated -->"
    before, rest = page.read_text(encoding="utf-8").split(marks[0])
    return f"{before}{marks[0]}\n\n{table}\n{marks[1]}{rest.split(marks[1])[1]}"


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
    for name, command in COMMANDS.items():
        # `list` has no options, so its help is its docstring
        shown = first_paragraph(command.__doc__) if name == "list" else help_of(name)
        text += [f"## afterwit {name}", "", f"```text\n{shown}\n```", ""]
    text += ["## afterwit benchmark --separation", ""]
    text += [f"```text\n{help_of('benchmark', '--separation')}\n```", ""]
    text += ["## More", ""]
    text += ["- [Presets](presets.md): the options of `train` and `benchmark` that come first."]
    text += ["- [Options of a run](options.md): every other field."]
    text += ["- [Studies](studies.md) and [Faults of the drill](faults.md)."]
    return "\n".join([*text, ""])


def presets() -> str:
    """Every preset: its own options, and the fields that it sets otherwise than their defaults."""
    text = ["# Presets", ""]
    text += ["A preset is a function in `runs/configs/presets.py` that returns a complete config."]
    text += ["Its own options come first on the command line. Any field may follow:"]
    text += ["[Options of a run](options.md)."]
    for name, preset in PRESETS.items():
        made = preset()
        text += ["", f"## {name}", "", first_paragraph(preset.__doc__), ""]
        text += ["| option | default | other choices |", "|---|---|---|"]
        for option, default, others in own_options(preset):
            listed = ", ".join(f"`{each}`" for each in others) or "any"
            text.append(f"| `--{option}` | `{default}` | {listed} |")
        plain = RunConfig(
            env=type(made.env)(),
            learner=LearnerConfig(world_model=type(made.learner.world_model)()),
            preset=name,
        )
        default_of = flat(to_dict(plain))
        text += ["", "What it sets, with its own options at their defaults:", ""]
        text += ["| field | this preset | default of the field |", "|---|---|---|"]
        for path, value in flat(to_dict(made)).items():
            if value != default_of.get(path):
                text.append(f"| `{path}` | `{shown(value)}` | `{shown(default_of.get(path))}` |")
    return "\n".join([*text, ""])


def shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def studies() -> str:
    """Every study with its worlds, methods and seeds."""
    text = [
        "# Studies",
        "",
        "`afterwit study NAME` runs one. [Compare runs properly](../compare.md)",
    ]
    text += ["says how to read it. A study's options are on the page"]
    text += ["[Command line](command-line.md#afterwit-study)."]
    for name, make in STUDIES.items():
        study: Study = make()
        text += ["", f"## {name}", "", first_paragraph(make.__doc__), ""]
        text += [f"- preset: [`{study.preset}`](presets.md#{study.preset})"]
        text += [f"- worlds: {names(study.worlds)}", f"- methods: {names(study.methods)}"]
        text += [f"- seeds: {', '.join(map(str, study.seeds))}"]
        text += [f"- agent steps of each run: {study.cells()[0].config.total_steps:,}"]
        if study.more_worlds:
            text.append(f"- only where they are asked for, worlds: {names(study.more_worlds)}")
        if study.more_methods:
            text.append(f"- only where they are asked for, methods: {names(study.more_methods)}")
    return "\n".join([*text, ""])


def names(variants: tuple[Variant, ...]) -> str:
    return ", ".join(f"`{variant.name}`" for variant in variants)


def faults() -> str:
    """Every fault that the drill tries."""
    text = ["# Faults of the drill", ""]
    text += [
        "`afterwit drill` tries each of these on real runs, and then brings the run to its end."
    ]
    text += [
        "`--faults NAME NAME` tries some. What they cost: [results](../results/faults/README.md)."
    ]
    for title, group in (("Any run", FAULTS), ("On a cluster", CLUSTER_FAULTS)):
        text += ["", f"## {title}", "", "| name | what happens |", "|---|---|"]
        text += [f"| `{name}` | {first_paragraph(run.__doc__)} |" for name, run in group.items()]
    return "\n".join([*text, ""])


def worlds_table() -> str:
    """The table of worlds."""
    rows = ["| world | what it is | presets |", "|---|---|---|"]
    for name, (kind, _) in ENVS.items():
        used = [each for each, preset in PRESETS.items() if type(preset().env) is kind]
        links = ", ".join(f"[`{each}`](generated/presets.md#{each})" for each in used)
        options = f"[`{name}`](generated/options.md#env-of-{name})"
        rows.append(f"| {options} | {first_paragraph(kind.__doc__)} | {links} |")
    return "\n".join([*rows, ""])


def first_paragraph(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())


def options() -> str:
    """Every field of a run's config: what `afterwit train PRESET` takes."""
    text = [
        "# Options of a run",
        "",
        "Each field can be set on the command line, such as `afterwit train maze --seed 3"
        " --learner.world-model.hidden 64`, or in Python with `dataclasses.replace`. Defaults here"
        " are those of the config classes. [Presets](presets.md) set some of them otherwise.",
        "",
        "## The run",
        "",
        *table(RunConfig, skip=("env", "learner", "preset", "contents")),
    ]
    hints = get_type_hints(RunConfig)
    for path, kind in nested(hints["learner"], "learner"):
        text += [f"## {path}", "", *table(kind)]
    for name, model in ALL_MODELS.items():
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
        meaning = helps.get(field.name, "").replace("|", "\\|")
        rows.append(f"| `{field.name}` | `{shown(value)}` | {meaning} |")
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
    rows = ["| bonus | predicts | pays |", "|---|---|---|"]
    for name, model in ALL_MODELS.items():
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
