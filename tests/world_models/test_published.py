"""The published form of each world model: every field and every deviation is accounted for."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from afterwit.agents import Learner
from afterwit.agents.vmpo import MAX_ALPHA, MAX_EXCESS, MIN_ALPHA, VMPOConfig
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.studies.definitions import STUDIES
from afterwit.world_models import WORLD_MODELS
from afterwit.world_models.published import (
    SHARED_DEVIATIONS,
    deviations,
    is_published,
    model_config,
)
from afterwit.world_models.running_scale import RunningScale
from tests.helpers import random_trajectory, tiny_spec

# The value that a paper states, or None: no paper states one (then DEVIATIONS says what stands
# there instead).
UNUSED = "unused"  # has no effect in the published form
OUR_OPTIONS = {
    "expected_error": "none",
    "expected_floor": UNUSED,
    "expected_rate": UNUSED,
    "expected_takes": UNUSED,
    "absolute_zero": 0.0,
    "dispersion_weight": 0.0,
    "brownian_weight": 0.0,
}
PREDICTOR = {
    "predictor": "mlp",
    "predictor_decay": UNUSED,
    "predictor_floor": UNUSED,
    "predictor_every": UNUSED,
    "predictor_isotropic": False,
    "weight_decay": 0.0,
    "pull_weight": 0.0,
}
PLAIN = {"loss_scale": 1.0, "prioritise": False, **OUR_OPTIONS}
PRINTED: dict[str, dict[str, Any]] = {
    "byol-explore": {
        "horizon": 8,
        "stride": 1,
        "reward_edges": "sum",
        "target_decay": 0.99,
        "standardise_decay": "off",
        "hidden": None,
        "centroid": 0.0,
        "target_view": "frame",
        "loss_scale": 5.0,
        "prioritise": True,
        **PREDICTOR,
        **OUR_OPTIONS,
    },
    "byol-hindsight": {
        "horizon": 8,
        "stride": 1,
        "reward_edges": "sum",
        "target_decay": 0.99,
        "standardise_decay": "off",
        "generator_reads": "outcome",
        "purity": "critic",
        "latent_price": UNUSED,
        "control": "none",
        "invariance_weight": None,
        "invariance_in_reward": True,
        "foresight_weight": 0.0,
        "noise": None,
        "latent": None,
        "hidden": None,
        "layers": None,
        "contrast_size": "all",
        "critic": None,
        "critic_embedding": None,
        "critic_scale": None,
        "critic_steps": 1,
        "critic_rate": "the agent's",
        "loss_scale": 5.0,
        "prioritise": True,
        **PREDICTOR,
        **OUR_OPTIONS,
    },
    "rnd": {
        "normalise_observations": True,
        "predictor_layers": 2,
        "predictor_hidden": 512,
        "size_decay": None,
        "loss_scale": 1.0,
        "prioritise": False,
        **OUR_OPTIONS,
    },
    "icm": {
        "hidden": 256,
        "forward_weight": 0.2,
        "forward_shapes_features": True,
        "loss_scale": 10.0,
        "prioritise": False,
        **OUR_OPTIONS,
    },
    "disagreement": {"members": 5, "hidden": 512, "layers": None, "keep": 0.8, **PLAIN},
    "ama": {"hidden": None, "variance_weight": 1.0, "variance_pay": 1.0, **PLAIN},
    "lpm": {"hidden": None, "floor": 1e-6, "wait": None, **PLAIN},
    "ride": {
        "features": 128,
        "hidden": 256,
        "forward_weight": 10.0,
        "inverse_weight": 0.1,
        "memory": None,
        **PLAIN,
    },
    "ngu": {
        "lifelong": True,
        "features": 32,
        "hidden": 128,
        "neighbours": 10,
        "memory": 30_000,
        "kernel": 1e-4,
        "cluster": 0.008,
        "pseudo_count": 0.001,
        "most_similar": 8.0,
        "most_lifelong": 5.0,
        **PLAIN,
    },
    "e3b": {"features": 1024, "hidden": 256, "ridge": 0.1, "unit_features": False, **PLAIN},
    "noveld": {
        "alpha": 0.5,
        "normalise_observations": False,
        "predictor_layers": 2,
        "predictor_hidden": 1024,
        "memory": None,
        **PLAIN,
    },
    "re3": {"neighbours": 3, "memory": None, "distance_decay": None, **PLAIN},
}
ON_ATARI = {"none": "off", "off": None, "all": None, "the agent's": 1e-4}


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_every_field_has_the_printed_value_or_is_known_to_have_none(name: str) -> None:
    published = WORLD_MODELS[name].Config.published()
    assert {field.name for field in fields(published)} == set(PRINTED[name]), (
        "a new field needs a published value, or a deviation"
    )
    for field, value in PRINTED[name].items():
        if value is not None and value != UNUSED:
            assert getattr(published, field) == ON_ATARI.get(value, value), field


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_what_is_left_is_named(name: str) -> None:
    assert set(deviations()) == {"all models", *WORLD_MODELS}
    text = " ".join(deviations()[name] + SHARED_DEVIATIONS)
    assert all(line.endswith(".") and len(line) > 40 for line in deviations()[name])
    words = {
        "invariance_weight": "lambda",
        "noise": "z and noise",
        "latent": "z and noise",
        "layers": "residual blocks" if name == "disagreement" else "three hidden layers",
        "wait": "first learner steps",
        "hidden": "sizes",
        "critic": "critic",
        "critic_embedding": "critic",
        "critic_scale": "critic",
        "size_decay": "running size",
        "memory": "remembered" if name != "re3" else "a replay",
        "distance_decay": "running root mean square",
    }
    for field, value in PRINTED[name].items():
        if value is None:
            assert words[field] in text or (field == "hidden" and "512" in text), field


def test_the_deviations_that_hold_everywhere_are_those_of_the_code() -> None:
    """Each sentence beside the numbers that make it true."""
    text = " ".join(SHARED_DEVIATIONS)
    learner = Learner(
        PRESETS["atari"](variant="published").learner,
        tiny_spec((1, 40, 40), dtype="uint8"),
        0,
        torch.device("cpu"),
    )
    assert "temperature is solved for" in text and not any(
        "temperature" in name for name, _ in learner.named_parameters()
    )
    assert f"the bracket at most {MAX_EXCESS:g}, between {MIN_ALPHA:g} and {MAX_ALPHA:g}" in text
    region, epsilon = learner.trust_region, learner.config.vmpo.trust_region_epsilon
    before = float(region.alpha)
    region.follow(torch.tensor(3 * epsilon), torch.tensor(True))
    assert float(region.alpha) == pytest.approx(
        before * math.exp(learner.config.vmpo.trust_region_rate * 2)
    )
    scale = RunningScale(0.9)
    scale.update(torch.full((4, 3), 7.0), torch.ones(4, 3, dtype=torch.bool))
    assert f"is {float(scale.deviation) / 7:.0%} of the root mean square" in text and float(
        scale.size
    ) == pytest.approx(7)
    assert f"norm of {learner.config.max_gradient_norm:g}" in text


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", WORLD_MODELS)
def test_one_flag_makes_any_preset_published(preset: str, name: str) -> None:
    ours, published = (PRESETS[preset](model=name, variant=form) for form in ("ours", "published"))
    assert (ours.method, published.method) == (name, f"{name}-published")
    assert published.learner.world_model_rate == 1.0 and published.learner.reward_decay == 0.99
    if name == "byol-hindsight":
        assert published.learner.world_model.critic_rate == published.learner.learning_rate
    sizes = [name for name in ours.learner.world_model.scale_fields if name != "critic_rate"]
    for field in sizes:
        assert getattr(ours.learner.world_model, field) == getattr(
            published.learner.world_model, field
        )


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_the_atari_preset_and_study_are_what_they_say(name: str) -> None:
    config = PRESETS["atari"](model=name, variant="published")
    assert config.learner.world_model == WORLD_MODELS[name].Config.published()
    assert config.learner.vmpo == VMPOConfig(
        temperature_epsilon=0.01, trust_region_epsilon=0.005, target_period=10
    )
    assert (
        config.learner.learning_rate,
        config.learner.discount,
        config.learner.intrinsic_weight,
    ) == (1e-4, 0.999, 0.1)
    assert (config.env.num_envs, config.unroll_length) == (32, 128)
    study = STUDIES["atari"]()
    assert f"{name}-published" in {
        variant.name for variant in (*study.methods, *study.more_methods)
    }
    assert all(cell.config.method == cell.method for cell in study.cells())
    assert "as published" in (STUDIES["atari"].__doc__ or "")


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_published_model_trains(name: str) -> None:
    config = PRESETS["maze"](model=name, variant="published").learner
    small = replace(config, world_model=model_config(name, "published", sizes="ours", rate=3e-4))
    learner = Learner(small, tiny_spec(), 0, torch.device("cpu"))
    assert is_published(small.world_model) and not is_published(WORLD_MODELS[name].Config())
    if name == "re3":
        assert not any(p.requires_grad for p in learner.world_model.parameters())
        return
    before = [p.clone() for p in learner.world_model.parameters()]
    for seed in range(2):
        metrics = learner.update(random_trajectory(seed=seed, belief=config.torso.belief))
        assert all(bool(value.isfinite().all()) for value in metrics.values())
    assert any(
        not torch.equal(p, old)
        for p, old in zip(learner.world_model.parameters(), before, strict=True)
    )
