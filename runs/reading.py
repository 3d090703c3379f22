"""JSON that lies in a run's folder: read with one line for whatever is wrong with it, and words that fit into a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, remedy: str) -> Any:
    """What a JSON file holds. Raises a ValueError that names the file and ends in `remedy`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(data, ensure_ascii=False).encode()  # JSON can spell halves of characters, which no page and no picture takes
        return data
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers of thousands of digits, thousands of brackets
        raise ValueError(f"{path} is damaged: it is no JSON ({error}); {remedy}") from error


def in_one_line(text: str) -> str:
    """`text` with everything escaped that would break the line, or command the terminal (names of folders and games may hold it)."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
