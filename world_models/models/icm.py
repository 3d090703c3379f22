"""ICM (Pathak et al., 2017): one-step forward error in features that tell which action was
taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import ModelConfig, WorldModel, WorldModelOutput, check_sizes
from afterwit.world_models.instruments import effective_rank
from afterwit.world_models.torso import Encoder, Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class ICMConfig(ModelConfig):
    """Intrinsic curiosity module."""

    scale_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    hidden: int = 128
    """Width of the inverse and the forward model."""
    forward_weight: float = 0.2
    """Weight of the forward loss; the inverse loss has the rest (beta of Pathak et al.)."""
    forward_shapes_features: bool = False
    """Let the forward loss shape the features, too, as Pathak et al. do. Off: the inverse model
    alone does, and the forward loss cannot be made small by features that say nothing. (Our
    choice.)"""
    loss_scale: float = 1.0
    """Weight of the world model's loss in the total."""
    prioritise: bool = False
    """Pay only what lies above the running mean. The BYOL-Explore paper pays ICM in full."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "hidden")
        if not 0 <= self.forward_weight <= 1:
            raise ValueError(
                f"world_model.forward_weight is {self.forward_weight}; it must lie between 0 and 1"
            )

    @classmethod
    def published(cls) -> ICMConfig:
        """As Pathak et al. publish it: layers of 256, beta 0.2, the policy's loss at 0.1 of the
        module's.
        """
        return cls(hidden=256, forward_shapes_features=True, loss_scale=10.0)


class ICM(WorldModel):
    Config = ICMConfig
    predicts = "the next features, which are learnt by telling the action"
    pays = "the error"
    source = (
        "Pathak et al. (ICML 2017), Curiosity-driven Exploration by Self-supervised"
        " Prediction, arXiv 1705.05363"
    )
    deviations = (
        "The features come from the policy's kind of encoder; Pathak et al. have four "
        "convolutions with ELU.",
        "The bonus is divided by its running deviation, as BYOL-Explore does for ICM; Pathak "
        "et al. multiply it by a constant.",
    )

    def __init__(self, config: ICMConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        size = torso.config.embedding
        self.num_actions, self.config = spec.num_actions, config
        self.features = Encoder(torso.config, spec.observation_shape)
        self.inverse_model = mlp(2 * size, config.hidden, spec.num_actions, 1)
        self.forward_model = mlp(size + spec.num_actions, config.hidden, size, 1)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        features = self.features(trajectory.obs)  # [T+1, B, N]
        logits = self.inverse_model(torch.cat([features[:-1], features[1:]], -1))
        inverse = F.cross_entropy(
            logits.flatten(0, 1), trajectory.action.flatten(), reduction="none"
        ).view_as(trajectory.reward)
        action = F.one_hot(trajectory.action, self.num_actions).to(features.dtype)
        known = features if self.config.forward_shapes_features else features.detach()
        predicted = self.forward_model(torch.cat([known[:-1], action], -1))
        error = 0.5 * (predicted - known[1:]).square().sum(-1)  # [T, B]
        reward = torch.where(trajectory.real, error, 0.0).detach()
        forward_loss, inverse_loss = (
            masked_mean(error, trajectory.real),
            masked_mean(inverse, trajectory.real),
        )
        weight = self.config.forward_weight
        loss = weight * forward_loss + (1 - weight) * inverse_loss
        metrics = {"reconstruction": forward_loss.detach(), "inverse": inverse_loss.detach()}
        return WorldModelOutput(loss, reward, {"reconstruction": reward}, metrics)

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        return {"rank/features": effective_rank(self.features(trajectory.obs)[1:], trajectory.real)}
