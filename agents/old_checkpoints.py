"""Translation of learners' states that were saved before December 2026."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from afterwit.agents.vmpo import MAX_ALPHA, MIN_ALPHA

# both used to be parameters of the networks' Adam
TEMPERATURE, ALPHA = "duals.temperature", "duals.trust_region"


def translate_state(
    state: dict[str, Any], modules: Mapping[str, Tensor], sizes: list[int]
) -> dict[str, Any]:
    """A learner's state in the form that `Learner.load_state` reads.

    Newer states are returned unchanged.

    Before December 2026 the networks' Adam also trained V-MPO's temperature, alpha and the critic
    of BYOL-Hindsight. Now the temperature is solved for on each batch, alpha is a buffer, and the
    critic has an Adam of its own. RND's error was in the target's own units. Now it has a running
    unit, which is set to 1 so that the predictor's task stays the same.

    Args:
      state: The saved state.
      modules: The learner's own state dict.
      sizes: Number of parameters in each group of its optimiser.
    """
    if ALPHA not in state["modules"]:
        return state
    saved = {
        name: value for name, value in state["modules"].items() if name not in (TEMPERATURE, ALPHA)
    }
    saved["trust_region.alpha"] = state["modules"][ALPHA].clamp(MIN_ALPHA, MAX_ALPHA)
    for name in modules.keys() - saved.keys():
        if ".target_scale." in name:
            saved[name] = torch.ones_like(modules[name])
    moments, first, second = state["optimiser"]["state"], *sizes
    # The two duals were at the end of the first group, the critic at the end of the second.
    new_index = {index: index for index in range(first)} | {
        first + 2 + index: first + index for index in range(second)
    }
    groups = [
        {**group, "params": list(range(start, start + size))}
        for group, start, size in zip(
            state["optimiser"]["param_groups"], (0, first), sizes, strict=True
        )
    ]
    optimiser = {
        "state": {new: moments[old] for old, new in new_index.items() if old in moments},
        "param_groups": groups,
    }
    return {**state, "modules": saved, "optimiser": optimiser}
