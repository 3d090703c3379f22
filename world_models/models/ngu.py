"""NGU (Badia et al., 2020): far from all that the episode has seen, and not yet known for life.

    d_i    squared distance of f(o_{t+1}) from its k nearest in the episode's memory
    K_i    = epsilon / (max(d_i / d_m - xi, 0) + epsilon),  d_m: running mean of the d_i
    s      = sqrt(sum of K_i) + c
    episodic = 1 / s, or 0 if s > s_max
    alpha  = 1 + (RND's error - its mean) / its deviation
    reward of the transition into o_{t+1} = episodic * min(max(alpha, 1), L)

The features f tell the action (inverse_dynamics.py). Without the lifelong factor alpha this is what
RLeXplore calls pseudo-counts: the n-th return to one place, n < k, pays 1 / (sqrt(n) + c).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.episodic_memory import EpisodicRing, steps_of
from afterwit.world_models.instruments import effective_rank
from afterwit.world_models.inverse_dynamics import InverseDynamics
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.models.rnd import RND, RNDConfig
from afterwit.world_models.running_scale import RunningMean, RunningScale
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class NGUConfig(ModelConfig):
    """NGU's bonus, Never Give Up."""

    scale_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    lifelong: bool = True
    """Multiply the episodic bonus by RND's. Off: the episodic part alone ("pseudo-counts")."""
    features: int = 32
    """N, size of the features (Badia et al., 2020: 32)."""
    hidden: int = 128
    """Width of the hidden layer of the network that tells the action (Badia et al., 2020: 128)."""
    neighbours: int = 10
    """k, neighbours in the episode's memory (Badia et al., 2020: 10)."""
    memory: int = 512
    """Observations of an episode that are remembered; the oldest are forgotten (Badia et al., 2020:
    30,000)."""
    kernel: float = 1e-4
    """epsilon, how wide the kernel is (Badia et al., 2020: 0.0001)."""
    cluster: float = 0.008
    """xi, below which a relative distance is none (Badia et al., 2020: 0.008)."""
    pseudo_count: float = 0.001
    """c (Badia et al., 2020: 0.001)."""
    most_similar: float = 8.0
    """s_max, above which nothing is paid (Badia et al., 2020: 8). With 10 neighbours s is at most
    3.2, so it never is."""
    most_lifelong: float = 5.0
    """L, the largest factor of the lifelong part (Badia et al., 2020: 5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "features", "hidden", "neighbours", "memory")
        if self.memory < self.neighbours:
            raise ValueError(
                f"world_model.memory is {self.memory}; it must hold at least the"
                f" {self.neighbours} neighbours"
            )
        for name in ("kernel", "pseudo_count", "most_similar"):
            if not getattr(self, name) > 0:
                raise ValueError(f"world_model.{name} is {getattr(self, name)}; it must be above 0")
        if self.cluster < 0:
            raise ValueError(f"world_model.cluster is {self.cluster}; it must be at least 0")
        if self.most_lifelong < 1:
            raise ValueError(
                f"world_model.most_lifelong is {self.most_lifelong}; it must be at least 1"
            )

    @classmethod
    def published(cls) -> NGUConfig:
        """The bonus of Badia et al. (2020)."""
        return cls(memory=30_000)


class NGU(WorldModel):
    """NGU: far from all that the episode has seen, and not yet known for life.

    Args:
      config: The settings.
      torso: The encoders are of its kind.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = NGUConfig
    continuous_actions = True
    predicts = "a fixed random network's output; its features tell the action"
    pays = "1/sqrt(similarity to the episode) x RND"
    source = (
        "Badia et al. (ICLR 2020), Never Give Up: Learning Directed Exploration Strategies, arXiv"
        " 2002.06038"
    )
    deviations = (
        "This is NGU's bonus in one V-MPO agent. The paper's agent is R2D2 with 32 policies, each "
        "with its own discount and its own weight of the bonus.",
        "The running mean distance, and RND's mean and deviation, follow batches with a decay of "
        "0.99; the paper's follow single steps over the whole run.",
        "The bonus is divided by its own running deviation; the paper weights it as it is.",
        "The memory holds features of older weights, as in the paper.",
    )

    def __init__(self, config: NGUConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.config = config
        self.inverse = InverseDynamics(torso, spec, config.features, config.hidden)
        self.memory: EpisodicRing = EpisodicRing(config.memory, (config.features,))
        self.distance = RunningMean(0.99)  # d_m
        self.life = RND(RNDConfig(), torso, spec, seed) if config.lifelong else None
        self.life_scale = RunningScale(0.99)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        real = trajectory.real
        features, loss = self.inverse(trajectory)
        metrics = {"inverse": loss.detach()}
        reward = self.episodic(features.detach(), trajectory)
        metrics["episodic"] = masked_mean(reward, real)
        if self.life is not None:
            known = self.life(trajectory, beliefs, embeddings)
            loss = loss + known.loss
            reward = reward * self.factor(known.reward, real)
            metrics["reconstruction"] = known.loss.detach()
        reward = torch.where(real, reward, 0.0)
        # where all neighbours are at the mean distance
        kernel = self.config.kernel / (max(1 - self.config.cluster, 0) + self.config.kernel)
        similarity = math.sqrt(self.config.neighbours * kernel) + self.config.pseudo_count
        nothing = torch.full_like(loss, 1 / similarity).detach()
        return WorldModelOutput(loss, reward, {"episodic": reward}, metrics, nothing)

    @torch.no_grad()
    def episodic(self, features: Tensor, trajectory: Trajectory) -> Tensor:
        """1 / s of each outcome: [T, B]."""
        config, squares = self.config, self.nearest(features, trajectory)  # [T, B, k]
        there = squares.isfinite()
        mean = torch.where(there, squares, 0.0).sum(-1) / there.sum(-1).clamp(min=1)
        known = trajectory.real & there.any(-1)
        if self.training:
            self.distance.update(mean, known)
        relative = squares / self.distance.mean_or_of(mean, known).clamp(min=1e-12)
        kernel = config.kernel / ((relative - config.cluster).clamp(min=0) + config.kernel)
        similarity = torch.where(there, kernel, 0.0).sum(-1).sqrt() + config.pseudo_count
        return torch.where(similarity > config.most_similar, 0.0, 1 / similarity)

    def nearest(self, features: Tensor, trajectory: Trajectory) -> Tensor:
        """Squared distances of each outcome from its k nearest in the episode: [T, B, k].

        They are infinite where the episode has fewer.
        """
        rows, squares = self.memory.recall(trajectory), []
        for t, opens, new in steps_of(trajectory):
            self.memory.clear(rows, opens)
            # without matrix products, whose rounding would tell equal places apart
            apart = torch.cdist(
                features[t][:, None], rows["entries"], compute_mode="donot_use_mm_for_euclid_dist"
            )[:, 0]  # [B, M]
            apart = torch.where(self.memory.filled(rows), apart, torch.inf)
            squares.append(apart.topk(self.config.neighbours, largest=False).values.square())
            self.memory.insert(rows, features[t], new)
        self.memory.keep(trajectory, rows)
        return torch.stack(squares[1:])

    @torch.no_grad()
    def factor(self, error: Tensor, real: Tensor) -> Tensor:
        """The lifelong factor [T, B] of RND's errors [T, B]."""
        if self.training:
            self.life_scale.update(error, real)
        mean, deviation = self.life_scale.or_of(error, real)
        alpha = 1 + (error - mean) / deviation
        return alpha.clamp(1, self.config.most_lifelong)

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        features = self.inverse.encoder(trajectory.obs)[1:]
        return {"rank/features": effective_rank(features, trajectory.real)}
