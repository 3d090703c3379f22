"""What learners saved before December 2026, in the form that they have now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from afterwit.agents.vmpo import LEAST, MOST

# both were parameters of the networks' Adam
TEMPERATURE, ALPHA = "duals.temperature", "duals.trust_region"


def translated(
    state: dict[str, Any], modules: Mapping[str, Tensor], sizes: list[int]
) -> dict[str, Any]:
    """A learner's `state`, as `Learner.load_state` reads it now. `modules`: the learner's own state
    dict; `sizes`: how many parameters each group of its optimiser has.

    Until then V-MPO's temperature and alpha, and the critic of BYOL-Hindsight, were trained by the
    networks' Adam: the temperature is solved for now, alpha is kept, the critic's Adam is its own.
    RND's error was taken in the target's own units; its unit starts there, and the predictor's task
    stays what it was. Other states are given back as they are.
    """
    if ALPHA not in state["modules"]:
        return state
    saved = {
        name: value for name, value in state["modules"].items() if name not in (TEMPERATURE, ALPHA)
    }
    saved["trust_region.alpha"] = state["modules"][ALPHA].clamp(LEAST, MOST)
    for name in modules.keys() - saved.keys():
        if ".target_scale." in name:
            saved[name] = torch.ones_like(modules[name])
    moments, first, second = state["optimiser"]["state"], *sizes
    # The two duals stood at the end of the first group, the critic at the end of the second.
    places = {index: index for index in range(first)} | {
        first + 2 + index: first + index for index in range(second)
    }
    groups = [
        {**group, "params": list(range(start, start + size))}
        for group, start, size in zip(
            state["optimiser"]["param_groups"], (0, first), sizes, strict=True
        )
    ]
    optimiser = {
        "state": {new: moments[old] for old, new in places.items() if old in moments},
        "param_groups": groups,
    }
    return {**state, "modules": saved, "optimiser": optimiser}
