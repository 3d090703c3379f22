"""How configs are compared: what seeds of one run share, its names, and where two differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.gym_config import GymConfig
from afterwit.envs.make import EnvConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.run_config import RESOURCES, RunConfig, to_dict
from afterwit.runs.output.files import read_json

# Fields in which the runs of a group may differ: to a result they are at most another draw.
NOT_COMPARED = ("seed", "preset", "env.threads", "env.labels", "env.render", *RESOURCES)


def compared(config: RunConfig) -> dict[str, Any]:
    """Return all fields that runs of one group share: dotted path -> value."""
    return {
        name: value for name, value in flat(to_dict(config)).items() if name not in NOT_COMPARED
    }


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested dict as {"learner.torso.hidden": 128, …}."""
    result: dict[str, Any] = {}
    for name, value in data.items():
        result |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return result


def label(name: str, this: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Return a name and the fields that tell `this` from all `others`: `rnd, horizon 4, hidden 64`.

    Two differing fields are named, more where two do not tell all apart.
    """
    differing = [field for field in this if any(o.get(field) != this[field] for o in others)]
    count = 2
    while any(
        other != this and all(other.get(field) == this[field] for field in differing[:count])
        for other in others
    ):
        count += 1
    return ", ".join([name, *(f"{f.rpartition('.')[2]} {this[f]}" for f in differing[:count])])


def world_name(config: RunConfig) -> str:
    """Return what the agents live in, as it follows "On" in a sentence."""
    env = config.env
    if isinstance(env, MazeConfig):
        dose = "" if env.dose is None else f" (dose {env.dose:g})"
        maze = "the maze" if env.layout == "row" else f"the maze of {env.layout}"
        return (
            f"{maze} without noise"
            if env.noise == "none"
            else f"{maze} with {env.noise} noise{dose}"
        )
    name = short_name(env)
    return name if env.noise == "none" else f"{name} with {env.noise} noise"


def short_name(env: EnvConfig) -> str:
    """Return the game, the Gymnasium id with its arguments, or `maze`."""
    if isinstance(env, AtariConfig):
        return env.game
    return env.label if isinstance(env, GymConfig) else "maze"


SIDES = ("in the checkpoint", "in config.json")
THERE_AND_NOW = ("there", "now")  # what an output holds, and what is asked for


def differences(
    saved: Any, current: Any, where: str = "", sides: tuple[str, str] = SIDES
) -> list[str]:
    """Return where two configs differ, as `field is a in the checkpoint, b in config.json`.

    `sides` are the words for the two.
    """
    if isinstance(saved, dict) and isinstance(current, dict):
        names = sorted(saved.keys() | current.keys())
        return [
            line
            for name in names
            for line in differences(
                saved.get(name), current.get(name), f"{where}.{name}".lstrip("."), sides
            )
        ]
    if (
        isinstance(saved, list | tuple)
        and isinstance(current, list | tuple)
        and list(saved) == list(current)
    ):
        return []
    return [] if saved == current else [f"{where} is {saved!r} {sides[0]}, {current!r} {sides[1]}"]


SETTINGS = "settings"  # where a result says what it was made with
REMEDY = "remove it, or choose another --out"


def check_result(path: Path, settings: Mapping[str, Any]) -> None:
    """Check that a result in JSON, if there is one, was made with the same settings.

    It took play or training, so that other settings must not replace it.

    Args:
      path: the file, which may be missing.
      settings: every option that decides the result. It is to be written under SETTINGS.

    Raises:
      ValueError: the file has other settings, or says none.
    """
    if path.is_file():
        found = read_json(path, REMEDY)
        check_settings(path, found.get(SETTINGS) if isinstance(found, dict) else None, settings)


def check_settings(path: Path, there: Any, now: Mapping[str, Any]) -> None:
    """Check that the settings `there`, which a file has, are those that it would have `now`.

    Raises:
      ValueError: they differ, or the file says none. The message names the first one.
    """
    if not isinstance(there, dict):
        raise ValueError(
            f"{path} exists and does not say what it was made with, as in earlier versions;"
            f" {REMEDY}"
        )
    unlike = differences(there, dict(now), sides=THERE_AND_NOW)
    if unlike:
        raise ValueError(f"{path} was made with other settings: {unlike[0]}; {REMEDY}")
