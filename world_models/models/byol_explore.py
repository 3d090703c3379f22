"""BYOL-Explore (Guo et al., NeurIPS 2022): predict your own future embeddings; the error pays.

loss(t, k) = || predictor(b_{t,k}) - sg(target(o_{t+k})) ||^2      k = 1 .. K
reward of the transition into o_{t+1} = sum of loss(p, q) over p + q = t + 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import (
    ModelConfig,
    TargetEncoder,
    WorldModel,
    WorldModelOutput,
    check_sizes,
)
from afterwit.world_models.open_loop import (
    Edges,
    OpenLoop,
    TransitionReward,
    future,
    pair_mask,
    pair_mean,
)
from afterwit.world_models.torso import Torso, mlp
from afterwit.world_models.trajectory import Trajectory


@dataclass(frozen=True)
class BYOLExploreConfig(ModelConfig):
    """BYOL-Explore: prediction error of the agent's own future embeddings."""

    scale_fields: ClassVar[tuple[str, ...]] = ("horizon", "hidden")

    horizon: int = 1
    """K, agent steps that are predicted ahead. BYOL-Explore (Guo et al., 2022) has 8 for Atari."""
    reward_edges: Edges = "whole"
    """Pay of the first K - 1 transitions of an unroll or episode, which fewer than K predictions
    concern. whole: as much as any other (our default; not published); sum: the sum over the fewer
    predictions, as published."""
    target_decay: float = 0.99
    """Share of the target encoder that is kept at each learner step (BYOL-Explore, appendix:
    alpha)."""
    standardise_decay: float | None = 0.95
    """Share of the embeddings' running mean and size that is kept at each learner step; targets are
    in these units (our choice; not published). None: unit vectors, as published."""
    hidden: int = 128
    """Width of the predictor's hidden layer. 512 in re-implementations; not published."""
    loss_scale: float = 5.0
    """Weight of the world model's loss in the total (BYOL-Explore's value for Atari)."""
    prioritise: bool = True
    """Pay only the part above the running mean of the normalised reward (BYOL-Explore's clipping).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_byol(self)
        check_sizes(self, "hidden")

    def check_batch(self, steps: int, environments: int) -> None:
        check_horizon(self.horizon, steps)

    @classmethod
    def published(cls) -> BYOLExploreConfig:
        """The form of Guo et al. (2022), for Atari.

        The predictor's width is that of re-implementations.
        """
        return cls(horizon=8, reward_edges="sum", standardise_decay=None, hidden=512)


def check_byol(config: Any) -> None:
    """Check the fields that the configs of the two BYOL models share."""
    if config.horizon < 1:
        raise ValueError(
            f"world_model.horizon is {config.horizon}; at least 1 step must be predicted"
        )
    if config.reward_edges not in get_args(Edges):
        raise ValueError(
            f"unknown world_model.reward_edges {config.reward_edges!r}; choose from"
            f" {', '.join(get_args(Edges))}"
        )
    if not 0 <= config.target_decay <= 1:
        raise ValueError(
            f"world_model.target_decay is {config.target_decay}; it must lie between 0 and 1"
        )
    decay = config.standardise_decay
    if decay is not None and not 0 <= decay < 1:
        raise ValueError(
            f"world_model.standardise_decay is {decay}; it must be at least 0 and below 1, or None"
        )


def check_horizon(horizon: int, steps: int) -> None:
    """Raise a ValueError unless `horizon` steps can be predicted within `steps`."""
    if horizon > steps:
        raise ValueError(
            f"world_model.horizon is {horizon}; the horizon K must be at most the {steps} steps T"
            " of an unroll"
        )


class BYOLExplore(WorldModel):
    """BYOL-Explore: prediction error of the agent's own future embeddings.

    Args:
      config: The settings.
      torso: The encoder and recurrent network that the model reads.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = BYOLExploreConfig
    predicts = "its own embedding of the next observations"
    pays = "the error"
    source = (
        "Guo et al. (NeurIPS 2022), BYOL-Explore: Exploration by Bootstrapped Prediction,"
        " arXiv 2206.08332"
    )
    deviations = (
        "The networks' sizes are those of re-implementations; Guo et al. give some of them only.",
    )

    def __init__(self, config: BYOLExploreConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.horizon = config.horizon
        self.reward = TransitionReward(config.horizon, config.reward_edges)
        sizes = torso.config
        self.target = TargetEncoder(
            torso.encoder, sizes.embedding, config.target_decay, config.standardise_decay
        )
        self.open_loop = OpenLoop(
            sizes.belief, sizes.action_embedding, spec.num_actions, config.horizon
        )
        self.predictor = mlp(sizes.belief, config.hidden, sizes.embedding, 1)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        length = len(trajectory.action)
        valid = pair_mask(trajectory.real, self.horizon)  # [K, T, B]
        target = future(self.target(trajectory), self.horizon, length)  # [K, T, B, N]
        ahead = self.open_loop(beliefs, trajectory.action)[1:]  # [K, T, B, M]
        error = self.target.error(self.predictor(ahead), target)
        loss, reward = pair_mean(error, valid), self.reward(error, valid)
        return WorldModelOutput(
            loss, reward, {"reconstruction": reward}, {"reconstruction": loss.detach()}
        )

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        return {"spread/target": self.target.spread(self.target(trajectory), trajectory.real)}

    def after_step(self) -> None:
        self.target.update()
