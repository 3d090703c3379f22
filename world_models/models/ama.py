"""AMA (Mavor-Parker et al., 2022): the squared error less the variance that was expected.

    loss   = mean over dims of exp(-l) (x - mu)^2 + lambda l
    reward = mean over dims of (x - mu)^2 - eta exp(l)

x is the outcome of the transition; mu and l, the log variance, are predicted from o_t and a_t.
The reward may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.actions import with_action
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.bounded import within
from afterwit.world_models.features import Outcome, spread
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.torso import Encoder, Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean
from afterwit.world_models.whitening import Whitening

BOUNDS = (-10.0, 10.0)  # of the log variance


@dataclass(frozen=True)
class AMAConfig(ModelConfig):
    """AMA, aleatoric mapping agents."""

    scale_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    hidden: int = 128
    """Width of the hidden layer of both heads."""
    variance_weight: float = 1.0
    """lambda, the weight of the log variance. At the optimum the variance is the error over lambda,
    so noise is paid 0 on average at 1, and punished below 1."""
    variance_pay: float = 1.0
    """eta, the share of the expected variance that is taken off the error."""

    absolute_zero: float = 0.02
    """Smallest deviation that pay is divided by, as a share of the error of a model that knows
    nothing (our choice; not published). Error and variance both go to zero where everything is
    known; without this floor what is left of their difference would be blown up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "hidden")
        if not self.variance_weight > 0:
            raise ValueError(
                f"world_model.variance_weight is {self.variance_weight}; it must be above 0"
            )

    def below_zero(self) -> str:
        return "ama takes the variance off already and may pay less than nothing"

    @classmethod
    def published(cls) -> AMAConfig:
        """The form of Mavor-Parker et al. (2022) for Atari: lambda and eta 1."""
        return cls(hidden=512, absolute_zero=0.0)


class AMA(WorldModel, Whitening):
    """AMA: squared error less expected variance.

    Args:
      config: The settings.
      torso: The encoder has its sizes.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = AMAConfig
    continuous_actions = True
    predicts = "mean and variance of the next observation"
    pays = "the squared error less the expected variance"
    source = (
        "Mavor-Parker et al. (ICML 2022), How to Stay Curious while Avoiding Noisy TVs using"
        " Aleatoric Uncertainty Estimation, arXiv 2102.04399"
    )
    deviations = (
        "It predicts the whitened observation if the encoder is an mlp, and else fixed random "
        "features; the released code predicts pixels or features of an inverse model.",
        "Its sizes are the library's: one hidden layer per head behind the policy's kind of "
        "encoder.",
        "The released MiniGrid code has lambda 0.1, clips the error of each pixel and multiplies "
        "the reward by 10; here lambda is 1 and nothing is clipped.",
    )

    def __init__(self, config: AMAConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.num_actions, self.config = spec.num_actions, config
        self.add_moments(spec.observation_shape)
        self.outcome = Outcome(torso.config, spec.observation_shape)
        size, outputs = torso.config.embedding, self.outcome.size
        self.encoder = Encoder(torso.config, spec.observation_shape)
        self.mu = mlp(size + spec.num_actions, config.hidden, outputs, 1)
        self.log_variance = mlp(size + spec.num_actions, config.hidden, outputs, 1)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        real, obs = trajectory.real, self.whitened(trajectory)
        target = self.outcome(obs, real)
        inputs = with_action(self.encoder(obs[:-1]), trajectory.action, self.num_actions)
        log_variance = within(self.log_variance(inputs), *BOUNDS)
        square = (target - self.mu(inputs)).square()  # [T, B, N]
        cost = (-log_variance).exp() * square + self.config.variance_weight * log_variance
        loss = masked_mean(cost.mean(-1), real)
        error, variance = square.detach().mean(-1), log_variance.detach().exp().mean(-1)
        reward = torch.where(real, error - self.config.variance_pay * variance, 0.0)
        metrics = {
            "reconstruction": masked_mean(error, real),
            "variance": masked_mean(variance, real),
        }
        ignorance = spread(target, real)
        return WorldModelOutput(loss, reward, {"reconstruction": reward}, metrics, ignorance)
