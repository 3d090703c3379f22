"""The actor: an agent with its environments, unrolled into trajectories that overlap by one
observation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.agent import Agent
from afterwit.agents.policy import Policy
from afterwit.envs.arrays import Array
from afterwit.envs.checks import MAX_NUMBER
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvironmentFault, EnvSpec, TimeStep, VectorEnv, reraise_as
from afterwit.world_models.trajectory import Trajectory


class Actor(Agent):
    """Steps `env`, T agent steps at a time."""

    def __init__(
        self,
        env: VectorEnv,
        policy: Policy,
        unroll_length: int,
        seed: int,
        device: torch.device,
        greedy: bool = False,
    ):
        super().__init__(policy, env.spec.num_envs, seed, device, greedy)
        self.env, self.unroll_length = env, unroll_length
        self.step: TimeStep | None = None

    def unroll(self) -> Trajectory:
        """The next T agent steps of all environments; `obs[0]` is the last observation of the
        unroll before.

        Raises EnvironmentFault where the environment raises, or returns other shapes or types than
        its spec says, or an observation or reward that is not finite or above NUMBER.
        """
        if self.step is None:
            self.step = self._tried(self.env.reset)
        step, core, prev_action = self.step, self.core, self.prev_action
        obs, first, action, behaviour, steps = [step.observation], [step.first], [], [], []
        for _ in range(self.unroll_length):
            chosen, log_probs = self.choose(step.observation, step.first)
            step = self._tried(self.env.step, chosen)
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
            info={
                name: stack([s.info[name] for s in steps])
                for name in self.env.spec.tells
                if all(name in s.info for s in steps)
            },
        )

    def _tried(self, call: Callable[..., TimeStep], *arguments: Array) -> TimeStep:
        with reraise_as(f"the environment {self.env.spec.name} raised", where=True):
            step = call(*arguments)
        spec = self.env.spec
        check(
            spec, "observations", step.observation, spec.observation_shape, spec.observation_dtype
        )
        check(spec, "rewards", step.reward, (), "float32")
        return step

    def state(self) -> dict[str, Any]:
        """Random state; with environments that can be saved (the maze can), also theirs and the
        memory that belongs to it.
        """
        if self.step is None or not hasattr(self.env, "state_dict"):
            return {"random": self.random.get_state()}
        seen = {
            "observation": torch.from_numpy(self.step.observation),
            "first": torch.from_numpy(self.step.first),
        }
        return super().state() | {"env": self.env.state_dict()} | seen

    def resume(
        self, state: dict[str, Any], make: Callable[[int], VectorEnv], agent_steps: int
    ) -> None:
        """Go on where `state` was taken, after `agent_steps` of the run. Where there is none, or
        environments cannot be saved, in those that `make` makes of a seed, which belongs to this
        place in the run."""
        if "env" not in state:
            self.env.close()
            self.env, self.step = make(stream(self.seed, "resumed", agent_steps)), None
        if state:
            self.load_state(state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave. Environments that cannot be saved start new episodes, with a
        blank memory.
        """
        self.random.set_state(state["random"])
        if "env" not in state:
            return
        self.env.load_state_dict(state["env"])  # type: ignore[attr-defined]
        self.core, self.prev_action = state["core"].to(self.device), state["prev_action"]
        observation, first = state["observation"].numpy(), state["first"].numpy()
        nothing = np.zeros(len(first), bool)
        self.step = TimeStep(observation, first, nothing.astype(np.float32), nothing, nothing, {})


def check(spec: EnvSpec, what: str, values: Array, shape: tuple[int, ...], dtype: str) -> None:
    """Raise EnvironmentFault unless `values` are [B, *shape] of `dtype`, and floats finite and at
    most NUMBER in magnitude.

    At each step, as the policy would fail at the next one.
    """
    if values.shape != (spec.num_envs, *shape) or values.dtype != dtype:
        wanted = f"{dtype} {(spec.num_envs, *shape)}"
        raise EnvironmentFault(
            f"the environment {spec.name} returned {what} of {values.dtype} {values.shape}; its"
            f" spec says {wanted}"
        )
    if (
        dtype != "uint8" and not (usable := np.abs(values) <= MAX_NUMBER).all()
    ):  # NaN is not, either
        index = np.argwhere(~usable)[0].tolist()
        raise EnvironmentFault(
            f"the environment {spec.name} returned {what} with {values[tuple(index)]} (environment"
            f" {index[0]} of {spec.num_envs}); they must be finite and at most {MAX_NUMBER:g} in"
            " magnitude: scale or clip them in a wrapper"
        )


def stack(arrays: list[Array]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def actor_seed(seed: int, index: int, life: int = 0) -> int:
    """Of all randomness of a run's actor `index` and its environments. The first has the run's own;
    a replacement has another `life`.
    """
    return stream(seed, "actor process", index, life) if index or life else seed
