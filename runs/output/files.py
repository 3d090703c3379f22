"""Files that are whole or not there, logs that end in a whole record, and folders that one process
at a time writes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from afterwit.runs.output.text import quoted

LOCK, TEMPORARY = ".lock", ".tmp"
TRIAL = 1 << 16  # bytes that a disk must have room for where results are to be written


class Unwritable(OSError):
    """A file could not be written. `filename` says which, `strerror` why."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is whole and on disk; until then
    `path` stays as it is.

    Raises Unwritable where it cannot be written, and leaves nothing behind.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            yield file
            sync(file)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise with_path(error, path) from error
        raise


def write_json(path: Path, data: Any, indent: int = 2, allow_nan: bool = True) -> None:
    """Plain values as a JSON file, whole or not at all. Raises Unwritable."""
    with replacing(path) as file:
        file.write((json.dumps(data, indent=indent, allow_nan=allow_nan) + "\n").encode())


@contextmanager
def results(*paths: Path) -> Iterator[None]:
    """Around the work that these files will hold the results of: what could not be written is
    refused before it begins.

    Makes the files' folders; where the work fails and left nothing in them, they go again. Raises
    ValueError, naming the file.
    """
    made: list[Path] = []
    try:
        for path in paths:
            missing = [folder for folder in path.parents if not folder.exists()]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                made += missing
                # a folder, or a device, which must not be replaced
                if path.exists() and not path.is_file():
                    raise OSError(errno.EEXIST, "it is there and is no file")
                trial = path.with_name(path.name + TEMPORARY)
                try:
                    with trial.open("wb") as file:
                        file.write(bytes(TRIAL))
                        sync(file)
                finally:
                    trial.unlink(missing_ok=True)
            except OSError as error:
                made += [folder for folder in missing if folder.is_dir()]
                why = error.strerror or error
                raise ValueError(
                    f"{quoted(path)} cannot be written ({why}); nothing was begun: choose another"
                    " --out"
                ) from error
        yield
    except BaseException:
        for folder in sorted(set(made), key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):  # something lies in it
                folder.rmdir()
        raise


def with_path(error: OSError, path: Path) -> Unwritable:
    """The error with the file that it is about: writing to an open file does not say which."""
    return Unwritable(error.errno, error.strerror or str(error), str(path))


def sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """A rename is on disk when its folder is."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def place(source: Path, target: Path) -> None:
    """`target` becomes what `source` is: another name of the same file where the disk has such
    links, else a copy.
    """
    temporary = target.with_name(target.name + TEMPORARY)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        with replacing(temporary) as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # rename does nothing where the two were one file before
    sync_folder(target.parent)


def discard_temporaries(folder: Path) -> None:
    """Remove what `replacing` and `place` had begun when their process was killed. Only the
    folder's owner may do that.
    """
    for path in folder.glob(f"*{TEMPORARY}"):
        path.unlink(missing_ok=True)


class Appending:
    """A file that grows by whole records: what cannot be written whole is taken back, so that the
    file stays readable.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file = path.open("ab", buffering=0)

    def write(self, record: bytes) -> None:
        """Raises Unwritable; then nothing of `record` is in it."""
        size, rest = self.file.tell(), memoryview(record)
        try:
            while rest:
                rest = rest[self.file.write(rest) or 0 :]
        except OSError as error:
            self.file.truncate(size)
            raise with_path(error, self.path) from error

    def sync(self) -> None:
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


@contextmanager
def occupied(home: Path, patience: float) -> Iterator[int]:
    """Hold HOME/.lock, so that no two processes write one folder. Gives the lock's file descriptor:
    processes that inherit it hold the folder, too, and it is free when the last of them is gone,
    however it ended.

    Raises ValueError, naming the process that holds it, if `home` is in use for longer than
    `patience` seconds.
    """
    since, announced = time.monotonic(), False
    while (file := take(home)) is None:
        waited = time.monotonic() - since
        if waited >= patience:
            raise ValueError(
                f"{home} is in use by another afterwit process (number {holder(home)}); "
                "wait for its end or stop it, or choose another folder"
            )
        if waited > 1 and not announced:
            print(f"waiting for an earlier session in {home} to save and stop", flush=True)
            announced = True
        time.sleep(0.1)
    with file:
        file.truncate(0)
        with suppress(OSError):  # a full disk holds the lock as well
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
        yield file.fileno()


def take(home: Path) -> BinaryIO | None:
    """HOME/.lock, open and locked; None while another process has it. Makes the folder."""
    while True:
        home.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                file = stack.enter_context((home / LOCK).open("a+b"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), (home / LOCK).stat()):
                    stack.pop_all()
                    return file
            except BlockingIOError:
                return None
            except FileNotFoundError:  # who held it has given the folder up, and removed it
                continue


def holder(home: Path) -> str:
    """The number of the process that holds a folder, as its lock tells it."""
    try:
        return (home / LOCK).read_bytes()[:20].decode(errors="replace").strip() or "unknown"
    except FileNotFoundError:
        return "unknown"


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


def with_escapes(data: Any) -> Any:
    """JSON's values with every byte of BYTES in a text spelled as Python does: `\\udcff`."""
    if isinstance(data, str):
        return BYTES.sub(lambda found: found[0].encode("ascii", "backslashreplace").decode(), data)
    if isinstance(data, dict):
        return {with_escapes(name): with_escapes(value) for name, value in data.items()}
    return [with_escapes(item) for item in data] if isinstance(data, list) else data
