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
        remedy = f"mend {module!r}"
        if isinstance(error, ModuleNotFoundError):
            remedy = f"install {error.name!r}"
            if error.name == (top := module.partition(".")[0]):
                remedy = f"start afterwit in the folder that holds {top!r}, or install it"
        elif not module:
            remedy = "name it as package.module:Class"
        raise ValueError(
            f"world model {name!r} cannot be imported ({describe_error(error)}); {remedy}"
        ) from error
    found = getattr(sys.modules[module], attribute, None)
    if found is None:
        models = [
            known
            for known, each in vars(sys.modules[module]).items()
            if isinstance(each, type) and issubclass(each, WorldModel) and each is not WorldModel
        ]
        raise ValueError(
            f"world model {name!r} is not there: {module} has no class {attribute!r}; its classes"
            f" derived from afterwit.world_models.WorldModel are {', '.join(models) or 'none'}"
        )
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
    if model in ALL_MODELS.values():
        return cast(Any, model)(config, torso, spec, seed)
    try:
        return cast(Any, model)(config, torso, spec, seed)
    except ValueError:
        raise  # it says what is wrong
    except Exception as error:
        raise ValueError(
            f"world model {world_model_name(config)!r} cannot be made ({describe_error(error)}); it"
            " takes (config, torso, spec, seed), calls super().__init__(seed) first, and has a"
            " method forward"
        ) from error


def world_model_name(config: ModelConfig) -> str:
    """The name by which `find_model` finds the model of this config."""
    model = MODEL_OF[type(config)]
    names = (name for name, known in ALL_MODELS.items() if known is model)
    return next(names, f"{model.__module__}:{model.__qualname__}")
