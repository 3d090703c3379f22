"""The agent: a policy with its memory. It maps observations to actions."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.policy import Policy
from afterwit.envs.arrays import Array
from afterwit.envs.checks import MAX_NUMBER, check_counts, within_limit
from afterwit.envs.images import View
from afterwit.envs.interface import Interface
from afterwit.envs.seeds import read_seed, stream
from afterwit.world_models.callers import as_array


class Agent:
    """Acts in B environments at once, with a copy of a policy and a memory of each environment.

    Args:
      policy: The policy. The agent acts with a copy of it.
      num_envs: B.
      seed: Seed of the action draws. None: a new one each time.
      device: Where the policy runs.
      greedy: Take the most probable action instead of drawing one.
      interface: How to act in a user's environment. `act` then takes its observations and returns
          its actions. None: `act` takes what the policy reads and counts actions from 0.
    """

    def __init__(
        self,
        policy: Policy,
        num_envs: int,
        seed: int | None,
        device: torch.device,
        greedy: bool = False,
        interface: Interface | None = None,
    ):
        check_counts(num_envs=num_envs)
        seed = read_seed(seed)
        self.num_envs, self.seed, self.device = num_envs, seed, device
        self.greedy, self.interface = greedy, interface
        self.policy = deepcopy(policy).requires_grad_(False).to(device)
        self.weights: Mapping[str, Tensor] | None = None  # the last weights that were set
        self.version = 0
        # on the host, so that the draws do not depend on the device
        self.random = torch.Generator().manual_seed(stream(seed, "actor"))
        self.core = self.policy.torso.initial_core(num_envs)
        self.prev_action = torch.zeros(num_envs, dtype=torch.int64)

    def set_weights(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Act with other weights from the next step on.

        Args:
          weights: A state dict of the policy.
          version: Number of these weights.
        """
        if weights is not self.weights:
            self.policy.load_state_dict(weights)
            self.weights, self.version = weights, version

    def act(self, observation: Array, first: Array | bool) -> Array:
        """Choose actions. Each call is one step, and the memory moves on.

        A single environment may leave out the axis B: then give an observation and a bool, and get
        one number.

        Args:
          observation: [B, ...]: the environment's own observations, or what the policy reads.
          first: bool [B]: where an episode opens. The memory of these environments is cleared.

        Returns:
          int64 [B]: the actions, counted as the environment counts them.

        Raises:
          ValueError: The shapes are wrong, or observations are not finite, or are floats where the
              policy reads bytes.
        """
        observation, single = self._read(observation)
        first = np.asarray(first)
        if first.dtype != np.bool_ or first.shape not in ((), (self.num_envs,)):
            raise ValueError(
                f"first has dtype {first.dtype} and shape {first.shape}; it must be a bool, or"
                f" bools ({self.num_envs},)"
            )
        firsts = np.broadcast_to(first, self.num_envs).copy()
        action = self.choose(observation[None] if single else observation, firsts)[0]
        if self.interface is not None:
            action = self.interface.to_environment(action)
        return action[0] if single else action

    def _read(self, observation: Any) -> tuple[Array, bool]:
        """The observation as the policy reads it, and whether it has no axis B.

        If a shape can be read both ways, it is read as the environment's own: [1, H, W] is a batch
        of one image of one plane, not one image with one channel.
        """
        views = [
            View(
                self.policy.torso.encoder.shape,
                self.policy.observation_dtype,
                image=False,
                channels_last=False,
            )
        ]
        if self.interface is not None:
            views.insert(0, self.interface.view)
        array = (
            None if isinstance(observation, Mapping) else as_array("the observation", observation)
        )
        for view in views:
            single = self.num_envs == 1 and array is not None and array.shape == view.raw
            if array is not None and (single or array.shape == (self.num_envs, *view.raw)):
                if (
                    view.dtype != "uint8"
                    and array.dtype.kind in "biuf"
                    and not within_limit(array).all()
                ):
                    raise ValueError(f"the observation is not finite, or beyond {MAX_NUMBER:g}")
                return view(array), single
        given = (
            f"is a {type(observation).__name__}" if array is None else f"has shape {array.shape}"
        )
        wrapping = "" if self.interface is None else self.interface.wrapping
        raise ValueError(
            f"the observation {given}; this agent acts on {(self.num_envs, *views[0].raw)}"
            + (f": wrap the environment as in training, in {wrapping}" if wrapping else "")
        )

    @torch.no_grad()
    def warm_up(self) -> None:
        """Compile the encoder, if it is to be compiled, without a step of the memory."""
        encoder = self.policy.torso.encoder
        encoder(
            torch.zeros(
                1,
                self.num_envs,
                *encoder.shape,
                dtype=getattr(torch, self.policy.observation_dtype),
                device=self.device,
            )
        )

    @torch.no_grad()
    def choose(self, observation: Array, first: Array) -> tuple[Array, Tensor]:
        """Choose actions and move the memory on.

        Args:
          observation: [B, ...], as the policy reads it.
          first: bool [B]: where an episode opens.

        Returns:
          Actions [B] and log-probabilities [B, A], on the host.
        """
        obs, opens = (torch.from_numpy(x).to(self.device)[None] for x in (observation, first))
        output = self.policy(obs, opens, self.prev_action.to(self.device)[None], self.core)
        self.core, log_probs = output.core, output.log_probs[0].cpu()
        if self.greedy:
            self.prev_action = log_probs.argmax(-1)
        else:
            self.prev_action = torch.multinomial(log_probs.exp(), 1, generator=self.random).squeeze(
                -1
            )
        return self.prev_action.numpy(), log_probs

    def state(self) -> dict[str, Any]:
        """The random state and the memory."""
        return {
            "random": self.random.get_state(),
            "core": self.core,
            "prev_action": self.prev_action,
        }
