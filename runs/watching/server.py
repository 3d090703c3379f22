"""The server of `afterwit watch`: one page about one run, on this machine only."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import webbrowser
from collections.abc import Callable, Hashable
from contextlib import closing, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import matplotlib

from afterwit.runs.configs.run_config import config_of
from afterwit.runs.output.figure_style import STYLE
from afterwit.runs.output.text import quoted
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run_log import MAPS, METRICS
from afterwit.runs.watching.film import Film, stamp
from afterwit.runs.watching.page import SECTIONS, problem, whole_page
from afterwit.runs.watching.pictures import curves_html, map_html
from afterwit.runs.watching.status import head

HOST = "127.0.0.1"
REST = 10.0  # after figures were drawn, none are for so many times as long as that took
# Nothing from elsewhere, whatever a run's files hold.
POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; connect-src 'self'"
)


class Part:
    """A part of the page, made again when its files have changed.

    What cannot be made is said in one line above what was made last.

    Args:
      make: returns HTML, or raises ValueError or OSError.
      files: what it is made of; none: made for each look.
    """

    def __init__(self, make: Callable[[], str], *files: Path):
        self.make, self.files = make, files
        self.made_of: Hashable = None
        self.next = 0.0
        self.good = self.shown = ""
        self.lock = threading.Lock()

    def look(self) -> tuple[str, str]:
        """Return the part's HTML and its version."""
        with self.lock:
            made_of = tuple(map(stamp, self.files))
            changed = not self.files or made_of != self.made_of
            if changed and time.monotonic() >= self.next:
                begun = time.monotonic()
                try:
                    self.good = self.shown = self.make()
                    self.made_of = made_of
                except (ValueError, OSError) as error:
                    self.shown = problem(str(error)) + self.good
                if self.files:
                    self.next = time.monotonic() + REST * (time.monotonic() - begun)
            return self.known()

    def known(self) -> tuple[str, str]:
        """Return the HTML that was made last, and its version."""
        return self.shown, hashlib.sha256(self.shown.encode(errors="replace")).hexdigest()[:16]


class Watch:
    """The parts of the page about one run.

    Args:
      folder: the run folder, which is only read.
      scratch: an empty folder for figures and films.
    """

    def __init__(self, folder: Path, scratch: Path):
        self.folder = folder
        self.film = Film(folder, scratch)
        drawing = threading.Lock()  # matplotlib's style is one for all threads

        def drawn(draw: Callable[[Path, Path], str]) -> Callable[[], str]:
            def make() -> str:
                with drawing, matplotlib.rc_context(STYLE):
                    return draw(folder, scratch)

            return make

        metrics, maps = folder / METRICS, folder / MAPS
        self.parts = {
            "head": Part(lambda: head(folder)),
            "film": Part(self.film.html),
            "map": Part(drawn(map_html), maps, folder / checkpoint.NAME),
            "curves": Part(drawn(curves_html), metrics),
        }
        assert self.parts.keys() == SECTIONS.keys()

    def look(self, name: str) -> tuple[str, str]:
        """Return a part's HTML and its version. Without the run, only the head line changes."""
        part = self.parts[name]
        return part.look() if name == "head" or self.folder.is_dir() else part.known()

    def page(self) -> str:
        """Return the whole page, with what is known of its parts."""
        known = {name: part.known() for name, part in self.parts.items()}
        return whole_page(self.folder, known | {"head": self.look("head")})

    def close(self) -> None:
        self.film.close()


class Server(ThreadingHTTPServer):
    """Serves the page of a `Watch` on 127.0.0.1.

    Raises:
      ValueError: the port cannot be had.
    """

    def __init__(self, watch: Watch, port: int = 0):
        if not 0 <= port < 65536:
            raise ValueError(f"port is {port}; it must be 1 to 65535, or 0 for any free one")
        self.watch = watch
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise ValueError(
                f"port {port} cannot be had ({error.strerror}); choose another --port, or leave it"
                " out for a free one"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # not a browser that went away
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers / with the page, and /part/NAME?have=VERSION with a part."""

    server: Server

    def do_GET(self) -> None:
        # a page from elsewhere whose name was pointed at this machine must not read the run
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            return self._answer(HTTPStatus.FORBIDDEN, f"open {self.server.url}")
        address = urlsplit(self.path)
        name = address.path.removeprefix("/part/")
        try:
            if address.path == "/":
                return self._answer(HTTPStatus.OK, self.server.watch.page())
            if name not in self.server.watch.parts:
                return self._answer(HTTPStatus.NOT_FOUND, "there is nothing here")
            text, version = self.server.watch.look(name)
        except Exception:
            traceback.print_exc()
            line = f"{name}: a fault of Afterwit; the terminal shows its traceback"
            return self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, problem(line))
        if parse_qs(address.query).get("have") == [version]:
            return self._answer(HTTPStatus.NO_CONTENT, "", version)
        return self._answer(HTTPStatus.OK, text, version)

    def _answer(self, status: HTTPStatus, text: str, version: str = "") -> None:
        data = text.encode(errors="backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Version", version)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: a page asks several times a second."""


def watch(folder: Path, port: int, browser: bool) -> None:
    """Serve the page about a run until Ctrl-C.

    Args:
      folder: the run folder.
      port: 0 takes any free one.
      browser: whether to open the page in a browser.

    Raises:
      ValueError: there is no such run, or the port cannot be had.
    """
    config_of(folder)
    with (
        tempfile.TemporaryDirectory(prefix="afterwit-watch-", ignore_cleanup_errors=True) as home,
        closing(Watch(folder, Path(home))) as parts,
        Server(parts, port) as server,
    ):
        serve(server, browser)


def serve(server: Server, browser: bool) -> None:
    """Serve at low priority until SIGINT or SIGTERM."""
    os.nice(5)  # the training that is watched goes first
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"watching {quoted(server.watch.folder)}: {server.url}  (Ctrl-C ends it)", flush=True)
    if browser:
        webbrowser.open(server.url)
    with suppress(KeyboardInterrupt):
        server.serve_forever()
