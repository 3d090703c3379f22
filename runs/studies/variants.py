"""The worlds and methods that studies are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from afterwit.runs.configs.presets import AtariNoise
from afterwit.runs.studies.study import Values, Variant
from afterwit.world_models.models.hindsight_config import BYOLHindsightConfig
from afterwit.world_models.registry import WORLD_MODELS

RANDOM = Variant("random", {"model": "rnd"}, {"learner.policy.uniform": True})
# V-MPO's published weights, which prefer actions whose pay varies
EXPONENTIAL = Variant(
    "exponential-weights", {"model": "byol-hindsight"}, {"learner.vmpo.weights": "exponential"}
)
# Paid for every error, also where it was to be expected, and however small it is
EVERY_ERROR = Variant(
    "every-error", {"model": "byol-hindsight"}, {"learner.world_model.expected_error": "off"}
)
# NGU's episodic part alone, as RLeXplore names it
PSEUDO_COUNTS = Variant("pseudo-counts", {"model": "ngu"}, {"learner.world_model.lifelong": False})
# the models that Afterwit began with; the first one is what the others are compared with
COMPARED = ("byol-hindsight", "byol-explore", "rnd", "icm")
BONUSES = (*COMPARED, *(name for name in WORLD_MODELS if name not in COMPARED))
# Chosen by the mean score without noise, with sticky actions and with pixels on demand, on seed 0,
# among rate of the world model {1, 4} x clip {off, on}. What is not here has its default. E3B
# scored less than a uniform policy in all four, so it had four more rates, 0.25 to 0.01
# (docs/results/leaderboard-search.md).
CLIP: Values = {"learner.world_model.prioritise": True}
FAST: Values = {"learner.world_model_rate": 4.0}
TUNED: dict[str, Values] = {
    "ama": {**FAST, **CLIP},
    "disagreement": CLIP,
    "e3b": {"learner.world_model_rate": 0.03},
    "icm": FAST,
    "lpm": {**FAST, **CLIP},
    "ngu": FAST,
    "ride": CLIP,
}
MAZE_NOISES = ("none", "brownian", "pixel", "on-demand", "sticky", "frozen")


def atari_world(game: str, noise: AtariNoise, alone: bool) -> Variant:
    """Return a world of the preset atari-small; the study's own game is named by its noise."""
    name = noise if alone else game if noise == "none" else f"{game}-{noise}"
    return Variant(name, {"game": game, "noise": noise})


def maze_world(noise: str, layout: str = "row") -> Variant:
    """Return a world of the preset maze. Those of its first layout are named by the noise alone."""
    if layout == "row":
        return Variant(noise, {"noise": noise})
    return Variant(f"{layout}-{noise}", {"noise": noise}, {"env.layout": layout})


def method(model: str) -> Variant:
    return Variant(model, {"model": model})


def tuned(model: str) -> Variant:
    """Return the method with its settings in TUNED."""
    return replace(method(model), overrides=TUNED.get(model, {}))


def published(model: str) -> Variant:
    return Variant(f"{model}-published", {"model": model, "variant": "published"})


def varied(base: Variant, knob: str, path: str, value: Any) -> Variant:
    """Return `base` with one field changed, named `knob-value`."""
    text = (
        str(value).lower()
        if value is None or isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
    return Variant(f"{knob}-{text}", base.arguments, {**base.overrides, path: value})


def controls() -> tuple[Variant, ...]:
    """Return what could refute BYOL-Hindsight: the same agent without one of its ideas."""
    # as it was until November 2026: z made from the whole outcome, kept pure by a critic
    critic = {
        "generator_reads": "outcome",
        "purity": "critic",
        "expected_error": "off",
        "absolute_zero": 0.0,
        "prioritise": True,
    }
    # of the expected error only what the action adds is taken off
    place_paid: Values = {"expected_takes": "action"}
    former = {"latent_price": 0.05}  # the default of docs/results/method.md
    changes: dict[str, Values] = {
        "z-noise": {"control": "noise"},
        "autoencoder": {"control": "autoencoder"},
        "price-0.05": former,
        "price-0.05-z-noise": {**former, "control": "noise"},
        "price-0.05-autoencoder": {**former, "control": "autoencoder"},
        "expected-error-off": {"expected_error": "off", "prioritise": True},
        "place-paid": place_paid,
        "place-paid-z-noise": {**place_paid, "control": "noise"},
        "place-paid-autoencoder": {**place_paid, "control": "autoencoder"},
        "critic": critic,
        "invariance-off": {**critic, "invariance_weight": 1e-6},
    }
    ours = BYOLHindsightConfig()  # BYOL-Explore is paid as it is
    without_z: Values = {
        "expected_error": ours.expected_error,
        **place_paid,
        "absolute_zero": ours.absolute_zero,
        "prioritise": ours.prioritise,
    }
    return (
        *changed_models(changes),
        *changed_models({"place-paid-byol-explore": without_z}, "byol-explore"),
    )


def objectives() -> tuple[Variant, ...]:
    """Return BYOL-Hindsight with another objective of its embeddings (docs/objectives.md)."""
    changes: dict[str, Values] = {
        "linear": {"predictor": "linear"},
        "direct-pred": {"predictor": "direct-pred"},
        "direct-copy": {"predictor": "direct-copy"},
        "isoloss": {"predictor": "direct-pred", "predictor_isotropic": True},
        "dispersion": {"dispersion_weight": 1.0},
        "weight-decay": {"weight_decay": 0.01},
    }
    return changed_models(changes)


def changed_models(
    changes: Mapping[str, Values], model: str = "byol-hindsight"
) -> tuple[Variant, ...]:
    """Return variants of a model, by name, with fields of its world model changed."""
    return tuple(
        Variant(
            name,
            {"model": model},
            {f"learner.world_model.{field}": value for field, value in fields.items()},
        )
        for name, fields in changes.items()
    )
