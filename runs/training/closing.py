"""Closing environments safely: an error is printed as one line.

Environments are closed after everything that counts is done, so an error costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from afterwit.envs.specs import EnvironmentFault, VectorEnv
from afterwit.runs.output.streams import print_notice
from afterwit.runs.output.text import in_one_line


def with_safe_close(env: VectorEnv) -> VectorEnv:
    """Return `env` with a close() that never raises; its errors are printed as one line.

    A second call does nothing.
    """
    close = partial(close_safely, env.close, f"the environment {env.spec.name}")
    setattr(env, "close", cache(close))  # noqa: B010  (mypy sees a method)
    return env


def close_safely(close: Callable[[], None], what: str) -> None:
    """Call `close`. If it raises, print the error as one line."""
    try:
        close()
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        # An EnvironmentFault already names the environment and its close().
        message = (
            str(error)
            if isinstance(error, EnvironmentFault)
            else f"{what} could not be closed ({why})"
        )
        print_notice(in_one_line(f"{message}; no result is lost"))
