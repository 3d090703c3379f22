"""Changes to a frozen config by dotted path and value, as in `env.sticky=0.1`."""

from __future__ import annotations

import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from afterwit.envs.assignments import assignments as read_assignments

T = TypeVar("T")


def suggestion(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Return "; did you mean 'x'?" for the known name closest to `name`, or an empty text."""
    close = get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean {close[0]!r}?" if close else ""


def assignments(
    texts: Sequence[str], example: str = "learner.learning_rate=3e-4"
) -> dict[str, Any]:
    """Return `path=value` texts of --set as a dict from path to value; the example is for messages.

    Values are read as JSON (3e-4, true, null, [16, 32]). What is not JSON is a plain word. Of two
    texts for a path the last counts.
    """
    return read_assignments(texts, "--set", f"path=value, such as {example}")


def changed(config: T, changes: Mapping[str, Any]) -> T:
    """Return `config` with the field at each dotted path set to its value, all at once.

    All configs around the fields are made again, once, so that their checks run again and fields
    that need each other may stand in any order. An int may stand for a float, and a list for a
    tuple.

    Raises:
      ValueError: a field is unknown, or set as a whole and in part, a value has another type, or a
        config refuses its fields.
    """
    return _changed(config, [(path, path.split("."), value) for path, value in changes.items()])


def _changed(config: T, changes: Sequence[tuple[str, Sequence[str], Any]]) -> T:
    assert is_dataclass(config) and not isinstance(config, type)
    known, hints = [f.name for f in fields(config)], get_type_hints(type(config))
    values: dict[str, Any] = {}
    within: dict[str, list[tuple[str, Sequence[str], Any]]] = {}
    for path, (name, *rest), value in changes:
        if name not in known:
            kind, of = type(config).__name__, f" of {path}" if path != name else ""
            raise ValueError(
                f"unknown field {name!r}{of} ({kind}){suggestion(name, known)}; {kind} has"
                f" {', '.join(known)}"
            )
        if not rest:
            values[name] = checked(value, hints[name], path)
            continue
        inner = getattr(config, name)
        if not is_dataclass(inner):
            raise ValueError(f"{path} does not exist: {name} is {inner!r} and has no fields")
        within.setdefault(name, []).append((path, rest, value))
    if both := sorted(values.keys() & within):
        raise ValueError(f"{both[0]} is set as a whole and in part; leave out one of the two")
    values |= {name: _changed(getattr(config, name), group) for name, group in within.items()}
    return replace(config, **values) if values else config


def checked(value: Any, hint: Any, path: str) -> Any:
    """Return `value` converted to the type `hint`.

    Raises:
      ValueError: the value has another type. The message names `path`.
    """
    try:
        return converted(value, hint)
    except TypeError as error:
        plain_type = isinstance(hint, type) and not get_args(hint)
        expected = hint.__name__ if plain_type else str(hint).replace("typing.", "")
        raise ValueError(f"{path} is {short(value)}; it takes {expected}") from error


def short(value: Any) -> str:
    """Return `value` as text for a message: one short line."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not write integers of more than 4300 digits
        return "a number of thousands of digits"


def converted(value: Any, hint: Any) -> Any:
    """Return `value` converted to the type `hint`. Raises TypeError if that is not possible."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal and any(
        type(value) is type(choice) and value == choice for choice in inner
    ):
        return value
    if origin in (Union, types.UnionType):
        for option in inner:
            try:
                return converted(value, option)
            except TypeError:
                continue
    if origin is tuple and isinstance(value, list | tuple):
        hints = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        if len(hints) == len(value):
            return tuple(converted(item, hint) for item, hint in zip(value, hints, strict=True))
    if hint is Any:
        return value
    if origin is list and isinstance(value, list):
        return [converted(item, inner[0]) for item in value]
    if origin is dict and isinstance(value, dict):
        return {
            converted(name, inner[0]): converted(item, inner[1]) for name, item in value.items()
        }
    if (
        hint is float and type(value) is int and abs(value) < 2**1000
    ):  # larger ones do not fit into a float
        return float(value)
    if (
        isinstance(hint, type)
        and origin is None
        and (type(value) is hint or (is_dataclass(hint) and isinstance(value, hint)))
    ):
        return value
    raise TypeError(f"{value!r} is not a {hint}")
