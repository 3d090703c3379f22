"""The recurrent policy: torso, action distribution and value.

Actor, learner and evaluator call the same `forward`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from afterwit.agents.popart import PopArt
from afterwit.envs.checks import check_numbers
from afterwit.envs.specs import EnvSpec
from afterwit.world_models.torso import Torso, TorsoConfig, mlp


@dataclass(frozen=True)
class PolicyConfig:
    """The policy's and the value's heads."""

    hidden: int = 64
    """Width of the hidden layer of the policy's and of the value's head."""
    popart_step: float = 0.01
    """Rate of the running scale of value targets and extrinsic rewards, per learner step."""
    uniform: bool = False
    """Act uniformly at random, whatever is learned: a control for comparisons. Everything else
    still trains."""

    two_values: bool = False
    """A value of its own for the intrinsic return, which then goes on where an episode ends, as in
    RND (Burda et al., 2018) and NGU (Badia et al., 2020). Off: one value for the sum of both
    rewards."""

    def __post_init__(self) -> None:
        check_numbers(self, "policy.")
        if self.hidden < 1:
            raise ValueError(f"policy.hidden is {self.hidden}; it must be at least 1")
        if not 0 < self.popart_step <= 1:
            raise ValueError(
                f"policy.popart_step is {self.popart_step}; it must be above 0 and at most 1"
            )


class PolicyOutput(NamedTuple):
    """What the policy computes for T steps of B environments."""

    log_probs: Tensor  # [T, B, A]
    beliefs: Tensor  # [T, B, M]
    embeddings: Tensor  # [T, B, N]
    core: Tensor  # [B, M]: state after the last step


class Policy(nn.Module):
    """Torso, action distribution and value.

    Args:
      config: The heads.
      torso: The encoder and the recurrent network.
      spec: The environments.
    """

    def __init__(self, config: PolicyConfig, torso: TorsoConfig, spec: EnvSpec):
        super().__init__()
        self.observation_dtype, self.uniform = spec.observation_dtype, config.uniform
        self.torso = Torso(torso, spec.observation_shape, spec.num_actions)
        self.action_head = mlp(torso.belief, config.hidden, spec.num_actions, 1)
        self.value_head = nn.Sequential(nn.Linear(torso.belief, config.hidden), nn.ReLU())
        self.popart = PopArt(config.hidden, config.popart_step)
        if config.two_values:
            self.intrinsic_head = nn.Sequential(nn.Linear(torso.belief, config.hidden), nn.ReLU())
            self.intrinsic_popart = PopArt(config.hidden, config.popart_step)
        self.two_values = config.two_values

    def forward(
        self,
        obs: Tensor,
        first: Tensor,
        previous_actions: Tensor,
        core: Tensor,
        resets: tuple[int, ...] = (),
    ) -> PolicyOutput:
        """Run the policy over T steps of B environments.

        Args:
          obs: uint8 or float32 [T, B, ...].
          first: bool [T, B]: where an episode opens.
          previous_actions: int64 [T, B]: the action before each observation.
          core: float32 [B, M]: the memory before the first step.
          resets: Times t > 0 at which any environment opens an episode.
        """
        beliefs, embeddings, core = self.torso(obs, first, previous_actions, core, resets)
        preferences = self.action_head(beliefs) * (not self.uniform)
        return PolicyOutput(preferences.log_softmax(-1), beliefs, embeddings, core)

    def value(self, beliefs: Tensor) -> Tensor:
        """Values [...] of beliefs [..., M], on PopArt's normalised scale.

        With two values it is that of the environment's return.
        """
        return self.popart(self.value_head(beliefs))

    def intrinsic_value(self, beliefs: Tensor) -> Tensor:
        """Values [...] of the intrinsic return, on its PopArt's scale, if it has its own."""
        return self.intrinsic_popart(self.intrinsic_head(beliefs))
