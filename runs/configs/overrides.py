"""Changes to a frozen config by dotted path, as text or values: `env.sticky=0.1`."""

from __future__ import annotations

import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from afterwit.envs.assignments import assignments as read_assignments

T = TypeVar("T")


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean {close[0]!r}?" if close else ""


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`path=value` texts as overrides. Values are JSON (3e-4, true, null, [16, 32]); what is no
    JSON is a word.
    """
    return read_assignments(texts, "--set", "path=value, such as learner.learning_rate=3e-4")


def changed(config: T, path: str, value: Any) -> T:
    """`config` with the field at a dotted `path` set to `value`; what surrounds it is made again,
    and so checked again.

    An int may stand for a float and a list for a tuple. Raises ValueError for an unknown field and
    a value of another type.
    """
    return _changed(config, path, path.split("."), value)


def _changed(config: T, path: str, names: Sequence[str], value: Any) -> T:
    assert is_dataclass(config) and not isinstance(config, type)
    name, known = names[0], [f.name for f in fields(config)]
    if name not in known:
        kind = type(config).__name__
        raise ValueError(
            f"unknown field {name!r} of {path} ({kind}){nearest(name, known)}; {kind} has"
            f" {', '.join(known)}"
        )
    if len(names) > 1:
        inner = getattr(config, name)
        if not is_dataclass(inner):
            raise ValueError(f"{path} leads nowhere: {name} is {inner!r} and has no fields")
        return replace(config, **{name: _changed(inner, path, names[1:], value)})
    return replace(config, **{name: checked(value, get_type_hints(type(config))[name], path)})


def checked(value: Any, hint: Any, path: str) -> Any:
    """`value` as a value of type `hint`. Raises a ValueError that names `path` where it is none."""
    try:
        return fitted(value, hint)
    except TypeError as error:
        wanted = (
            hint.__name__
            if isinstance(hint, type) and not get_args(hint)
            else str(hint).replace("typing.", "")
        )
        raise ValueError(f"{path} is {short(value)}; it takes {wanted}") from error


def short(value: Any) -> str:
    """`value` for a message: in one line, and not a page."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not write integers of more than 4300 digits
        return "a number of thousands of digits"


def fitted(value: Any, hint: Any) -> Any:
    """`value` as a value of type `hint`. Raises TypeError where it is none."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal and any(
        type(value) is type(choice) and value == choice for choice in inner
    ):
        return value
    if origin in (Union, types.UnionType):
        for option in inner:
            try:
                return fitted(value, option)
            except TypeError:
                continue
    if origin is tuple and isinstance(value, list | tuple):
        hints = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        if len(hints) == len(value):
            return tuple(fitted(item, hint) for item, hint in zip(value, hints, strict=True))
    if hint is Any:
        return value
    if origin is list and isinstance(value, list):
        return [fitted(item, inner[0]) for item in value]
    if origin is dict and isinstance(value, dict):
        return {fitted(name, inner[0]): fitted(item, inner[1]) for name, item in value.items()}
    if hint is float and type(value) is int and abs(value) < 2**1000:  # larger ones are no floats
        return float(value)
    if (
        isinstance(hint, type)
        and origin is None
        and (type(value) is hint or (is_dataclass(hint) and isinstance(value, hint)))
    ):
        return value
    raise TypeError(f"{value!r} is no {hint}")
