"""NovelD (Zhang et al., 2021): a step from known ground to new ground, once per episode.

    n(o)   = sqrt(RND's error)
    reward of the transition into o_{t+1} = max(n(o_{t+1}) - alpha n(o_t), 0), if this is the first
             time that the episode sees exactly o_{t+1}, else 0

Noise in view makes every observation a first visit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.episodic_memory import EpisodicVisits
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.models.rnd import RND, RNDConfig
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class NovelDConfig(ModelConfig):
    """NovelD, novelty difference."""

    scale_fields: ClassVar[tuple[str, ...]] = ("predictor_hidden",)

    alpha: float = 0.5
    """How much of the novelty that is left is taken off (Zhang et al., 2021: 0.5)."""
    normalise_observations: bool = True
    """Whiten each input by its running mean and deviation and clip it to +-5, as our RND does.
    Zhang et al. (2021) do not."""
    predictor_layers: int = 0
    """Linear layers that RND's predictor has and its target lacks. Zhang et al. (2021): 2."""
    predictor_hidden: int = 128
    """Width between these layers. Zhang et al. (2021): 1,024."""
    memory: int = 512
    """Observations of an episode that are remembered; the oldest are forgotten. Zhang et al. (2021)
    remember all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "memory")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"world_model.alpha is {self.alpha}; it must lie between 0 and 1")
        self.novelty_config()

    def novelty_config(self) -> RNDConfig:
        """The config of the RND within."""
        return RNDConfig(
            normalise_observations=self.normalise_observations,
            predictor_layers=self.predictor_layers,
            predictor_hidden=self.predictor_hidden,
        )

    @classmethod
    def published(cls) -> NovelDConfig:
        """The form of Zhang et al. (2021). 30,000 steps are more than an episode of theirs."""
        return cls(
            normalise_observations=False, predictor_layers=2, predictor_hidden=1024, memory=30_000
        )


class NovelD(WorldModel):
    """NovelD: a step from known ground to new ground, once per episode.

    Args:
      config: The settings.
      torso: RND's networks are of the kind of its encoder.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = NovelDConfig
    continuous_actions = True
    predicts = "a fixed random network's output on the observation"
    pays = "rise of RND's error, at first visits in the episode"
    source = (
        "Zhang et al. (NeurIPS 2021), NovelD: A Simple yet Effective Exploration Criterion"
        " (arXiv 2012.08621 as BeBold)"
    )
    deviations = (
        "RND's networks look through encoders of the policy's kind; the authors' look through a "
        "frozen copy of the policy's first encoder.",
        "The predictor's loss is the squared error; the authors' code has its length.",
        "First visits are those of what the agent sees; the authors' code reads the whole grid.",
        "Up to 30,000 observations of an episode are remembered; the authors remember all.",
        "Each observation counts once, and where an episode opens counts as seen; the authors' "
        "code counts unroll boundaries twice and forgets where an episode opened.",
        "The bonus is divided by its own running deviation; the authors weight it as it is.",
    )

    def __init__(self, config: NovelDConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.config = config
        self.novelty = RND(config.novelty_config(), torso, spec, seed)
        self.memory = EpisodicVisits(config.memory, math.prod(spec.observation_shape), seed)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        real = trajectory.real
        out = self.novelty(trajectory, beliefs, embeddings)
        with torch.no_grad():
            left = self.novelty.error(self.novelty.prepared(trajectory)[:-1])  # [T, B]
            first = self.memory(trajectory)[1:] == 1
            rise = (out.reward.sqrt() - self.config.alpha * left.sqrt()).clamp(min=0)
            reward = torch.where(real & first, rise, 0.0)
        metrics = {**out.metrics, "first_visits": masked_mean(first.to(reward.dtype), real)}
        return WorldModelOutput(out.loss, reward, {"rise": reward}, metrics, out.ignorance)
