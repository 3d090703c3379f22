"""What a learner trains, on what reward, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from afterwit.agents.policy import PolicyConfig
from afterwit.agents.vmpo import VMPOConfig
from afterwit.envs.checks import check_numbers
from afterwit.world_models.base import ModelConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.torso import TorsoConfig


@dataclass(frozen=True)
class LearnerConfig:
    """What is trained, on what reward, and how."""

    torso: TorsoConfig = field(default_factory=TorsoConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    world_model: ModelConfig = field(default_factory=BYOLHindsightConfig)
    vmpo: VMPOConfig = field(default_factory=VMPOConfig)
    shared_torso: bool = True
    """The world model reads the embeddings and beliefs of the policy's torso, and both train it.
    Off: it has a torso of its own, whose memory starts blank at each unroll, so the first
    transition of an unroll is paid more (1.1 to 1.2 times the mean raw error in the maze)."""
    discount: float = 0.995
    """gamma, per agent step. BYOL-Explore (Guo et al., 2022) has 0.999 for Atari."""
    intrinsic_discount: float = 0.99
    """gamma of the intrinsic return, per agent step, where policy.two_values gives it a value of
    its own (Burda et al., 2018: 0.99)."""
    return_lambda: float = 1.0
    """lambda of the returns. 1: the rewards to the end of the unroll, as published. Below 1 the
    value of what is near counts for more: less noise in the advantages, more of the value's errors
    (TD(lambda); as in GAE)."""
    # In these units a reward of 1 at each step is 1. A rare reward is large: the first one after
    # batches of N zeros counts as sqrt(N / popart_step). BYOL-Explore's PopArt divides by the
    # deviation about the mean: the same for rare rewards, but 0 for constant ones.
    extrinsic_weight: float = 0.0
    """Weight of the environment's reward, in units of its running root mean square. 0: curiosity
    alone."""
    intrinsic_weight: float = 0.1
    """Weight of the intrinsic reward (BYOL-Explore, Guo et al., 2022: lambda_mix). 0: no curiosity.
    """
    reward_decay: float = 0.99
    """Share of the intrinsic reward's running statistics that is kept at each learner step."""
    value_weight: float = 0.5
    """Weight of the squared value error."""
    entropy_weight: float = 0.001
    """Weight of the policy's entropy."""
    learning_rate: float = 3e-4
    """Step size of Adam. BYOL-Explore (Guo et al., 2022) has 1e-4 for Atari; in the maze 5e-4
    exhausts curiosity sooner."""
    # BYOL-Hindsight must learn what z explains before the policy learns to seek noise. Short runs
    # may need a higher rate for that. Published runs have 3 million learner steps.
    world_model_rate: float = 1.0
    """Multiple of `learning_rate` at which the world model's own layers learn, without the torso
    (our option; not published)."""
    adam_beta1: float = 0.9
    """Adam's momentum (BYOL-Explore, Guo et al., 2022: b1)."""
    micro_batches: int = 1
    """Parts of a batch that the world model's loss takes one after the other, so that its networks
    need less memory. The gradient is the same up to rounding. Each part has as many environments.
    """
    max_gradient_norm: float = 10.0
    """Gradients are scaled down to this global norm (our default; BYOL-Explore states none)."""

    def __post_init__(self) -> None:
        check_numbers(self, "learner.")
        for name in ("discount", "intrinsic_discount"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"learner.{name} is {getattr(self, name)}; it must be at least 0 and below 1"
                )
        for name in ("value_weight", "entropy_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"learner.{name} is {getattr(self, name)}; it must be at least 0")
        if not 0 <= self.return_lambda <= 1:
            raise ValueError(
                f"learner.return_lambda is {self.return_lambda}; it must be from 0 to 1"
            )
        for name in ("learning_rate", "world_model_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"learner.{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.reward_decay < 1:
            raise ValueError(
                f"learner.reward_decay is {self.reward_decay}; it must be at least 0 and below 1"
            )
        if not 0 <= self.adam_beta1 < 1:
            raise ValueError(
                f"learner.adam_beta1 is {self.adam_beta1}; it must be at least 0 and below 1"
            )
        if self.micro_batches < 1:
            raise ValueError(
                f"learner.micro_batches is {self.micro_batches}; it must be at least 1"
            )
        if self.micro_batches > 1 and (reason := self.world_model.couples()):
            raise ValueError(
                f"learner.micro_batches is {self.micro_batches}, but {reason}; leave it at 1"
            )
        if not self.max_gradient_norm > 0:
            raise ValueError(
                f"learner.max_gradient_norm is {self.max_gradient_norm}; it must be above 0"
            )
        if self.extrinsic_weight == 0 and self.intrinsic_weight == 0:
            raise ValueError(
                "learner.extrinsic_weight and learner.intrinsic_weight are both 0; the agent needs"
                " a reward"
            )
