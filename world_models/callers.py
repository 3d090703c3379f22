"""What callers bring: arrays of any library, spaces, devices, and their own modes of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from afterwit.envs.arrays import Array
from afterwit.envs.checks import MAX_NUMBER, within_limit
from afterwit.envs.interface import interface_of
from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import ModelConfig
from afterwit.world_models.torso import TorsoConfig

ArrayOrTensor = Array | torch.Tensor
Observations = Any  # an array or tensor, or a dict or tuple of them, as the space says
Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def own_modes() -> Iterator[None]:
    """Inside this context, torch's modes are the ones that Afterwit needs.

    These are: default dtype float32, default device the host, gradients on, autocast off.
    Afterwards the caller's modes are restored. The default dtype is shared by all threads.
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
    """The same function, always called within `own_modes`."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with own_modes():
            return function(*args, **options)

    return call  # type: ignore[return-value]


def as_array(name: str, value: Any) -> Array:
    """Convert a caller's value to a NumPy array.

    Args:
      name: The value's name, for messages.
      value: An array, a tensor (on any device) or lists of numbers.

    Raises:
      ValueError: The value is no array.
    """
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        return np.asarray(value)
    # also raised for tensors without data (meta) and for sparse tensors
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} is no array: {' '.join(str(error).split())}") from error


def find_device(name: Any) -> torch.device:
    """The torch device of this name.

    Raises:
      ValueError: The device is unknown or cannot be used.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # each backend raises its own types if a device is missing
        reason = (" ".join(str(error).split()).split(". ")[0] or type(error).__name__)[:200]
        raise ValueError(
            f"device {name!r} cannot be used: {reason}; choose cpu, or cuda where there is a GPU"
        ) from error
    return device


def read_spaces(observation_space: Box, action_space: Discrete | Box) -> EnvSpec:
    """Facts about a caller's environment, from its spaces. A Box of actions is a vector.

    Raises:
      ValueError: Networks cannot use them.
    """
    continuous = isinstance(action_space, Box)
    counted = Discrete(action_space.shape[0]) if isinstance(action_space, Box) else action_space
    interface = interface_of("the agent", observation_space, counted)
    view = interface.view
    return EnvSpec(
        "yours",
        1,
        view.shape,
        view.dtype,
        interface.num_actions,
        semantics={"observations": str(view)},
        interface=interface,
        continuous=continuous,
    )


def default_torso(spec: EnvSpec) -> TorsoConfig:
    """The torso of a caller who names none: the encoder follows the observations.

    Images get larger embeddings and beliefs.
    """
    config = TorsoConfig(encoder="auto")
    return (
        config
        if config.resolved(spec.observation_shape).encoder == "mlp"
        else replace(config, embedding=256, belief=256)
    )


def read_steps(
    spec: EnvSpec, config: ModelConfig, obs: Any, actions: Any, dones: Any
) -> tuple[Array, Array, Array]:
    """Check a caller's steps, and convert them to what networks read.

    Args:
      spec: The caller's environment.
      config: The world model, which may need a certain batch.
      obs: [T+1, B, ...] as the observation space says.
      actions: Integers [T, B] as the action space counts them, or numbers [T, B, A].
      dones: bool [T, B].

    Returns:
      Observations as networks read them, actions counted from 0 or as they are, and dones.

    Raises:
      ValueError: An array has a wrong shape or type, or observations are not finite or too large.
    """
    obs, actions = as_array("obs", obs), as_array("actions", actions)
    dones = as_array("dones", dones)
    interface = spec.interface
    assert interface is not None
    steps = actions.shape[:-1] if spec.continuous else actions.shape
    if len(steps) != 2 or dones.shape != steps:
        raise ValueError(f"actions have shape {steps} and dones {dones.shape}; both must be [T, B]")
    length, batch = steps
    if length < 1 or batch < 1:
        raise ValueError(f"actions have shape {steps}; at least 1 step of 1 environment is needed")
    config.check_batch(length, batch)
    if obs.shape != (length + 1, batch, *interface.view.raw):
        raise ValueError(
            f"obs has shape {obs.shape}; for these actions it must be"
            f" {(length + 1, batch, *interface.view.raw)}"
        )
    if not spec.continuous:
        actions = interface.from_environment(actions)
    if dones.dtype != np.bool_:
        raise ValueError(f"dones has dtype {dones.dtype}; it must be bool (terminated | truncated)")
    check_values(spec, obs, "obs")
    return interface.view(obs), actions, dones


def read_final(spec: EnvSpec, final: Array) -> Array:
    """Check the last observations of N episodes, [N, ...] as a space of Box says.

    Returns:
      float32 or uint8 [N, ...] as networks read them.

    Raises:
      ValueError: They have a wrong shape or type, or are not finite or too large.
    """
    assert spec.interface is not None
    view = spec.interface.view
    if final.shape[1:] != view.raw:
        raise ValueError(
            f"final_observations hold observations of shape {final.shape[1:]}; they must be"
            f" {view.raw}, like those in obs"
        )
    check_values(spec, final, "final_observations")
    return view(final)


def check_values(spec: EnvSpec, obs: Array, name: str) -> None:
    """Raise a ValueError if networks cannot read these observations' type or size."""
    if spec.observation_dtype == "uint8" and obs.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has dtype {obs.dtype}, but the observation space is uint8: give bytes 0..255,"
            " or a space of floats"
        )
    if obs.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {obs.dtype}; it must hold numbers")
    if spec.observation_dtype != "uint8" and not (usable := within_limit(obs)).all():
        raise ValueError(
            f"{name} has {obs[~usable][0]:g}; observations must be finite and of order 1 (at most"
            f" {MAX_NUMBER:g}): scale or clip them. Nothing was changed"
        )


def read_previous_dones(previous_dones: Any, batch: int, autoreset: str) -> Array:
    """Check the dones of the step before the first one: bool [B].

    Raises:
      ValueError: They have another shape or type, or the autoreset needs none.
    """
    if autoreset == "same-step":
        raise ValueError(
            "previous_dones is for next-step autoreset; with same-step an ending shows in"
            " dones alone: leave it out"
        )
    previous_dones = as_array("previous_dones", previous_dones)
    if previous_dones.shape != (batch,) or previous_dones.dtype != np.bool_:
        raise ValueError(
            f"previous_dones is {previous_dones!r}; it must be bool of shape ({batch},)"
        )
    return previous_dones
