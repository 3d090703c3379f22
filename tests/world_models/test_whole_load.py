"""A saved state or encoder that does not fit leaves everything as it was."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from afterwit.agents import Learner, LearnerConfig
from afterwit.world_models import WORLD_MODELS
from afterwit.world_models.encoder_file import adopt_encoder, encoder_bytes
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.torso import Encoder
from tests.helpers import SHAPE, equal_states, tiny_spec, tiny_torso_config
from tests.world_models.curiosities import curiosity, steps


def states_that_do_not_fit(name: str) -> dict[str, Any]:
    """States for `curiosity(name)`. Most are its own, but for one entry."""
    trained = curiosity(name, seed=1)
    trained.update(*steps(7))
    own = trained.state_dict()
    other = curiosity("rnd" if name != "rnd" else "icm", seed=2)
    other.update(*steps(7))
    last = [key for key, value in own["modules"].items() if isinstance(value, torch.Tensor)][-1]
    random = {
        key: {"random": "seven"} for key in own["modules"] if key.endswith("model._extra_state")
    }
    moments = deepcopy(own["optimiser"])
    for average in moments["state"].values():
        average["exp_avg"] = average["exp_avg"][..., None]
    bad = {
        "of another model": other.state_dict(),
        "without a tensor": {
            **own,
            "modules": {key: value for key, value in own["modules"].items() if key != last},
        },
        "of another shape": {**own, "modules": {**own["modules"], last: torch.zeros(3, 1, 4)}},
        "without an optimiser": {"modules": own["modules"]},
        "with half an optimiser": {
            **own,
            "optimiser": {
                **own["optimiser"],
                "param_groups": [
                    {**group, "params": group["params"][1:]}
                    for group in own["optimiser"]["param_groups"]
                ],
            },
        },
    }
    if random:
        bad["with a bad random state"] = {**own, "modules": own["modules"] | random}
    if moments["state"]:  # RE3 trains nothing
        bad["with averages of other parameters"] = {**own, "optimiser": moments}
    return bad


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_refused_state_changes_nothing(name: str) -> None:
    """Weights, targets, statistics, memory, random state and optimiser go on as a twin's."""
    for kind, state in states_that_do_not_fit(name).items():
        intrinsic, twin = curiosity(name), curiosity(name)
        for each in (intrinsic, twin):
            each.update(*steps(0))
        given = deepcopy(state)
        with pytest.raises(ValueError, match="this state does not belong to") as raised:
            intrinsic.load_state_dict(state)
        assert "\n" not in str(raised.value)
        assert equal_states(intrinsic.state_dict(), twin.state_dict()), kind
        assert equal_states(state, given), kind
        assert intrinsic.update(*steps(1)) == twin.update(*steps(1))
        np.testing.assert_array_equal(intrinsic.reward(*steps(2)), twin.reward(*steps(2)))
        assert equal_states(intrinsic.state_dict(), twin.state_dict()), kind


def test_an_encoder_that_does_not_fit_all_torsos_changes_none(tmp_path: Path) -> None:
    config = tiny_torso_config()
    settings = LearnerConfig(torso=config, world_model=BYOLExploreConfig(), shared_torso=False)
    learner = Learner(settings, tiny_spec(), 0, torch.device("cpu"))
    before = deepcopy(learner.state_dict())
    encoder = Encoder(config, SHAPE)
    whole, damaged, formless = (tmp_path / name for name in ("whole", "damaged", "formless"))
    whole.write_bytes(encoder_bytes(encoder, config, {}))
    metadata = {"kind": "afterwit encoder", "form": "{}", "observation_shape": "[6]"}
    save_file({"x": torch.zeros(2)}, formless, metadata)
    tensors = encoder.layers.state_dict()
    name = list(tensors)[-1]
    tensors[name] = torch.zeros(3)
    form = {"encoder": "mlp", "hidden": 16, "channels": [3, 4], "blocks": 1, "embedding": 11}
    save_file(tensors, damaged, metadata | {"form": json.dumps(form)})
    for path in (damaged, formless):
        with pytest.raises(ValueError, match=f"{path.name} is damaged or of another version"):
            adopt_encoder(learner, path)
        assert equal_states(learner.state_dict(), before)
    assert learner.own_torso is not None
    learner.own_torso.config = tiny_torso_config("resnet")
    with pytest.raises(ValueError, match="does not fit this torso"):
        adopt_encoder(learner, whole)
    assert equal_states(learner.state_dict(), before)


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_gradient_that_is_not_finite_leaves_no_statistic(name: str) -> None:
    intrinsic, twin = curiosity(name), curiosity(name)
    if name == "re3":
        pytest.skip("it trains nothing")
    for each in (intrinsic, twin):
        each.update(*steps(0))
    hooks = [p.register_hook(lambda gradient: gradient * np.nan) for p in intrinsic.trained]
    with pytest.raises(FloatingPointError, match=r"the gradient of .* no weight"):
        intrinsic.update(*steps(1))
    for hook in hooks:
        hook.remove()
    before, after = (each.state_dict()["modules"] for each in (twin, intrinsic))
    for key, value in before.items():  # draws were made
        assert key.endswith("_extra_state") or torch.equal(value, after[key]), key
    assert equal_states(intrinsic.optimiser.state_dict(), twin.optimiser.state_dict())


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_a_copy_goes_on_as_the_first(name: str) -> None:
    """By deepcopy, and by pickle, as other processes and torch.save have it."""
    intrinsic = curiosity(name)
    intrinsic.update(*steps(0))
    copies = deepcopy(intrinsic), pickle.loads(pickle.dumps(intrinsic))
    metrics = [intrinsic.update(*steps(seed)) for seed in (1, 2)]
    bonus = intrinsic.reward(*steps(3))
    for copy in copies:
        assert [copy.update(*steps(seed)) for seed in (1, 2)] == metrics
        np.testing.assert_array_equal(copy.reward(*steps(3)), bonus)
