"""A run's complete, frozen config, and its form as JSON. Counts are agent steps in all envs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
import tyro

from afterwit.agents.learner_config import LearnerConfig
from afterwit.envs.checks import THREADS, check_numbers, reading_only
from afterwit.envs.make import ENVS, EnvConfig
from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.overrides import checked, short
from afterwit.runs.output.files import atomic_write, read_json
from afterwit.world_models.base import ModelConfig
from afterwit.world_models.published import is_published
from afterwit.world_models.registry import ALL_MODELS, find_model, world_model_name
from afterwit.world_models.torso import TorsoConfig


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run."""

    env: EnvConfig = field(default_factory=MazeConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    preset: tyro.conf.Suppress[str] = "maze"
    """The preset that this config started from."""
    contents: tyro.conf.Suppress[str] = ""
    """Digests of the files that this config names, as they were when the run was made."""
    seed: int = 0
    """Seeds environments, weights and every draw. On CPU a seed means the same run, bit for bit."""
    total_steps: int = 1_500_000
    """Agent steps to train for, over all environments."""
    unroll_length: int = 40
    """Agent steps of each environment in one learner step (T)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks are. auto: on a GPU if there is one."""
    policy_lag: int = 0
    """Learner steps by which the acting weights may be late. 0: act and learn in turn. 1: act the
    next trajectory, in another thread, while the learner trains on this one."""
    threads: int = 1
    """CPU threads of one torch operation of the learner. 1 is fastest for small networks."""
    acting_threads: int = 1
    """CPU threads of one torch operation of an actor, where actors have threads of their own."""
    compile: bool = False
    """Compile the encoders (torch.compile). Takes a minute at the start; on CPUs it needs a C++
    compiler."""
    cluster: str | None = None
    """Ray cluster to run on: local (processes of this machine), auto (the cluster that this machine
    is part of), or an address. Unset: this process. Needs the extra `ray`."""
    actors: int | None = None
    """Number of actors: threads here, processes of one core each with a cluster. Unset: as many as
    make a batch. N times as many need a policy lag of N."""
    actor_envs: int | None = None
    """Environments of one actor. Unset: a learner's whole share of env.num_envs."""
    learners: int = 1
    """Learner processes on the cluster. They share each batch, and together do what one does."""
    placement: Literal["spread", "pairs"] = "spread"
    """spread: actors and learners wherever cores and GPUs are free. pairs: each learner on a node
    with its share of the actors."""
    actor_patience: float = 300.0
    """Seconds without an answer after which an actor on the cluster is replaced."""
    log_interval: int = 15_000
    """Agent steps between two log entries."""
    checkpoint_interval: int = 250_000
    """Agent steps between two checkpoints. Ctrl-C, SIGTERM and the end of the run write one."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep. The best one is kept, too."""

    def __post_init__(self) -> None:
        check_numbers(
            self, counts=("total_steps", "log_interval", "checkpoint_interval"), others=("seed",)
        )
        intervals = ("log_interval", "checkpoint_interval", "keep_checkpoints")
        for name in ("total_steps", "threads", "acting_threads", *intervals):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.unroll_length < 2:
            raise ValueError(f"unroll_length is {self.unroll_length}; it must be at least 2")
        if self.policy_lag < 0:
            raise ValueError(
                f"policy_lag is {self.policy_lag}; it must be 0 (act and learn in turn) or more"
            )
        for name in ("threads", "acting_threads"):
            if getattr(self, name) > THREADS:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {THREADS}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must be at least 0 and below 2^63")
        try:
            self.learner.world_model.check_batch(self.unroll_length, self.env.num_envs)
        except ValueError as error:
            sizes = f"unroll_length is {self.unroll_length}, env.num_envs is {self.env.num_envs}"
            raise ValueError(f"{error} ({sizes})") from error
        self._check_actors()

    def _check_actors(self) -> None:
        if self.learners < 1:
            raise ValueError(f"learners is {self.learners}; it must be at least 1")
        if not self.actor_patience > 0:
            raise ValueError(f"actor_patience is {self.actor_patience}; it must be above 0")
        if self.cluster is not None and self.learner.torso.init is not None:
            raise ValueError(
                "learner.torso.init does not go with --cluster, whose processes may not see the"
                " file; leave one of them out"
            )
        if self.cluster is None and self.learners > 1:
            raise ValueError(
                f"learners is {self.learners}, but that is for a cluster; add --cluster local, auto"
                " or an address"
            )
        share, rest = divmod(self.env.num_envs, self.learners)
        if rest:
            raise ValueError(
                f"learners is {self.learners}; it must divide env.num_envs, which is"
                f" {self.env.num_envs}"
            )
        if share % self.learner.micro_batches:
            raise ValueError(
                f"learner.micro_batches is {self.learner.micro_batches}; it must divide a learner's"
                f" {share} environments"
            )
        if self.actor_envs is not None and (self.actor_envs < 1 or share % self.actor_envs):
            raise ValueError(
                f"actor_envs is {self.actor_envs}; it must divide a learner's {share} environments"
            )
        needed = self.actors_per_batch
        if self.num_actors < needed:
            raise ValueError(
                f"actors is {self.actors}, but {needed} of {self.envs_per_actor} environments make"
                f" a batch of {self.env.num_envs}; take at least {needed}, or larger ones"
                " (actor_envs)"
            )
        most = needed * (self.policy_lag + 1)
        if self.num_actors > most:
            lag = -(-self.num_actors // needed)
            raise ValueError(
                f"actors is {self.actors}, but policy_lag {self.policy_lag} gives work to {most} at"
                f" most ({needed} make a batch); raise the lag to {lag}, or take fewer actors or"
                " smaller ones (actor_envs)"
            )
        if self.placement == "pairs" and (self.num_actors % needed or needed % self.learners):
            raise ValueError(
                f"placement is 'pairs', but actors is {self.num_actors}; with it, a multiple of the"
                f" {needed} that make a batch is needed"
            )

    @property
    def envs_per_actor(self) -> int:
        return self.actor_envs or self.env.num_envs // self.learners

    @property
    def actors_per_batch(self) -> int:
        """The number of actors whose trajectories make one batch."""
        return self.env.num_envs // self.envs_per_actor

    @property
    def num_actors(self) -> int:
        return self.actors_per_batch if self.actors is None else self.actors

    @property
    def actor_env(self) -> EnvConfig:
        """The environments of one actor."""
        return replace(self.env, num_envs=self.envs_per_actor)

    def alone(self) -> RunConfig:
        """Return the same run in this process, with one actor that alternates with the learner."""
        return replace(
            self,
            cluster=None,
            actors=None,
            actor_envs=None,
            learners=1,
            placement="spread",
            policy_lag=0,
        )

    @property
    def method(self) -> str:
        """The run's name in comparisons.

        It is its world model, also in its published form, or the random policy.
        """
        if self.learner.policy.uniform:
            return "random"
        model = self.learner.world_model
        return world_model_name(model) + ("-published" if is_published(model) else "")

    @property
    def title(self) -> str:
        """The method and the seed, for people."""
        return f"{self.method}, seed {self.seed}"

    def torch_device(self) -> torch.device:
        """Return the device. Raises ValueError if a GPU is required and there is none."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device is 'cuda' but torch sees no GPU; use --device cpu, or install a CUDA build"
                " of torch"
            )
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")


# Fields that decide where and how fast a run goes and how it is saved. What it learns from is the
# same kind of data; with other `actors` or `actor_envs` it is other episodes.
RESOURCES = (
    "device",
    "threads",
    "acting_threads",
    "compile",
    "cluster",
    "actors",
    "actor_envs",
    "learners",
    "placement",
    "actor_patience",
    "log_interval",
    "checkpoint_interval",
    "keep_checkpoints",
)


def to_dict(config: RunConfig | EnvConfig | TorsoConfig) -> dict[str, Any]:
    """Return plain dicts and values of a run's config, or of a part of it.

    Environment and world model have their registry `name`.
    """
    return _plain(config)


def _plain(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    result = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, ModelConfig):
        return result | {"name": world_model_name(value)}
    names = {kind: name for name, (kind, _) in ENVS.items()}
    return result | ({"name": names[type(value)]} if type(value) in names else {})


ANY = object()
# fields of earlier versions that mean nothing today, or nothing with this value
REMOVED_FIELDS = {
    "learner.vmpo.temperature_init": ANY,
    "learner.world_model.expected_reads": "belief",
}
# the behaviour of versions before the field existed
OLD_DEFAULTS = {
    "learner.world_model.reward_edges": "sum",
    "learner.world_model.generator_reads": "outcome",
    "learner.world_model.purity": "critic",
    "learner.world_model.expected_error": "off",
    "learner.world_model.absolute_zero": 0.0,
}


def from_dict(data: dict[str, Any]) -> RunConfig:
    """Return the config that `to_dict` wrote. Missing fields have their defaults.

    Raises:
      ValueError: a field is unknown, or does not take its value. The message names them.
    """
    try:
        config: RunConfig = _converted(data, RunConfig, "")
    except ValueError:
        if not isinstance(data, dict) or data.get("actors") != 1:
            raise
        # until November 2026, 1 meant what unset means now
        config = _converted(data | {"actors": None}, RunConfig, "")
    return config


def removed(field: str, value: Any) -> bool:
    """Whether a field of an earlier version, with this value, means nothing today."""
    return field in REMOVED_FIELDS and REMOVED_FIELDS[field] in (ANY, value)


def _converted(data: Any, hint: Any, path: str) -> Any:
    """Return `data`, which is at `path`, as a value of type `hint`."""
    if hint != EnvConfig and not is_dataclass(hint):
        return checked(data, hint, path)
    where = path or "the config"
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {short(data)}; it takes an object with fields")
    if hint in (EnvConfig, ModelConfig):
        hint = _class_of(data.get("name"), hint, where)
        data = {key: value for key, value in data.items() if key != "name"}
    types = get_type_hints(hint)
    hints = {field.name: types[field.name] for field in fields(hint)}
    data = {key: value for key, value in data.items() if not removed(f"{path}.{key}", value)}
    data = {
        key: OLD_DEFAULTS[f"{path}.{key}"] for key in hints if f"{path}.{key}" in OLD_DEFAULTS
    } | data
    for key in data:
        if f"{path}.{key}" in REMOVED_FIELDS:
            raise ValueError(
                f"{where}.{key} is {short(data[key])}, which this version of afterwit has no more;"
                " take the version that wrote it"
            )
        if key not in hints:
            raise ValueError(
                f"not a config of this version of afterwit: {where} has the unknown field"
                f" {short(key)}"
            )
    return hint(
        **{
            key: _converted(value, hints[key], f"{path}.{key}".lstrip("."))
            for key, value in data.items()
        }
    )


def _class_of(name: Any, hint: Any, where: str) -> Any:
    """Return the config class for a dict's `name`."""
    if hint == EnvConfig and isinstance(name, str) and name in ENVS:
        return ENVS[name][0]
    if hint == ModelConfig and isinstance(name, str) and (name in ALL_MODELS or ":" in name):
        return find_model(name).Config
    known = ENVS if hint == EnvConfig else ALL_MODELS
    raise ValueError(f"{where}.name is {short(name)}; choose from {', '.join(known)}")


def read_config(folder: Path) -> RunConfig:
    """Return the config of a run folder. Raises ValueError if it is missing or damaged."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no run folder: it has no config.json")
    data = read_json(
        path,
        "restore a copy, or remove it: afterwit train --resume then takes the config from the"
        " run's checkpoint",
    )
    try:
        return from_dict(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_config(config: RunConfig, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "config.json") as file:
        file.write((json.dumps(to_dict(config), indent=2) + "\n").encode())


def config_of(folder: Path) -> RunConfig:
    """Return the config of a run that is only read.

    The packages of its environment may be missing here.
    """
    with reading_only():
        return read_config(folder)
