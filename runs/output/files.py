"""Atomic files, append-only logs, and folders that one process at a time may write."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from afterwit.runs.output.text import quoted

PAGE, SUMMARY = "report.html", "summary.json"  # a report's page and numbers
LOCK, TEMPORARY = ".lock", ".tmp"
GLANCE = 0.05  # seconds for which every refusal is doubted once: `is_locked` may just be looking
TRIAL_BYTES = 1 << 16  # must fit on the disk before work begins
HEAD_BYTES = 1 << 12  # a page's title is within them


class Unwritable(OSError):
    """A file could not be written. `filename` names it, `strerror` says why."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` once it is complete and on disk.

    Until then `path` stays as it is. On failure nothing is left behind. Of several writers at once
    the last one stays. A link stays a link, and a file that may not be written stays as it is.

    Raises:
      Unwritable: the file cannot be written.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "it is read-only")
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
    """Write plain values as JSON, completely or not at all.

    Raises:
      Unwritable: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write((json.dumps(data, indent=indent, allow_nan=allow_nan) + "\n").encode())


def finite(value: Any) -> Any:
    """Return `value` with None for numbers that are not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_keys(path: Path) -> set[str]:
    """Return the keys of the JSON object in a file; none if it holds anything else."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return set()
    return set(found) if isinstance(found, dict) else set()


def check_kind(path: Path | None, key: str) -> None:
    """Raise a ValueError if a file is there that is no earlier result: a JSON object with `key`."""
    if path is None or not path.is_file():
        return
    if key not in json_keys(path):
        raise ValueError(
            f"{quoted(path)} exists and is no result of this command; it would be replaced: choose"
            " another --out"
        )


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> None:
    """Write rows as CSV, completely or not at all. A missing value is an empty field.

    Args:
      path: the file.
      rows: values by name.
      names: the columns. Unset: those of all rows, in the order in which they appear.

    Raises:
      Unwritable: the file cannot be written.
    """
    text = io.StringIO()
    head = names or list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


@contextmanager
def checked_outputs(*paths: Path, option: str = "--out") -> Iterator[None]:
    """Check that all `paths` can be written before the work inside the `with` block begins.

    Makes the folders of the files. If the work fails, the folders that are still empty are removed.
    Files that several processes write at once are tried one by one.

    Args:
      *paths: the files.
      option: the option that names them, for messages.

    Raises:
      ValueError: a file cannot be written. The message names it.
    """
    made_folders: list[Path] = []
    try:
        for path in paths:
            missing = [folder for folder in path.parents if not folder.exists()]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                made_folders += missing
                # a folder or a device must not be replaced
                if path.exists() and not path.is_file():
                    raise OSError(errno.EEXIST, "it exists and is not a file")
                trial = path.with_name(path.name + TEMPORARY)
                with sole_writer(path):  # the file that another process is replacing is no trial
                    try:
                        with trial.open("wb") as file:
                            file.write(bytes(TRIAL_BYTES))
                            sync(file)
                    finally:
                        trial.unlink(missing_ok=True)
            except OSError as error:
                made_folders += [folder for folder in missing if folder.is_dir()]
                blocking = next((above for above in path.parents if above.is_file()), None)
                why = error.strerror or error
                if blocking is not None:
                    why = f"{quoted(blocking)} is a file, no folder"
                raise ValueError(
                    f"{quoted(path)} cannot be written ({why}); nothing was started: choose"
                    f" another {option}"
                ) from error
        yield
    except BaseException:
        remove_empty(made_folders)
        raise


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders, innermost first, that exist and have nothing in them."""
    for folder in sorted(set(folders), key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):
            folder.rmdir()


def check_ours(out: Path, heads: Mapping[str, bytes] | None = None) -> None:
    """Raise a ValueError if OUT has a file that would be replaced, and that no report has written.

    Args:
      out: the folder.
      heads: with what other files begin, by name, beside report.html and summary.json.
    """
    page, numbers, foreign = out / PAGE, out / SUMMARY, None
    if page.is_file():
        with page.open("rb") as file:  # a page may hold megabytes of figures, below its title
            foreign = None if b"<title>Afterwit" in file.read(HEAD_BYTES) else page
    if foreign is None and numbers.is_file():
        foreign = None if json_keys(numbers) & {"groups", "study"} else numbers
    for name, head in (heads or {}).items():
        if foreign is None and (out / name).is_file():
            with (out / name).open("rb") as file:
                foreign = None if file.read(len(head)) == head else out / name
    if foreign is not None:
        raise ValueError(
            f"{quoted(foreign)} is not a report of Afterwit's, and would be replaced; choose"
            " another --out"
        )


def with_path(error: OSError, path: Path) -> Unwritable:
    """Return the error with its file's path, which an error from an open file lacks."""
    return Unwritable(error.errno, error.strerror or str(error), str(path))


def sync(file: BinaryIO) -> None:
    """Write the file's buffers to disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk. A rename is only on disk after that."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the disk has no hard links."""
    temporary = target.with_name(target.name + TEMPORARY)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        with atomic_write(temporary) as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # rename does nothing if both were already the same file
    sync_folder(target.parent)


def discard_temporaries(folder: Path) -> None:
    """Remove the temporary files that a killed process left in `folder`.

    Only the process that has locked the folder may do that.
    """
    for path in folder.glob(f"*{TEMPORARY}"):
        path.unlink(missing_ok=True)


class AppendOnlyFile:
    """A file that grows by complete records.

    A record that cannot be written completely is removed again, so that the file stays readable.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file = path.open("ab", buffering=0)

    def write(self, record: bytes) -> None:
        """Append `record`.

        Raises:
          Unwritable: there is no room. Then no part of `record` is in the file.
        """
        size, rest = self.file.tell(), memoryview(record)
        try:
            while rest:
                rest = rest[self.file.write(rest) or 0 :]
        except OSError as error:
            self.file.truncate(size)
            raise with_path(error, self.path) from error

    def sync(self) -> None:
        """Write the file to disk."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


@contextmanager
def locked_folder(home: Path, patience: float) -> Iterator[int]:
    """Lock a folder, so that no two processes write to it at the same time.

    The lock is on HOME/.lock. Processes that inherit its file descriptor share the lock. It is
    released when the last of them has ended, in whatever way.

    Args:
      home: the folder. It is made if it does not exist.
      patience: seconds to wait for another process.

    Yields:
      The file descriptor of the lock.

    Raises:
      ValueError: another process still has the folder after `patience` seconds. The message gives
        its number.
    """
    started, announced = time.monotonic(), False
    while (file := try_to_lock(home)) is None:
        waited = time.monotonic() - started
        if waited >= max(patience, GLANCE):
            raise ValueError(
                f"{home} is in use by another afterwit process (number {lock_owner(home)}); "
                "wait until it ends, stop it, or choose another folder"
            )
        if waited > 1 and not announced:
            print(f"waiting until an earlier session in {home} has saved and stopped", flush=True)
            announced = True
        time.sleep(0.1)
    with file:
        file.truncate(0)
        with suppress(OSError):  # the lock also works on a full disk
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
        yield file.fileno()


def try_to_lock(home: Path) -> BinaryIO | None:
    """Return HOME/.lock, open and locked, or None while another process has it.

    Makes the folder.
    """
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
            except FileNotFoundError:  # its owner has just removed the folder
                continue


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Wait until no other process is changing a file in the folder of `path`, then keep it so.

    For a file that is read, changed and written again in a moment: a table that grows. The folder
    is made. Nothing is left in it. Where the disk has no locks, nothing is locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def is_locked(home: Path) -> bool:
    """Return whether a process has locked a folder. Nothing is made or changed in it."""
    try:
        with (home / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock, or one that may not be read
        return False
    return False


def lock_owner(home: Path) -> str:
    """Return the number of the process that has locked a folder, or "unknown"."""
    try:
        return (home / LOCK).read_bytes()[:20].decode(errors="replace").strip() or "unknown"
    except FileNotFoundError:
        return "unknown"


# Python reads a byte of a file name that is not UTF-8 as one of these characters.
UNDECODED_BYTES = re.compile("[\udc80-\udcff]")


def read_json(path: Path, remedy: str) -> Any:
    """Return what a JSON file holds, with bytes that are not UTF-8 as escapes.

    Such bytes occur in file names and commands.

    Args:
      path: the file.
      remedy: what the user can do about a damaged file; the end of the error message.

    Raises:
      ValueError: the file is not JSON. The message names it.
    """
    try:
        data = with_escapes(json.loads(path.read_text(encoding="utf-8")))
        # JSON may hold half of a surrogate pair, which pages and figures cannot show
        json.dumps(data, ensure_ascii=False).encode()
        return data
    # not UTF-8, not JSON, numbers of thousands of digits, or thousands of brackets
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error}); {remedy}") from error


def with_escapes(data: Any) -> Any:
    r"""Return JSON values with every undecoded byte spelled as Python does: `\udcff`."""
    if isinstance(data, str):
        return UNDECODED_BYTES.sub(
            lambda found: found[0].encode("ascii", "backslashreplace").decode(), data
        )
    if isinstance(data, dict):
        return {with_escapes(name): with_escapes(value) for name, value in data.items()}
    return [with_escapes(item) for item in data] if isinstance(data, list) else data
