"""BYOL-Explore (Guo et al., NeurIPS 2022): predict your own future embeddings; the error pays.

loss(t, k) = || predictor(b_{t,k}) - sg(target(o_{t+k})) ||^2      k = 1 .. K
reward of the transition into o_{t+1} = sum of loss(p, q) over p + q = t + 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor, nn

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import TargetEncoder, WorldModel, check_choices, check_sizes
from afterwit.world_models.draws import SavedDraws
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.models.byol_config import BYOLConfig
from afterwit.world_models.open_loop import (
    OpenLoop,
    TransitionReward,
    draw_starts,
    future,
    outcome_loss,
    pair_mask,
    pair_mean,
    predicted,
)
from afterwit.world_models.predictors import MLPPredictor, SquarePredictor, shrink
from afterwit.world_models.target_views import ORDERS, DerivativeTarget, View
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory


@dataclass(frozen=True)
class BYOLExploreConfig(BYOLConfig):
    """BYOL-Explore: prediction error of the agent's own future embeddings."""

    scale_fields: ClassVar[tuple[str, ...]] = ("horizon", "hidden")

    hidden: int = 128
    """Width of the predictor's hidden layer. 512 in re-implementations; not published."""

    centroid: float = 0.0
    """Share of the K predictions' disagreement about one outcome that the loss forgives (after
    MSBReg's centroid term, our form). 0: each is to be right, as published; 1: only their mean."""

    target_view: View = "frame"
    """What is predicted of the next observation (after ViDiDi): the embedding of itself (frame, as
    published), of its change since the last one, of that change's change (acceleration), or of
    each in 1/4, 1/2 and 1/4 of the learner steps (alternating)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "hidden")
        check_choices(self, target_view=View)
        if self.pull_weight and self.target_view != "frame":
            raise ValueError(
                f"world_model.pull_weight is {self.pull_weight}, but with target_view"
                f" {self.target_view} no prediction is of an observation's embedding; set one of"
                " them to its default"
            )
        if not 0 <= self.centroid <= 1:
            raise ValueError(
                f"world_model.centroid is {self.centroid}; it is a share, between 0 and 1"
            )

    def check_batch(self, steps: int, environments: int) -> None:
        super().check_batch(steps, environments)
        window = max(ORDERS[self.target_view]) + 1
        if window > steps + 1:
            raise ValueError(
                f"world_model.target_view is {self.target_view!r}, which needs {window}"
                f" observations in a row; {steps} steps have {steps + 1}"
            )

    @classmethod
    def published(cls) -> BYOLExploreConfig:
        """The form of Guo et al. (2022), for Atari.

        The predictor's width is that of re-implementations.
        """
        return cls(horizon=8, reward_edges="sum", standardise_decay=None, hidden=512)


class BYOLExplore(WorldModel):
    """BYOL-Explore: prediction error of the agent's own future embeddings.

    Args:
      config: The settings.
      torso: The encoder and recurrent network that the model reads.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = BYOLExploreConfig
    continuous_actions = True
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
        self.horizon, self.stride = config.horizon, config.stride
        if config.stride > 1:
            self.draws = SavedDraws(self.random)
        self.reward = TransitionReward(config.horizon, config.reward_edges)
        sizes = torso.config
        target = torso.encoder, sizes.embedding, config.target_decay, config.standardise_decay
        cycle = ORDERS[config.target_view]
        self.target = (
            TargetEncoder(*target)
            if config.target_view == "frame"
            else DerivativeTarget(*target, cycle)
        )
        self.open_loop = OpenLoop(
            sizes.belief, sizes.action_embedding, spec.num_actions, config.horizon, spec.continuous
        )
        self.predictor = config.make_predictor(sizes.belief, config.hidden, sizes.embedding)
        self.further = nn.ModuleDict(  # predictors of all orders but the cycle's first
            {
                str(order): config.make_predictor(sizes.belief, config.hidden, sizes.embedding)
                for order in sorted(set(cycle) - {cycle[0]})
            }
        )
        self.weight_decay, self.centroid = config.weight_decay, config.centroid
        self.pull_weight = config.pull_weight

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        length = len(trajectory.action)
        known = self.target.known(trajectory)
        starts = draw_starts(length, self.stride, self.random)
        # [K, T, B]; with a stride [K, S, B]
        valid = pair_mask(trajectory.real, self.horizon, starts)
        valid = valid & future(known, self.horizon, length, starts)
        target = future(self.target(trajectory), self.horizon, length, starts)  # [..., N]
        ahead = self.open_loop(beliefs, trajectory.action, starts)[1:]  # [..., M]
        prediction = self.active_predictor(ahead, valid)
        error = self.target.error(prediction, target)
        loss = mean_error = pair_mean(error, valid)
        reward = self.reward(error, valid, starts)
        if self.centroid:
            views = self.target.coordinates(prediction)
            loss = outcome_loss(error, views, valid, self.centroid, starts)
        metrics = {"reconstruction": mean_error.detach()}
        if self.pull_weight:
            seen = future(embeddings[1:], 1, length, starts)[0]
            pull = self.target.pull(seen, prediction[0], valid[0])
            loss = loss + self.pull_weight * pull
            metrics["pull"] = pull.detach()
        return WorldModelOutput(
            loss,
            reward,
            {"reconstruction": reward},
            metrics,
            self.horizon * self.target.ignorance(target[0], valid[0]),
            known if starts is None else predicted(valid, starts),
        )

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        known = self.target.known(trajectory)
        readings = {"spread/target": self.target.spread(self.target(trajectory), known)}
        if isinstance(self.target, DerivativeTarget):
            readings["still/target"] = self.target.still(trajectory)
        return {**readings, **self.active_predictor.readings()}

    @property
    def active_predictor(self) -> MLPPredictor | SquarePredictor:
        """The predictor of this learner step's target."""
        if isinstance(self.target, DerivativeTarget) and str(self.target.order) in self.further:
            return cast(MLPPredictor | SquarePredictor, self.further[str(self.target.order)])
        return self.predictor

    def after_step(self) -> None:
        shrink(self.target.online[0], self.weight_decay)
        shrink(self.active_predictor, self.weight_decay)
        self.active_predictor.after_step()
        self.target.update()
