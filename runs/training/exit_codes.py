"""Exit codes: a user's mistake ends in one line on stderr and code 2, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from afterwit.envs.specs import EnvironmentFault
from afterwit.runs.output.text import in_one_line

REFUSED = 2  # the user made a mistake, or something that the command needs is missing
STOPPED = 130  # Ctrl-C, SIGTERM, or a closed terminal


def run_and_report(command: Callable[[], int], interrupted: str = "no result was written") -> int:
    """Run a command and return its exit code.

    Args:
      command: returns 0 if all went well.
      interrupted: the state of the results after Ctrl-C, for the message. A KeyboardInterrupt with
        a text of its own replaces it.

    Raises:
      RuntimeError: a fault in Afterwit itself, which keeps its traceback.
    """
    try:
        return command()
    except (ValueError, OSError, EnvironmentFault) as error:
        print(f"afterwit: {in_one_line(str(error))}", file=sys.stderr)
        return REFUSED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = in_one_line(str(error).splitlines()[0])
        print(
            f"afterwit: not enough memory ({message}): use fewer --env.num-envs, a shorter"
            " --unroll-length or smaller networks",
            file=sys.stderr,
        )
        return REFUSED
    except KeyboardInterrupt as stopped:
        print(f"afterwit: stopped; {str(stopped) or interrupted}", file=sys.stderr)
        return STOPPED


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that there was not enough memory."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)
