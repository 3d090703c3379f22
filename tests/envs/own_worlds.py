"""Environments as users write them, good and bad.

Tests copy this file to a folder of a user.
"""

# ruff: noqa: NPY002, RUF012
from __future__ import annotations

import random

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete


class Own(gymnasium.Env):
    """An environment of seven steps, whose constructor takes no arguments."""

    space, actions, length = Box(-1, 1, (4,), np.float64), Discrete(3), 7

    def __init__(self):
        self.observation_space, self.action_space = self.space, self.actions

    def look(self):
        return self.observation_space.sample()

    def info(self):
        return {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.look(), self.info()

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        return self.look(), 1.0, self.steps == self.length, False, self.info()


class Strict(Own):
    def __init__(self, size, mode="soft", *, num_envs=1, max_episode_steps=3):
        super().__init__()
        if size != 8 or mode not in ("soft", "hard"):
            raise KeyError(f"size is {size}\nand mode {mode}")
        self.observation_space = Box(-1, 1, (size,), np.float32)


class Infos(Own):
    """Puts arbitrary entries into `info`, none of them for Afterwit."""

    def info(self):
        t = self.steps
        result = {
            "room": [300, 1.5, "hall", None, -1][t % 5],
            "noise_on": t % 2 / 2,
            "trackers": np.arange(t + 1),
            "cell": object(),
            "near": np.arange(t + 1),
            "ragged": [[1], [2, 3]],
            "text": "x" * t,
            "lives": {"a": {"b": t}},
            "big": 10**40,
            "block_in_view": "yes",
            "executed_action": -7,
            "final_info": {"final_obs": t},
            "_room": 3,
        }
        return result if t % 2 else {"near": "none"}


class Ones(Own):
    """Writes flags as numbers, without declaring them."""

    def info(self):
        return {"noise_on": 1, "room": self.steps}


class Rooms(Own):
    metadata = {"afterwit_tells": ("room", "noise_on", "trackers", "cell"), "afterwit_cells": 9}

    def info(self):
        if not self.steps:
            return {}
        entries = {
            "room": self.steps,
            "noise_on": self.steps % 2,
            "trackers": np.array([self.steps > 2, 0]),
            "cell": np.int32(8),
        }
        return entries | {"other": np.arange(self.steps)}


class Wrong(Rooms):
    def __init__(self, key, value):
        super().__init__()
        self.key, self.value = key, value

    def info(self):
        return super().info() | ({self.key: self.value} if self.steps > 1 else {})


class Silent(Rooms):
    def info(self):
        return {}


class Starts(Own):
    actions = Discrete(3, start=10)


class Last(Starts):
    space = Box(0, 255, (20, 18, 3), np.uint8)


class Plane(Own):
    space = Box(0, 255, (20, 18), np.uint8)


class Floats(Own):
    space = Box(0, 1, (17, 18, 3), np.float32)


class Small(Own):
    space = Box(0, 255, (5, 6, 3), np.uint8)


class Stack(Own):
    space = Box(0, 255, (2, 16, 18, 3), np.uint8)


class Integers(Own):
    space = Box(np.array([-5, 0, 3]), np.array([5, 100, 9]), dtype=np.int64)


class Bools(Own):
    space = Box(0, 1, (5,), bool)


class Global(Own):
    """Draws from the global random state."""

    def __init__(self):
        super().__init__()
        self.bias = random.random()

    def look(self):
        import torch

        return np.array([self.bias, random.random(), np.random.rand(), float(torch.rand(()))]) / 2


class Drawn(Own):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    frame = np.zeros((16, 20, 3), np.uint8)

    def __init__(self, render_mode=None, what="frame"):
        super().__init__()
        self.render_mode, self.what = render_mode, what

    def render(self):
        frame = self.frame + np.uint8(self.steps)
        if self.what == "error":
            raise LookupError("no\nscreen")
        return {
            "frame": frame,
            "none": None,
            "floats": frame / 255,
            "gray": frame[..., 0],
            "empty": [],
            "text": "o",
            "list": [frame],
            "growing": frame[: 4 + self.steps],
        }[self.what]


class Listed(Drawn):
    metadata = {"render_modes": ["rgb_array_list"], "render_fps": 5}

    def render(self):
        return [self.frame, self.frame + np.uint8(9)]


class Undrawn(Own):
    pass


class Required(Own):
    def __init__(self, render_mode):
        super().__init__()
        self.render_mode = render_mode


class Anything(Own):
    def __init__(self, **kwargs):
        super().__init__()
        assert not kwargs, kwargs


class Custom(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)


def raising(error):
    class Raising(Own):
        def __init__(self):
            raise error

    return Raising


class Spaceless(gymnasium.Env):
    pass


class NoSpace(Own):
    space = None


class Nothing(Own):
    def reset(self, *, seed=None, options=None):
        return None


class NoReset(Own):
    reset = None


class Tuples(Own):
    def info(self):
        return ("not", "a dict")


class Broken(Own):
    def reset(self, *, seed=None, options=None):
        raise Custom("a", "b")


class Shut(Own):
    def close(self):
        raise OSError("stuck\nfast")


class Doubles(Own):
    """Sets the default dtype of torch to float64."""

    def step(self, action):
        torch.set_default_dtype(torch.float64)
        return super().step(action)


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError


class Mute(Own):
    def reset(self, *, seed=None, options=None):
        raise Speechless


class Old(Own):
    def step(self, action):
        return self.look(), 1.0, False, {}


class OldReset(Own):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class Returns(Own):
    """Returns correct values, but from the third step on one wrong value: `what`."""

    space = Box(-10, 10, (4,), np.float32)
    right = {
        "observation": np.zeros(4, np.float32),
        "reward": 1.0,
        "terminated": False,
        "truncated": False,
        "info": {},
    }

    def __init__(self, what, which):
        super().__init__()
        self.what, self.value = what, self.values()[which]

    @staticmethod
    def values():
        return {
            "none": None,
            "text": "False",
            "words": "1.5",
            "two": np.zeros(2),
            "list": [1.0, 2.0],
            "ragged": [[1.0], [2.0, 3.0]],
            "columns": np.zeros((4, 1), np.float32),
            "more": np.zeros(5),
            "texts": np.array(["a"] * 4),
            "complex": 1 + 2j,
            "gradient": torch.ones(4, requires_grad=True),
            "large": np.full(4, 1e300),
            "largest": 1e300,
            "thousands": 10**400,
            "nan": float("nan"),
            "count": 2,
            "one": np.array([1.0]),
            "tensor": torch.tensor(1.0),
            "numbers": [1, 0, 1, 0],
            "doubles": np.full(4, 1e-300),
            "zero": np.int64(0),
            "flag": np.array([False]),
            "mapping": {"observation": 1},
        }

    def step(self, action):
        super().step(action)
        values = self.right | ({self.what: self.value} if self.steps > 2 else {"terminated": False})
        if self.steps == self.length:
            values["terminated"] = True
        return tuple(values.values())


class Bytes(Returns):
    space = Box(0, 255, (4,), np.uint8)
    right = Returns.right | {"observation": np.zeros(4, np.uint8)}

    @staticmethod
    def values():
        return {
            "floats": np.zeros(4),
            "many": np.array([0, 256, 1, 2]),
            "few": np.array([0, -1, 1, 2]),
            "integers": np.arange(4),
        }


class Wide(Returns):
    space = Box(-np.inf, np.inf, (4,), np.float64)


class Leaves(Drawn):
    """Ends the process, or tries to, in one of its methods."""

    def __init__(self, render_mode=None, at="close", error="exit"):
        super().__init__(render_mode)
        self.at, self.error = at, error

    def leave(self, at):
        if at == self.at:
            raise {
                "exit": SystemExit(0),
                "base": Base("gone"),
                "generator": GeneratorExit(),
                "cannot": OSError("stuck"),
            }[self.error]

    def render(self):
        self.leave("render")
        return self.frame

    def reset(self, *, seed=None, options=None):
        self.leave("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.leave("step")
        return super().step(action)

    def close(self):
        self.leave("close")


class Base(BaseException):
    pass


class Misspelt(Own):
    metadata = {"afterwit_tells": ("rooms",)}


class Uncounted(Own):
    metadata = {"afterwit_tells": ("cell",)}


class Dicts(Own):
    space = Dict({"a": Box(0, 1, (2,))})


ERRORS = {
    "value": ValueError("size\nis 3"),
    "type": TypeError("no"),
    "assertion": AssertionError(),
    "key": KeyError("map"),
    "custom": Custom(1, 2),
    "import": ImportError("swamp"),
    "os": FileNotFoundError(2, "gone", "map.txt"),
    "speechless": Speechless(),
    "exit": SystemExit(0),
    "base": Base("gone"),
    "generator": GeneratorExit(),
    "memory": MemoryError("no room\nfor the map"),
    "no-memory": MemoryError(),
}
for name, error in ERRORS.items():
    gymnasium.register(f"Raising-{name}-v0", entry_point=raising(error))
for made in list(globals().values()):
    if isinstance(made, type) and issubclass(made, gymnasium.Env) and made is not gymnasium.Env:
        unchecked = made.__name__ in ("NoSpace", "Spaceless", "Tuples")
        gymnasium.register(f"{made.__name__}-v0", entry_point=made, disable_env_checker=unchecked)
