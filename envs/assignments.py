"""`name=value` texts of a command line as values: what is no JSON is a word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def assignments(texts: Sequence[str], option: str, example: str) -> dict[str, Any]:
    """`name=value` texts as a dict. Values are JSON (3e-4, true, null, [16, 32]); what is no JSON
    is a word.

    Raises a ValueError that names `option`, an `example` and the text that is no assignment.
    """
    result = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} takes {example}, not {text!r}")
        try:
            result[name] = json.loads(value)
        except (ValueError, RecursionError):  # too many digits, or brackets, are words, too
            result[name] = value
    return result


def arguments(texts: Sequence[str], option: str) -> dict[str, Any]:
    """As `assignments`, for the arguments of a function: each name once, and names that Python
    takes for one."""
    result = assignments(texts, option, "name=value, such as size=8 mode=hard")
    for name in result:
        if not name.isidentifier():
            raise ValueError(
                f"{option} names {name!r}, which no argument of a constructor can be called"
            )
    if len(result) < len(texts):
        raise ValueError(f"{option} sets an argument twice: {' '.join(map(repr, texts))}")
    return result
