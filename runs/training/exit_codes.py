"""How a command ends: a user's mistake is a line on stderr and an exit code, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from afterwit.envs.specs import EnvironmentFault
from afterwit.runs.output.text import in_one_line

REFUSED = 2  # a mistake, or something that the command needs is missing
STOPPED = 130  # Ctrl-C, SIGTERM, or a closed terminal


def run_and_report(command: Callable[[], int], interrupted: str = "no result was written") -> int:
    """Run a command and return its exit code.

    Args:
      command: returns 0 if all went well.
      interrupted: what is true when Ctrl-C stops the command, unless the KeyboardInterrupt says it.

    Raises:
      RuntimeError: a fault of our own, which keeps its traceback.
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
            f"afterwit: not enough memory ({message}): take fewer --env.num-envs, a shorter"
            " --unroll-length or smaller networks",
            file=sys.stderr,
        )
        return REFUSED
    except KeyboardInterrupt as stopped:
        print(f"afterwit: stopped; {str(stopped) or interrupted}", file=sys.stderr)
        return STOPPED


def is_out_of_memory(error: BaseException) -> bool:
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)
