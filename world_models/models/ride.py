"""RIDE (Raileanu and Rocktäschel, 2020): how far an action moved the features, if it is new here.

    reward of the transition into o_{t+1} = || f(o_{t+1}) - f(o_t) || / sqrt(N_e(o_{t+1}))
    loss = forward_weight * || forward_model(f(o_t), a_t) - f(o_{t+1}) || + inverse_weight * inverse

N_e counts how often this episode has seen exactly this observation. So noise in view makes every
observation new.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.actions import with_action
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.episodic_memory import EpisodicVisits
from afterwit.world_models.instruments import effective_rank
from afterwit.world_models.inverse_dynamics import InverseDynamics
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.torso import Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class RIDEConfig(ModelConfig):
    """RIDE, rewarding impact-driven exploration."""

    scale_fields: ClassVar[tuple[str, ...]] = ("features", "hidden")

    features: int = 64
    """N, size of the features. Raileanu and Rocktäschel (2020): 128."""
    hidden: int = 128
    """Width of the hidden layer of the inverse and the forward model. Raileanu and Rocktäschel
    (2020): 256."""
    forward_weight: float = 10.0
    """Weight of the forward model's error, an unsquared length. It trains the features too."""
    inverse_weight: float = 0.1
    """Weight of the inverse loss."""
    memory: int = 512
    """Observations of an episode that are remembered; the oldest are forgotten. Raileanu and
    Rocktäschel (2020) remember all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "features", "hidden", "memory")
        for name in ("forward_weight", "inverse_weight"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"world_model.{name} is {getattr(self, name)}; it must be at least 0"
                )

    @classmethod
    def published(cls) -> RIDEConfig:
        """The form of Raileanu and Rocktäschel (2020). 30,000 steps are more than an episode."""
        return cls(features=128, hidden=256, memory=30_000)


class RIDE(WorldModel):
    """RIDE: how far an action moved the features, if it is new in this episode.

    Args:
      config: The settings.
      torso: The encoder of the features is of its kind.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = RIDEConfig
    continuous_actions = True
    predicts = "the next features, which are learnt by telling the action"
    pays = "change of features / sqrt(visits in this episode)"
    source = (
        "Raileanu and Rocktäschel (ICLR 2020), RIDE: Rewarding Impact-Driven Exploration, arXiv"
        " 2002.12292"
    )
    deviations = (
        "Visits are those of what the agent sees; the authors' code counts the whole grid, which "
        "the agent does not see.",
        "The last step of an episode is paid for its true last observation, and each observation "
        "counts once; the authors' code counts unroll boundaries twice and pays across resets.",
        "The bonus is divided by its own running deviation; the authors clip the weighted bonus.",
        "Up to 30,000 observations of an episode are remembered; the authors remember all.",
        "Losses are means over steps; the authors sum over time.",
        "Adam trains the module; the authors have RMSprop.",
    )

    def __init__(self, config: RIDEConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.config, self.num_actions = config, spec.num_actions
        size = config.features
        self.inverse = InverseDynamics(torso, spec, size, config.hidden)
        self.forward_model = mlp(size + spec.num_actions, config.hidden, size, 1)
        self.memory = EpisodicVisits(config.memory, math.prod(spec.observation_shape), seed)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        config, real = self.config, trajectory.real
        features, inverse = self.inverse(trajectory)
        inputs = with_action(features[:-1], trajectory.action, self.num_actions)
        predicted = self.forward_model(inputs)
        # the small number keeps the gradient of a length finite at 0
        error = ((predicted - features[1:]).square().sum(-1) + 1e-12).sqrt()
        forward = masked_mean(error, real)
        with torch.no_grad():
            impact = (features[1:] - features[:-1]).square().sum(-1).sqrt()
            visits = self.memory(trajectory)[1:]
            reward = torch.where(real, impact * visits.to(impact.dtype).rsqrt(), 0.0)
            nothing = data_parallel.average(masked_mean(impact, real)).clamp(min=1e-8)
        metrics = {
            "reconstruction": forward.detach(),
            "inverse": inverse.detach(),
            "visits": masked_mean(visits.to(impact.dtype), real),
        }
        loss = config.forward_weight * forward + config.inverse_weight * inverse
        return WorldModelOutput(loss, reward, {"impact": reward}, metrics, nothing)

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        features = self.inverse.encoder(trajectory.obs)[1:]
        return {"rank/features": effective_rank(features, trajectory.real)}
