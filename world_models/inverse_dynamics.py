"""Features that tell the action: what the agent cannot influence need not be in them.

    inverse loss = cross entropy of a_t given (f(o_t), f(o_{t+1}))

Pathak et al. (2017), section 2.2. ICM, RIDE, NGU and E3B learn their features so. Continuous
actions are predicted with a squared error in place of the cross entropy (our choice; the papers
have discrete actions).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.torso import Encoder, Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean


def inverse_loss(head: nn.Module, features: Tensor, trajectory: Trajectory) -> Tensor:
    """The mean cross entropy [] of the actions of all real steps; or the mean square error.

    Args:
      head: From two features [..., 2N] to logits, or numbers of continuous actions, [..., A].
      features: float32 [T+1, B, N].
      trajectory: The steps.
    """
    logits = head(torch.cat([features[:-1], features[1:]], -1))
    if trajectory.action.is_floating_point():
        return masked_mean((logits - trajectory.action).square().mean(-1), trajectory.real)
    loss = F.cross_entropy(logits.flatten(0, 1), trajectory.action.flatten(), reduction="none")
    return masked_mean(loss.view_as(trajectory.reward), trajectory.real)


class InverseDynamics(nn.Module):
    """An encoder whose features [..., N] are trained to tell the action.

    Args:
      torso: The encoder is of its kind.
      spec: The environments.
      size: N.
      hidden: Width of the hidden layer of the network that tells the action.
    """

    def __init__(self, torso: Torso, spec: EnvSpec, size: int, hidden: int):
        super().__init__()
        self.encoder = Encoder(replace(torso.config, embedding=size), spec.observation_shape)
        self.head = mlp(2 * size, hidden, spec.num_actions, 1)

    def forward(self, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """Features [T+1, B, N] and the inverse loss []."""
        features = self.encoder(trajectory.obs)
        return features, inverse_loss(self.head, features, trajectory)
