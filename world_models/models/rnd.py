"""RND (Burda et al., 2018): the error of a network that learns to predict a fixed random one.

    error = || predictor(o_{t+1}) - fixed(o_{t+1}) ||^2 / (N size^2)
    reward of the transition into o_{t+1} = error

`size` is the running root mean square of the fixed network's output (our choice; not published).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.running_scale import RunningScale
from afterwit.world_models.torso import Encoder, Torso, as_floats, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean
from afterwit.world_models.whitening import Whitening


@dataclass(frozen=True)
class RNDConfig(ModelConfig):
    """RND, random network distillation."""

    scale_fields: ClassVar[tuple[str, ...]] = ("predictor_hidden",)

    normalise_observations: bool = True
    """Whiten each input by its running mean and deviation and clip it to +-5, as Burda et al.
    (2018) do."""
    predictor_layers: int = 0
    """Linear layers that the predictor has and its target lacks, after the encoder. Burda et al.
    (2018): 2."""
    predictor_hidden: int = 128
    """Width between these layers. Burda et al. (2018): 512."""
    size_decay: float = 0.99
    """Share of the target output's running size that is kept at each learner step (our choice; not
    published). The error is in units of this size, so it starts at order 1 even if the random
    network's outputs are small."""
    loss_scale: float = 1.0
    """Weight of the world model's loss in the total."""
    prioritise: bool = False
    """Pay only the part above the running mean. BYOL-Explore (Guo et al., 2022) pays RND in full.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "predictor_hidden")
        if self.predictor_layers < 0:
            raise ValueError(
                f"world_model.predictor_layers is {self.predictor_layers}; it must be 0 or more"
            )
        if not 0 <= self.size_decay < 1:
            raise ValueError(
                f"world_model.size_decay is {self.size_decay}; it must be at least 0 and below 1"
            )

    @classmethod
    def published(cls) -> RNDConfig:
        """The form of Burda et al. (2018): two more layers in the predictor."""
        return cls(predictor_layers=2, predictor_hidden=512)


class RND(WorldModel, Whitening):
    """RND: the error of a network that learns to predict a fixed random one.

    Args:
      config: The settings.
      torso: Both networks have the sizes of its encoder.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = RNDConfig
    continuous_actions = True
    predicts = "a fixed random network's output on the observation"
    pays = "the error"
    source = "Burda et al. (2018), Exploration by Random Network Distillation, arXiv 1810.12894"
    deviations = (
        "Predictor and target look through the policy's kind of encoder at all its channels, "
        "initialised as PyTorch does; Burda et al. show them the last frame and initialise "
        "orthogonally with gain sqrt 2.",
        "Loss and error are divided by the target's running size squared; in the bonus, sigma "
        "takes that out again.",
        "The bonus is divided by its own running deviation, as BYOL-Explore does for RND; "
        "Burda et al. divide by that of its returns.",
        "The moments of observations start with training, with a deviation of at least 0.01; "
        "Burda et al. take random steps first.",
        "Every step trains the predictor; Burda et al. drop three of four where there are 128 "
        "environments.",
    )

    def __init__(self, config: RNDConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.normalise = config.normalise_observations
        self.fixed = Encoder(torso.config, spec.observation_shape).requires_grad_(False)
        self.predictor = Encoder(torso.config, spec.observation_shape)
        size, layers = torso.config.embedding, config.predictor_layers
        self.head = (
            nn.Sequential(nn.ReLU(), mlp(size, config.predictor_hidden, size, layers - 1))
            if layers
            else nn.Identity()
        )
        self.target_scale = RunningScale(config.size_decay)
        self.add_moments(spec.observation_shape)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        if self.training and self.normalise:
            self.observe(as_floats(trajectory.obs[1:]), trajectory.real)
        error = self.error(self.prepared(trajectory)[1:], trajectory.real)
        reward = torch.where(trajectory.real, error, 0.0).detach()
        loss = masked_mean(error, trajectory.real)
        return WorldModelOutput(
            loss, reward, {"reconstruction": reward}, {"reconstruction": loss.detach()}
        )

    def prepared(self, trajectory: Trajectory) -> Tensor:
        """All observations [T+1, B, ...] as the networks read them. Moves no moments."""
        obs = as_floats(trajectory.obs)
        return self.whiten(obs, trajectory.real) if self.normalise else obs

    def error(self, obs: Tensor, real: Tensor | None = None) -> Tensor:
        """The predictor's error [T, B] on prepared observations, in units of the target's size.

        In training mode the targets of the real steps [T, B], if given, move that size first.
        """
        with torch.no_grad():
            target = self.fixed(obs)
            if self.training and real is not None:
                self.target_scale.update(target.square().mean(-1).sqrt(), real)
        error = (self.head(self.predictor(obs)) - target).square().mean(-1)
        return error / self.target_scale.size.square()
