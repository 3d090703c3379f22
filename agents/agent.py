"""The agent that acts: a policy and its memory. Observations in, actions out, whoever steps the
environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.policy import Policy
from afterwit.envs.arrays import Array
from afterwit.envs.checks import MAX_NUMBER, check_counts
from afterwit.envs.images import View
from afterwit.envs.interface import Interface
from afterwit.envs.seeds import read_seed, stream
from afterwit.world_models.callers import as_array


class Agent:
    """Acts in B environments at once with its own copy of `policy`, and remembers each one's past.
    All its randomness comes from `seed`; None is another one each time.

    `interface`: to environments of a person's own, whose observations `act` turns into what the
    policy reads, and whose actions it gives. Unset: they show and take what the policy does.
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
        self.num_envs, self.seed, self.device, self.greedy, self.interface = (
            num_envs,
            seed,
            device,
            greedy,
            interface,
        )
        self.policy = deepcopy(policy).requires_grad_(False).to(device)
        self.weights: Mapping[str, Tensor] | None = None  # what the policy was last given
        self.version = 0
        # on the host: the same draws whatever the device
        self.random = torch.Generator().manual_seed(stream(seed, "actor"))
        self.core = self.policy.torso.initial_core(num_envs)
        self.prev_action = torch.zeros(num_envs, dtype=torch.int64)

    def set_weights(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Act with `weights`, a state dict of the policy, from the next step on."""
        if weights is not self.weights:
            self.policy.load_state_dict(weights)
            self.weights, self.version = weights, version

    def act(self, observation: Array, first: Array | bool) -> Array:
        """Actions, int64 [B], on observations [B, ...]; where `first`, bool [B], an episode opens
        and the past is forgotten.

        A single environment may leave the B out: an observation and a bool, and one number back.
        Each call is one step: the memory moves on. With an interface, observations are the
        environment's own (or already as the policy reads them), and actions are counted as its
        action space counts them. Raises ValueError for other shapes, for floats where the agent
        knows bytes, and for what is not finite.
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
        """`observation` as the policy reads it, and whether it is that of a single environment,
        without the B. Where a shape may be both, it is the environment's own: [1, H, W] a batch of
        one plane, not one image with one channel."""
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
                if view.dtype != "uint8" and array.dtype.kind in "biuf" and not small(array):
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
        """Encode nothing, as `choose` would: a compiled encoder is compiled, and no memory moves
        on.
        """
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
        """Actions [B] and log-probabilities [B, A] on the host; moves the memory on."""
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
        """Random state and memory."""
        return {
            "random": self.random.get_state(),
            "core": self.core,
            "prev_action": self.prev_action,
        }


@np.errstate(all="ignore")  # whatever the caller has set
def small(numbers: Array) -> bool:
    """Whether all are finite, and at most NUMBER in magnitude."""
    return bool((np.abs(numbers, dtype=np.float64) <= MAX_NUMBER).all())
