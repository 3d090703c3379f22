"""Train the run in one folder: the end of `afterwit train`, and a process of its own.

Studies start `python -m afterwit.runs.training.train_folder RUN [--stop-with-parent]` for each of
their runs. It does what `afterwit train --resume RUN --quiet` does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from afterwit.runs.output.streams import tolerant_output
from afterwit.runs.output.text import quoted
from afterwit.runs.training.exit_codes import STOPPED, run_and_report
from afterwit.runs.training.loop import train

STOP_WITH_PARENT = "--stop-with-parent"


def main(argv: Sequence[str] | None = None) -> int:
    """Train the run whose folder is named in `argv`. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if STOP_WITH_PARENT in words:
        words.remove(STOP_WITH_PARENT)
        threading.Thread(target=stop_with_parent, daemon=True).start()
    (folder,) = map(Path, words)
    with tolerant_output():
        return run_and_report(lambda: finish(lambda: train(folder, progress=False), folder))


def finish(work: Callable[[], bool], folder: Path) -> int:
    """Train by calling `work`, and print how the run in `folder` ended. Returns the exit code."""
    try:
        done = work()
    except KeyboardInterrupt:  # before or after training, during which `StopSignals` catches it
        message = "nothing was started"
        if folder.exists():
            message = f"go on with: afterwit train --resume {quoted(folder)}"
        raise KeyboardInterrupt(message) from None
    if done:
        print(f"finished: {quoted(folder)}\nlook at it: afterwit report {quoted(folder)}")
        return 0
    print(f"stopped and saved; go on with: afterwit train --resume {quoted(folder)}")
    return STOPPED


def stop_with_parent() -> None:
    """Send SIGTERM to this process when its parent is gone, so that it saves and stops.

    The parent keeps stdin open as a pipe and never writes to it. The pipe closes with the parent.
    """
    # Not sys.stdin: at exit the interpreter would wait for the lock that a reading thread holds.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
