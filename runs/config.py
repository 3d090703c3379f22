"""A run's complete, frozen config, and its form as JSON. Counts are agent steps over all environments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
import tyro

from afterwit.agents.learner import LearnerConfig
from afterwit.envs.checks import THREADS, check_numbers
from afterwit.envs.make import ENVS, EnvConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.overrides import checked, short
from afterwit.runs.reading import read_json
from afterwit.world_models.byol_hindsight import BYOLHindsightConfig, check_contrast
from afterwit.world_models.make import WORLD_MODELS, WorldModelConfig, world_model_name


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run."""

    env: EnvConfig = field(default_factory=MazeConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    preset: tyro.conf.Suppress[str] = "maze"
    """The preset that this config started from."""
    seed: int = 0
    """Seeds environments, weights and every draw. On CPU the same seed gives the same run, bit for bit."""
    total_steps: int = 1_500_000
    """Agent steps to train for, over all environments."""
    unroll_length: int = 40
    """Agent steps of each environment in one learner step (T)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks live; auto takes a GPU if there is one."""
    policy_lag: int = 0
    """Learner steps by which the acting weights may be late. 0: act and learn in turn; 1: act the next trajectory, in a thread of
    its own, while the learner trains on this one. Either way a seed means the same run."""
    threads: int = 1
    """CPU threads of one torch operation of the learner. For small networks 1 is fastest, and leaves cores to other runs."""
    acting_threads: int = 1
    """CPU threads of one torch operation of the actor, where it acts beside the learner (a policy lag above 0)."""
    compile: bool = False
    """Compile the encoders (torch.compile): a minute at the start, quicker images afterwards. Needs a C++ compiler on CPUs."""
    log_interval: int = 15_000
    """Agent steps between two log entries."""
    checkpoint_interval: int = 250_000
    """Agent steps between two checkpoints. One is also written on Ctrl-C, on SIGTERM and at the end."""

    def __post_init__(self) -> None:
        check_numbers(self, counts=("total_steps", "log_interval", "checkpoint_interval"), others=("seed",))
        for name in ("total_steps", "unroll_length", "threads", "acting_threads", "log_interval", "checkpoint_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.policy_lag < 0:
            raise ValueError(f"policy_lag is {self.policy_lag}; it must be 0 (act and learn in turn) or more")
        for name in ("threads", "acting_threads"):
            if getattr(self, name) > THREADS:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {THREADS}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must be at least 0 and below 2^63")
        if isinstance(self.learner.world_model, BYOLHindsightConfig):
            if self.env.num_envs < 2:
                raise ValueError(
                    "env.num_envs is 1, but byol-hindsight needs at least 2: what z tells is judged against the z of the others"
                )
            check_contrast(self.learner.world_model.contrast_size, self.unroll_length, self.env.num_envs)
        horizon = getattr(self.learner.world_model, "horizon", 1)
        if horizon >= self.unroll_length:
            raise ValueError(
                f"learner.world_model.horizon is {horizon} and unroll_length is {self.unroll_length}; "
                "the horizon K must be shorter than the unroll T"
            )

    @property
    def title(self) -> str:
        """What a person calls this run: the world model, and the seed."""
        return f"{world_model_name(self.learner.world_model)}, seed {self.seed}"

    def torch_device(self) -> torch.device:
        """Raises ValueError where a GPU is asked for and there is none."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda' but torch sees no GPU; use --device cpu, or install a CUDA build of torch")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")


# Of these a dict says by its `name` which it is.
TAGGED: dict[Any, dict[str, tuple[type[Any], Any]]] = {EnvConfig: ENVS, WorldModelConfig: WORLD_MODELS}


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain dicts and values; env and world model carry their registry `name`."""
    return _plain(config)


def _plain(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    names = {kind: name for registry in TAGGED.values() for name, (kind, _) in registry.items()}
    result = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return result | ({"name": names[type(value)]} if type(value) in names else {})


def from_dict(data: dict[str, Any]) -> RunConfig:
    """The config that `to_dict` wrote; a field that `data` lacks has its default. Raises ValueError for unknown fields, and naming
    path and value for what a field does not take."""
    config: RunConfig = _made(data, RunConfig, "")
    return config


def _made(data: Any, hint: Any, path: str) -> Any:
    """`data` as a value of type `hint`, which stands at `path`."""
    if hint not in TAGGED and not is_dataclass(hint):
        return checked(data, hint, path)
    where = path or "the config"
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {short(data)}; it takes an object with fields")
    if hint in TAGGED:
        name, data = data.get("name"), {key: value for key, value in data.items() if key != "name"}
        if not isinstance(name, str) or name not in TAGGED[hint]:
            raise ValueError(f"{where}.name is {short(name)}; choose from {', '.join(TAGGED[hint])}")
        hint = TAGGED[hint][name][0]
    hints = get_type_hints(hint)
    for key in data:
        if key not in hints:
            raise ValueError(f"not a config of this version of afterwit: {where} has the unknown field {short(key)}")
    return hint(**{key: _made(value, hints[key], f"{path}.{key}".lstrip(".")) for key, value in data.items()})


def read_config(folder: Path) -> RunConfig:
    """The config of a run folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no run folder: it has no config.json")
    data = read_json(path, "put a copy back")
    try:
        return from_dict(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_config(config: RunConfig, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_dict(config), indent=2) + "\n", encoding="utf-8")
