"""JSON that lies in a run's folder: read with one line for whatever is wrong with it, and words
that fit into a line.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

# what Python makes of a byte in a file's name that is no UTF-8
BYTES = re.compile("[\udc80-\udcff]")


def read_json(path: Path, remedy: str) -> Any:
    """What a JSON file holds. A name that is no UTF-8, as a command or folder may have, is given
    with escapes for what is none.

    Raises a ValueError that names the file and ends in `remedy`.
    """
    try:
        data = with_escapes(json.loads(path.read_text(encoding="utf-8")))
        # JSON can spell halves of characters, which no page and no picture takes
        json.dumps(data, ensure_ascii=False).encode()
        return data
    # no UTF-8, no JSON, numbers of thousands of digits, thousands of brackets
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error}); {remedy}") from error


def in_one_line(text: str) -> str:
    """`text` with everything escaped that would break the line, or command the terminal (names of
    folders and games may hold it).
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def with_escapes(data: Any) -> Any:
    """JSON's values with every byte of BYTES in a text spelled as Python does: `\\udcff`."""
    if isinstance(data, str):
        return BYTES.sub(lambda found: found[0].encode("ascii", "backslashreplace").decode(), data)
    if isinstance(data, dict):
        return {with_escapes(name): with_escapes(value) for name, value in data.items()}
    return [with_escapes(item) for item in data] if isinstance(data, list) else data


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
