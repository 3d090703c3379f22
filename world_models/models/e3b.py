"""E3B (Henaff et al., 2022): how little of a feature the episode so far explains.

    C      = lambda I + sum of f(o) f(o)' over the observations of the episode so far
    reward of the transition into o_{t+1} = f(o_{t+1})' C^-1 f(o_{t+1})

The features f tell the action (inverse_dynamics.py). If each place has a feature of its own, the
n-th return to it pays 1 / (lambda + n): a count-based bonus without counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.episodic_memory import EpisodicMemory, steps_of
from afterwit.world_models.instruments import effective_rank
from afterwit.world_models.inverse_dynamics import InverseDynamics
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.running_scale import RunningMean
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory


@dataclass(frozen=True)
class E3BConfig(ModelConfig):
    """E3B, exploration via elliptical episodic bonuses."""

    scale_fields: ClassVar[tuple[str, ...]] = ("features", "hidden")

    features: int = 64
    """N, size of the features. Henaff et al. (2022): 1,024 for MiniHack."""
    hidden: int = 128
    """Width of the hidden layer of the network that tells the action."""
    ridge: float = 0.1
    """lambda, the matrix of an episode that has seen nothing (Henaff et al., 2022: 0.1)."""
    unit_features: bool = True
    """Divide features by their running root mean square length (our choice; not published). So
    features that only grow do not pay more, and lambda has a unit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "features", "hidden")
        if not self.ridge > 0:
            raise ValueError(f"world_model.ridge is {self.ridge}; it must be above 0")

    @classmethod
    def published(cls) -> E3BConfig:
        """The form of Henaff et al. (2022)."""
        return cls(features=1024, hidden=256, unit_features=False)


class E3B(WorldModel):
    """E3B: how little of a feature the episode so far explains.

    Args:
      config: The settings.
      torso: The encoder of the features is of its kind.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = E3BConfig
    continuous_actions = True
    predicts = "nothing; its features tell the action"
    pays = "f' C^-1 f of this episode"
    source = (
        "Henaff et al. (NeurIPS 2022), Exploration via Elliptical Episodic Bonuses, arXiv"
        " 2210.05805"
    )
    deviations = (
        "Each observation is paid when it is reached; the authors' code pays the one that is left.",
        "The bonus is divided by its own running deviation; the authors' code divides it by its "
        "running deviation too, and clips the sum of rewards to +-1.",
        "The learner computes the bonus with the newest features; the matrix holds features of "
        "older weights, as in the paper.",
    )

    def __init__(self, config: E3BConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.config = config
        self.inverse = InverseDynamics(torso, spec, config.features, config.hidden)
        # in float64: features that are thousands of times longer than lambda would cancel
        blank = torch.eye(config.features, dtype=torch.float64) / config.ridge
        self.memory = EpisodicMemory({"matrix": blank})
        self.square = RunningMean(0.99)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        features, loss = self.inverse(trajectory)
        bonus = self.ellipse(self.scaled(features.detach(), trajectory), trajectory)
        reward = torch.where(trajectory.real, bonus, 0.0)
        nothing = torch.full_like(loss, 1 / self.config.ridge).detach()
        return WorldModelOutput(
            loss, reward, {"episodic": reward}, {"inverse": loss.detach()}, nothing
        )

    def scaled(self, features: Tensor, trajectory: Trajectory) -> Tensor:
        """Features [T+1, B, N] in units of their running length, if the config says so."""
        if not self.config.unit_features:
            return features
        square = features[1:].square().sum(-1)
        if self.training:
            self.square.update(square, trajectory.real)
        return features / (self.square.mean_or_of(square, trajectory.real) + 1e-8).sqrt()

    @torch.no_grad()
    def ellipse(self, features: Tensor, trajectory: Trajectory) -> Tensor:
        """f' C^-1 f of each outcome: [T, B]. The matrices go on from unroll to unroll."""
        rows, bonus = self.memory.recall(trajectory), []
        matrix = rows["matrix"]  # C^-1 [B, N, N]
        for t, opens, new in steps_of(trajectory):
            self.memory.clear(rows, opens)
            feature = features[t, :, :, None].double()  # [B, N, 1]
            seen = matrix @ feature
            size = (feature * seen).sum((1, 2)).clamp(min=0)
            bonus.append(size)
            # the inverse after adding f f' (Sherman and Morrison)
            step = seen * (new / (1 + size))[:, None, None]
            matrix -= step @ seen.transpose(1, 2)
        self.memory.keep(trajectory, rows)
        return torch.stack(bonus[1:]).to(features.dtype)

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        features = self.inverse.encoder(trajectory.obs)[1:]
        return {"rank/features": effective_rank(features, trajectory.real)}
