"""The published form of each world model, and what still differs from its paper.

`WORLD_MODELS[name][0].published()` is the whole configuration, for Atari. `model_config(name,
"published", sizes="ours")` is the published method with small networks, for small worlds.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Literal

from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.registry import WORLD_MODELS, WorldModelConfig
from afterwit.world_models.running_scale import FLOOR

Form = Literal["ours", "published"]

# What says how large networks are and how far they look ahead, and nothing about the method.
SIZES = ("horizon", "hidden", "noise", "latent", "layers", "critic_embedding", "predictor_hidden")

EVERYWHERE = "all models"
DEVIATIONS: dict[str, tuple[str, ...]] = {
    EVERYWHERE: (
        "V-MPO's temperature is solved for on each batch; V-MPO takes a gradient step on it.",
        (
            "The trust region's multiplier alpha moves by a factor exp(rate (KL / epsilon - 1)),"
            " the bracket at most 4, between 0.01 and 100; V-MPO takes a gradient step on it."
        ),
        (
            "Advantages are in units of their root mean square in the batch; with the exact"
            " temperature no unit makes a difference."
        ),
        (
            "Extrinsic rewards are divided by their root mean square, not by their deviation about"
            " the mean."
        ),
        (
            f"The floor under running deviations (of rewards and value targets) is {FLOOR:.0%} of"
            " the root mean square, not 1e-4."
        ),
        "Gradients are clipped to a global norm of 10; the papers give none.",
        "Pairs that cross an episode's end count nowhere; the papers do not say.",
        (
            "The agent is V-MPO with one value for both returns, which end with the episode; Burda"
            " et al. and Pathak et al. have PPO and A3C."
        ),
        (
            "Outside the preset atari, sizes, K, learning rate and V-MPO's constants are the"
            " preset's, which has far fewer steps."
        ),
    ),
    "byol-explore": (
        "The networks' sizes are those of re-implementations; the paper gives some of them only.",
    ),
    "byol-hindsight": (
        "lambda (invariance_weight) is 0.01; no value is published.",
        (
            "The critic is a network with one hidden layer on (place, action, z); its form is not"
            " published."
        ),
        (
            "The critic has an Adam of its own, at the agent's rate, and steps after the others"
            " instead of with them."
        ),
        "(place, action) carry no gradient into generator and critic; the paper does not say.",
        (
            "z and noise have 256 numbers, generator and reconstructor three hidden layers of 512:"
            " those of re-implementations."
        ),
    ),
    "rnd": (
        (
            "Predictor and target look through the policy's kind of encoder at all its channels,"
            " initialised as PyTorch does; Burda et al. show them the last frame and initialise"
            " orthogonally with gain sqrt 2."
        ),
        (
            "Loss and error are divided by the target's running size squared; in the bonus, sigma"
            " takes that out again."
        ),
        (
            "The bonus is divided by its own running deviation, as BYOL-Explore does for RND; Burda"
            " et al. divide by that of its returns."
        ),
        (
            "The moments of observations start with training, with a deviation of at least 0.01;"
            " Burda et al. take random steps first."
        ),
        (
            "Every step trains the predictor; Burda et al. drop three of four where there are 128"
            " environments."
        ),
    ),
    "icm": (
        (
            "The features come from the policy's kind of encoder; Pathak et al. have four"
            " convolutions with ELU."
        ),
        (
            "The bonus is divided by its running deviation, as BYOL-Explore does for ICM; Pathak et"
            " al. multiply it by a constant."
        ),
    ),
}


def model_config(model: str, method: Form, sizes: Form, rate: float) -> WorldModelConfig:
    """The config of `model` with the method of one form and the SIZES of one: ours are small, and
    look one step ahead.

    `rate` is the agent's learning rate, which in the published form is the critic's, too.
    """
    kind = WORLD_MODELS[model][0]
    forms: dict[Form, WorldModelConfig] = {"ours": kind(), "published": kind.published()}
    config = with_sizes_of(forms[method], forms[sizes])
    return (
        replace(config, critic_rate=rate)
        if method == "published" and isinstance(config, BYOLHindsightConfig)
        else config
    )


def with_sizes_of(config: WorldModelConfig, other: WorldModelConfig) -> WorldModelConfig:
    """`config` with the SIZES of `other`, a config of the same model."""
    names = [field.name for field in fields(config) if field.name in SIZES]
    return replace(config, **{name: getattr(other, name) for name in names})


def is_published(config: WorldModelConfig) -> bool:
    """Is the method the published one, whatever sizes and rate?"""
    published = with_sizes_of(type(config).published(), config)
    if isinstance(published, BYOLHindsightConfig) and isinstance(config, BYOLHindsightConfig):
        published = replace(published, critic_rate=config.critic_rate)
    return published == config
