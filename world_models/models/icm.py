"""ICM (Pathak et al., 2017): one-step prediction error in features that identify the action.

inverse loss = cross entropy of a_t given (f(o_t), f(o_{t+1}))
error        = 1/2 || forward_model(f(o_t), a_t) - f(o_{t+1}) ||^2
loss         = beta * error + (1 - beta) * inverse loss
reward of the transition into o_{t+1} = error
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.actions import with_action
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.instruments import effective_rank
from afterwit.world_models.inverse_dynamics import inverse_loss
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.torso import Encoder, Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class ICMConfig(ModelConfig):
    """ICM, the intrinsic curiosity module."""

    scale_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    hidden: int = 128
    """Width of the hidden layer of the inverse and the forward model."""
    forward_weight: float = 0.2
    """Weight of the forward loss (Pathak et al., 2017: beta). The inverse loss has weight 1 - beta.
    """
    forward_shapes_features: bool = False
    """Let the forward loss train the features too, as Pathak et al. (2017) do. Off: the inverse
    loss alone trains them, so features without content cannot make the forward loss small (our
    default; not published)."""
    loss_scale: float = 1.0
    """Weight of the world model's loss in the total."""
    prioritise: bool = False
    """Pay only the part above the running mean. BYOL-Explore (Guo et al., 2022) pays ICM in full.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "hidden")
        if not 0 <= self.forward_weight <= 1:
            raise ValueError(
                f"world_model.forward_weight is {self.forward_weight}; it must lie between 0 and 1"
            )

    @classmethod
    def published(cls) -> ICMConfig:
        """The form of Pathak et al. (2017).

        Layers of 256, beta 0.2, and the policy's loss at 0.1 of the module's.
        """
        return cls(hidden=256, forward_shapes_features=True, loss_scale=10.0)


class ICM(WorldModel):
    """ICM: one-step prediction error in features that identify the action.

    Args:
      config: The settings.
      torso: The features have the sizes of its encoder.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = ICMConfig
    continuous_actions = True
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
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        features = self.features(trajectory.obs)  # [T+1, B, N]
        known = features if self.config.forward_shapes_features else features.detach()
        inputs = with_action(known[:-1], trajectory.action, self.num_actions)
        predicted = self.forward_model(inputs)
        error = 0.5 * (predicted - known[1:]).square().sum(-1)  # [T, B]
        reward = torch.where(trajectory.real, error, 0.0).detach()
        forward_loss = masked_mean(error, trajectory.real)
        inverse = inverse_loss(self.inverse_model, features, trajectory)
        weight = self.config.forward_weight
        loss = weight * forward_loss + (1 - weight) * inverse
        metrics = {"reconstruction": forward_loss.detach(), "inverse": inverse.detach()}
        return WorldModelOutput(
            loss, reward, {"reconstruction": reward}, metrics, spread(known[1:], trajectory.real)
        )

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        return {"rank/features": effective_rank(self.features(trajectory.obs)[1:], trajectory.real)}


@torch.no_grad()
def spread(features: Tensor, real: Tensor) -> Tensor:
    """The error [] of the best constant prediction of features [T, B, N], as ICM measures it."""
    mean = data_parallel.average(masked_mean(features, real))
    return data_parallel.average(masked_mean(0.5 * (features - mean).square().sum(-1), real)).clamp(
        min=1e-8
    )
