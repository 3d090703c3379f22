"""Encoders in safetensors files: written, read without this package, and adopted."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from afterwit.agents import Learner, LearnerConfig
from afterwit.world_models.encoder_file import (
    adopt_encoder,
    encoder_bytes,
    load_encoder,
    read_encoder,
)
from afterwit.world_models.models.byol_explore import BYOLExplore, BYOLExploreConfig
from afterwit.world_models.torso import Encoder, TorsoConfig
from tests.helpers import same, tiny_spec, tiny_torso_config

SHAPE = (2, 24, 26)


def written(path: Path, config: TorsoConfig | None = None) -> Encoder:
    torch.manual_seed(5)
    config = config or tiny_torso_config("small")
    encoder = Encoder(config, SHAPE)
    path.write_bytes(encoder_bytes(encoder, config, {"objective": "none"}))
    return encoder


@pytest.mark.parametrize("kind", ["small", "resnet", "mlp"])
def test_what_is_written_is_read(tmp_path: Path, kind: str) -> None:
    encoder = written(tmp_path / "e.safetensors", tiny_torso_config(kind))
    read, config, about = load_encoder(tmp_path / "e.safetensors")
    obs = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    assert torch.equal(read(obs), encoder(obs))
    assert config.encoder == kind
    assert about == {"objective": "none"}


def test_it_loads_without_this_package(tmp_path: Path) -> None:
    """The ten lines of docs/pretrain.md."""
    encoder = written(tmp_path / "e.safetensors")
    with safe_open(tmp_path / "e.safetensors", "pt") as file:
        form = json.loads(file.metadata()["form"])
        channels, _, _ = json.loads(file.metadata()["observation_shape"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    a, b, c = form["channels"]
    convolutions = nn.Sequential(
        *(nn.Conv2d(channels, a, 5, 3), nn.ReLU(), nn.Conv2d(a, b, 3, 2), nn.ReLU()),
        *(nn.Conv2d(b, c, 3), nn.GroupNorm(1, c), nn.ReLU()),
    )
    features = weights["2.weight"].shape[1]
    plain = nn.Sequential(convolutions, nn.Flatten(), nn.Linear(features, form["embedding"]))
    plain.load_state_dict(weights)
    obs = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    assert torch.allclose(plain(obs / 255), encoder(obs), atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_a_learner_adopts_it_everywhere(tmp_path: Path, shared: bool) -> None:
    encoder = written(tmp_path / "e.safetensors")
    settings = LearnerConfig(
        torso=tiny_torso_config("small"), world_model=BYOLExploreConfig(), shared_torso=shared
    )
    learner = Learner(settings, tiny_spec(SHAPE, dtype="uint8"), 0, torch.device("cpu"))
    learner.adopt_encoder(tmp_path / "e.safetensors")
    obs = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    model = learner.world_model
    assert isinstance(model, BYOLExplore)
    torsos = [learner.policy.torso] + ([] if shared else [learner.own_torso])
    for part in [torso.encoder for torso in torsos if torso] + [model.target.slow]:
        assert torch.equal(part(obs), encoder(obs))
    for name, value in encoder.state_dict().items():
        assert torch.equal(learner.acting[f"torso.encoder.{name}"], value)


def test_an_encoder_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    written(path)
    for config, shape, word in (
        (tiny_torso_config("resnet"), SHAPE, "encoder 'small', not 'resnet'"),
        (TorsoConfig(encoder="small", channels=(3, 4, 5), embedding=9), SHAPE, "embedding 11"),
        (tiny_torso_config("small"), (2, 30, 30), r"observations \(2, 24, 26\), not \(2, 30, 30\)"),
    ):
        settings = LearnerConfig(torso=config)
        learner = Learner(settings, tiny_spec(shape, dtype="uint8"), 0, torch.device("cpu"))
        with pytest.raises(ValueError, match=word):
            adopt_encoder(learner, path)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, "int32"])
def test_weights_that_are_no_finite_floats_are_refused(tmp_path: Path, bad: Any) -> None:
    path = tmp_path / "e.safetensors"
    written(path)
    tensors = load_file(path)
    last = list(tensors)[-1]
    if bad == "int32":
        tensors[last] = tensors[last].to(torch.int32)
    else:
        tensors[last].view(-1)[0] = bad
    with safe_open(path, "pt") as file:
        told = file.metadata()
    save_file(tensors, path, told)
    learner = Learner(
        LearnerConfig(torso=tiny_torso_config("small")),
        tiny_spec(SHAPE, dtype="uint8"),
        0,
        torch.device("cpu"),
    )
    before = deepcopy(learner.state_dict())
    reads: list[Any] = [load_encoder, lambda path: adopt_encoder(learner, path)]
    for read in reads:
        with pytest.raises(ValueError, match=f"damaged or of.*{last} is not of finite floats"):
            read(path)
    assert same(dict(learner.state_dict()), dict(before))


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none cannot be read as an encoder"):
        read_encoder(tmp_path / "none")
    damaged = tmp_path / "damaged"
    written(damaged)
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged cannot be read as an encoder"):
        read_encoder(damaged)
    told = {
        "kind": "afterwit encoder",
        "form": json.dumps({"encoder": "small"}),
        "observation_shape": "[1, 20, 20]",
        "about": "{}",
    }
    for change in (
        {"form": "{not json"},
        {"note": "a note"},
        {"form": json.dumps({"encoder": "vit", "channels": [1, 2, 3]})},
        {"form": json.dumps({"encoder": "small", "channels": [1, 2, 3], "embedding": -3})},
    ):
        save_file({"x": torch.zeros(2)}, damaged, told | change)
        with pytest.raises(ValueError, match="damaged is damaged or of another version"):
            load_encoder(damaged)
    save_file({"x": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="but not an encoder of afterwit pretrain"):
        read_encoder(tmp_path / "other")
