"""What a command says must never cost what it does: streams that drop what they cannot write, in
any encoding.

A pipe whose reader has gone, a full device, a terminal that was closed and a stream that was closed
before the start (`>&-`) all look the same to a command: its words go nowhere, and its files and its
exit code are as they would have been.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO

from tqdm import tqdm

# the reader or the terminal is gone
NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET, errno.ENXIO)
# Plain words for what help and reports say outside ASCII; a terminal's encoding need not have it.
SPELLED = {
    "…": "...",
    "–": "-",
    "—": "-",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "×": "x",
    "λ": "lambda",
    "→": "->",
    "←": "<-",
    "≤": "<=",
    "≥": ">=",
    "─": "-",
    "│": "|",
    "╭": "+",
    "╮": "+",
    "╰": "+",
    "╯": "+",
    "━": "-",
}
HANDLER = "afterwit.spelled"


def spelled(error: UnicodeError) -> tuple[str, int]:
    """What stands for letters that an encoding lacks: plain words, or Python's escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return (
        "".join(
            SPELLED.get(letter) or letter.encode("ascii", "backslashreplace").decode()
            for letter in letters
        ),
        error.end,
    )


codecs.register_error(HANDLER, spelled)


class Lasting:
    """A text stream on top of `stream` that takes whatever is written: what `stream` cannot write
    is dropped.

    `failure` is the first error that dropped something. All else is the stream's own.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.failure: Exception | None = None
        self.errors: str | None = None  # the stream's own handler, put back at the end
        self._handle(HANDLER)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self.failure = self.failure or error
            return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self.failure = self.failure or error

    def isatty(self) -> bool:
        return not self.stream.closed and self.stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _handle(self, errors: str | None) -> None:
        """Let the stream spell by `errors` what its encoding lacks, where it is one that
        encodes.
        """
        if errors is not None and hasattr(self.stream, "reconfigure"):
            with suppress(OSError, ValueError):  # it flushes first
                before = self.stream.errors
                self.stream.reconfigure(errors=errors)
                self.errors = before

    def end(self) -> None:
        """Flush a last time. Where that fails, the stream leads nowhere from now on: the
        interpreter flushes it once more, and would complain, and exit with a code of its own."""
        self._handle(self.errors)
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self.failure = self.failure or error
            with suppress(OSError, ValueError):  # a stream without a file, or closed
                lead_nowhere(self.stream.fileno())
                self.stream.flush()


def lead_nowhere(number: int) -> None:
    """Make a file descriptor one of the null device; child processes inherit it."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(opened, number)
        os.close(opened)


def open_standard_streams() -> None:
    """Where a command was started with stdin, stdout or stderr closed, the next files would get
    their numbers, and with them all that libraries write there; so these are opened first, leading
    nowhere."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            lead_nowhere(number)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within, sys.stdout and sys.stderr take whatever is written. A device that was full is told of
    in a line on stderr, at the end.
    """
    open_standard_streams()
    before = sys.stdout, sys.stderr
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        output, errors = (Lasting(stream if stream is not None else nowhere) for stream in before)
        sys.stdout, sys.stderr = output, errors
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            output.end()
            if isinstance(output.failure, OSError) and output.failure.errno not in NOBODY_READS:
                errors.write(
                    "afterwit: some of the output could not be written"
                    f" ({output.failure.strerror}); all else was done\n"
                )
            errors.end()


def say(line: str) -> None:
    """On stderr, above a progress bar."""
    tqdm.write(f"afterwit: {line}", file=sys.stderr)
    sys.stderr.flush()
