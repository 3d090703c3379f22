"""Environments are closed when all that counts is done: what goes wrong then is said in a line, and
costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from afterwit.envs.specs import EnvironmentFault, VectorEnv
from afterwit.runs.output.streams import print_notice
from afterwit.runs.output.text import in_one_line


def closing_quietly(env: VectorEnv) -> VectorEnv:
    """`env`, whose close() cannot fail from now on, whoever calls it: what it raises is said in a
    line. A second call does nothing.
    """
    setattr(env, "close", cache(partial(quietly, env.close, f"the environment {env.spec.name}")))  # noqa: B010  (a method, for mypy)
    return env


def quietly(close: Callable[[], None], what: str) -> None:
    """Close something; what that raises is said in a line."""
    try:
        close()
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        # An EnvironmentFault names the environment, and says that this was its close().
        said = (
            str(error)
            if isinstance(error, EnvironmentFault)
            else f"{what} could not be closed ({why})"
        )
        print_notice(in_one_line(f"{said}; nothing is lost by that"))
