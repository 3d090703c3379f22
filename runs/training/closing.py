"""Closing environments: what goes wrong then is a line on stderr, and costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from afterwit.envs.specs import EnvironmentFault, VectorEnv
from afterwit.runs.output.streams import say
from afterwit.runs.output.text import in_one_line


def closing_quietly(env: VectorEnv) -> VectorEnv:
    """`env` with a close() that cannot fail: it prints what it raises. Two calls are one."""
    close = cache(partial(quietly, env.close, f"the environment {env.spec.name}"))
    setattr(env, "close", close)  # noqa: B010  (a method, for mypy)
    return env


def quietly(close: Callable[[], None], what: str) -> None:
    """Close something; what that raises is printed in a line."""
    try:
        close()
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        # An EnvironmentFault names the environment, and says that this was its close().
        message = (
            str(error)
            if isinstance(error, EnvironmentFault)
            else f"{what} could not be closed ({why})"
        )
        say(in_one_line(f"{message}; nothing is lost by that"))
