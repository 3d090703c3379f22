"""`python -m afterwit`: the command `afterwit`.

Ctrl-C also stops it in one line during the two seconds in which torch is imported.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command that sys.argv asks for. Returns its exit code."""
    try:
        from afterwit.runs.command_line.main import main as command  # imports torch
    except KeyboardInterrupt:
        print("afterwit: stopped; nothing was started", file=sys.stderr)
        return 130
    return command()


if __name__ == "__main__":
    sys.exit(main())
