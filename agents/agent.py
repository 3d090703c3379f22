"""The agent that acts: a policy and its memory. Observations in, actions out, whoever steps the environments."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.policy import Policy
from afterwit.envs.checks import NUMBER
from afterwit.envs.seeds import stream
from afterwit.envs.specs import Array


class Agent:
    """Acts in B environments at once with its own copy of `policy`, and remembers each one's past. All its randomness comes from `seed`."""

    def __init__(self, policy: Policy, num_envs: int, seed: int, device: torch.device, greedy: bool = False):
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; an agent acts in at least 1 environment")
        self.num_envs, self.seed, self.device, self.greedy = num_envs, seed, device, greedy
        self.policy = deepcopy(policy).requires_grad_(False).to(device)
        self.weights: Mapping[str, Tensor] | None = None  # what the policy was last given
        self.version = 0
        self.random = torch.Generator().manual_seed(stream(seed, "actor"))  # on the host: the same draws whatever the device
        self.core = self.policy.torso.initial_core(num_envs)
        self.prev_action = torch.zeros(num_envs, dtype=torch.int64)

    def set_weights(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Act with `weights`, a state dict of the policy, from the next step on."""
        if weights is not self.weights:
            self.policy.load_state_dict(weights)
            self.weights, self.version = weights, version

    def act(self, observation: Array, first: Array | bool) -> Array:
        """Actions, int64 [B], on observations [B, ...]; where `first`, bool [B], an episode opens and the past is forgotten.

        A single environment may leave the B out: an observation and a bool, and one number back. Each call is one step: the
        memory moves on. Raises ValueError for other shapes, for floats where the agent knows bytes, and for what is not finite.
        """
        shape = self.policy.torso.encoder.shape
        observation = np.asarray(observation)
        single = self.num_envs == 1 and observation.shape == shape
        if not single and observation.shape != (self.num_envs, *shape):
            raise ValueError(f"the observation has shape {observation.shape}; this agent acts on {(self.num_envs, *shape)}")
        dtype = self.policy.observation_dtype
        if observation.dtype.kind not in "biuf" or (dtype == "uint8" and observation.dtype != np.uint8):
            raise ValueError(f"the observation has dtype {observation.dtype}; this agent acts on {dtype}")
        if dtype != "uint8" and not (np.abs(observation, dtype=np.float64) <= NUMBER).all():
            raise ValueError(f"the observation is not finite, or beyond {NUMBER:g}")
        first = np.asarray(first)
        if first.dtype != np.bool_ or first.shape not in ((), (self.num_envs,)):
            raise ValueError(f"first has dtype {first.dtype} and shape {first.shape}; it must be a bool, or bools ({self.num_envs},)")
        firsts = np.broadcast_to(first, self.num_envs).copy()
        observation = observation.astype(dtype, copy=False)
        action = self.choose(observation[None] if single else observation, firsts)[0]
        return action[0] if single else action

    @torch.no_grad()
    def warm_up(self) -> None:
        """Encode nothing, as `choose` would: a compiled encoder is compiled, and no memory moves on."""
        encoder = self.policy.torso.encoder
        encoder(torch.zeros(1, self.num_envs, *encoder.shape, dtype=getattr(torch, self.policy.observation_dtype), device=self.device))

    @torch.no_grad()
    def choose(self, observation: Array, first: Array) -> tuple[Array, Tensor]:
        """Actions [B] and log-probabilities [B, A] on the host; moves the memory on."""
        obs, opens = (torch.from_numpy(x).to(self.device)[None] for x in (observation, first))
        output = self.policy(obs, opens, self.prev_action.to(self.device)[None], self.core)
        self.core, log_probs = output.core, output.log_probs[0].cpu()
        if self.greedy:
            self.prev_action = log_probs.argmax(-1)
        else:
            self.prev_action = torch.multinomial(log_probs.exp(), 1, generator=self.random).squeeze(-1)
        return self.prev_action.numpy(), log_probs

    def state(self) -> dict[str, Any]:
        """Random state and memory."""
        return {"random": self.random.get_state(), "core": self.core, "prev_action": self.prev_action}
