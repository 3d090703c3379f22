"""`IntrinsicReward`: the world model alone, for people who have an agent already. NumPy in, NumPy
out.
"""

from __future__ import annotations

import logging
import reprlib
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
from afterwit.world_models.callers import (
    as_array,
    default_torso,
    find_device,
    in_own_modes,
    read_spaces,
)
from afterwit.world_models.instruments import representation
from afterwit.world_models.registry import find_model, make_world_model, world_model_name
from afterwit.world_models.reward_normaliser import RewardNormaliser
from afterwit.world_models.stream_state import StreamState, read_autoreset
from afterwit.world_models.torso import Torso, TorsoConfig
from afterwit.world_models.trajectory import Trajectory

LEARNING_RATE = 1e-3
LARGEST = 1e6  # beyond it, squares of observations leave float32


class IntrinsicReward:
    """A bonus for novelty, trained on the transitions that your agent collects.

    `model` is a name in WORLD_MODELS or a config of one; `observation_space` the Box of one
    environment (images, as envs/images.py tells them, or numbers of order 1), `action_space` its
    Discrete(n). Arrays are time-major: obs [T+1, B, ...] and actions [T, B] as the two spaces have
    them, dones [T, B], where dones[t] says that the transition of actions[t] ended an episode. They
    may be tensors, too. `seed` None is another one each time. What was made of the observations,
    and which encoder reads them, is logged by the logger "afterwit".

    `autoreset` (a name, or Gymnasium's AutoresetMode) is "next-step" (Gymnasium's vector
    environments: obs[t+1] after a done is the true last observation, and the step after it only
    resets) or "same-step" (obs[t+1] after a done opens the next episode, so that the ending
    transition has no outcome to predict). Neither resets nor what would be predicted across one
    gets a bonus or changes a statistic.

    Where a stream of steps is cut into calls, carry a state: `initial_state(B)` at its start, then
    what `reward(..., state=state)` gives back beside the bonus. It holds the memory of each
    environment and whether its episode has just ended. Without one each call starts from a blank
    memory, which raises its first bonus (by 10 to 20% of the raw error on the maze), and
    "next-step" needs `previous_dones`, the bool [B] of the step before actions[0], to know that
    actions[0] only resets.

    Pay first, then learn: the bonus is for what was not known before these steps were learnt from.

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
    >>> bonus, following = curiosity.reward(obs, actions, dones, state=state)
    >>> metrics = curiosity.update(obs, actions, dones, state=state)
    >>> state = following  # for the next five steps, which begin with this obs[-1]
    >>> bonus.shape, bonus.dtype, bool((bonus >= 0).all()), 'gradient_norm' in metrics
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
        seed, self.autoreset, self.device = (
            read_seed(seed),
            read_autoreset(autoreset),
            find_device(device),
        )
        config = find_model(model).Config() if isinstance(model, str) else model
        self.spec = read_spaces(observation_space, action_space)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream(seed, "weights"))
            self.torso = Torso(
                torso or default_torso(self.spec),
                self.spec.observation_shape,
                self.spec.num_actions,
            )
            self.model = make_world_model(
                config, self.torso, self.spec, stream(seed, "world model")
            )
        self.normaliser = RewardNormaliser(config.prioritise, reward_decay)
        self.modules = nn.ModuleDict(
            {"torso": self.torso, "model": self.model, "normaliser": self.normaliser}
        ).to(self.device)
        self.trained = [p for p in self.modules.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.trained, learning_rate)
        self.config, self.name = config, world_model_name(config)
        logging.getLogger("afterwit").info(
            "observations: %s; %s", self.spec.semantics["observations"], self.torso.describe()
        )

    @in_own_modes
    def initial_state(self, num_envs: int) -> StreamState:
        """The state of `num_envs` environments whose first observation opens an episode."""
        if isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise ValueError(f"num_envs is {num_envs!r}; it must be an integer of at least 1")
        opens = torch.ones(int(num_envs), dtype=torch.bool)
        core = torch.zeros(len(opens), self.torso.config.belief)
        return StreamState(
            core, torch.zeros(len(opens), dtype=torch.int64), opens, ~opens, self.autoreset
        )

    @in_own_modes
    def update(
        self,
        obs: Array,
        actions: Array,
        dones: Array,
        previous_dones: Array | None = None,
        state: StreamState | None = None,
    ) -> dict[str, float]:
        """One optimiser step on T steps of B environments, and one step of the reward's statistics.
        Returns metrics.

        `state` is that before these steps, as `reward` was given it.
        """
        trajectory = self._trajectory(obs, actions, dones, previous_dones, state)
        out = self.model(trajectory, *self._seen(trajectory))
        self.optimiser.zero_grad(set_to_none=True)
        if out.loss.requires_grad:  # a model may have nothing to train
            out.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, 10.0)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError(
                f"the gradient of {self.name} is {norm.item()}; no weight was changed. Are all"
                " observations finite and of order 1?"
            )
        self.optimiser.step()
        self.model.after_step()
        self.normaliser.update(out.reward, trajectory.real)
        metrics = {
            **out.metrics,
            "loss": out.loss.detach(),
            "gradient_norm": norm,
            "scale": self.normaliser.deviation,
        }
        return {name: float(value) for name, value in metrics.items()}

    @overload
    def reward(
        self,
        obs: Array,
        actions: Array,
        dones: Array,
        previous_dones: Array | None = None,
        state: None = None,
    ) -> Array: ...

    @overload
    def reward(
        self, obs: Array, actions: Array, dones: Array, *, state: StreamState
    ) -> tuple[Array, StreamState]: ...

    @in_own_modes
    def reward(
        self,
        obs: Array,
        actions: Array,
        dones: Array,
        previous_dones: Array | None = None,
        state: StreamState | None = None,
    ) -> Array | tuple[Array, StreamState]:
        """The bonus of each transition, float32 [T, B], normalised; 0 for resets. Changes no weight
        and no statistic.

        With a `state`, that before these steps, also the state after them.
        """
        trajectory = self._trajectory(obs, actions, dones, previous_dones, state)
        with torch.no_grad(), self.model.watching():
            beliefs, embeddings = self._seen(trajectory)
            raw, real = self.model(trajectory, beliefs, embeddings).reward, trajectory.real
            bonus = self.normaliser.known_or_from(raw, real)(raw, real).cpu().numpy()
        if state is None:
            return bonus
        ended = torch.from_numpy(as_array("dones", dones)[-1].copy())
        # The memory before obs[-1], which is the next call's obs[0]: a GRU's output is its state.
        last = beliefs[-2].cpu(), trajectory.action[-1].cpu(), trajectory.first[-1].cpu()
        return bonus, StreamState(*last, ended, self.autoreset)

    @in_own_modes
    def inspect(
        self,
        obs: Array,
        actions: Array,
        dones: Array,
        previous_dones: Array | None = None,
        state: StreamState | None = None,
    ) -> dict[str, float]:
        """The instruments of world_models/instruments.py on these transitions. Changes nothing."""
        trajectory = self._trajectory(obs, actions, dones, previous_dones, state)
        with torch.no_grad(), self.model.watching():
            beliefs, embeddings = self._seen(trajectory)
            readings = representation(beliefs, embeddings, trajectory.real) | self.model.inspect(
                trajectory, beliefs, embeddings
            )
        return {name: float(value) for name, value in readings.items()}

    def state_dict(self) -> dict[str, Any]:
        """Weights, targets, statistics, random state and optimiser, for torch.save."""
        return {"modules": self.modules.state_dict(), "optimiser": self.optimiser.state_dict()}

    @in_own_modes
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave. Raises ValueError where it is of another model, or
        none.
        """
        try:
            self.modules.load_state_dict(state["modules"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            words = " ".join(str(error).split())[:200]
            raise ValueError(
                f"this is no state of {self.name} with these spaces and this torso: {words}"
            ) from error

    def _seen(self, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """Beliefs [T+1, B, M] and embeddings [T+1, B, N]."""
        return self.torso(*trajectory.inputs)[:2]

    def _trajectory(
        self,
        obs: Array,
        actions: Array,
        dones: Array,
        previous_dones: Array | None,
        state: StreamState | None,
    ) -> Trajectory:
        obs, actions, dones = (
            as_array(*given) for given in (("obs", obs), ("actions", actions), ("dones", dones))
        )
        interface = self.spec.interface
        assert interface is not None
        if actions.ndim != 2 or dones.shape != actions.shape:
            raise ValueError(
                f"actions have shape {actions.shape} and dones {dones.shape}; both must be [T, B]"
            )
        length, batch = actions.shape
        if length < 1 or batch < 1:
            raise ValueError(
                f"actions have shape {actions.shape}; at least 1 step of 1 environment is needed"
            )
        self.config.check_batch(length, batch)
        if obs.shape != (length + 1, batch, *interface.view.raw):
            raise ValueError(
                f"obs has shape {obs.shape}; for these actions it must be"
                f" {(length + 1, batch, *interface.view.raw)}"
            )
        actions = interface.from_environment(actions)
        if dones.dtype != np.bool_:
            raise ValueError(
                f"dones has dtype {dones.dtype}; it must be bool (terminated | truncated)"
            )
        if self.spec.observation_dtype == "uint8" and obs.dtype.kind not in "iu":
            raise ValueError(
                f"obs has dtype {obs.dtype}, but the observation space is uint8: give bytes 0..255,"
                " or a space of floats"
            )
        if obs.dtype.kind not in "biuf":
            raise ValueError(f"obs has dtype {obs.dtype}; it must hold numbers")
        if not (float(obs.min()) >= -LARGEST and float(obs.max()) <= LARGEST):  # NaN is neither
            raise ValueError(
                f"obs must be finite and of order 1 (at most {LARGEST:g}); scale them first."
                " Nothing was changed"
            )
        if previous_dones is not None:
            if self.autoreset == "same-step":
                raise ValueError(
                    "previous_dones is for next-step autoreset; with same-step an ending shows in"
                    " dones alone: leave it out"
                )
            previous_dones = as_array("previous_dones", previous_dones)
            if previous_dones.shape != (batch,) or previous_dones.dtype != np.bool_:
                raise ValueError(
                    f"previous_dones is {previous_dones!r}; it must be bool of shape ({batch},)"
                )
        if state is None:
            state = self.initial_state(batch)
        elif previous_dones is not None:
            raise ValueError(
                "state and previous_dones are both given; the state knows which episodes ended, so"
                " leave previous_dones out"
            )
        elif not isinstance(state, StreamState) or not state.fits(
            batch, self.torso.config.belief, self.spec.num_actions, self.autoreset
        ):
            raise ValueError(
                f"state is {reprlib.repr(state)}; it must come from this one's"
                f" initial_state({batch}), or be the second of what reward(..., state=...) gave for"
                f" {batch} environments"
            )
        first = np.zeros((length + 1, batch), bool)
        first[0] = state.opens.numpy()
        if self.autoreset == "next-step":
            first[1] = state.ended.numpy() if previous_dones is None else previous_dones
        shift = 2 if self.autoreset == "next-step" else 1
        first[shift:] = dones[: length + 1 - shift]
        floats = torch.zeros(length, batch)
        return Trajectory(
            obs=torch.from_numpy(interface.view(obs)),
            first=torch.from_numpy(first),
            action=torch.from_numpy(actions),
            behaviour=floats[..., None],
            reward=floats,
            terminal=torch.zeros(length, batch, dtype=torch.bool),
            core=state.core,
            prev_action=state.action,
        ).to(self.device)
