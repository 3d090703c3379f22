"""How Gymnasium's environments are made: with what their constructors take, or with one line that
says why not."""

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

from afterwit.envs.infos import Declared
from afterwit.envs.returned import Checked
from afterwit.envs.specs import blamed

Wrapping = Callable[[gymnasium.Env[Any, Any]], gymnasium.Wrapper[Any, Any, Any, Any]]
MODES = ("rgb_array", "rgb_array_list")  # pictures for a video, the better one first


def make_vector(
    id: str,
    num_envs: int,
    arguments: dict[str, Any],
    wrappers: Sequence[Wrapping],
    episode_steps: int | None,
    render: bool,
) -> SyncVectorEnv:
    """`num_envs` environments of `id`, stepped one after the other, with next-step autoreset.
    Raises a ValueError in one line that names the environment, whatever its package, its
    constructor or a wrapper raises; a MemoryError, which names it, too, where there is no room."""
    try:
        with blamed(f"{id!r} cannot be made", ValueError):
            return _vector(
                id.rpartition(":")[2], num_envs, arguments, wrappers, episode_steps, render
            )
    except ValueError as error:
        if isinstance(error.__cause__, MemoryError):
            raise MemoryError(str(error)) from error.__cause__
        raise


def _vector(
    name: str,
    num_envs: int,
    arguments: dict[str, Any],
    wrappers: Sequence[Wrapping],
    episode_steps: int | None,
    render: bool,
) -> SyncVectorEnv:
    registered = copy.deepcopy(gymnasium.spec(name))
    registered.kwargs = {**registered.kwargs, **arguments, **rendering(registered, render)}
    if episode_steps is not None:
        registered.max_episode_steps = episode_steps
    sizes: dict[str, int] = {}
    checks = (partial(Checked, name=name), partial(Declared, name=name, sizes=sizes))
    one = partial(_single, registered, (*wrappers, *checks), name)
    vector = SyncVectorEnv([one] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
    vector.spec = registered
    return vector


def _single(
    registered: Registered, wrappers: Sequence[Wrapping], name: str
) -> gymnasium.Env[Any, Any]:
    entry = registered.entry_point
    assert entry is not None  # `rendering` has seen it
    checked = copy.copy(registered)
    checked.entry_point = _checked(entry if callable(entry) else load_env_creator(entry), name)
    env = gymnasium.make(checked)
    for what in ("observation_space", "action_space"):
        space = getattr(env, what, None)
        if not isinstance(space, Space):
            raise ValueError(
                f"its {what} is {space!r}, no space of Gymnasium's; set self.{what} in the"
                " constructor"
            )
    for wrap in wrappers:
        env = wrap(env)
    return env


def _checked(creator: Any, name: str) -> Any:
    """What makes the same environment, checked below all wrappers of Gymnasium's."""

    def create(**arguments: Any) -> Any:
        env = creator(**arguments)
        return Checked(env, name) if isinstance(env, gymnasium.Env) else env

    if hasattr(creator, "metadata"):  # Gymnasium reads there which pictures it draws
        create.metadata = creator.metadata  # type: ignore[attr-defined]
    return create


def rendering(registered: Registered, render: bool) -> dict[str, Any]:
    """The argument `render_mode`, for constructors that take one: for pictures if `render`, else
    None. Others draw as they are."""
    entry = registered.entry_point
    if entry is None:
        raise ValueError("it has no entry point for single environments")
    creator: Any = entry if callable(entry) else load_env_creator(entry)
    try:
        parameters = inspect.signature(creator).parameters
    except (TypeError, ValueError):  # of a callable in C
        parameters = inspect.signature(lambda: None).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not render:
        return {"render_mode": None} if "render_mode" in parameters else {}
    if "render_mode" not in parameters and not anything:
        return {}
    metadata = getattr(creator, "metadata", None)
    modes = metadata.get("render_modes") if isinstance(metadata, dict) else None
    return {"render_mode": next((mode for mode in MODES if mode in (modes or ())), MODES[0])}
