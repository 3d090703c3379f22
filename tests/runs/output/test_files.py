"""Files that several processes write, links, and files of another kind."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from afterwit.runs.output.files import atomic_write, check_kind


def write_often(path: Path, letter: str, wrong: multiprocessing.Queue[str]) -> None:
    for _ in range(40):
        try:
            with atomic_write(path) as file:
                file.write(letter.encode() * (50_000 if letter == "a" else 9))
        except OSError as error:
            wrong.put(str(error))


def test_two_writers_leave_one_whole_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    wrong: multiprocessing.Queue[str] = context.Queue()
    writers = [
        context.Process(target=write_often, args=(tmp_path / "file", letter, wrong))
        for letter in "ab"
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "file").exists():
            assert (tmp_path / "file").read_text() in ("a" * 50_000, "b" * 9)
    for writer in writers:
        writer.join()
    assert wrong.empty() and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    check_kind(None, "rate")
    check_kind(tmp_path / "new.json", "rate")
    (tmp_path / "own.json").write_text('{"rate": 1}')
    check_kind(tmp_path / "own.json", "rate")
    for text in ("{}", "[]", "mine"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match="is no result of this command"):
            check_kind(tmp_path / "other.json", "rate")
