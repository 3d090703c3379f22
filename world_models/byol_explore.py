"""BYOL-Explore (Guo et al., NeurIPS 2022): predict your own future embeddings; the error is the reward.

loss(t, k) = || predictor(b_{t,k}) - sg(target(o_{t+k})) ||^2,   k = 1 .. K
reward of the transition into o_{t+1} = sum of loss(p, q) over p + q = t + 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from afterwit.envs.checks import check_numbers
from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import TargetEncoder, WorldModel, WorldModelOutput
from afterwit.world_models.open_loop import OpenLoop, future, pair_mask, pair_mean, sum_by_transition
from afterwit.world_models.torso import Torso, mlp
from afterwit.world_models.trajectory import Trajectory


@dataclass(frozen=True)
class BYOLExploreConfig:
    """BYOL-Explore: prediction error of one's own future embeddings."""

    horizon: int = 1
    """K, open-loop steps that are predicted ahead. The paper's Atari value is 8."""
    target_decay: float = 0.99
    """Share of the target encoder kept at each learner step (the paper's alpha)."""
    standardise_decay: float | None = 0.95
    """Share kept at each learner step by the running mean and size in whose units embeddings are predicted. None: unit vectors
    are, as published. (Ours.)"""
    hidden: int = 128
    """Width of the predictor's hidden layer. (512 in re-implementations; the paper gives none.)"""
    loss_scale: float = 5.0
    """Weight of the world model's loss in the total (the paper's Atari value)."""
    prioritise: bool = True
    """Pay only what lies above the running mean of the normalised reward (the paper's clipping)."""

    def __post_init__(self) -> None:
        check_numbers(self, "world_model.")
        check_byol(self.horizon, self.target_decay, self.standardise_decay)
        check_sizes(self, "hidden")


def check_byol(horizon: int, target_decay: float, standardise_decay: float | None) -> None:
    if horizon < 1:
        raise ValueError(f"world_model.horizon is {horizon}; at least 1 step must be predicted")
    if not 0 <= target_decay <= 1:
        raise ValueError(f"world_model.target_decay is {target_decay}; it must lie between 0 and 1")
    if standardise_decay is not None and not 0 <= standardise_decay < 1:
        raise ValueError(f"world_model.standardise_decay is {standardise_decay}; it must be at least 0 and below 1, or None")


def check_sizes(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"world_model.{name} is {getattr(config, name)}; it must be at least 1")


class BYOLExplore(WorldModel):
    def __init__(self, config: BYOLExploreConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.horizon = config.horizon
        sizes = torso.config
        self.target = TargetEncoder(torso.encoder, sizes.embedding, config.target_decay, config.standardise_decay)
        self.open_loop = OpenLoop(sizes.belief, sizes.action_embedding, spec.num_actions, config.horizon)
        self.predictor = mlp(sizes.belief, config.hidden, sizes.embedding, 1)

    def forward(self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor) -> WorldModelOutput:
        length = len(trajectory.action)
        valid = pair_mask(trajectory.real, self.horizon)  # [K, T, B]
        target = future(self.target(trajectory), self.horizon, length)  # [K, T, B, N]
        ahead = self.open_loop(beliefs, trajectory.action)[1:]  # [K, T, B, M]
        error = self.target.error(self.predictor(ahead), target)
        loss, reward = pair_mean(error, valid), sum_by_transition(error, valid)
        return WorldModelOutput(loss, reward, {"reconstruction": reward}, {"reconstruction": loss.detach()})

    def inspect(self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor) -> dict[str, Tensor]:
        return {"spread/target": self.target.spread(self.target(trajectory), trajectory.real)}

    def after_step(self) -> None:
        self.target.update()
