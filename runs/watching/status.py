"""The head line of a watched run: what it is, how far it is, and whether it goes on."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from afterwit.runs.configs.comparison import world_name
from afterwit.runs.configs.run_config import RunConfig, config_of
from afterwit.runs.evaluation.evaluation_result import is_number
from afterwit.runs.output.files import is_locked
from afterwit.runs.output.text import quoted
from afterwit.runs.training.loop import ERROR
from afterwit.runs.training.run_log import METRICS, last_entry
from afterwit.runs.watching.page import problem

TRACE_LINES = 12  # of an error, the last ones; the whole is in the run's folder
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def head(folder: Path) -> str:
    """Return the head line of a run as HTML.

    Raises:
      ValueError or OSError: the folder is gone or is no run folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is gone; this is what was there last")
    config, entry = config_of(folder), last_entry(folder) or {}
    done, total = entry.get("agent_steps", 0), config.total_steps
    state = state_of(folder, done, total)
    facts = [f"preset {config.preset}", f"{done:,} of {total:,} agent steps ({done / total:.0%})"]
    speed, seconds = (number(entry, name) for name in ("agent_steps_per_second", "seconds"))
    if speed is not None:
        facts.append(f"{speed:,.0f} agent steps/s")
    if state == "training":
        if done and seconds is not None:
            facts.append(f"{duration((total - done) * seconds / done)} left")
        facts.append(last_logged(folder, config))
    lines = [
        f'<p class="lead" data-title="{done / total:.0%} {escape(config.title)}">'
        f"{escape(config.title)}, on {escape(world_name(config))}</p>",
        f'<p class="facts"><span class="state {state}">{state}</span>'
        f" {escape(' · '.join(facts))}</p>",
        f'<div class="bar"><div style="width:{min(done / total, 1):.2%}"></div></div>',
    ]
    if state == "stopped":
        command = f"afterwit train --resume {quoted(folder)}"
        lines.append(f'<p class="note">Go on with: <code>{escape(command)}</code></p>')
        lines += trace(folder)
    return "\n".join(lines)


def number(entry: dict[str, Any], name: str) -> float | None:
    """Return a number of a log entry, None if it is missing or none."""
    value: Any = entry.get(name)
    return float(value) if is_number(value) and math.isfinite(value) else None


def state_of(folder: Path, done: int, total: int) -> str:
    """Return training, finished or stopped. A process that trains a run has locked its folder."""
    if done >= total:
        return "finished"
    return "training" if is_locked(folder) else "stopped"


def last_logged(folder: Path, config: RunConfig) -> str:
    """Return how long ago the last log entry was written."""
    with suppress(OSError):
        if (log := (folder / METRICS).stat()).st_size:
            return f"logged {duration(max(0.0, time.time() - log.st_mtime))} ago"
    return f"the first log entry comes after {config.log_interval:,} agent steps"


def trace(folder: Path) -> list[str]:
    """Return the end of the error with which an environment stopped the run, as HTML.

    Nothing if there is none, or if the run has gone on since.
    """
    path, log = folder / ERROR, folder / METRICS
    try:
        if log.is_file() and log.stat().st_mtime > path.stat().st_mtime:
            return []
        lines = path.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    except OSError:
        return []
    return [
        problem(f"An environment raised an error: {path}"),
        f"<pre>{escape(chr(10).join(lines[-TRACE_LINES:]))}</pre>",
    ]


def duration(seconds: float) -> str:
    """Return seconds as text, in its largest unit and the one below: 12 s, 3 h 20 min."""
    number = round(seconds)
    for index, (size, unit) in enumerate(UNITS):
        if number >= size:
            text = f"{number // size} {unit}"
            if index < 2:  # days with hours, hours with minutes
                smaller, name = UNITS[index + 1]
                text += f" {number % size // smaller} {name}"
            return text
    return "0 s"
