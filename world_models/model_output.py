"""What a world model returns, and the check of it: a bonus of one's own may be wrong in any way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from afterwit.world_models.trajectory import Trajectory


@dataclass(frozen=True)
class WorldModelOutput:
    """The loss, which has gradients, and the reward, which has none."""

    loss: Tensor  #: []
    #: [T, B]: raw intrinsic reward of the transition into obs[t+1]; 0 for steps that only reset
    reward: Tensor
    #: [T, B] each: the parts that the reward is the sum of
    parts: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)  #: [] each, without gradient
    #: []: the raw reward that a model which knows nothing would pay for an average transition
    ignorance: Tensor = field(default_factory=lambda: torch.ones(()))
    #: bool [T, B]: transitions that have a raw reward; None: all real steps. The others are not
    #: paid, and count in no statistic
    judged: Tensor | None = None

    def paid(self, trajectory: Trajectory) -> Tensor:
        """bool [T, B]: transitions that are paid."""
        return trajectory.real if self.judged is None else self.judged


def check_output(output: Any, trajectory: Trajectory, model: str) -> None:
    """Check types and shapes. The values are not read, so that nothing waits for a GPU.

    A reward of another shape would be broadcast: the run would look well, and be wrong.

    Args:
      output: What the model returned.
      trajectory: What it was given.
      model: Its name, for messages.

    Raises:
      ValueError: The output is not as WorldModelOutput says.
    """
    if not isinstance(output, WorldModelOutput):
        raise ValueError(
            f"{model} returned {type(output).__name__}; it must return a WorldModelOutput"
        )
    steps = tuple(trajectory.action.shape[:2])
    _check(model, "loss", output.loss, ())
    _check(model, "ignorance", output.ignorance, ())
    for name, value in output.metrics.items():
        _check(model, f"metrics[{name!r}]", value, ())
    _check(model, "reward", output.reward, steps, torch.get_default_dtype())
    for name, value in output.parts.items():
        _check(model, f"parts[{name!r}]", value, steps)
    if output.judged is not None:
        _check(model, "judged", output.judged, steps, torch.bool)
    if output.reward.requires_grad:
        raise ValueError(f"{model} returned a reward that has a gradient; detach it")


def _check(
    model: str, name: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> None:
    """Check one tensor of an output."""
    wanted = f"a tensor of shape {shape or '()'}" + (f", {dtype}" if dtype else "")
    if shape:
        wanted += " ([T, B])"
    if not isinstance(value, Tensor):
        raise ValueError(f"{model} returned {name} as {type(value).__name__}; it must be {wanted}")
    if tuple(value.shape) != shape or dtype not in (None, value.dtype):
        raise ValueError(
            f"{model} returned {name} of shape {tuple(value.shape)}, {value.dtype}; it must be"
            f" {wanted}"
        )
