"""The numbers of a report as plain values, for summary.json and the tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from afterwit.runs.reports.groups import Group, result_names
from afterwit.runs.reports.run_results import RunLog
from afterwit.runs.reports.sentences import headline


def summarise(groups: Sequence[Group]) -> dict[str, Any]:
    """Return headline, groups and their runs as plain values. Missing numbers are None."""
    rows = []
    for group in groups:
        names = result_names(group)
        runs = [_row(run.last, run.best, names) | _effort(run) for run in group.runs]
        row = {
            "label": group.label,
            "method": group.method,
            "world": group.world,
            "seeds": [run.config.seed for run in group.runs],
        }
        rows.append(row | _row(group.last, group.best, names) | {"runs": runs})
    return {"headline": headline(groups), "groups": rows}


def _row(
    last: Callable[[str], float], best: Callable[[str], float], names: Sequence[str]
) -> dict[str, Any]:
    def table(value: Callable[[str], float], chosen: Iterable[str]) -> dict[str, float | None]:
        return {name: found if math.isfinite(found := value(name)) else None for name in chosen}

    return {
        "last_tenth": table(last, names),
        "best_tenth": table(best, [n for n in names if n.startswith(("reached/", "episode/"))]),
    }


def _effort(run: RunLog) -> dict[str, Any]:
    end = run.entries[-1]
    seconds = end.get("seconds")
    return {
        "folder": str(run.folder),
        "seed": run.config.seed,
        "agent_steps": int(run.steps[-1]),
        "total_steps": run.config.total_steps,
        "frames": end.get("frames"),
        "seconds": seconds,
        "agent_steps_per_second": int(run.steps[-1]) / seconds if seconds else None,
        "episodes": int(run.episodes.sum()),
        "episodes_last_tenth": int(run.episodes[run.tenth == run.last_tenth].sum()),
    }
