"""What z reveals of state and action: groups of pairs, and the critic's own steps."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from afterwit.world_models import data_parallel
from afterwit.world_models.models.hindsight_config import BYOLHindsightConfig
from afterwit.world_models.models.hindsight_critic import (
    Critic,
    ReverseGradient,
    check_contrast,
    contrast,
)
from afterwit.world_models.open_loop import pair_mean


class Invariance:
    """The contrastive estimate of BYOL-Hindsight, and the training of its critic.

    Pairs are [K, T, B], with state s [K, T, B, S] and latent z [K, T, B, Z]. Several learners
    gather the pairs of the whole batch, because each z is compared with those of all environments.

    Args:
      config: The settings.
      critic: The critic. Only `learn` trains it.
      random: The model's random draws.
    """

    def __init__(self, config: BYOLHindsightConfig, critic: Critic, random: torch.Generator):
        self.config, self.critic, self.random = config, critic.requires_grad_(False), random
        self.optimiser = torch.optim.Adam(critic.parameters(), config.critic_rate, foreach=True)
        # s, z and valid of the last learner step
        self.batch: tuple[Tensor, Tensor, Tensor] | None = None
        self.next_horizon = 0  # the horizon, minus 1, of the next extra step

    def of_batch(self, state: Tensor, latent: Tensor, valid: Tensor, training: bool) -> Tensor:
        """The invariance of this learner's pairs, [K, T, B].

        Backward, its gradient is reversed and scaled by lambda on its way into z. So a loss that
        contains -inv makes the generator minimise lambda * inv.
        """
        state, latent, valid = gather_pairs(state, latent, valid)
        reversed_latent = ReverseGradient.apply(latent, self.config.invariance_weight)
        if training:
            self.batch = state, latent.detach(), valid
        return data_parallel.own_share(self.of_pairs(state, reversed_latent, valid), 2)

    def of_pairs(self, state: Tensor, latent: Tensor, valid: Tensor) -> Tensor:
        """The contrast of each pair [K, T, B] with the others of its group.

        By default a group holds the pairs of all environments at the same step.
        """
        group = self.group(valid)
        scores = self.critic(state.reshape(*group.shape, -1), latent.reshape(*group.shape, -1))
        return contrast(scores, group).view_as(valid)

    def group(self, valid: Tensor) -> Tensor:
        """Pairs [K, T, B] as [K, groups, n]: the groups within which each z is compared.

        Raises:
          ValueError: contrast_size does not divide the pairs.
        """
        _, length, batch = valid.shape
        check_contrast(self.config.contrast_size, length, batch)
        return valid.flatten(1).unflatten(1, (-1, self.config.contrast_size or batch))

    def share_of_most(self, state: Tensor, latent: Tensor, valid: Tensor) -> Tensor:
        """The mean estimate over the most that it could be, log n: an instrument []."""
        state, latent, valid = gather_pairs(state, latent, valid)
        group = self.group(valid)
        size = group.sum(-1, keepdim=True).expand_as(group).reshape_as(valid)
        most = torch.where(valid, size.clamp(min=1).log(), 0.0)
        return pair_mean(self.of_pairs(state, latent, valid), valid) / pair_mean(most, valid)

    def learn(self) -> None:
        """The critic's steps after a learner step, on that step's pairs."""
        if self.batch is not None:
            self.step(*self.batch)
            for _ in range(self.config.critic_steps - 1):
                self.step(*self.shuffle_groups(*self.batch))
        self.batch = None

    def shuffle_groups(self, state: Tensor, latent: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """The pairs [1, T, B, ...] of the next of the K horizons, in random and so new groups.

        All K horizons would cost K times as much, and one has enough pairs.
        """
        k, self.next_horizon = self.next_horizon, (self.next_horizon + 1) % len(valid)
        order = torch.randperm(valid[0].numel(), generator=self.random).to(valid.device)
        return tuple(
            x[k : k + 1].flatten(1, 2)[:, order].view_as(x[k : k + 1])
            for x in (state, latent, valid)
        )

    def step(self, state: Tensor, latent: Tensor, valid: Tensor) -> None:
        """One step of the critic that increases the invariance of the pairs [K, T, B].

        The pairs carry no gradient.
        """
        self.critic.requires_grad_(True)
        self.optimiser.zero_grad(set_to_none=True)
        (-pair_mean(self.of_pairs(state, latent, valid), valid)).backward()
        self.optimiser.step()
        self.critic.requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and turn. The critic's weights are the model's."""
        return {
            "critic_optimiser": deepcopy(self.optimiser.state_dict()),
            "turn": self.next_horizon,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.optimiser.load_state_dict(state["critic_optimiser"])
        self.next_horizon = state.get("turn", 0)  # checkpoints of November 2026 do not have it


def gather_pairs(state: Tensor, latent: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s, z and valid of the whole batch, [K, T, B of all learners, ...]."""
    return (
        data_parallel.gather(state, 2),
        data_parallel.gather(latent, 2),
        data_parallel.gather(valid, 2),
    )
