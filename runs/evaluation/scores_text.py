"""Scores as text: a table of aggregates, and what it is of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from afterwit.runs.evaluation.intervals import AGGREGATES


def table(result: Mapping[str, Any]) -> str:
    """Return the aggregates as text: one row per method."""
    tasks = len(result["tasks"])
    head = (
        f"{result['measure'].replace('_', '-')} score of {run_count(result)} a task,"
        f" {tasks} task{'s' * (tasks > 1)}: " + "; ".join(result["tasks"])
    )
    width = max(18, 2 + max(map(len, result["aggregates"])))
    rows = [" " * width + "".join(f"{name:>30}" for name in AGGREGATES)]
    for method, numbers in result["aggregates"].items():
        rows.append(
            method.ljust(width)
            + "".join(
                f"{format_interval(numbers[name]['value'], numbers[name]):>30}"
                for name in AGGREGATES
            )
        )
    beats = [
        f"a run of {p['better']} beats one of {p['than']} with probability"
        f" {format_interval(p['probability'], p)}"
        for p in result["improvement"]
    ]
    return "\n".join([head, *rows, *beats, *notes(result["runs"])])


def notes(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines if runs were evaluated at different ages, or before all episodes ended."""
    lines = []
    steps = sorted({run["trained_agent_steps"] for run in runs if run["trained_agent_steps"]})
    if len(steps) > 1:
        lines.append(f"the runs had trained for {steps[0]:,} to {steps[-1]:,} agent steps")
    if early := [run["folder"] for run in runs if run["limit"]]:
        lines.append(
            f"{len(early)} of {len(runs)} evaluations ended early, with the short episodes alone:"
            f" {', '.join(early[:3])}{', …' * (len(early) > 3)}"
        )
    return lines


def format_interval(value: float, ends: Mapping[str, float]) -> str:
    interval = f" [{ends['low']:.2f}, {ends['high']:.2f}]" if math.isfinite(ends["low"]) else ""
    return f"{value:.2f}{interval}"


def run_count(result: Mapping[str, Any]) -> str:
    """Return how many runs a method has of a task: `5 runs`, or `3 to 5 runs`."""
    counts = sorted(map(len, result["scores"].values()))
    least, most = counts[0], counts[-1]
    return f"{f'{least} to ' * (least < most)}{most} run{'s' * (most > 1)}"
