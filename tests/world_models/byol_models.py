"""Small BYOL models and how tests run them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from afterwit.world_models.base import WorldModel
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.models.byol_explore import BYOLExplore, BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig
from afterwit.world_models.open_loop import Edges
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import gradients, look, seeded, tiny_spec, tiny_torso

HINDSIGHT = BYOLHindsightConfig(
    generator_reads="outcome",
    purity="critic",
    invariance_weight=0.3,
    noise=4,
    latent=3,
    hidden=16,
    critic_embedding=8,
)
INNOVATION = BYOLHindsightConfig(latent_price=0.3, latent=3, hidden=16)


each_form = pytest.mark.parametrize(
    "index", (0, 1, 2), ids=("explore", "published", "innovation")
)  # of `all_forms`


def explore(
    torso: Torso, horizon: int, standardise_decay: float | None = 0.9, edges: Edges = "whole"
) -> BYOLExplore:
    config = BYOLExploreConfig(
        horizon=horizon, reward_edges=edges, standardise_decay=standardise_decay, hidden=16
    )
    return seeded(lambda: BYOLExplore(config, torso, tiny_spec(), 0), 1)


def hindsight(torso: Torso, config: BYOLHindsightConfig) -> BYOLHindsight:
    return seeded(lambda: BYOLHindsight(config, torso, tiny_spec(), 0), 1)


def move_target(model: BYOLExplore | BYOLHindsight) -> None:
    """Move the target away from the encoder, so that a test can see which of them was used."""
    with torch.no_grad():
        for index, p in enumerate(model.target.slow.parameters()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(index)))


def all_forms(horizon: int = 3) -> list[tuple[Torso, BYOLExplore | BYOLHindsight]]:
    torsos = [tiny_torso() for _ in range(3)]
    return [
        (torsos[0], explore(torsos[0], horizon)),
        (torsos[1], hindsight(torsos[1], replace(HINDSIGHT, horizon=horizon))),
        (torsos[2], hindsight(torsos[2], replace(INNOVATION, horizon=horizon))),
    ]


def run(
    torso: Torso, model: WorldModel, trajectory: Trajectory
) -> tuple[WorldModelOutput, list[Tensor]]:
    if isinstance(model, BYOLHindsight):
        model.random.manual_seed(3)
    out = model(trajectory, *look(torso, trajectory))
    return out, [*gradients(out.loss, model).values(), *gradients(out.loss, torso).values()]
