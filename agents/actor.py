"""The actor: a batch of environments and the acting policy, unrolled into trajectories that overlap by one observation."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.policy import Policy
from afterwit.envs.seeds import stream
from afterwit.envs.specs import Array, TimeStep, VectorEnv
from afterwit.world_models.trajectory import Trajectory


class Actor:
    """Steps `env` with its own copy of `policy`. All its randomness comes from `seed`."""

    def __init__(self, env: VectorEnv, policy: Policy, unroll_length: int, seed: int, device: torch.device, greedy: bool = False):
        self.env, self.unroll_length, self.device, self.greedy = env, unroll_length, device, greedy
        self.policy = deepcopy(policy).requires_grad_(False).to(device)
        self.weights: Mapping[str, Tensor] | None = None  # what the policy was last given
        self.version = 0
        self.random = torch.Generator().manual_seed(stream(seed, "actor"))  # on the host: the same draws whatever the device
        self.core = self.policy.torso.initial_core(env.spec.num_envs)
        self.prev_action = torch.zeros(env.spec.num_envs, dtype=torch.int64)
        self.step: TimeStep | None = None

    def set_weights(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Act with `weights`, a state dict of the policy, from the next step on."""
        if weights is not self.weights:
            self.policy.load_state_dict(weights)
            self.weights, self.version = weights, version

    @torch.no_grad()
    def unroll(self) -> Trajectory:
        """The next T agent steps of all environments; `obs[0]` is the last observation of the unroll before."""
        if self.step is None:
            self.step = self.env.reset()
        step, core, prev_action = self.step, self.core, self.prev_action
        obs, first, action, behaviour, steps = [step.observation], [step.first], [], [], []
        for _ in range(self.unroll_length):
            chosen, log_probs = self._act(step)
            step = self.env.step(chosen)
            action.append(chosen)
            behaviour.append(log_probs)
            obs.append(step.observation)
            first.append(step.first)
            steps.append(step)
        self.step = step
        return Trajectory(
            obs=stack(obs),
            first=stack(first),
            action=stack(action),
            behaviour=torch.stack(behaviour),
            reward=stack([s.reward for s in steps]),
            terminal=stack([s.terminal for s in steps]),
            core=core.cpu(),
            prev_action=prev_action,
            info={name: stack([s.info[name] for s in steps]) for name in steps[0].info if all(name in s.info for s in steps)},
        )

    def _act(self, step: TimeStep) -> tuple[Array, Tensor]:
        """Actions [B] and their log-probabilities [B, A] on the host; moves the recurrent state on."""
        obs, first = (torch.from_numpy(x).to(self.device)[None] for x in (step.observation, step.first))
        output = self.policy(obs, first, self.prev_action.to(self.device)[None], self.core)
        self.core, log_probs = output.core, output.log_probs[0].cpu()
        if self.greedy:
            self.prev_action = log_probs.argmax(-1)
        else:
            self.prev_action = torch.multinomial(log_probs.exp(), 1, generator=self.random).squeeze(-1)
        return self.prev_action.numpy(), log_probs

    def state(self) -> dict[str, Any]:
        """Random and recurrent state, and the environments' own where they can give it (the maze can)."""
        state: dict[str, Any] = {"random": self.random.get_state()}
        if self.step is not None and hasattr(self.env, "state_dict"):
            state["env"] = self.env.state_dict()
            state |= {"core": self.core, "prev_action": self.prev_action}
            state |= {"observation": torch.from_numpy(self.step.observation), "first": torch.from_numpy(self.step.first)}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Environments that cannot be saved start new episodes, with a blank memory."""
        self.random.set_state(state["random"])
        if "env" not in state:
            return
        self.env.load_state_dict(state["env"])  # type: ignore[attr-defined]
        self.core, self.prev_action = state["core"].to(self.device), state["prev_action"]
        observation, first = state["observation"].numpy(), state["first"].numpy()
        nothing = np.zeros(len(first), bool)
        self.step = TimeStep(observation, first, nothing.astype(np.float32), nothing, nothing, {})


def stack(arrays: list[Array]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
