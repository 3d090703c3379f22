"""The settings that BYOL-Explore and BYOL-Hindsight share."""

from __future__ import annotations

from dataclasses import dataclass

from afterwit.world_models.base import ModelConfig, check_choices
from afterwit.world_models.open_loop import Edges


@dataclass(frozen=True)
class BYOLConfig(ModelConfig):
    """What is predicted, how far ahead, and what transitions are paid for it."""

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
    loss_scale: float = 5.0
    """Weight of the world model's loss in the total (BYOL-Explore's value for Atari)."""
    prioritise: bool = True
    """Pay only the part above the running mean of the normalised reward (BYOL-Explore's clipping).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon < 1:
            raise ValueError(
                f"world_model.horizon is {self.horizon}; at least 1 step must be predicted"
            )
        check_choices(self, reward_edges=Edges)
        if not 0 <= self.target_decay <= 1:
            raise ValueError(
                f"world_model.target_decay is {self.target_decay}; it must lie between 0 and 1"
            )
        decay = self.standardise_decay
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(
                f"world_model.standardise_decay is {decay}; it must be at least 0 and below 1, or"
                " None"
            )

    def check_batch(self, steps: int, environments: int) -> None:
        if self.horizon > steps:
            raise ValueError(
                f"world_model.horizon is {self.horizon}; the horizon K must be at most the {steps}"
                " steps T of an unroll"
            )
