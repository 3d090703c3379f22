"""Text for terminals: what fits into a line, and paths as words of a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def in_one_line(text: str) -> str:
    """`text` with everything escaped that would break the line, or command the terminal (names of
    folders and games may hold it).
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def quoted(path: Path | str) -> str:
    """A path as a word of a shell's command line, to be copied: quoted where a shell needs that, in
    ASCII where a terminal does.

    A path that begins like an option or a home folder gets ./ before it. What cannot be printed is
    spelled byte by byte, as bash, zsh and ksh read it: $'...'.
    """
    text = os.fspath(path)
    if text.startswith(("-", "~")):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(spelled_byte, os.fsencode(text)))}'"


def spelled_byte(byte: int) -> str:
    plain = chr(byte)
    if plain in "\\'":
        return f"\\{plain}"
    return plain if 32 <= byte < 127 else f"\\{byte:03o}"
