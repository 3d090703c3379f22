"""The published form of each world model, and what still differs from its paper.

`WORLD_MODELS[name][0].published()` is the whole configuration, for Atari. `model_config(name, "published", sizes="ours")` is the
published method with small networks, for small worlds.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Literal

from afterwit.world_models.make import WORLD_MODELS, WorldModelConfig

Form = Literal["ours", "published"]

# What says how large networks are and how far they look ahead, and nothing about the method.
SIZES = ("horizon", "hidden", "noise", "latent", "layers", "critic_embedding", "predictor_hidden")

EVERYWHERE = "all models"
DEVIATIONS: dict[str, tuple[str, ...]] = {
    EVERYWHERE: (
        "V-MPO's temperature is solved for on each batch, and its trust region's multiplier follows log-KL; the papers take a "
        "gradient step on each.",
        "Advantages are in units of their root mean square in the batch; with the exact temperature no unit makes a difference.",
        "Extrinsic rewards are divided by their root mean square, not by their deviation about the mean.",
        "The floor under a reward's deviation is 1% of its root mean square, not 1e-4.",
        "Gradients are clipped to a global norm of 10; the papers give none.",
        "Pairs that cross an episode's end count nowhere; the papers do not say.",
    ),
    "byol-explore": ("The networks' sizes are those of re-implementations; the paper gives some of them only.",),
    "byol-hindsight": (
        "lambda (invariance_weight) is 0.01; no value is published.",
        "The critic is a network with one hidden layer on (place, action, z), with an Adam of its own; its form is not published.",
        "(place, action) carry no gradient into generator and critic; the paper does not say.",
        "z and noise have 256 numbers, generator and reconstructor three hidden layers of 512: those of re-implementations.",
    ),
    "rnd": (
        "Predictor and target look through the policy's kind of encoder, initialised as PyTorch does; Burda et al. initialise "
        "orthogonally with gain sqrt 2.",
        "The target is predicted in units of its running size, which divides loss and error alike; sigma takes it out of the bonus.",
        "The bonus is divided by its own running deviation, as BYOL-Explore does for RND; Burda et al. divide by that of its returns.",
        "There is one value for intrinsic and extrinsic return, and intrinsic returns end with the episode.",
        "Every step trains the predictor; Burda et al. drop three of four where there are 128 environments.",
    ),
    "icm": (
        "The features come from the policy's kind of encoder; Pathak et al. have four convolutions with ELU.",
        "The bonus is divided by its running deviation, as BYOL-Explore does for ICM; Pathak et al. multiply it by a constant.",
    ),
}  # fmt: skip


def model_config(model: str, method: Form, sizes: Form) -> WorldModelConfig:
    """The config of `model` with the method of one form and the SIZES of one: ours are small, and look one step ahead."""
    kind = WORLD_MODELS[model][0]
    forms: dict[Form, WorldModelConfig] = {"ours": kind(), "published": kind.published()}
    return with_sizes_of(forms[method], forms[sizes])


def with_sizes_of(config: WorldModelConfig, other: WorldModelConfig) -> WorldModelConfig:
    """`config` with the SIZES of `other`, a config of the same model."""
    names = [field.name for field in fields(config) if field.name in SIZES]
    return replace(config, **{name: getattr(other, name) for name in names})


def is_published(config: WorldModelConfig) -> bool:
    """Is the method the published one, whatever the sizes?"""
    return with_sizes_of(type(config).published(), config) == config
