"""Read `name=value` texts from a command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def assignments(texts: Sequence[str], option: str, example: str) -> dict[str, Any]:
    """Read `name=value` texts into a dict.

    A value is read as JSON (3e-4, true, null, [16, 32]). If it is not valid JSON, it is kept as a
    string.

    Args:
      texts: The texts, such as "size=8".
      option: Name of the command-line option, for error messages.
      example: An example of a valid text, for error messages.

    Returns:
      The values by name.

    Raises:
      ValueError: A text is not an assignment.

    >>> assignments(["size=8", "mode=hard"], "--env.kwargs", "name=value")
    {'size': 8, 'mode': 'hard'}
    """
    result = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} takes {example}, not {text!r}")
        try:
            result[name] = json.loads(value)
        except (ValueError, RecursionError):  # also for too many digits or brackets
            result[name] = value
    return result


def constructor_arguments(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Read arguments of a constructor.

    Like `assignments`, but each name must be a valid Python identifier and occur once.
    """
    result = assignments(texts, option, "name=value, such as size=8 mode=hard")
    for name in result:
        if not name.isidentifier():
            raise ValueError(
                f"{option} names {name!r}, which cannot be the name of a constructor's argument"
            )
    if len(result) < len(texts):
        raise ValueError(f"{option} sets an argument twice: {' '.join(map(repr, texts))}")
    return result
