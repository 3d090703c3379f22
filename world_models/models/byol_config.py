"""The settings that BYOL-Explore and BYOL-Hindsight share."""

from __future__ import annotations

from dataclasses import dataclass

from afterwit.world_models.base import ModelConfig, check_choices, check_sizes
from afterwit.world_models.open_loop import Edges
from afterwit.world_models.predictors import Kind, MLPPredictor, SquarePredictor


@dataclass(frozen=True)
class BYOLConfig(ModelConfig):
    """What is predicted, how far ahead, and what transitions are paid for it."""

    horizon: int = 1
    """K, agent steps that are predicted ahead. BYOL-Explore (Guo et al., 2022) has 8 for Atari."""
    stride: int = 1
    """Agent steps from one belief that is a start of predictions to the next. At stride K an
    outcome is predicted about once, from 1 to K steps before, for little more than K = 1 costs (our
    option; not published). After a reset nothing is predicted, or paid, before the next start: that
    takes up to stride - 1 steps. 1: every step is a start, as published."""
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
    predictor: Kind = "mlp"
    """From a belief to the embedding of the outcome. mlp: one hidden layer, as published; linear:
    two matrices; direct-pred, direct-copy: the second matrix is set from statistics of the features
    (Tian et al., 2021; Wang et al., 2021)."""
    predictor_decay: float = 0.3
    """Share of the features' statistics that direct-pred and direct-copy keep at each learner step
    (DirectPred: rho, 0.3)."""
    predictor_floor: float = 0.1
    """What direct-pred and direct-copy add to all eigenvalues, of which the largest is 1
    (DirectPred: epsilon, 0.1)."""
    predictor_every: int = 1
    """Learner steps from one setting by direct-pred and direct-copy to the next; in between the
    matrix is trained (DirectPred: freq, 1 or 5)."""
    predictor_isotropic: bool = False
    """Whether errors reach the features as if the predictor's second matrix were the identity, so
    that all of its eigenmodes learn at one rate (IsoLoss, Halvagal et al., 2023; published for
    direct-pred). Not for mlp."""
    weight_decay: float = 0.0
    """Share of the encoder's and the predictor's weights that is lost at each learner step, so that
    features which nothing predicts fade (our unit; DirectPred's 4e-4 at rate 0.03 is 1.2e-5)."""
    pull_weight: float = 0.0
    """Weight of a loss that draws the embedding of an outcome towards what was predicted of it, so
    that the encoder drops what nothing foresees (our option; not published). By itself it shrinks
    all embeddings to nothing; the loss of a policy that reads the encoder holds them apart. 0: the
    encoder learns through beliefs alone, as published."""
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
        check_choices(self, reward_edges=Edges, predictor=Kind)
        if not 1 <= self.stride <= self.horizon:
            raise ValueError(
                f"world_model.stride is {self.stride}; it must be at least 1, and at most the"
                f" horizon, which is {self.horizon}, or some steps were never predicted"
            )
        if self.stride > 1 and self.reward_edges == "sum":
            raise ValueError(
                f"world_model.stride is {self.stride}, but reward_edges sum pays each step by how"
                " many predictions it has; set world_model.reward_edges to whole"
            )
        check_sizes(self, "predictor_every")
        if not 0 <= self.predictor_decay < 1:
            raise ValueError(
                f"world_model.predictor_decay is {self.predictor_decay}; it must be at least 0 and"
                " below 1"
            )
        if not self.predictor_floor >= 0:
            raise ValueError(
                f"world_model.predictor_floor is {self.predictor_floor}; it must be 0 or more"
            )
        if self.predictor_isotropic and self.predictor == "mlp":
            raise ValueError(
                "world_model.predictor_isotropic needs a square matrix, and world_model.predictor"
                " is mlp; set it to linear, direct-pred or direct-copy"
            )
        if not 0 <= self.weight_decay < 1:
            raise ValueError(
                f"world_model.weight_decay is {self.weight_decay}; it is a share, at least 0 and"
                " below 1"
            )
        if not self.pull_weight >= 0:
            raise ValueError(
                f"world_model.pull_weight is {self.pull_weight}; it must be 0 (off) or more"
            )
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

    def make_predictor(
        self, belief: int, hidden: int, embedding: int
    ) -> MLPPredictor | SquarePredictor:
        """The predictor from beliefs [..., M] to embeddings [..., N].

        Args:
          belief: M.
          hidden: Width of an mlp's hidden layer.
          embedding: N.
        """
        if self.predictor == "mlp":
            return MLPPredictor(belief, hidden, embedding)
        return SquarePredictor(
            self.predictor,
            belief,
            embedding,
            self.predictor_decay,
            self.predictor_floor,
            self.predictor_every,
            self.predictor_isotropic,
        )
