"""Encoders in safetensors files, which other programs can read without this package.

The file has the tensors of `Encoder.layers`, and as metadata (text) the encoder's form, the shape
of an observation and what trained it. uint8 observations are divided by 255 before the first layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from afterwit.world_models.base import TargetEncoder
from afterwit.world_models.torso import Encoder, Torso, TorsoConfig
from afterwit.world_models.whole_load import whole_or_not

KIND = "afterwit encoder"
FORM = ("encoder", "hidden", "channels", "blocks", "embedding")  # the fields that shape an encoder
# those of them that only some kinds of encoder have
SHAPED_BY = {
    "mlp": ("hidden",),
    "conv": (),
    "small": ("channels",),
    "resnet": ("channels", "blocks"),
}


def encoder_bytes(encoder: Encoder, config: TorsoConfig, about: Mapping[str, Any]) -> bytes:
    """The content of an encoder's file.

    Args:
      encoder: The encoder.
      config: The torso's config that it was made from.
      about: What trained it, as JSON.
    """
    form = {name: asdict(config.resolved(encoder.shape))[name] for name in FORM}
    metadata = {
        "kind": KIND,
        "form": json.dumps(form),
        "observation_shape": json.dumps(encoder.shape),
        "about": json.dumps(about),
    }
    tensors = {name: value.contiguous() for name, value in encoder.layers.state_dict().items()}
    return save(tensors, metadata)


def read_encoder(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of an encoder's file.

    Raises:
      ValueError: It is missing, damaged, or no encoder's file.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} cannot be read as an encoder ({reason}); write one with afterwit pretrain"
        ) from error
    if metadata.get("kind") != KIND:
        raise ValueError(
            f"{path} is a safetensors file, but not an encoder of afterwit pretrain; name one"
        )
    try:
        return tensors, {name: json.loads(metadata[name]) for name in metadata if name != "kind"}
    except ValueError as error:
        raise _damaged(path, error) from error


def load_encoder(path: Path | str) -> tuple[Encoder, TorsoConfig, dict[str, Any]]:
    """The encoder in a file, the form of its torso, and what trained it.

    Raises:
      ValueError: The file is missing, damaged, or no encoder's.
    """
    tensors, metadata = read_encoder(path)
    try:
        form = {**metadata["form"], "channels": tuple(metadata["form"]["channels"])}
        config = TorsoConfig(**form)
        encoder = Encoder(config, tuple(metadata["observation_shape"]))
        load_layers(encoder, tensors)
        return encoder, config, metadata["about"]
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error


def adopt_encoder(modules: nn.Module, path: Path | str) -> None:
    """Put the weights of a file into every torso's encoder within `modules`, and into its targets.

    Raises:
      ValueError: The file is missing or damaged, or its encoder has another form. Nothing was
          changed.
    """
    tensors, metadata = read_encoder(path)
    try:
        with whole_or_not(modules):
            _adopt(modules, path, tensors, metadata)
    except (KeyError, TypeError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _adopt(modules: nn.Module, path: Path | str, tensors: Any, metadata: Any) -> None:
    form, shape = metadata["form"], tuple(metadata["observation_shape"])
    for torso in [module for module in modules.modules() if isinstance(module, Torso)]:
        ours = json.loads(json.dumps(asdict(torso.config)))  # tuples as lists, as in the file
        differ = [
            f"{name} {form[name]!r}, not {ours[name]!r}"
            for name in ("encoder", *SHAPED_BY[torso.config.encoder], "embedding")
            if ours[name] != form[name]
        ]
        if shape != tuple(torso.encoder.shape):
            differ.append(f"observations {shape}, not {tuple(torso.encoder.shape)}")
        if differ:
            raise ValueError(
                f"the encoder in {path} does not fit this torso: it has {'; '.join(differ)}"
            )
        load_layers(torso.encoder, tensors)
    for module in modules.modules():
        if isinstance(module, TargetEncoder):
            module.slow.load_state_dict(module.online[0].state_dict())


def load_layers(encoder: Encoder, tensors: Mapping[str, Tensor]) -> None:
    """Load weights.

    Raises:
      RuntimeError: They are of another form, or are no finite floats.
    """
    for name, value in tensors.items():
        if not (value.is_floating_point() and value.isfinite().all()):
            raise RuntimeError(f"{name} is not of finite floats")
    encoder.layers.load_state_dict(tensors)


def _damaged(path: Path | str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(
        f"the encoder in {path} is damaged or of another version ({reason}); write it again with"
        " afterwit pretrain"
    )
