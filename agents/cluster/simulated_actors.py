"""Stand-ins for actors, to measure what learners and network can handle."""

from __future__ import annotations

from typing import Any

import ray

from afterwit.agents.cluster.calls import start_process
from afterwit.agents.cluster.remote_pipeline import RemotePipeline
from afterwit.agents.processes import Arrays, Plan, summarise, to_arrays
from afterwit.envs.arrays import Array
from afterwit.world_models.trajectory import Trajectory


class SimulatedActors(RemotePipeline):
    """Processes in the actors' places, which replay a recorded trajectory.

    They measure how much the learners and the object store can handle, with more actors than there
    are cores.

    Args:
      plan: What runs where.
      recorded: The trajectory.
      period: Seconds between two trajectories of one actor.
    """

    def __init__(self, plan: Plan, recorded: Trajectory, period: float):
        whole = to_arrays(recorded)
        self.recorded, self.period = ray.put((whole, summarise(whole))), period
        super().__init__(plan, None)

    def _start(self, index: int) -> Any:
        return start_process(
            make_simulated_actor_class(),
            None,
            0,
            1,
            0,
            self.recorded,
            self.period,
            index / self.plan.actors,
        )


def make_simulated_actor_class() -> type:
    """The class of a simulated actor.

    It is made in a function so that Ray sends its code. A process that imported this package would
    take 100 MiB more.
    """

    class SimulatedActor:
        def __init__(self, recorded: tuple[Arrays, Arrays], period: float, phase: float):
            import time

            self.time, self.recorded, self.period = time, recorded, period
            self.due = time.monotonic() + phase * period

        def unroll(self, weights: dict[str, Array], version: int) -> tuple[Arrays, Arrays]:
            """The recorded trajectory, when it is due.

            It is copied into the object store each time.
            """
            self.time.sleep(max(0.0, self.due - self.time.monotonic()))
            self.due = max(self.due, self.time.monotonic()) + self.period
            return self.recorded

    return SimulatedActor
