"""What is refused changes nothing: states that are loaded, and the statistics of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

from torch import nn
from torch.optim import Optimizer


@contextmanager
def whole_or_not(*parts: nn.Module | Optimizer) -> Iterator[None]:
    """Inside this context `parts` load a state. If it raises, they are as they were before.

    torch loads what fits, and then says what did not.
    """
    before = [deepcopy(part.state_dict()) for part in parts]
    try:
        yield
    except BaseException:
        for part, state in zip(parts, before, strict=True):
            part.load_state_dict(state)
        raise


def statistics_of(modules: nn.Module) -> Callable[[], None]:
    """A function that makes all buffers of `modules` what they are now."""
    before = [
        (module, name, buffer, buffer.clone())
        for module in modules.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]

    def restore() -> None:
        for module, name, buffer, value in before:
            buffer.copy_(value)
            setattr(module, name, buffer)

    return restore


def check_moments(optimiser: Optimizer) -> None:
    """Raise a ValueError if a loaded optimiser's averages are of other parameters.

    torch compares their number only, and fails at the next step.
    """
    for parameter, moments in optimiser.state.items():
        for name, value in moments.items():
            if name != "step" and value.shape != parameter.shape:
                raise ValueError(
                    f"the optimiser's {name} has shape {tuple(value.shape)}, its parameter"
                    f" {tuple(parameter.shape)}"
                )
