"""How Gymnasium environments are made, with errors of one line that name the environment."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as Registered
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Space
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from afterwit.envs.infos import DeclaredInfos
from afterwit.envs.returned import CheckedReturns
from afterwit.envs.specs import reraise_as

Wrapping = Callable[[gymnasium.Env[Any, Any]], gymnasium.Wrapper[Any, Any, Any, Any]]
MODES = ("rgb_array", "rgb_array_list")  # render modes for a video, the preferred one first


def make_vector(
    id: str,
    num_envs: int,
    arguments: dict[str, Any],
    wrappers: Sequence[Wrapping],
    episode_steps: int | None,
    render: bool,
) -> SyncVectorEnv:
    """Make `num_envs` environments, stepped one after the other, with next-step autoreset.

    Args:
      id: Gymnasium's name, or `package:name`.
      num_envs: Number of environments.
      arguments: Arguments of the environment's constructor.
      wrappers: Applied to each environment, in this order.
      episode_steps: Agent steps after which an episode is truncated. None: the registered limit.
      render: Whether the environments must be able to render images.

    Raises:
      ValueError: Any exception in the package, the constructor or a wrapper, in one line.
      MemoryError: There is not enough memory. The message names the environment.
    """
    try:
        with reraise_as(f"{id!r} cannot be made", ValueError):
            return _make_vector(
                id.rpartition(":")[2], num_envs, arguments, wrappers, episode_steps, render
            )
    except ValueError as error:
        if isinstance(error.__cause__, MemoryError):
            raise MemoryError(str(error)) from error.__cause__
        raise


def _make_vector(
    name: str,
    num_envs: int,
    arguments: dict[str, Any],
    wrappers: Sequence[Wrapping],
    episode_steps: int | None,
    render: bool,
) -> SyncVectorEnv:
    registered = copy.deepcopy(gymnasium.spec(name))
    registered.kwargs = {**registered.kwargs, **arguments, **render_arguments(registered, render)}
    if episode_steps is not None:
        registered.max_episode_steps = episode_steps
    sizes: dict[str, int] = {}
    checks = (partial(CheckedReturns, name=name), partial(DeclaredInfos, name=name, sizes=sizes))
    make_one = partial(_make_single, registered, (*wrappers, *checks), name)
    vector = SyncVectorEnv([make_one] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
    vector.spec = registered
    return vector


def _make_single(
    registered: Registered, wrappers: Sequence[Wrapping], name: str
) -> gymnasium.Env[Any, Any]:
    entry = registered.entry_point
    assert entry is not None  # `render_arguments` has checked it
    creator = entry if callable(entry) else load_env_creator(entry)
    checked = copy.copy(registered)
    checked.entry_point = _with_checks(creator, name)
    env = gymnasium.make(checked)
    for what in ("observation_space", "action_space"):
        space = getattr(env, what, None)
        if not isinstance(space, Space):
            raise ValueError(
                f"its {what} is {space!r}, which is not a Gymnasium space; set self.{what} in the"
                " constructor"
            )
    for wrap in wrappers:
        env = wrap(env)
    return env


def _with_checks(creator: Any, name: str) -> Any:
    """A creator of the same environment, checked below all of Gymnasium's wrappers."""

    def create(**arguments: Any) -> Any:
        env = creator(**arguments)
        return CheckedReturns(env, name) if isinstance(env, gymnasium.Env) else env

    if hasattr(creator, "metadata"):  # Gymnasium reads its render modes there
        create.metadata = creator.metadata  # type: ignore[attr-defined]
    return create


def render_arguments(registered: Registered, render: bool) -> dict[str, Any]:
    """The argument `render_mode` (an image mode if `render`), if the constructor takes it."""
    entry = registered.entry_point
    if entry is None:
        raise ValueError("it has no entry point for single environments")
    creator: Any = entry if callable(entry) else load_env_creator(entry)
    try:
        parameters = inspect.signature(creator).parameters
    except (TypeError, ValueError):  # a callable written in C has no signature
        parameters = inspect.signature(lambda: None).parameters
    takes_any_keyword = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    if not render:
        return {"render_mode": None} if "render_mode" in parameters else {}
    if "render_mode" not in parameters and not takes_any_keyword:
        return {}
    metadata = getattr(creator, "metadata", None)
    modes = metadata.get("render_modes") if isinstance(metadata, dict) else None
    return {"render_mode": next((mode for mode in MODES if mode in (modes or ())), MODES[0])}
