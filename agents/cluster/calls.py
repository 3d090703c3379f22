"""Processes on a Ray cluster: to start them, to wait for them, and to say why they failed."""

from __future__ import annotations

import sys
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


def start_process(
    kind: type, group: Any, bundle: int, cpus: int, gpus: int, *arguments: Any
) -> Any:
    """Start a process of class `kind` with these resources."""
    strategy = PlacementGroupSchedulingStrategy(group, bundle) if group is not None else "SPREAD"
    options = {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
    }
    return ray.remote(kind).options(**options).remote(*arguments)


def wait_for(references: list[Any], what: str) -> list[Any]:
    """Wait for references and return what they hold.

    If the cluster has no room yet, a line on stderr says so.

    Args:
      references: The references.
      what: What they are, for messages.

    Raises:
      ValueError: A process could not start.
    """
    while True:
        _, missing = ray.wait(references, num_returns=len(references), timeout=30)
        if not missing:
            break
        free = {
            name: amount
            for name, amount in ray.available_resources().items()
            if name in ("CPU", "GPU")
        }
        print(
            f"waiting for {what}: {len(missing)} of {len(references)} have no place yet; the"
            f" cluster has free: {free}",
            file=sys.stderr,
        )
    try:
        return ray.get(references)
    except (RayActorError, RayTaskError) as error:
        raise ValueError(f"{what} could not start: {last_line(error)}") from error


def last_line(error: BaseException) -> str:
    """The last line of an error's message, where Ray puts the cause.

    If a process is gone, Ray lists many possible causes. They are summed up.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = (lines or [type(error).__name__])[-1]
    return (
        "its process has ended (killed, or out of memory?)"
        if "Worker exit type" in line
        else line[:300]
    )
