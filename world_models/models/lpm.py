"""LPM (Hou et al., 2026): how much smaller the error is than that of the model a step before.

    e_t    = log(mean over dims of (x - f(o_t, a_t))^2 + floor)
    reward = g(o_t, a_t) - e_t

x is the outcome; g has learnt the log errors of earlier batches. The reward may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.actions import with_action
from afterwit.world_models.base import ModelConfig, WorldModel, check_sizes
from afterwit.world_models.features import Outcome
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.torso import Encoder, Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean
from afterwit.world_models.whitening import Whitening


@dataclass(frozen=True)
class LPMConfig(ModelConfig):
    """LPM, learning progress monitoring."""

    scale_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    hidden: int = 128
    """Width of the hidden layers of f and g."""
    floor: float = 1e-3
    """Added to the error before the logarithm, so that pay ends when everything is known (our
    choice; without it, an error that falls geometrically is paid for ever)."""
    wait: int = 1
    """Learner steps before anything is paid, in which g learns its first errors. Hou et al. (2026)
    wait until a queue of errors is full."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "hidden")
        if not self.floor > 0:
            raise ValueError(f"world_model.floor is {self.floor}; it must be above 0")
        if self.wait < 0:
            raise ValueError(f"world_model.wait is {self.wait}; it must be at least 0")

    def below_zero(self) -> str:
        return "lpm pays progress, which may be negative"

    @classmethod
    def published(cls) -> LPMConfig:
        """The form of Hou et al. (2026): the paper's logarithm, with the released code's floor."""
        return cls(hidden=256, floor=1e-6, wait=2)


class LPM(WorldModel, Whitening):
    """LPM: the expected log error of the model a step before, less the log error now.

    Args:
      config: The settings.
      torso: The encoders have its sizes.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = LPMConfig
    continuous_actions = True
    predicts = "the next observation, and its own log error"
    pays = "the expected log error less the log error"
    source = "Hou, An and Du (ICLR 2026), on learning progress monitoring, arXiv 2509.25438"
    deviations = (
        "g learns each batch's log errors once, and nothing is paid for the first learner steps; "
        "the paper has a queue of past errors, pays nothing until it is full, and updates g every "
        "few steps.",
        "The floor under the error is added on both sides; the released code has it in g's target "
        "only.",
        "The reward is the paper's, in the log domain; the released Atari code pays 0.4 exp(g) "
        "less the error, and the code for Montezuma's Revenge has the opposite sign.",
        "It predicts the whitened observation if the encoder is an mlp, and else fixed random "
        "features; the paper predicts pixels.",
        "Its sizes are the library's: one hidden layer behind the policy's kind of encoder.",
    )

    seen: Tensor

    def __init__(self, config: LPMConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.num_actions, self.config = spec.num_actions, config
        self.add_moments(spec.observation_shape)
        self.register_buffer("seen", torch.zeros(()))
        self.outcome = Outcome(torso.config, spec.observation_shape)
        size, outputs = torso.config.embedding, self.outcome.size
        self.encoder = Encoder(torso.config, spec.observation_shape)
        self.model = mlp(size + spec.num_actions, config.hidden, outputs, 1)
        self.error_encoder = Encoder(torso.config, spec.observation_shape)
        self.error_model = mlp(size + spec.num_actions, config.hidden, 1, 1)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        real, obs = trajectory.real, self.whitened(trajectory)
        target = self.outcome(obs, real)
        action, count = trajectory.action, self.num_actions
        predicted = self.model(with_action(self.encoder(obs[:-1]), action, count))
        error = (predicted - target).square().mean(-1)  # [T, B]
        log_error = (error.detach() + self.config.floor).log()
        inputs = with_action(self.error_encoder(obs[:-1]), action, count)
        expected = self.error_model(inputs).squeeze(-1)  # [T, B]
        forward_loss = masked_mean(error, real)
        expected_loss = masked_mean((expected - log_error).square(), real)
        paid = real & (self.seen >= self.config.wait)
        reward = torch.where(paid, expected.detach() - log_error, 0.0)
        if self.training:
            self.seen += data_parallel.any_true(real)
        metrics = {"reconstruction": forward_loss.detach(), "expected": expected_loss.detach()}
        loss = forward_loss + expected_loss
        return WorldModelOutput(loss, reward, {"reconstruction": reward}, metrics, judged=paid)
