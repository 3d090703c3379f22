"""Every model by its name: those of the catalogue, mixtures of them, and a user's own."""

from __future__ import annotations

import sys
from typing import Any, cast

from afterwit.envs.specs import EnvSpec, describe_error
from afterwit.envs.user_modules import import_module
from afterwit.world_models.base import MODEL_OF, ModelConfig, WorldModel
from afterwit.world_models.catalogue import ORACLES, WORLD_MODELS
from afterwit.world_models.models.mix import Mix
from afterwit.world_models.torso import Torso

MIXTURES: dict[str, type[WorldModel]] = {"mix": Mix}
ALL_MODELS = {**WORLD_MODELS, **MIXTURES, **ORACLES}


def find_model(name: str) -> type[WorldModel]:
    """The class of a world model.

    Args:
      name: One of WORLD_MODELS or ORACLES, or `package.module:Class` for one of your own. Its
          package is installed, or is in the working folder.

    Raises:
      ValueError: There is no such model. The message says what is wrong with the name.

    >>> find_model("rnd").__name__
    'RND'
    """
    if name in ALL_MODELS:
        return ALL_MODELS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(
            f"unknown world model {name!r}; choose from {', '.join(ALL_MODELS)}, or name a class"
            " of your own as package.module:Class"
        )
    try:
        import_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"world model {name!r} cannot be imported ({describe_error(error)}); start afterwit in"
            f" the folder that holds {module.partition('.')[0]!r}, or install it"
        ) from error
    found = getattr(sys.modules[module], attribute, None)
    if not isinstance(found, type) or not issubclass(found, WorldModel):
        raise ValueError(
            f"world model {name!r} is {found!r}; it must be a class derived from"
            " afterwit.world_models.WorldModel"
        )
    if MODEL_OF.get(getattr(found, "Config", ModelConfig)) is not found:
        raise ValueError(
            f"world model {name!r} has no config class of its own; give it Config, a frozen"
            " dataclass derived from afterwit.world_models.ModelConfig"
        )
    return found


def make_world_model(config: ModelConfig, torso: Torso, spec: EnvSpec, seed: int) -> WorldModel:
    """Make the world model that a config describes.

    Args:
      config: The config of a world model.
      torso: The encoder and recurrent network that the model reads.
      spec: The environments.
      seed: Seed of the model's random draws.

    Raises:
      ValueError: The config belongs to no known world model, or the model does not take these
          actions.
    """
    if type(config) not in MODEL_OF:
        raise ValueError(
            f"unknown world model config {type(config).__name__}; choose one of"
            f" {', '.join(ALL_MODELS)}, or import the class that it belongs to"
        )
    model = MODEL_OF[type(config)]
    if spec.continuous and not model.continuous_actions:
        raise ValueError(
            f"{world_model_name(config)} takes no continuous actions; choose another world model,"
            " or set continuous_actions in its class if it reads them"
        )
    return cast(Any, model)(config, torso, spec, seed)


def world_model_name(config: ModelConfig) -> str:
    """The name by which `find_model` finds the model of this config."""
    model = MODEL_OF[type(config)]
    names = (name for name, known in ALL_MODELS.items() if known is model)
    return next(names, f"{model.__module__}:{model.__qualname__}")
