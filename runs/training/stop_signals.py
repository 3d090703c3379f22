"""Ctrl-C and silence: a run that is asked to stop does so after its learner step, and one that
hangs says so and can be ended.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from afterwit.runs.output.streams import print_notice
from afterwit.runs.output.text import quoted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# a closed terminal's SIGHUP comes twice by itself: from the shell, and from the system
TWICE = (signal.SIGINT, signal.SIGTERM)
QUIET = 60.0  # seconds without a learner step after which a line says so
PATIENCE = 3.0  # seconds after a signal in which a step usually ends
STOPPED = 130  # exit code of a run that was interrupted
# a thread here waits for another
WAITING = ("threading.py", "queue.py", "_base.py", "thread.py", "selectors.py")


class Watch:
    """While a run trains: `stop` fills with the SIGINTs, SIGTERMs and SIGHUPs that came, for the
    loop to end after its learner step.

    A second SIGINT or SIGTERM ends the process at once, wherever it hangs (also in an environment's
    C++): a thread hears of signals through a pipe that the C handler fills. Where SIGHUP is
    ignored, as under nohup, it stays ignored: the run goes on when its terminal is closed. The same
    thread prints a line when no step has ended for QUIET seconds. Enter it in the main thread.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.stop: list[int] = []
        self.steps, self.last = 0, time.monotonic()
        self.asked: float | None = None  # when the first signal came

    def alive(self, agent_steps: int) -> None:
        """A learner step has ended."""
        self.steps, self.last = agent_steps, time.monotonic()

    def __enter__(self) -> Watch:
        self.inlet, self.outlet = os.pipe()
        os.set_blocking(self.outlet, False)
        self.main = threading.get_ident()
        numbers = [
            number
            for number in SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        ]
        self.previous: dict[int, Any] = {
            number: signal.signal(number, self._note) for number in numbers
        }
        self.wakeup = signal.set_wakeup_fd(self.outlet, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self._listen, name="watch", daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self.wakeup)
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        os.write(self.outlet, b"\0")
        self.thread.join()
        os.close(self.inlet)
        os.close(self.outlet)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stop.append(number)

    def _listen(self) -> None:
        came: Counter[int] = Counter()
        told = 0.0  # the silence, by its beginning, that a line was printed about
        while True:
            heard = (
                os.read(self.inlet, 64)
                if select.select([self.inlet], [], [], min(1.0, QUIET / 4))[0]
                else b""
            )
            if 0 in heard:
                return
            came.update(number for number in heard if number in self.previous)
            if any(came[number] > 1 for number in TWICE):
                self._end()
            now, last = time.monotonic(), self.last
            if came and self.asked is None:
                self.asked = now
            if self.asked is not None and now - self.asked > PATIENCE and told != self.asked:
                told = self.asked
                print_notice(
                    "stopping when this learner step has ended; a second Ctrl-C ends the run at"
                    " once, without saving"
                )
            elif self.asked is None and now - last > QUIET and told != last:
                told = last
                print_notice(
                    f"nothing has come for {now - last:.0f} s, after {self.steps:,} agent steps;"
                    f" the run is in {self._place()}. Ctrl-C twice ends it; its last checkpoint"
                    " stays"
                )

    def _place(self) -> str:
        """Where the process is at the moment, of its acting and its learning thread the one that is
        not waiting for the other.
        """
        frames = sys._current_frames()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        threads = [ident for ident in frames if names.get(ident, "").startswith("actor")] + [
            self.main
        ]
        places = [
            (frames[ident].f_code, frames[ident].f_lineno) for ident in threads if ident in frames
        ]
        busy = [
            place for place in places if Path(place[0].co_filename).name not in WAITING
        ] or places
        code, line = busy[0]
        return f"{code.co_qualname}, {'/'.join(Path(code.co_filename).parts[-2:])} line {line}"

    def _end(self) -> None:
        """Not by an exception: whoever hangs would not see it, and the interpreter would wait for
        its threads.
        """
        line = (
            "\nafterwit: ended at once, unsaved since the last checkpoint; go on with: afterwit"
            f" train --resume {quoted(self.folder)}\n"
        )
        with suppress(OSError):  # nobody reads it
            os.write(2, line.encode(errors="backslashreplace"))
        os._exit(STOPPED)


class Waiting:
    """While something is waited for that may never come: a line on stderr after QUIET seconds
    without `came`, and again whenever that silence has become twice as long. `words` gives the
    line, from the seconds of silence.
    """

    def __init__(self, words: Callable[[float], str]):
        self.words = words
        self.over, self.last = threading.Event(), time.monotonic()
        self.thread = threading.Thread(target=self._listen, name="waiting", daemon=True)

    def came(self) -> None:
        self.last = time.monotonic()

    def __enter__(self) -> Waiting:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self.thread.join()

    def _listen(self) -> None:
        since, patience = self.last, QUIET
        while not self.over.wait(min(1.0, QUIET / 4)):
            if self.last != since:
                since, patience = self.last, QUIET
            silence = time.monotonic() - since
            if silence > patience:
                patience = 2 * silence
                print_notice(self.words(silence))
