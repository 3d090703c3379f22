"""The command `afterwit`: finds the requested command and runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from afterwit.runs.command_line.commands import COMMANDS
from afterwit.runs.output.streams import tolerant_output
from afterwit.runs.training.exit_codes import run_and_report

# The state of the results when these commands are stopped.
INTERRUPTED = {
    "study": "all running trainings have saved; the same command goes on",
    "demo": "all running trainings have saved; the same command goes on",
    "report": "the report is incomplete; the same command writes it again",
    "drill": "its table was not written; the same command starts again",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    A user's mistake ends in one line on stderr and exit code 2. Output that cannot be written
    changes nothing.
    """
    with tolerant_output():
        return run_command(list(sys.argv[1:] if argv is None else argv))


def run_command(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0
    if args[0] == "--version":
        print(f"afterwit {version('afterwit')}")
        return 0
    interrupted = INTERRUPTED.get(args[0], "no result was written")
    return run_and_report(lambda: find_command(args[0])(args[1:]), interrupted)


def find_command(name: str) -> Callable[[list[str]], int]:
    if name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}; choose from {', '.join(COMMANDS)}")
    return COMMANDS[name]


def overview() -> str:
    """Return the output of `afterwit --help`: a line per command."""
    lines = [
        "Afterwit: curiosity that survives noise.",
        "",
        "usage: afterwit COMMAND ...   (afterwit COMMAND --help explains it)",
        "",
    ]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<11} {(command.__doc__ or '').splitlines()[0]}")
    return "\n".join(lines)
