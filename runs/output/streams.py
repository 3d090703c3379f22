"""Standard streams that drop what they cannot write, in any encoding.

Output that cannot be written must never stop a command. This covers a pipe without a reader, a full
device, a closed terminal, and a stream that was closed before the start (`>&-`). Files and the exit
code are the same as without the fault.
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
READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET, errno.ENXIO)
# ASCII for the other characters in help texts and reports. A terminal's encoding may lack those.
ASCII_REPLACEMENTS = {
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
HANDLER = "afterwit.ascii"


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for letters that an encoding lacks: a plain spelling, or Python's escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    replacements = [
        ASCII_REPLACEMENTS.get(letter) or letter.encode("ascii", "backslashreplace").decode()
        for letter in error.object[error.start : error.end]
    ]
    return "".join(replacements), error.end


codecs.register_error(HANDLER, in_ascii)


class TolerantStream:
    """A text stream that passes everything to `stream` and drops what `stream` cannot write.

    `failure` is the first error that dropped something.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.failure: Exception | None = None
        self.errors: str | None = None  # the stream's own error handler, restored at the end
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
        """Set the stream's error handler, if it encodes text."""
        if errors is not None and hasattr(self.stream, "reconfigure"):
            with suppress(OSError, ValueError):  # it flushes first
                before = self.stream.errors
                self.stream.reconfigure(errors=errors)
                self.errors = before

    def end(self) -> None:
        """Flush a last time. If that fails, point the stream at the null device.

        Otherwise the interpreter would flush it once more at exit, complain, and change the exit
        code.
        """
        self._handle(self.errors)
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self.failure = self.failure or error
            with suppress(OSError, ValueError):  # a stream without a file, or closed
                point_at_null_device(self.stream.fileno())
                self.stream.flush()


def point_at_null_device(number: int) -> None:
    """Make a file descriptor one of the null device. Child processes inherit it."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(opened, number)
        os.close(opened)


def open_standard_streams() -> None:
    """Point stdin, stdout and stderr at the null device if they are closed.

    Otherwise the next files to be opened would get their numbers, and whatever libraries print
    would go into those files.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            point_at_null_device(number)


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Let sys.stdout and sys.stderr drop what cannot be written, inside the `with` block.

    If a device was full, a line on stderr says so at the end.
    """
    open_standard_streams()
    before = sys.stdout, sys.stderr
    with ExitStack() as stack:
        null_device = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        output, errors = (
            TolerantStream(stream if stream is not None else null_device) for stream in before
        )
        sys.stdout, sys.stderr = output, errors
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            output.end()
            if isinstance(output.failure, OSError) and output.failure.errno not in READER_GONE:
                errors.write(
                    "afterwit: some of the output could not be written"
                    f" ({output.failure.strerror}); everything else was done\n"
                )
            errors.end()


def print_notice(line: str) -> None:
    """Print a line on stderr, above a progress bar."""
    tqdm.write(f"afterwit: {line}", file=sys.stderr)
    sys.stderr.flush()
