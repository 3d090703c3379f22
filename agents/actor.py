"""The actor: an agent with its environments, unrolled into trajectories.

Consecutive trajectories overlap by one observation.
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
from afterwit.envs.checks import MAX_NUMBER, within_limit
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvironmentFault, EnvSpec, TimeStep, VectorEnv, reraise_as
from afterwit.world_models.trajectory import Trajectory


class Actor(Agent):
    """An agent that steps `env`, T agent steps at a time.

    Args:
      env: B environments.
      policy: The policy. The actor acts with a copy of it.
      unroll_length: T, agent steps per trajectory.
      seed: Seed of the action draws.
      device: Where the policy runs.
      greedy: Take the most probable action instead of drawing one.
      number: Number of the actor. Each actor has as many of the run's environments.
    """

    def __init__(
        self,
        env: VectorEnv,
        policy: Policy,
        unroll_length: int,
        seed: int,
        device: torch.device,
        greedy: bool = False,
        number: int = 0,
    ):
        super().__init__(policy, env.spec.num_envs, seed, device, greedy)
        self.environments = torch.arange(env.spec.num_envs) + number * env.spec.num_envs
        self.env, self.unroll_length = env, unroll_length
        self.step: TimeStep | None = None

    def unroll(self) -> Trajectory:
        """Step all environments T agent steps.

        `obs[0]` is the last observation of the previous trajectory.

        Returns:
          The steps, on the host.

        Raises:
          EnvironmentFault: The environment raised an exception. Or it returned shapes or types that
              its spec does not allow, or an observation or reward that is not finite or is above
              MAX_NUMBER.
        """
        if self.step is None:
            self.step = self._call_environment(self.env.reset)
        step, core, prev_action = self.step, self.core, self.prev_action
        obs, first, action, behaviour, steps = [step.observation], [step.first], [], [], []
        for _ in range(self.unroll_length):
            chosen, log_probs = self.choose(step.observation, step.first)
            step = self._call_environment(self.env.step, chosen)
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
            environments=self.environments,
        )

    def _call_environment(self, call: Callable[..., TimeStep], *arguments: Array) -> TimeStep:
        with reraise_as(f"the environment {self.env.spec.name} raised", where=True):
            step = call(*arguments)
        spec = self.env.spec
        check_values(
            spec, "observations", step.observation, spec.observation_shape, spec.observation_dtype
        )
        check_values(spec, "rewards", step.reward, (), "float32")
        return step

    def state(self) -> dict[str, Any]:
        """The actor's state for a checkpoint.

        It always holds the random state. If the environments can be saved (the maze can), it also
        holds their state, the memory and the last observation.
        """
        if self.step is None or not hasattr(self.env, "state_dict"):
            return {"random": self.random.get_state()}
        current = {
            "observation": torch.from_numpy(self.step.observation),
            "first": torch.from_numpy(self.step.first),
        }
        return super().state() | {"env": self.env.state_dict()} | current

    def resume(
        self, state: dict[str, Any], make: Callable[[int], VectorEnv], agent_steps: int
    ) -> None:
        """Continue from a saved state.

        If `state` has no environments, new ones are made with a seed that belongs to this point of
        the run.

        Args:
          state: What `state` returned, or an empty dict.
          make: Makes environments from a seed.
          agent_steps: Agent steps of the run so far.
        """
        if "env" not in state:
            self.env.close()
            self.env, self.step = make(stream(self.seed, "resumed", agent_steps)), None
        if state:
            self.load_state(state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Environments that cannot be saved start new episodes, with a blank memory.
        """
        self.random.set_state(state["random"])
        if "env" not in state:
            return
        self.env.load_state_dict(state["env"])  # type: ignore[attr-defined]
        self.core, self.prev_action = state["core"].to(self.device), state["prev_action"]
        observation, first = state["observation"].numpy(), state["first"].numpy()
        nothing = np.zeros(len(first), bool)
        self.step = TimeStep(observation, first, nothing.astype(np.float32), nothing, nothing, {})


def check_values(
    spec: EnvSpec, what: str, values: Array, shape: tuple[int, ...], dtype: str
) -> None:
    """Check an environment's observations or rewards.

    This is checked at each step, before the policy reads them.

    Raises:
      EnvironmentFault: The values are not [B, *shape] of `dtype`, or a float is not finite or is
          above MAX_NUMBER in magnitude.
    """
    if values.shape != (spec.num_envs, *shape) or values.dtype != dtype:
        expected = f"{dtype} {(spec.num_envs, *shape)}"
        raise EnvironmentFault(
            f"the environment {spec.name} returned {what} of {values.dtype} {values.shape}; its"
            f" spec says {expected}"
        )
    if dtype != "uint8" and not (usable := within_limit(values)).all():
        index = np.argwhere(~usable)[0].tolist()
        raise EnvironmentFault(
            f"the environment {spec.name} returned {what} with {values[tuple(index)]} (environment"
            f" {index[0]} of {spec.num_envs}); they must be finite and at most {MAX_NUMBER:g} in"
            " magnitude: scale or clip them in a wrapper"
        )


def stack(arrays: list[Array]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def actor_seed(seed: int, index: int, life: int = 0) -> int:
    """The seed of actor `index` and its environments.

    The first actor has the run's own seed. A replacement of an actor has another `life`.
    """
    return stream(seed, "actor process", index, life) if index or life else seed
