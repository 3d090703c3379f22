"""Text for terminals: single lines, and paths quoted for a shell."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path


def in_one_line(text: str) -> str:
    """Return `text` with every character escaped that would break the line or control the terminal.

    Names of folders and games may hold such characters.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def file_name(text: str) -> str:
    """Return `text` as a file's name: ids of environments may hold slashes, and much else."""
    return re.sub(r"[^\w.:=+-]+", "_", text).strip("_")


def quoted(path: Path | str) -> str:
    """Return a path as one word of a shell's command line, to be copied.

    It is quoted where a shell needs that. A path that begins like an option or a home folder gets
    ./ before it. Characters that cannot be printed are spelled byte by byte as $'...', which bash,
    zsh and ksh read.
    """
    text = os.fspath(path)
    if text.startswith(("-", "~")):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(spelled_byte, os.fsencode(text)))}'"


def spelled_byte(byte: int) -> str:
    """Return a byte as it stands within $'...'."""
    plain = chr(byte)
    if plain in "\\'":
        return f"\\{plain}"
    return plain if 32 <= byte < 127 else f"\\{byte:03o}"


def print_paths(*paths: Path) -> None:
    """Print the paths of results."""
    print("written: " + " and ".join(map(quoted, paths)))
