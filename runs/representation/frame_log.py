"""Logs of frames: what was seen and played, with labels of the state that the game was in.

A log is a folder with one .npy file for each array and `log.json` for the rest. `log.json` is
written last, and the folder gets its name only when it is complete, so a log is whole or absent.
Large arrays stay on the disk: they are read as memory maps.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.atari import Atari
from afterwit.envs.atari_labels import labels_of
from afterwit.envs.atari_sound import SAMPLES
from afterwit.envs.infos import DOORS
from afterwit.envs.make import EnvConfig, make_env
from afterwit.envs.minigrid import MiniGridConfig
from afterwit.envs.seeds import stream
from afterwit.envs.specs import TimeStep, VectorEnv
from afterwit.runs.output.files import TEMPORARY, read_json, with_path, write_json

FORMAT = 1
HEADER = "log.json"
# Entries of `info` that say where the agent is and what it cannot see, with their categories.
DECLARED = {
    "room": "place",
    "cell": "place",
    "x": "place",
    "y": "place",
    "direction": "direction",
    "state": "hidden state",
    "block_in_view": "objects",
    "carrying": "objects",
    "doors": "doors",
}
Choose = Callable[[Array, Array], Array]  # observations [B, ...], first [B] -> actions [B]


class Pieces(NamedTuple):
    """Pieces of S episodes or more, n steps each, as `IntrinsicReward.update` takes them."""

    obs: Array  #: [n + 1, S, ...]
    actions: Array  #: int64 [n, S]
    dones: Array  #: bool [n, S]: the observation after the step is the episode's last
    previous_dones: Array  #: bool [S]: the first observation is the episode's last


@dataclass(frozen=True)
class FrameLog:
    """T steps of B environments, time first, as they were seen and played.

    The arrays are numpy arrays, which may be memory maps.
    """

    obs: Array  #: uint8 [T, B, C, H, W]: what was seen (mazes and vectors: their own shape)
    action: Array  #: int64 [T, B]: what was then played
    first: Array  #: bool [T, B]: obs opens an episode
    labels: dict[str, Array]  #: uint8 or int64 [T, B]: a state variable at obs, by its name
    categories: dict[str, str]  #: category of each label
    num_actions: int
    sound: Array | None  #: uint8 [T, B, F, 512]: samples of the F emulator frames before obs
    meta: dict[str, Any]  #: game, seed, sticky and so on, as JSON

    def __post_init__(self) -> None:
        if self.obs.ndim < 3 or not len(self.obs):
            raise ValueError(
                f"obs of a log has shape {self.obs.shape}; it must be [T, B, ...] with T of at"
                " least 1"
            )
        lead = self.obs.shape[:2]
        parts = {"action": self.action, "first": self.first, **self.labels}
        for name, part in parts.items():
            if part.shape != lead:
                raise ValueError(f"{name} of a log has shape {part.shape}; obs has {lead}")
        if self.sound is not None and self.sound.shape[:2] != lead:
            raise ValueError(f"sound of a log has shape {self.sound.shape}; obs has {lead}")
        if set(self.labels) != set(self.categories):
            raise ValueError("labels and categories of a log have different names")

    @property
    def steps(self) -> int:
        """T, the agent steps of each environment."""
        return len(self.obs)

    def pieces(self, times: Array, envs: Array) -> Pieces:
        """Pieces of the log, in the form of `IntrinsicReward.update`.

        The action at time t leads to obs[t + 1]. If that is the last observation of an episode,
        obs[t + 2] opens the next one (next-step autoreset). So n steps need n + 2 logged times:

            time              0         1         2    ...    n-1        n        n+1
            obs             obs[0]    obs[1]    obs[2] ...  obs[n-1]   obs[n]
            actions         a[0]      a[1]      a[2]   ...  a[n-1]
            first                     previous  d[0]   ...  d[n-3]     d[n-2]    d[n-1]

        Args:
          times: int [n + 2, S], consecutive for each piece.
          envs: int [S], the environment of each piece.
        """
        first = self.first[times, envs]
        return Pieces(
            obs=self.obs[times[:-1], envs],
            actions=self.action[times[:-2], envs],
            dones=first[2:],
            previous_dones=first[1],
        )


def save_log(log: FrameLog, path: Path) -> None:
    """Write a log as the folder `path`, completely or not at all.

    Raises:
      ValueError: `path` exists.
      Unwritable: there is no room. The message names the file.
    """
    if path.exists():
        raise ValueError(f"{path} exists; choose another path for the log, or remove it")
    temporary = path.with_name(path.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        arrays = {"obs": log.obs, "action": log.action, "first": log.first}
        arrays |= {f"label {name}": values for name, values in log.labels.items()}
        arrays |= {} if log.sound is None else {"sound": log.sound}
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        header = {
            "format": FORMAT,
            "arrays": {n: [str(a.dtype), list(a.shape)] for n, a in arrays.items()},
            "categories": log.categories,
            "num_actions": log.num_actions,
            "meta": log.meta,
        }
        write_json(temporary / HEADER, header)
        temporary.rename(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise with_path(error, path) from error
        raise


def read_log(path: Path) -> FrameLog:
    """Read the log in folder `path`. Its arrays are memory maps.

    Raises:
      ValueError: `path` is no log, a newer version wrote it, or it is damaged. The message names
        the file and what to do.
    """
    remedy = "log the frames again"
    if not (path / HEADER).is_file():
        raise ValueError(f"{path} is no log of frames (it has no {HEADER}); {remedy}")
    header = read_json(path / HEADER, remedy)
    try:
        if header["format"] > FORMAT:
            raise ValueError(
                f"{path} has format {header['format']}, and this version of afterwit reads up to"
                f" {FORMAT}; use a newer version"
            )
        shapes = {name: (dtype, tuple(shape)) for name, (dtype, shape) in header["arrays"].items()}
        categories, number, meta = header["categories"], header["num_actions"], header["meta"]
        complete = {"obs", "action", "first"} <= set(shapes)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / HEADER} is damaged ({error!r}); {remedy}") from error
    if not complete:
        raise ValueError(f"{path / HEADER} is damaged (it names no frames); {remedy}")
    arrays = {name: read_array(path / f"{name}.npy", *shapes[name], remedy) for name in shapes}
    labels = {name: arrays[f"label {name}"] for name in categories if f"label {name}" in arrays}
    try:
        return FrameLog(
            arrays["obs"],
            arrays["action"],
            arrays["first"],
            labels,
            categories,
            number,
            arrays.get("sound"),
            meta,
        )
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {remedy}") from error


def read_array(path: Path, dtype: str, shape: tuple[int, ...], remedy: str) -> Array:
    """Return the array in a .npy file as a memory map."""
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged or missing ({error}); {remedy}") from error
    if str(array.dtype) != dtype or array.shape != shape:
        raise ValueError(
            f"{path} holds {array.dtype} {array.shape}, and its log says {dtype} {shape}; {remedy}"
        )
    return array


def on_disk(folder: Path | None, dtype: Any, shape: Sequence[int]) -> Array:
    """Return an array of zeros, in memory or, given a folder, in its new file frames.npy.

    Raises:
      ValueError: the folder has no room for it.
    """
    if folder is None:
        return np.zeros(shape, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(folder).free, np.dtype(dtype).itemsize * math.prod(shape)
    if needed > free:
        raise ValueError(
            f"{needed:,} bytes of frames do not fit in {folder}, which has {free:,}; log fewer"
            " steps, or set TMPDIR to a folder on a larger disk"
        )
    mapped: Array = np.lib.format.open_memmap(folder / "frames.npy", "w+", dtype, tuple(shape))
    return mapped


def log_game(
    config: EnvConfig,
    steps: int,
    seed: int,
    choose: Choose | None = None,
    folder: Path | None = None,
    meta: dict[str, Any] | None = None,
    labelled: bool = True,
) -> FrameLog:
    """Play environments and log what was seen, played and true.

    Atari's labels are bytes of its RAM, by the table in envs/atari_labels.py. Other environments'
    labels are what they declare of DECLARED, and MiniGrid's are turned on. Each door is a label of
    its own.

    Args:
      config: the environments.
      steps: agent steps of each environment.
      seed: of the environments, and of the random policy.
      choose: the policy. Unset: random actions, all equally likely.
      folder: where the frames go, as a file that is mapped into memory. Unset: they stay in memory.
      meta: what else the log says of itself.
      labelled: whether labels are logged. Without them any world can be.

    Raises:
      ValueError: the game has no labels, the environment declares none, or there is no room.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")
    if isinstance(config, MiniGridConfig):
        config = replace(config, labels=labelled)
    random = np.random.default_rng(stream(seed, "logged policy"))
    with closing(make_env(config, seed)) as env:
        spec, categories = env.spec, label_categories(env) if labelled else {}
        shape = (steps, spec.num_envs)
        obs = on_disk(folder, spec.observation_dtype, (*shape, *spec.observation_shape))
        action, first = np.zeros(shape, np.int64), np.zeros(shape, bool)
        kind = np.uint8 if isinstance(env, Atari) else np.int64
        labels = {name: np.zeros(shape, kind) for name in categories}
        step = env.reset()
        heard = isinstance(env, Atari) and env.sound is not None
        sound = np.zeros((*shape, spec.frames_per_step, SAMPLES), np.uint8) if heard else None
        for time in range(steps):
            obs[time], first[time] = step.observation, step.first
            if sound is not None and isinstance(env, Atari) and env.sound is not None:
                sound[time] = env.sound
            for name, values in read_labels(env, step).items() if labelled else ():
                labels[name][time] = values
            action[time] = (
                random.integers(0, spec.num_actions, spec.num_envs)
                if choose is None
                else choose(step.observation, step.first)
            )
            step = env.step(action[time])
    about = {"environment": spec.name, "seed": seed, "semantics": dict(spec.semantics)}
    about |= {"policy": "random" if choose is None else "given"} | (meta or {})
    for name in [name for name in labels if name in door_names() and not labels[name].any()]:
        del labels[name], categories[name]  # there is no such door
    return FrameLog(obs, action, first, labels, categories, spec.num_actions, sound, about)


def label_categories(env: VectorEnv) -> dict[str, str]:
    """Return the categories of an environment's labels by their names.

    Raises:
      ValueError: it has no labels.
    """
    if isinstance(env, Atari):
        if env.config.backend == "ale":
            raise ValueError(
                f"backend {env.config.backend!r} does not tell a game's RAM; use backend 'envpool'"
            )
        return {name: category for name, (_, category) in labels_of(env.config.game).items()}
    told = {name: category for name, category in DECLARED.items() if name in env.spec.tells}
    many = dict.fromkeys(door_names(), told.pop("doors")) if "doors" in told else {}
    found = told | many
    if not found:
        raise ValueError(
            f"{env.spec.name} declares nothing of its state that could be probed; its info needs"
            f" one of {', '.join(DECLARED)} (see afterwit_tells)"
        )
    return found


def read_labels(env: VectorEnv, step: TimeStep) -> dict[str, Array]:
    """Return the labels [B] at the observation of `step`, without those that a reset lacks."""
    if isinstance(env, Atari):
        assert env.ram is not None
        return {name: env.ram[:, byte] for name, (byte, _) in labels_of(env.config.game).items()}
    labels = {name: step.info[name] for name in DECLARED if name in step.info}
    doors = labels.pop("doors", np.zeros((0, 0)))
    return labels | dict(zip(door_names(), doors.T, strict=False))


def door_names() -> list[str]:
    return [f"door {number}" for number in range(1, DOORS + 1)]
