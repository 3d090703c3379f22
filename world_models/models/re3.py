"""RE3 (Seo et al., 2021): far from the observations of late, through a random encoder.

    d      = distance of f(o_{t+1}) from its k-th nearest in a store of earlier observations
    reward of the transition into o_{t+1} = log(1 + d / size of d)

f is a fixed random encoder. Nothing is trained. With fewer than k to compare with there is no
distance: such a step is not paid and counts in no statistic. The mean of log(1 + d) over k nearest
neighbours grows with the entropy of the observations. So noise in view, whose entropy nobody can
use up, is paid for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.running_scale import RunningMean
from afterwit.world_models.torso import Encoder, Torso
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class RE3Config(ModelConfig):
    """RE3, random encoders for efficient exploration."""

    neighbours: int = 5
    """k, the neighbour whose distance is paid. Seo et al. (2021): 3; their code averages five."""
    memory: int = 4096
    """Observations in the store, of all environments; the oldest are forgotten. At least a batch.
    Seo et al. (2021): the replay, here 10,000."""
    distance_decay: float = 0.99
    """Share of the running size of distances that is kept at each learner step (our choice; not
    published)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "neighbours", "memory")
        if self.memory < self.neighbours:
            raise ValueError(
                f"world_model.memory is {self.memory}; it must hold at least the"
                f" {self.neighbours} neighbours"
            )
        if not 0 <= self.distance_decay < 1:
            raise ValueError(
                f"world_model.distance_decay is {self.distance_decay}; it must be at least 0 and"
                " below 1"
            )

    def couples(self) -> str:
        return "re3 compares each observation with the whole batch, and trains nothing"

    def check_batch(self, steps: int, environments: int) -> None:
        if steps * environments > self.memory:
            raise ValueError(
                f"world_model.memory is {self.memory}; it must hold at least a batch, here"
                f" {steps} x {environments} = {steps * environments} observations"
            )

    @classmethod
    def published(cls) -> RE3Config:
        """The form of Seo et al. (2021) for agents without a replay."""
        return cls(neighbours=3, memory=10_000)


class RE3(WorldModel):
    """RE3: far from the observations of late, through a random encoder.

    Args:
      config: The settings.
      torso: The random encoder is of its kind.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = RE3Config
    continuous_actions = True
    predicts = "nothing"
    pays = "log distance to the k-th nearest of late"
    source = (
        "Seo et al. (ICML 2021), State Entropy Maximization with Random Encoders for Efficient"
        " Exploration, arXiv 2102.09430"
    )
    deviations = (
        "Observations are compared with those of earlier batches, at first with the others of "
        "their own batch; the authors compare them with a replay that holds themselves.",
        "Distances are divided by their running root mean square; the authors divide by their "
        "running deviation.",
        "The bonus is divided by its own running deviation, with a constant weight; the authors' "
        "weight decays.",
    )

    store: Tensor  # [memory + 1, N]; the last row takes what is not to be stored
    stored: Tensor  # int64 []: observations stored so far

    def __init__(self, config: RE3Config, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.config = config
        self.fixed = Encoder(torso.config, spec.observation_shape).requires_grad_(False)
        self.register_buffer("store", torch.zeros(config.memory + 1, torso.config.embedding))
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))
        self.square = RunningMean(config.distance_decay)  # of distances

    @torch.no_grad()
    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Raw intrinsic reward (see WorldModel.forward and the equations above). The loss is 0."""
        real, features = trajectory.real, self.fixed(trajectory.obs[1:])
        whole = data_parallel.gather(features, 1)  # with several learners, of all
        happened = data_parallel.gather(real, 1)
        distance = self.distance(features, whole, happened)
        known = real & distance.isfinite()
        distance = torch.where(known, distance, 0.0)
        if self.training:
            self.square.update(distance.square(), known)
            self.insert(whole.flatten(0, 1), happened.flatten())
        size = self.square.mean_or_of(distance.square(), known).sqrt()
        relative = distance / torch.where(size > 0, size, 1.0)
        reward = torch.where(known, relative.log1p(), 0.0)
        loss = reward.new_zeros(())
        nothing = torch.full_like(loss, math.log(2))  # at the usual distance
        metrics = {"distance": masked_mean(distance, known)}
        return WorldModelOutput(loss, reward, {"entropy": reward}, metrics, nothing, known)

    def distance(self, features: Tensor, whole: Tensor, happened: Tensor) -> Tensor:
        """Distances [T, B] of features [T, B, N] from their k-th nearest in the store.

        While the store has fewer than k, they are compared with the others of the batch: `whole`
        [T, B of all learners, N], where `happened`. With fewer than k there, too, it is infinite.
        """
        numbers = torch.arange(happened.numel(), device=features.device).view(happened.shape)
        own = data_parallel.own_share(numbers, 1).flatten()  # these features' places in the batch
        among = torch.cat([self.store[:-1], whole.flatten(0, 1)])
        stored = torch.arange(self.config.memory, device=own.device) < self.stored
        first = (self.stored < self.config.neighbours) & happened.flatten()
        there = torch.cat([stored, first]).repeat(len(own), 1)
        there.scatter_(1, (self.config.memory + own)[:, None], False)  # not with itself
        flat = features.flatten(0, 1)
        # Matrix products find the nearest fast, but they round in units of the largest feature. So
        # features are about their mean, and the distances of the nearest are taken again.
        middle = flat.mean(0)
        apart = torch.where(there, torch.cdist(flat - middle, among - middle), torch.inf)
        nearest = apart.topk(self.config.neighbours, largest=False)
        exact = (among[nearest.indices] - flat[:, None]).square().sum(-1).sqrt().amax(-1)
        enough = nearest.values.isfinite().all(-1)
        return torch.where(enough, exact, torch.inf).unflatten(0, features.shape[:2])

    def insert(self, features: Tensor, happened: Tensor) -> None:
        """Store the features [n, N] where `happened` [n]."""
        place = (self.stored + happened.cumsum(0) - 1) % self.config.memory
        self.store[torch.where(happened, place, self.config.memory)] = features
        self.stored += happened.sum()
