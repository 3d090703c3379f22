"""Signals that stop a run after its learner step, and notices when nothing happens for long."""

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
from afterwit.runs.training.exit_codes import STOPPED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A second one of these ends the process at once. Not SIGHUP: a closed terminal sends two.
END_AT_ONCE = (signal.SIGINT, signal.SIGTERM)
SILENCE_SECONDS = 60.0  # without progress, after which a notice is printed
STEP_SECONDS = 3.0  # after a signal; a learner step has usually ended by then
# A thread whose code is in one of these files waits for another thread.
WAITING_FILES = ("threading.py", "queue.py", "_base.py", "thread.py", "selectors.py")


class StopSignals:
    """Collects SIGINT, SIGTERM and SIGHUP while a run trains. Enter it in the main thread.

    The training loop ends after its learner step when `received` is not empty. A second SIGINT or
    SIGTERM ends the process at once, wherever it hangs, also in the C++ code of an environment: a
    thread reads signals from a pipe that Python's C handler fills. If SIGHUP is ignored, as under
    nohup, it stays ignored, and the run goes on when its terminal is closed. The same thread prints
    a notice when no learner step has ended for SILENCE_SECONDS.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.received: list[int] = []
        self.steps, self.last = 0, time.monotonic()
        self.first_signal: float | None = None  # time of the first signal

    def step_ended(self, agent_steps: int) -> None:
        """Note that a learner step has ended."""
        self.steps, self.last = agent_steps, time.monotonic()

    def __enter__(self) -> StopSignals:
        self.inlet, self.outlet = os.pipe()
        os.set_blocking(self.outlet, False)
        self.main = threading.get_ident()
        numbers = [
            number
            for number in SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        ]
        self.previous: dict[int, Any] = {
            number: signal.signal(number, self._receive) for number in numbers
        }
        self.wakeup = signal.set_wakeup_fd(self.outlet, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self._listen, name="stop signals", daemon=True)
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

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)

    def _listen(self) -> None:
        counts: Counter[int] = Counter()
        announced = 0.0  # the beginning of the silence that a notice was printed about
        while True:
            received = (
                os.read(self.inlet, 64)
                if select.select([self.inlet], [], [], min(1.0, SILENCE_SECONDS / 4))[0]
                else b""
            )
            if 0 in received:
                return
            counts.update(number for number in received if number in self.previous)
            if any(counts[number] > 1 for number in END_AT_ONCE):
                self._exit_now()
            now, last = time.monotonic(), self.last
            if counts and self.first_signal is None:
                self.first_signal = now
            if (
                self.first_signal is not None
                and now - self.first_signal > STEP_SECONDS
                and announced != self.first_signal
            ):
                announced = self.first_signal
                print_notice(
                    "stopping when this learner step has ended; a second Ctrl-C ends the run at"
                    " once, without saving"
                )
            elif self.first_signal is None and now - last > SILENCE_SECONDS and announced != last:
                announced = last
                print_notice(
                    f"no learner step has ended for {now - last:.0f} s, after {self.steps:,} agent"
                    f" steps; the run is in {self._where()}. Press Ctrl-C twice to end it; its"
                    " last checkpoint stays"
                )

    def _where(self) -> str:
        """Return the code line at which the process is at the moment.

        Of the acting and the learning thread it is the one that does not wait for the other.
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
            place for place in places if Path(place[0].co_filename).name not in WAITING_FILES
        ] or places
        code, line = busy[0]
        return f"{code.co_qualname}, {'/'.join(Path(code.co_filename).parts[-2:])} line {line}"

    def _exit_now(self) -> None:
        """End the process without an exception.

        Code that hangs would not see an exception, and the interpreter would wait for its threads.
        """
        line = (
            "\nafterwit: ended at once, unsaved since the last checkpoint; go on with: afterwit"
            f" train --resume {quoted(self.folder)}\n"
        )
        with suppress(OSError):  # the terminal is gone
            os.write(2, line.encode(errors="backslashreplace"))
        os._exit(STOPPED)


class SilenceNotice:
    """Prints a notice while something goes on that may never end.

    The notice comes after SILENCE_SECONDS without `progress`, and again whenever that silence has
    doubled. `message` returns its text, given the silence in seconds.
    """

    def __init__(self, message: Callable[[float], str]):
        self.message = message
        self.over, self.last = threading.Event(), time.monotonic()
        self.thread = threading.Thread(target=self._listen, name="waiting", daemon=True)

    def progress(self) -> None:
        """Note that something has happened: the silence starts anew."""
        self.last = time.monotonic()

    def __enter__(self) -> SilenceNotice:
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
        since, patience = self.last, SILENCE_SECONDS
        while not self.over.wait(min(1.0, SILENCE_SECONDS / 4)):
            if self.last != since:
                since, patience = self.last, SILENCE_SECONDS
            silence = time.monotonic() - since
            if silence > patience:
                patience = 2 * silence
                print_notice(self.message(silence))
