"""Disagreement (Pathak et al., 2019): how far the predictions of several models differ.

    reward of a_t = mean over features of Var_m f_m(phi(o_t), a_t)

The outcome o_{t+1} does not enter the reward. phi is a fixed random network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.actions import with_action
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.features import FixedFeatures, spread
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.torso import Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean
from afterwit.world_models.whitening import Whitening


@dataclass(frozen=True)
class DisagreementConfig(ModelConfig):
    """Disagreement, of an ensemble of forward models."""

    scale_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    members: int = 5
    """Number of forward models."""
    hidden: int = 128
    """Width of their hidden layers."""
    layers: int = 2
    """Hidden layers of each. Pathak et al. (2019): four residual blocks."""
    keep: float = 0.8
    """Share of the transitions that each member learns from, drawn anew at each learner step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "hidden", "layers")
        if self.members < 2:
            raise ValueError(f"world_model.members is {self.members}; it must be at least 2")
        if not 0 < self.keep <= 1:
            raise ValueError(f"world_model.keep is {self.keep}; it must be above 0 and at most 1")

    @classmethod
    def published(cls) -> DisagreementConfig:
        """The form of Pathak et al. (2019), whose four residual blocks are four layers here."""
        return cls(hidden=512, layers=4)


class Disagreement(WorldModel, Whitening):
    """Disagreement: the variance of what an ensemble predicts.

    Args:
      config: The settings.
      torso: The fixed features have the sizes of its encoder.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = DisagreementConfig
    continuous_actions = True
    predicts = "the next features, which are fixed and random, with several models"
    pays = "the variance of the predictions"
    source = (
        "Pathak et al. (ICML 2019), Self-Supervised Exploration via Disagreement, arXiv 1906.04161"
    )
    deviations = (
        "The features come from the policy's kind of encoder with fixed weights, in units of "
        "their running size.",
        "Each member is a multilayer perceptron that reads the action once; the released code "
        "has four residual blocks and feeds the action to each layer.",
        "The bonus is divided by its own running deviation; the released code divides by that "
        "of its returns.",
    )

    def __init__(self, config: DisagreementConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.num_actions, self.config = spec.num_actions, config
        size = torso.config.embedding
        self.add_moments(spec.observation_shape)
        self.features = FixedFeatures(torso.config, spec.observation_shape)
        self.members = nn.ModuleList(
            mlp(size + spec.num_actions, config.hidden, size, config.layers)
            for _ in range(config.members)
        )

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        real, obs = trajectory.real, self.whitened(trajectory)
        features = self.features(obs, real)
        inputs = with_action(features[:-1], trajectory.action, self.num_actions)
        predicted = torch.stack([member(inputs) for member in self.members])  # [M, T, B, N]
        error = (predicted - features[1:]).square().mean(-1)  # [M, T, B]
        loss = masked_mean((error * self.draw(real)).mean(0), real)
        variance = predicted.detach().var(0, correction=0).mean(-1)
        reward = torch.where(real, variance, 0.0)
        metrics = {"reconstruction": masked_mean(error.detach().mean(0), real)}
        ignorance = spread(features[1:], real)
        return WorldModelOutput(loss, reward, {"reconstruction": reward}, metrics, ignorance)

    def get_extra_state(self) -> dict[str, Tensor]:
        return {"random": self.random.get_state()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.random.set_state(state["random"].cpu())

    def draw(self, real: Tensor) -> Tensor:
        """Weights [M, T, B] of the transitions: 1 / keep with probability keep, or else 0."""
        steps, batch = real.shape
        shape = (self.config.members, steps, batch * data_parallel.num_learners())
        kept = torch.rand(shape, generator=self.random) < self.config.keep
        share = data_parallel.own_share(kept.float(), 2)
        return share.to(real.device) / self.config.keep
