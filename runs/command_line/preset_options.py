"""Command lines with a preset: its own options first, then every field of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, get_args, get_type_hints

import tyro

from afterwit.runs.command_line.options import Benchmark, Train, at_home
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.output.text import file_name
from afterwit.world_models.registry import ALL_MODELS

OWN = "package.module:Class"  # a world model of your own
Flat = (tyro.conf.AvoidSubcommands,)
Command = TypeVar("Command", Train, Benchmark)
Options = TypeVar("Options")


def from_preset(args: list[str], command: type[Command], name: str) -> Command:
    """Parse `PRESET [the preset's own options] [overrides]`.

    The preset is made first. Then every field can be changed.
    """
    if args[0] not in PRESETS:
        raise ValueError(f"unknown preset {args[0]!r}; choose from {', '.join(PRESETS)}")
    preset, prog = PRESETS[args[0]], f"afterwit {name} {args[0]}"
    config, rest = tyro.cli(
        preset, args=args[1:], prog=prog, return_unknown_args=True, add_help=False
    )
    options = ", ".join(f"--{option}" for option in option_names(preset))
    description = (
        f"{preset.__doc__}\n\nThis preset's own options: {options} (afterwit list shows their"
        " values)."
    )
    return parsed(
        command, rest, prog, default=command(config=config), description=description, config=Flat
    )


def parsed(kind: type[Options], args: Sequence[str], prog: str, **settings: Any) -> Options:
    """Parse a command line.

    A path that begins with ~ is in a home folder, also where the shell does not replace it
    (--out=~/x).
    """
    return at_home(tyro.cli(kind, args=args, prog=prog, **settings))


def some(options: Any, *names: str) -> tuple[tuple[Any, ...], ...]:
    """Return the values of these options, () where an option is not given.

    Raises:
      ValueError: An option is given with nothing after it. It would mean all, which may be hours.
    """
    for name in names:
        if getattr(options, name) == ():
            raise ValueError(f"--{name} names nothing; name at least one, or leave it out for all")
    return tuple(getattr(options, name) or () for name in names)


def presets() -> str:
    """Return the presets as text, each with its own options, the default first."""
    rows = []
    for name, preset in PRESETS.items():
        rows.append(f"  {name:<12} {(preset.__doc__ or '').splitlines()[0]}")
        for option, default, others in own_options(preset):
            rows.append(
                f"  {'':<12} --{option} {default}"
                + (f"   or {', '.join(others)}" if others else "")
            )
    return "presets, with their own options:\n" + "\n".join(rows)


def own_options(preset: Callable[..., RunConfig]) -> Iterator[tuple[str, Any, list[str]]]:
    """Yield each option of a preset: its name, its default, and its other choices if it has any."""
    hints = get_type_hints(preset)
    for option, default in zip(option_names(preset), preset.__defaults__ or (), strict=True):
        choices = (*ALL_MODELS, OWN) if option == "model" else get_args(hints[option])
        yield option, default, [choice for choice in choices if choice != default]


def option_names(preset: Callable[..., RunConfig]) -> list[str]:
    return [name for name in preset.__annotations__ if name != "return"]


def default_name(config: RunConfig) -> str:
    env = config.env
    task = getattr(env, "game", None) or getattr(env, "label", None)
    noise = getattr(env, "noise", None)
    # the maze has no task: its noise, or none, names the world
    world = [task, getattr(env, "tv", None), None if task and noise == "none" else noise]
    parts = [config.preset, config.method, *filter(None, world), f"s{config.seed}"]
    return file_name("-".join(parts))
