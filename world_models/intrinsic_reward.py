"""`IntrinsicReward`: a world model for agents of your own. NumPy in, NumPy out."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, overload

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn

from afterwit.envs.arrays import Array
from afterwit.envs.checks import MAX_NUMBER, is_number
from afterwit.envs.seeds import read_seed, stream
from afterwit.world_models.base import ModelConfig
from afterwit.world_models.caller_spaces import actions_of, observations_of
from afterwit.world_models.caller_trajectory import CallerTrajectory, make_trajectory, read_finals
from afterwit.world_models.callers import (
    ArrayOrTensor,
    Observations,
    as_array,
    default_torso,
    find_device,
    in_own_modes,
    read_previous_dones,
    read_spaces,
    read_steps,
)
from afterwit.world_models.draws import draws_of
from afterwit.world_models.encoder_file import adopt_encoder
from afterwit.world_models.expected_error import head_groups
from afterwit.world_models.instruments import representation
from afterwit.world_models.registry import find_model, make_world_model, world_model_name
from afterwit.world_models.regulariser import make_regulariser
from afterwit.world_models.reward_normaliser import RewardNormaliser
from afterwit.world_models.stream_state import StreamState, read_autoreset
from afterwit.world_models.torso import Torso, TorsoConfig
from afterwit.world_models.trajectory import Trajectory
from afterwit.world_models.whole_load import check_moments, statistics_of, whole_or_not

LEARNING_RATE = 1e-3


class IntrinsicReward:
    """A bonus for novelty, trained on the transitions that your agent collects.

    Call `reward` first and then `update`: the bonus pays for what was not known before these steps
    were learned from.

    Arrays are time-major: obs [T+1, B, ...], actions [T, B, ...] and dones [T, B] for T agent steps
    of B environments. They may be tensors. dones[t] says that the transition of actions[t] ended an
    episode.

    If a stream of steps is cut into calls, carry a state. Start with `initial_state(B)`. Then pass
    on the state that `reward(..., state=state)` returns beside the bonus. It holds each
    environment's memory, and whether its episode has just ended. Without a state each call starts
    with a blank memory, which raises the first bonus of the call (by 10 to 20% of the raw error in
    the maze). And with next-step autoreset, `previous_dones` must then say whether actions[0] only
    resets.

    Steps that only reset, and predictions across a reset, get no bonus and change no statistic.

    The logger "afterwit" reports how the observations are read and which encoder reads them.

    Args:
      model: A name in WORLD_MODELS, `package.module:Class`, or a config of a world model.
      observation_space: That of one environment: a Box of images (see envs/images.py) or of numbers
          of order 1; or Discrete, MultiDiscrete, MultiBinary, Dict or Tuple (see caller_spaces.py).
      action_space: That of one environment: Discrete, MultiDiscrete or MultiBinary; or a Box of up
          to 64 numbers, which are scaled to -1 to 1 where they are bounded on both sides.
      seed: Seed of the weights and of all random draws. None: a new one each time.
      torso: Encoder and recurrent network. None: the encoder follows the observations.
      autoreset: How the environments reset, as a name or as Gymnasium's AutoresetMode. "next-step"
          (Gymnasium's vector environments): obs[t+1] after a done is the true last observation, and
          the step after it only resets. "same-step": obs[t+1] after a done opens the next episode.
          The outcome of the last transition is then not predicted, unless it is given apart, as
          `final_observations`.
      learning_rate: Step size of Adam.
      reward_decay: Share of the bonus's running statistics that is kept at each `update`, from 0 to
          below 1.
      device: Where the networks are: a torch device or its name.

    Raises:
      ValueError: An argument is out of range, unknown or not supported.

    Example:
      >>> import gymnasium as gym, numpy as np
      >>> from afterwit.world_models import IntrinsicReward
      >>> envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
      >>> spaces = envs.single_observation_space, envs.single_action_space
      >>> curiosity = IntrinsicReward("byol-hindsight", *spaces, seed=0)
      >>> obs, actions, dones = [envs.reset(seed=0)[0]], [], []
      >>> for _ in range(5):
      ...     actions.append(np.array([0, 1, 0]))
      ...     observation, _, terminated, truncated, _ = envs.step(actions[-1])
      ...     obs.append(observation)
      ...     dones.append(terminated | truncated)
      >>> obs, actions, dones = np.stack(obs), np.stack(actions), np.stack(dones)
      >>> state = curiosity.initial_state(3)
      >>> bonus, next_state = curiosity.reward(obs, actions, dones, state=state)
      >>> metrics = curiosity.update(obs, actions, dones, state=state)
      >>> state = next_state  # for the next five steps, which begin with this obs[-1]
      >>> bonus.shape, bonus.dtype, bool(np.isfinite(bonus).all()), 'gradient_norm' in metrics
      ((5, 3), dtype('float32'), True, True)
    """

    @in_own_modes
    def __init__(
        self,
        model: str | ModelConfig,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        seed: int | None,
        torso: TorsoConfig | None = None,
        autoreset: str | AutoresetMode = "next-step",
        learning_rate: float = LEARNING_RATE,
        reward_decay: float = 0.99,
        device: str | torch.device = "cpu",
    ):
        if not is_number(learning_rate) or not 0 < learning_rate <= MAX_NUMBER:
            raise ValueError(
                f"learning_rate is {learning_rate!r}; it must be a finite number above 0"
            )
        if not is_number(reward_decay) or not 0 <= reward_decay < 1:
            raise ValueError(
                f"reward_decay is {reward_decay!r}; it must be a number of at least 0 and below 1"
            )
        if torso is not None and not isinstance(torso, TorsoConfig):
            raise ValueError(f"torso is {torso!r}; it must be a TorsoConfig, or None")
        seed, self.autoreset = read_seed(seed), read_autoreset(autoreset)
        self.device = find_device(device)
        config = find_model(model).Config() if isinstance(model, str) else model
        self.observations = observations_of(observation_space)
        self.actions = actions_of(action_space)
        self.spec = read_spaces(self.observations.space, self.actions.space)
        with draws_of(seed, "weights"):
            self.torso = Torso(
                torso or default_torso(self.spec),
                self.spec.observation_shape,
                self.spec.num_actions,
                self.spec.continuous,
            )
            self.model = make_world_model(
                config, self.torso, self.spec, stream(seed, "world model")
            )
            self.expected = config.make_expected_error(self.torso.config.belief, self.spec)
        self.normaliser = RewardNormaliser(config.prioritise, reward_decay, config.absolute_zero)
        self.regulariser = make_regulariser(config, stream(seed, "regulariser"))
        modules: dict[str, nn.Module] = {
            "torso": self.torso,
            "model": self.model,
            "normaliser": self.normaliser,
            "expected": self.expected,
        }
        if self.regulariser is not None:
            modules["regulariser"] = self.regulariser
        self.modules = nn.ModuleDict(modules).to(self.device)
        if self.torso.config.init is not None:
            adopt_encoder(self.modules, self.torso.config.init)
        self.trained = [p for p in self.modules.parameters() if p.requires_grad]
        heads = head_groups(self.modules, learning_rate)
        fast = {p for group in heads for p in group["params"]}
        groups = [{"params": [p for p in self.trained if p not in fast]}, *heads]
        self.optimiser = torch.optim.Adam(groups, learning_rate)
        self.config, self.name = config, world_model_name(config)
        logging.getLogger("afterwit").info(
            "observations: %s; %s", self.spec.semantics["observations"], self.torso.describe()
        )

    @in_own_modes
    def initial_state(self, num_envs: int) -> StreamState:
        """The state of environments whose first observation opens an episode.

        Args:
          num_envs: B, at least 1.

        Raises:
          ValueError: `num_envs` is not an integer of at least 1.
        """
        if isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise ValueError(f"num_envs is {num_envs!r}; it must be an integer of at least 1")
        opens = torch.ones(int(num_envs), dtype=torch.bool)
        core = torch.zeros(len(opens), self.torso.config.belief)
        action = (
            torch.zeros(len(opens), self.spec.num_actions)
            if self.spec.continuous
            else torch.zeros(len(opens), dtype=torch.int64)
        )
        rows = self.model.memory.blank_rows(len(opens))
        memory = {name: row.cpu() for name, row in rows.items()}
        return StreamState(core, action, opens, ~opens, self.autoreset, memory)

    @in_own_modes
    def update(
        self,
        obs: Observations,
        actions: ArrayOrTensor,
        dones: ArrayOrTensor,
        previous_dones: ArrayOrTensor | None = None,
        state: StreamState | None = None,
        final_observations: Observations | None = None,
    ) -> dict[str, float]:
        """Make one optimiser step, and update the bonus's statistics.

        Args:
          obs: [T+1, B, ...] as the observation space says; a dict or tuple of such arrays for one.
          actions: [T, B, ...] as the action space says: integers, or numbers within its bounds.
          dones: bool [T, B]: terminated | truncated.
          previous_dones: bool [B]: the dones of the step before actions[0]. Only for next-step
              autoreset without `state`.
          state: The state before these steps, the one that `reward` was given.
          final_observations: What the steps that ended an episode led to, for same-step autoreset:
              [T, B, ...] like obs, where `dones`; or an object array [T, B] of observations, None
              where it is not known. None: nothing is known.

        Returns:
          Metrics by name.

        Raises:
          ValueError: An array has a wrong shape or type, or observations are not finite or too
              large.
          FloatingPointError: The gradient or the model's reward is not finite. No weight and no
            statistic was changed.
        """
        steps = self._read(obs, actions, dones, previous_dones, state, final_observations)
        trajectory, restore_statistics = steps.trajectory, statistics_of(self.modules)
        beliefs, embeddings = self._beliefs_and_embeddings(trajectory)
        with self._memory_of(state, trajectory):
            out = self.model(trajectory, beliefs, embeddings)
        paid = out.paid(trajectory)
        try:
            self._check_finite(out.reward, paid)
        except FloatingPointError:
            restore_statistics()
            raise
        surprise, expected_loss = self.expected(
            out.reward, out.ignorance, paid, trajectory, beliefs, learning=True
        )
        loss, apart = out.loss + expected_loss, dict[str, Tensor]()
        if self.regulariser is not None:
            penalty, apart = self.regulariser(embeddings, trajectory.real)
            loss = loss + penalty
        self.optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:  # a model may have nothing to train
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, 10.0)
        if not bool(torch.isfinite(norm)):
            restore_statistics()
            raise FloatingPointError(
                f"the gradient of {self.name} is {norm.item()}; no weight was changed. Are all"
                " observations finite and of order 1?"
            )
        self.optimiser.step()
        self.model.after_step()
        self.normaliser.update(surprise, paid, out.ignorance)
        metrics = {
            **out.metrics,
            **apart,
            "loss": out.loss.detach(),
            "gradient_norm": norm,
            "scale": self.normaliser.deviation,
        }
        return {name: float(value) for name, value in metrics.items()}

    @overload
    def reward(
        self,
        obs: Observations,
        actions: ArrayOrTensor,
        dones: ArrayOrTensor,
        previous_dones: ArrayOrTensor | None = None,
        state: None = None,
        final_observations: Observations | None = None,
    ) -> Array: ...

    @overload
    def reward(
        self,
        obs: Observations,
        actions: ArrayOrTensor,
        dones: ArrayOrTensor,
        *,
        state: StreamState,
        final_observations: Observations | None = None,
    ) -> tuple[Array, StreamState]: ...

    @in_own_modes
    def reward(
        self,
        obs: Observations,
        actions: ArrayOrTensor,
        dones: ArrayOrTensor,
        previous_dones: ArrayOrTensor | None = None,
        state: StreamState | None = None,
        final_observations: Observations | None = None,
    ) -> Array | tuple[Array, StreamState]:
        """The bonus of each transition. Changes no weight and no statistic.

        Args:
          obs: [T+1, B, ...] as the observation space says; a dict or tuple of such arrays for one.
          actions: [T, B, ...] as the action space says: integers, or numbers within its bounds.
          dones: bool [T, B]: terminated | truncated.
          previous_dones: bool [B]: the dones of the step before actions[0]. Only for next-step
              autoreset without `state`.
          state: The state before these steps.
          final_observations: What the steps that ended an episode led to, for same-step autoreset:
              [T, B, ...] like obs, where `dones`; or an object array [T, B] of observations, None
              where it is not known. None: nothing is known.

        Returns:
          The bonus, float32 [T, B], normalised. It is 0 for steps that only reset, and until 8
          errors were seen. If `state` is given, also the state after these steps.

        Raises:
          ValueError: An array has a wrong shape or type, or observations are not finite or too
              large.
          FloatingPointError: The model's reward is not finite.
        """
        steps = self._read(obs, actions, dones, previous_dones, state, final_observations)
        trajectory = steps.trajectory
        step = None if state is None else state.steps
        with torch.no_grad(), self.model.watching(step), self._memory_of(state, trajectory):
            beliefs, embeddings = self._beliefs_and_embeddings(trajectory)
            out = self.model(trajectory, beliefs, embeddings)
            paid = out.paid(trajectory)
            self._check_finite(out.reward, paid)
            raw, _ = self.expected(out.reward, out.ignorance, paid, trajectory, beliefs)
            normaliser = self.normaliser.with_statistics(raw, paid, out.ignorance)
            bonus = steps.of_steps(normaliser(raw, paid)).cpu().numpy()
        if state is None:
            return bonus
        ended = torch.from_numpy(as_array("dones", dones)[-1].copy())
        # A GRU's output is its state. This is the memory before obs[-1], the next call's obs[0].
        core = steps.of_steps(beliefs)[-1].cpu()
        action = steps.of_steps(trajectory.action)[-1].cpu()
        opens = ended if self.autoreset == "same-step" else trajectory.first[-1].cpu()
        memory = {name: row.cpu() for name, row in self.model.memory.latest.items()}
        past = state.steps + len(bonus)
        return bonus, StreamState(core, action, opens, ended, self.autoreset, memory, past)

    @in_own_modes
    def inspect(
        self,
        obs: Observations,
        actions: ArrayOrTensor,
        dones: ArrayOrTensor,
        previous_dones: ArrayOrTensor | None = None,
        state: StreamState | None = None,
        final_observations: Observations | None = None,
    ) -> dict[str, float]:
        """The instruments of world_models/instruments.py on these transitions. Changes nothing.

        Args:
          obs: [T+1, B, ...] as the observation space says; a dict or tuple of such arrays for one.
          actions: [T, B, ...] as the action space says: integers, or numbers within its bounds.
          dones: bool [T, B]: terminated | truncated.
          previous_dones: bool [B]: the dones of the step before actions[0]. Only for next-step
              autoreset without `state`.
          state: The state before these steps.
          final_observations: What the steps that ended an episode led to, for same-step autoreset:
              [T, B, ...] like obs, where `dones`; or an object array [T, B] of observations, None
              where it is not known. None: nothing is known.

        Returns:
          Readings by name.

        Raises:
          ValueError: An array has a wrong shape or type, or observations are not finite or too
              large.
        """
        steps = self._read(obs, actions, dones, previous_dones, state, final_observations)
        trajectory = steps.trajectory
        with torch.no_grad(), self.model.watching(), self._memory_of(state, trajectory):
            beliefs, embeddings = self._beliefs_and_embeddings(trajectory)
            readings = representation(beliefs, embeddings, trajectory.real) | self.model.inspect(
                trajectory, beliefs, embeddings
            )
        return {name: float(value) for name, value in readings.items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, targets, statistics, random state and optimiser, for torch.save."""
        return {"modules": self.modules.state_dict(), "optimiser": self.optimiser.state_dict()}

    @in_own_modes
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
          ValueError: The state belongs to another model, other spaces or another torso. Nothing was
              changed.
        """
        try:
            if not isinstance(state, Mapping) or not {"modules", "optimiser"} <= state.keys():
                has = list(state) if isinstance(state, Mapping) else type(state).__name__
                raise ValueError(f"it is {reprlib.repr(has)}; give what state_dict() returned")
            with whole_or_not(self.modules, self.optimiser):
                self.modules.load_state_dict(state["modules"])
                self.optimiser.load_state_dict(state["optimiser"])
                check_moments(self.optimiser)
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"this state does not belong to {self.name} with these spaces and this torso:"
                f" {reason}"
            ) from error

    def _memory_of(
        self, state: StreamState | None, trajectory: Trajectory
    ) -> AbstractContextManager[None]:
        """A context in which the model remembers what `state` remembers; without one, nothing."""
        rows = (
            self.model.memory.blank_rows(trajectory.action.shape[1])
            if state is None
            else {name: row.to(self.device) for name, row in state.memory.items()}
        )
        return self.model.memory.lending(rows)

    def _check_finite(self, reward: Tensor, paid: Tensor) -> None:
        """Raise a FloatingPointError if a raw reward [T, B] is not finite where `paid`."""
        wrong = reward[paid & ~reward.isfinite()]
        if len(wrong):
            raise FloatingPointError(
                f"the reward of {self.name} is {wrong[0].item()}; nothing was changed. Are all"
                " observations finite and of order 1?"
            )

    def _beliefs_and_embeddings(self, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """Beliefs [T+1, B, M] and embeddings [T+1, B, N]."""
        return self.torso(*trajectory.inputs)[:2]

    def _read(
        self,
        obs: Observations,
        actions: ArrayOrTensor,
        dones: ArrayOrTensor,
        previous_dones: ArrayOrTensor | None,
        state: StreamState | None,
        final_observations: Observations | None,
    ) -> CallerTrajectory:
        obs, actions = self.observations.read(obs, "obs"), self.actions.read(actions, "actions")
        obs, actions, dones = read_steps(self.spec, self.config, obs, actions, dones)
        batch = dones.shape[1]
        if previous_dones is not None:
            previous_dones = read_previous_dones(previous_dones, batch, self.autoreset)
        if state is None:
            state = self.initial_state(batch)
        elif previous_dones is not None:
            raise ValueError(
                "state and previous_dones are both given; the state knows which episodes ended, so"
                " leave previous_dones out"
            )
        elif not isinstance(state, StreamState) or not state.fits(
            self.initial_state(batch), self.spec.num_actions
        ):
            raise ValueError(
                f"state is {reprlib.repr(state)}; it must come from initial_state({batch}) of this"
                f" object, or be the state that reward(..., state=...) returned for {batch}"
                " environments"
            )
        final = None
        if final_observations is not None:
            if self.autoreset == "next-step":
                raise ValueError(
                    "final_observations is for same-step autoreset; with next-step an episode's"
                    " last observation is in obs: leave it out"
                )
            final = read_finals(self.spec, self.observations, final_observations, dones)
        steps = make_trajectory(obs, actions, dones, state, final, previous_dones)
        return steps.to(self.device)
