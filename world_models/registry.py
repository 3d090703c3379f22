"""WORLD_MODELS: name -> (config, class). One test class runs over all entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import WorldModel
from afterwit.world_models.models.byol_explore import BYOLExplore, BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig
from afterwit.world_models.models.icm import ICM, ICMConfig
from afterwit.world_models.models.rnd import RND, RNDConfig
from afterwit.world_models.torso import Torso

WorldModelConfig = BYOLExploreConfig | BYOLHindsightConfig | RNDConfig | ICMConfig

WORLD_MODELS: dict[str, tuple[type[Any], Callable[[Any, Torso, EnvSpec, int], WorldModel]]] = {
    "byol-explore": (BYOLExploreConfig, BYOLExplore),
    "byol-hindsight": (BYOLHindsightConfig, BYOLHindsight),
    "rnd": (RNDConfig, RND),
    "icm": (ICMConfig, ICM),
}


def make_world_model(
    config: WorldModelConfig, torso: Torso, spec: EnvSpec, seed: int
) -> WorldModel:
    """The world model that `config` describes, looking through `torso`."""
    for config_type, model_type in WORLD_MODELS.values():
        if type(config) is config_type:
            return model_type(config, torso, spec, seed)
    raise ValueError(
        f"unknown world model config {type(config).__name__}; choose one of"
        f" {', '.join(WORLD_MODELS)}"
    )


def world_model_name(config: WorldModelConfig) -> str:
    """The registry's name for a config: the inverse of WORLD_MODELS[name][0]."""
    return next(
        name for name, (config_type, _) in WORLD_MODELS.items() if type(config) is config_type
    )
