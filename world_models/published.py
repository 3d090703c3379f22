"""The published form of each world model, and how it still differs from its paper.

`WORLD_MODELS[name].Config.published()` is the whole configuration, for Atari. `model_config(name,
"published", sizes="ours", ...)` is the published method with small networks, for small
environments.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from afterwit.world_models.base import ModelConfig
from afterwit.world_models.registry import WORLD_MODELS, find_model
from afterwit.world_models.running_scale import FLOOR

Form = Literal["ours", "published"]

# Differences from the papers that the published forms of all models share.
SHARED_DEVIATIONS = (
    "V-MPO's temperature is solved for on each batch; V-MPO takes a gradient step on it.",
    "The trust region's multiplier alpha moves by a factor exp(rate (KL / epsilon - 1)), "
    "the bracket at most 4, between 0.01 and 100; V-MPO takes a gradient step on it.",
    "Advantages are in units of their root mean square in the batch; with the exact "
    "temperature no unit makes a difference.",
    "Extrinsic rewards are divided by their root mean square, not by their deviation "
    "about the mean.",
    f"The floor under running deviations (of rewards and value targets) is {FLOOR:.0%} of the root "
    "mean square, not 1e-4.",
    "Gradients are clipped to a global norm of 10; the papers give none.",
    "Pairs that cross an episode's end count nowhere; the papers do not say.",
    "The agent is V-MPO with one value for both returns, which end with the episode; "
    "Burda et al. and Pathak et al. have PPO and A3C.",
    "Outside the preset atari, sizes, K, learning rate and V-MPO's constants are the "
    "preset's, which has far fewer steps.",
)


def deviations() -> dict[str, tuple[str, ...]]:
    """How the published forms still differ from the papers: for all models, then for each."""
    own = {name: model.deviations for name, model in WORLD_MODELS.items()}
    return {"all models": SHARED_DEVIATIONS} | own


def model_config(model: str, method: Form, sizes: Form, rate: float) -> ModelConfig:
    """The config of a world model.

    Args:
      model: Its name, as `find_model` takes it.
      method: The form whose method it has.
      sizes: The form whose `scale_fields` it has. "ours" is small, and looks one step ahead.
      rate: The agent's learning rate. The optimisers of the published form step at this rate.

    Raises:
      ValueError: The model is unknown or has no published form.
    """
    kind = find_model(model).Config
    ours, published = kind(), kind.published()
    if method == "ours" and (sizes == "ours" or published is None):
        return ours
    if published is None:
        raise ValueError(f"{model} has no published form; leave --variant published out")
    forms: dict[Form, ModelConfig] = {"ours": ours, "published": published}
    config = with_scale_of(forms[method], forms[sizes])
    return config.at_rate(rate) if method == "published" else config


def with_scale_of(config: ModelConfig, other: ModelConfig) -> ModelConfig:
    """`config` with the `scale_fields` of `other`, a config of the same model."""
    return replace(config, **{name: getattr(other, name) for name in config.scale_fields})


def is_published(config: ModelConfig) -> bool:
    """Whether the method is the published one, with any sizes and rates."""
    published = config.published()
    return published is not None and with_scale_of(published, config) == config
