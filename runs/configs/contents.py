"""What is in the files that a config names. Their paths alone do not tell two runs apart.

They are the weights of `learner.torso.init`, and the modules of a user's own bonus
(`package.module:Class`) and environment (`package:Id`). A run notes the digests of these files when
it is made. Of a module only the file itself counts, not what it imports.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import torch

from afterwit.envs.gym_config import GymConfig
from afterwit.runs.configs.run_config import RunConfig
from afterwit.world_models.base import MODEL_OF
from afterwit.world_models.encoder_file import read_encoder
from afterwit.world_models.registry import world_model_name
from afterwit.world_models.torso import TorsoConfig

DIGITS = 12  # of a digest, hexadecimal


def with_contents(config: RunConfig) -> RunConfig:
    """Return the config with a note of what is in the files that it names, as they are now.

    Raises:
      ValueError: a file cannot be read.
    """
    noted = [encoder_content(config.learner.torso), *map(module_content, own_modules(config))]
    return replace(config, contents=", ".join(filter(None, noted)))


def encoder_content(torso: TorsoConfig) -> str:
    """Return the name and digest of the weights that an encoder starts from, empty without any.

    The file's metadata do not count: they name the commit, and are in no fixed order.

    Raises:
      ValueError: the file cannot be read.
    """
    if torso.init is None:
        return ""
    total = hashlib.sha256()
    for name, weights in sorted(read_encoder(torso.init)[0].items()):
        total.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        total.update(weights.flatten().view(torch.uint8).numpy().tobytes())
    return f"{Path(torso.init).name} {total.hexdigest()[:DIGITS]}"


def own_modules(config: RunConfig) -> list[str]:
    """Return the names of the modules that hold a user's own bonus and environment."""
    model, env = config.learner.world_model, config.env
    names = [MODEL_OF[type(model)].__module__] if ":" in world_model_name(model) else []
    package = env.id.rpartition(":")[0] if isinstance(env, GymConfig) else ""
    return list(dict.fromkeys([*names, *([package] if package else [])]))


def module_content(name: str) -> str:
    """Return the name and digest of a module's file, empty if it has none."""
    path = getattr(sys.modules.get(name), "__file__", None)
    try:
        content = Path(path).read_bytes() if path else b""
    except OSError:  # it was made in memory, or lies in an archive
        return ""
    return f"{name} {hashlib.sha256(content).hexdigest()[:DIGITS]}" if content else ""


def as_noted(config: RunConfig, contents: str) -> RunConfig:
    """Return a config as it is compared with one that notes `contents`.

    Earlier versions noted none. Their runs are compared by paths alone.
    """
    return config if contents else replace(config, contents="")


def check_contents(config: RunConfig) -> None:
    """Check that the files that a run will begin with are those it was made with.

    Raises:
      ValueError: they have changed.
    """
    now = with_contents(config).contents if config.contents else ""
    if now != config.contents:
        raise ValueError(
            f"the run was made with {config.contents}, and there is {now} now; restore the files,"
            " or start a new run"
        )


def changed_modules(config: RunConfig) -> list[str]:
    """Return the user's own modules that have changed since the run was made."""
    now = {name: module_content(name) for name in own_modules(config)} if config.contents else {}
    return [name for name, noted in now.items() if noted not in config.contents]
