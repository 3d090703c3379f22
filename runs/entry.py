"""The command `afterwit`: it hears Ctrl-C from its first moment on, also during the two seconds in
which torch is imported.
"""

from __future__ import annotations

import sys


def main() -> int:
    """The exit code of the command that sys.argv asks for."""
    try:
        from afterwit.runs.cli import main as command  # imports torch
    except KeyboardInterrupt:
        print("afterwit: stopped; nothing was begun", file=sys.stderr)
        return 130
    return command()


if __name__ == "__main__":
    sys.exit(main())
