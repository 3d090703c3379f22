"""Costs of a learner step: time by part, and arithmetic and traffic against the device's limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from afterwit.agents.learner import Learner
from afterwit.world_models.trajectory import Trajectory

PART = "part: "
BACKWARD = "autograd::engine::evaluate_function"
OPTIMISER = "Optimizer.step"
REST = "losses, rewards, all else"


def parts(learner: Learner) -> dict[nn.Module, str]:
    """Return the modules that are counted separately, each with the name of its part."""
    policy, model = learner.policy, learner.world_model
    parts_by_module: dict[nn.Module, str] = {
        policy.action_head: "heads",
        policy.value_head: "heads",
        policy.popart: "heads",
    }
    for torso in (policy.torso, learner.own_torso):
        if torso is not None:
            parts_by_module |= {
                torso.encoder: "torso: encoder",
                torso.action_embedding: "torso: RNN",
                torso.rnn: "torso: RNN",
            }
    return parts_by_module | {
        child: f"world model: {name.replace('_', ' ')}" for name, child in model.named_children()
    }


@contextmanager
def labelled(modules: dict[nn.Module, str]) -> Iterator[None]:
    """Let a profile show, inside the `with` block, in which part an operation was called."""
    open_ranges: list[Any] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        open_ranges.append(record_function(PART + modules[module]))
        open_ranges[-1].__enter__()

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    handles = [m.register_forward_pre_hook(enter) for m in modules] + [
        m.register_forward_hook(leave) for m in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def split(learner: Learner, trajectory: Trajectory, steps: int = 3) -> dict[str, float]:
    """Return each part's share of a learner step's time, forward and backward, largest first.

    On a GPU it is the time of the kernels, on a CPU that of the operations themselves. A backward
    operation belongs to the part of its forward operation: autograd gives both the same number. The
    shares sum to 1.
    """
    on_gpu = learner.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with labelled(parts(learner)):
        learner.update(trajectory)
        with profile(activities=activities, acc_events=True) as profiled:
            for _ in range(steps):
                learner.update(trajectory)["loss"].item()
    events = [event for event in profiled.events() or [] if event.device_type == DeviceType.CPU]
    forward_part: dict[int, str] = {}
    for event in sorted(events, key=lambda e: e.time_range.start):
        if event.sequence_nr >= 0 and backward_of(event) is None:
            # several operations may share a number: the last one is recorded
            forward_part[event.sequence_nr] = part_of(event)
    taken: Counter[str] = Counter()
    for event in events:
        origin = backward_of(event)
        part = part_of(event) if origin is None else forward_part.get(origin, REST)
        taken[part] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return {part: taken[part] / taken.total() for part, _ in taken.most_common()}


def ancestry(event: Any) -> Iterator[Any]:
    """Yield a profiled operation and those that called it, from the inside out."""
    while event is not None:
        yield event
        event = event.cpu_parent


def part_of(event: Any) -> str:
    """Return the innermost part in which a forward or optimiser operation was called."""
    for above in ancestry(event):
        if above.name.startswith(PART):
            return str(above.name[len(PART) :])
        if above.name.startswith(OPTIMISER):
            return "optimiser"
    return REST


def backward_of(event: Any) -> int | None:
    """Return the number of the forward operation that this is the backward of.

    None in the forward pass.
    """
    return next(
        (int(above.sequence_nr) for above in ancestry(event) if above.name.startswith(BACKWARD)),
        None,
    )


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write.

    It counts as if each operation fetched its inputs and stored its outputs once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        if not function.is_view:
            flat = torch.utils._pytree.tree_leaves((args, kwargs, output))
            self.bytes += sum(x.numel() * x.element_size() for x in flat if isinstance(x, Tensor))
        return output


def work(learner: Learner, trajectory: Trajectory) -> dict[str, int]:
    """Return the floating-point operations (a multiply-add is two) and bytes of one learner step.

    The learner must be on the CPU: there all layers consist of operations that can be counted. A
    GPU's fused GRU cannot be counted.
    """
    assert learner.device.type == "cpu"
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:
        learner.update(trajectory)
    return {"flop": flops.get_total_flops(), "bytes": traffic.bytes}


def memory(fresh: Learner) -> dict[str, int]:
    """Return the bytes that a world model needs, without gradients and the optimiser's moments.

    `bytes_of_model`: weights, trained or not, statistics, and a store of observations, without a
    torso that it shares. `bytes_per_environment`: what it remembers of one environment's episode.

    Args:
      fresh: a learner that has seen nothing, so that no episode is counted as part of the model.
    """
    model = fresh.world_model
    return {
        "bytes_of_model": size(chain(model.parameters(), model.buffers())),
        "bytes_per_environment": size(model.memory.blank_rows(1).values()),
    }


def size(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def ceilings(device: torch.device) -> dict[str, float]:
    """Return the most that the device reaches.

    These are FLOP/s of a large float32 product and bytes/s of a large copy.
    """
    size, count = (8192, 2**28) if device.type == "cuda" else (1024, 2**25)
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    source, goal = torch.zeros(count, device=device), torch.empty(count, device=device)
    return {
        "flop_per_second": 2 * size**3 / shortest(lambda: torch.mm(a, b), device),
        "bytes_per_second": 2 * 4 * count / shortest(lambda: goal.copy_(source), device),
    }


def shortest(action: Callable[[], object], device: torch.device, tries: int = 5) -> float:
    """Return the seconds of the fastest of some tries, after a warm-up."""
    times = []
    for _ in range(1 + tries):
        start = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])
