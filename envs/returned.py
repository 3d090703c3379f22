"""Checks of what an environment's `reset` and `step` return.

Errors are one line, and appear before Gymnasium's wrappers and vectors fail on the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from reprlib import repr as short_repr
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as Registered
from gymnasium.spaces import Box

from afterwit.envs.specs import EnvironmentFault, reraise_as

# Kinds of dtypes that can be converted to a Box's dtype: b bools, i and u integers, f floats.
ACCEPTED_KINDS = {"f": "biuf", "i": "biu", "u": "biu", "b": "b"}


class CheckedReturns(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose resets and steps return what Gymnasium's API asks for.

    Box observations have the space's shape and dtype. They are converted if only digits are lost.
    The reward is a float, the two flags are bools, and `info` is a mapping. Observations of other
    spaces are not checked.

    Args:
      env: The environment.
      name: Its name, for messages.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str):
        super().__init__(env)
        self.name = name

    @property
    def spec(self) -> Registered | None:  # type: ignore[override]
        """The spec of the wrapped environment: this wrapper changes nothing that a spec states."""
        return self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(seed=seed, options=options)
        observation, info = self._unpack("reset", result, ("observation", "info"))
        return self._observation("reset", observation), self._info("reset", info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        names = ("observation", "reward", "terminated", "truncated", "info")
        observation, reward, terminated, truncated, info = self._unpack("step", result, names)
        return (
            self._observation("step", observation),
            self._reward(reward),
            self._flag("terminated", terminated),
            self._flag("truncated", truncated),
            self._info("step", info),
        )

    def _fault(self, call: str, returned: str, wanted: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the environment {self.name} returned {returned} from {call}(); {wanted}"
        )

    def _unpack(self, call: str, result: Any, names: tuple[str, ...]) -> Any:
        if isinstance(result, tuple) and len(result) == len(names):
            return result
        returned = f"{len(result)} values" if isinstance(result, tuple) else describe(result)
        raise EnvironmentFault(
            f"the environment {self.name}: {call}() must return ({', '.join(names)}), it returned"
            f" {returned}"
        )

    def _observation(self, call: str, value: Any) -> Any:
        space = self.env.observation_space
        if not isinstance(space, Box):
            return value
        if (
            isinstance(value, np.ndarray)
            and value.dtype == space.dtype
            and value.shape == space.shape
        ):
            return value
        with reraise_as(
            f"the environment {self.name} returned an observation from {call}() that is no array"
        ):
            array = np.asarray(value)
        dtype = np.dtype(space.dtype)
        if array.shape != space.shape or array.dtype.kind not in ACCEPTED_KINDS[dtype.kind]:
            returned = describe(value if value is None or array.dtype.kind not in "biuf" else array)
            raise self._fault(
                call,
                f"an observation that is {returned}",
                f"its observation space says {dtype} {space.shape}",
            )
        if dtype.kind in "iu":
            least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
            if array.size and not (least <= int(array.min()) and int(array.max()) <= most):
                raise self._fault(
                    call,
                    f"an observation from {array.min()} to {array.max()}",
                    f"{dtype} holds {least} to {most}",
                )
        with np.errstate(all="ignore"):
            result = array.astype(dtype)
            lost = (
                np.isinf(result) & np.isfinite(array)
                if dtype.kind == "f"
                else np.zeros(array.shape, bool)
            )
        if lost.any():
            raise self._fault(
                call,
                f"an observation with {array[lost][0]}",
                f"{dtype} cannot hold it: scale or clip observations in a wrapper",
            )
        return result

    def _reward(self, value: Any) -> float:
        if type(value) is float:
            return value
        number = single_number(value)
        try:
            return float(value if number is None and isinstance(value, Real) else number)
        except (TypeError, OverflowError):
            raise self._fault(
                "step", f"a reward that is {describe(value)}", "it must be one finite number"
            ) from None

    def _flag(self, name: str, value: Any) -> bool:
        if type(value) is bool:
            return value
        number = single_number(value)
        if number is None or number not in (0, 1):
            raise self._fault(
                "step", f"{name} that is {describe(value)}", "it must be True or False"
            )
        return bool(number)

    def _info(self, call: str, info: Any) -> Any:
        if not isinstance(info, Mapping):
            raise EnvironmentFault(
                f"the environment {self.name} returned info {describe(info)}; it must be a dict"
            )
        return info


def single_number(value: Any) -> Any:
    """The one number or bool that `value` is or contains. None: it is something else."""
    try:
        array = np.asarray(value)
    except Exception:  # any library's object may raise anything here: it is not a number
        return None
    return array.reshape(())[()] if array.size == 1 and array.dtype.kind in "biuf" else None


def describe(value: Any) -> str:
    """A short text for a value. Arrays of several numbers show only their dtype and shape."""
    if isinstance(value, np.ndarray) and value.size != 1:
        return f"{value.dtype} {value.shape}"
    return " ".join(short_repr(value).split())
