"""What callers bring with them: arrays of any library, and torch's modes, which are theirs and not
ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from afterwit.envs.arrays import Array
from afterwit.envs.interface import interface_of
from afterwit.envs.specs import EnvSpec
from afterwit.world_models.torso import TorsoConfig

Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def own_modes() -> Iterator[None]:
    """float32 by default, on the host, with gradients and without autocast: whatever default dtype
    or device, `no_grad`, `inference_mode` or `autocast` the caller has set. They are the caller's
    again afterwards. (The default dtype is one for all threads.)
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # costs time at each operation
            stack.enter_context(torch.device("cpu"))
        yield


def in_own_modes(function: Function) -> Function:
    """`function`, always called in `own_modes`."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with own_modes():
            return function(*args, **options)

    return call  # type: ignore[return-value]


def as_array(name: str, value: Any) -> Array:
    """What a caller gave as `name`, an array, a tensor (on any device) or lists of numbers, in
    NumPy. Raises a ValueError that names it where it is no array."""
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        return np.asarray(value)
    # a tensor without numbers (meta) or without a place for each (sparse), too
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} is no array: {' '.join(str(error).split())}") from error


def find_device(name: Any) -> torch.device:
    """The device of that name. Raises a ValueError in one line where it is unknown, not there, or
    one that holds no numbers."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # each backend has kinds of its own for what is missing
        words = (" ".join(str(error).split()).split(". ")[0] or type(error).__name__)[:200]
        raise ValueError(
            f"device {name!r} cannot be used: {words}; choose cpu, or cuda where there is a GPU"
        ) from error
    return device


def read_spaces(
    observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
) -> EnvSpec:
    if not isinstance(observation_space, Box):
        raise ValueError(
            f"observation_space is {observation_space}; only Box is supported (flatten others"
            " first)"
        )
    if not isinstance(action_space, Discrete):
        raise ValueError(f"action_space is {action_space}; only Discrete is supported")
    interface = interface_of("the agent", observation_space, action_space)
    view = interface.view
    return EnvSpec(
        "yours",
        1,
        view.shape,
        view.dtype,
        interface.num_actions,
        semantics={"observations": str(view)},
        interface=interface,
    )


def default_torso(spec: EnvSpec) -> TorsoConfig:
    """The encoder follows what is seen; what reads images is larger."""
    config = TorsoConfig(encoder="auto")
    return (
        config
        if config.resolved(spec.observation_shape).encoder == "mlp"
        else replace(config, embedding=256, belief=256)
    )
