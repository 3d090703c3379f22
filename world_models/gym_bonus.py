"""`IntrinsicBonus`: the bonus as a wrapper of Gymnasium's vector environments."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from afterwit.envs.arrays import Array
from afterwit.envs.checks import MAX_NUMBER, is_number
from afterwit.world_models.base import ModelConfig
from afterwit.world_models.caller_spaces import row_of, stack
from afterwit.world_models.callers import as_array, check_values
from afterwit.world_models.intrinsic_reward import IntrinsicReward
from afterwit.world_models.step_window import Step, Window, arguments
from afterwit.world_models.stream_state import autoreset_name

EXTRINSIC, INTRINSIC = "extrinsic_reward", "intrinsic_reward"


class IntrinsicBonus(VectorWrapper):
    """Adds `weight` times the bonus to every reward, and learns from the steps it has paid.

    `info["extrinsic_reward"]` [B] keeps the environments' own rewards, and
    `info["intrinsic_reward"]` [B] has the bonus before it is weighted. Put wrappers that record
    episodes inside of this one, so that they record the environments' own returns.

    Each step is paid when it is taken, and learned from later, when `update_every` steps are
    complete. Steps before the first update get no bonus, as it has no unit yet.

    `curiosity` is the `IntrinsicReward` that pays; save its `state_dict()` with your agent.
    `metrics` has what its last update returned.

    Each step is paid by itself, so the model's horizon must be 1. For longer horizons call
    `IntrinsicReward.reward` on whole rollouts.

    Args:
      env: Vector environment with spaces that IntrinsicReward reads. Its
          metadata["autoreset_mode"] says how it resets. With same-step the last step of an episode
          is paid for infos["final_obs"], and gets no bonus where that is missing. Where autoreset
          is disabled, call `reset` with a `reset_mask`, as Gymnasium asks.
      model: A name in WORLD_MODELS, `package.module:Class`, or a config of a world model.
      weight: Factor of the bonus.
      update_every: T, steps of each environment per update. None: pay, but never learn.
      seed: Seed of the model's weights and random draws. None: a new one each time.
      options: Further arguments of IntrinsicReward: torso, learning_rate, reward_decay, device.

    Raises:
      ValueError: The autoreset mode is unknown, or an argument is out of range, unknown or not
          supported.

    Example:
      >>> import gymnasium as gym
      >>> from afterwit.world_models import IntrinsicBonus
      >>> envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
      >>> envs = IntrinsicBonus(envs, "rnd", weight=0.5, update_every=16, seed=0)
      >>> observations, infos = envs.reset(seed=0)
      >>> observations, rewards, _, _, infos = envs.step(envs.action_space.sample())
      >>> bool((rewards == infos["extrinsic_reward"] + 0.5 * infos["intrinsic_reward"]).all())
      True
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        model: str | ModelConfig,
        *,
        weight: float,
        update_every: int | None,
        seed: int | None,
        **options: Any,
    ):
        super().__init__(env)
        inner: Any = env
        while isinstance(inner, VectorWrapper):
            if isinstance(inner, IntrinsicBonus):
                raise ValueError("the environment has an IntrinsicBonus already; lay on only one")
            inner = inner.env
        if "autoreset_mode" not in env.metadata:
            raise ValueError(
                'the environment has no metadata["autoreset_mode"]; set it to the AutoresetMode of'
                " gymnasium.vector that it follows"
            )
        if not is_number(weight) or not 0 <= weight <= MAX_NUMBER:
            raise ValueError(f"weight is {weight!r}; it must be a finite number of at least 0")
        if update_every is not None and (
            isinstance(update_every, bool)
            or not isinstance(update_every, int | np.integer)
            or update_every < 1
        ):
            raise ValueError(
                f"update_every is {update_every!r}; it must be an integer of at least 1, or None"
            )
        self.weight, self.update_every = float(weight), update_every
        self.autoreset = autoreset_name(env.metadata["autoreset_mode"])
        self.curiosity = IntrinsicReward(
            model,
            env.single_observation_space,
            env.single_action_space,
            seed,
            autoreset="same-step" if self.autoreset == "disabled" else self.autoreset,
            **options,
        )
        for steps in {1, update_every or 1}:
            self.curiosity.config.check_batch(steps, env.num_envs)
        self.metrics: dict[str, float] = {}
        self.has_begun = False
        #: The steps that wait for an update. None: none are known since a call that failed.
        self.window: Window | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes, in all environments or where options["reset_mask"], bool [B], says.

        With a mask, or where autoreset is disabled, steps that wait for an update are kept: they
        were taken, and are learned from. Else a reset begins anew, and they are dropped. The first
        reset needs all environments.

        Raises:
          ValueError: `reset_mask` is no bool [B], or the environments reset in the next step.
        """
        opens = self._read_mask(options)
        window, self.window = self.window, None  # it stays so if the environments fail
        observations, infos = self.env.reset(
            seed=seed,  # type: ignore[arg-type]  # Gymnasium's vectors take lists too
            options=options,
        )
        begun = deepcopy(self.curiosity.observations.trim(observations))
        self.has_begun = True
        if opens is None and self.autoreset == "disabled":
            opens = np.ones(self.num_envs, np.bool_)
        if window is not None and opens is not None:
            window.open(begun, opens)
            self.window = window
        elif opens is None or opens.all():
            self.window = Window(begun, self.curiosity.initial_state(self.num_envs))
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Step all environments, pay the step, and learn if `update_every` steps are complete.

        Call `reset` first. If a call raises, you may go on. Steps before and after one that failed
        are not joined: those that wait for an update are dropped, the next step gets no bonus, and
        episodes are remembered from there on.

        Raises:
          ValueError: An observation or action cannot be read or is not finite, or an environment's
              info has one of the two rewards already. The environments have taken the step.
          FloatingPointError: The update failed, see `IntrinsicReward.update`. Its steps are
              dropped. The environments have taken the step, and the next one is paid.
        """
        if not self.has_begun:
            raise gymnasium.error.ResetNeeded("no episode has begun; call reset() before step()")
        window, self.window = self.window, None  # it stays so if the step fails
        taken = np.array(actions)
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        for name in (EXTRINSIC, INTRINSIC):
            if name in infos:
                raise ValueError(f"infos have {name} already, which is added here; rename theirs")
        after = deepcopy(self.curiosity.observations.trim(observations))
        dones = np.array(terminated | truncated)
        bonus = np.zeros(self.num_envs, np.float32)
        if window is None:
            window = self._begin_again(after, dones)
        else:
            step = Step(taken, dones, self._final(after, dones, infos), after)
            paid, state = self.curiosity.reward(
                **arguments(window.last, [step]), state=window.state
            )
            window.append(step, state)
            if self.curiosity.normaliser.has_statistics:  # else a few rewards would set the unit
                bonus = paid[0]
        self.window = window
        if self.update_every is None:
            window.drop()
        elif len(window) >= self.update_every:  # above if update_every was lowered
            self.metrics = self.curiosity.update(**window.take())
        infos = {**infos, EXTRINSIC: np.array(rewards), INTRINSIC: bonus}
        return observations, rewards + self.weight * bonus, terminated, truncated, infos

    def _begin_again(self, after: Any, dones: Array) -> Window:
        """A window for the steps after a call that failed. It begins with observations `after`.

        Args:
          after: The observations [B, ...] after the newest step.
          dones: bool [B]: that step ended an episode.
        """
        read = self.curiosity.observations.read(stack([after]), "obs")
        check_values(self.curiosity.spec, as_array("obs", read), "obs")
        return Window(after, self.curiosity.initial_state(self.num_envs).after(dones))

    def _final(self, after: Any, dones: Array, infos: dict[str, Any]) -> Array | None:
        """What a step led to where it ended an episode, and None elsewhere: object [B].

        It is in infos["final_obs"]: an object array, or arrays with one row per environment and a
        mask, infos["_final_obs"]. Where autoreset is disabled it is in the observations `after` the
        step. With next-step autoreset it need not be told: None.
        """
        if self.autoreset == "next-step":
            return None
        found = np.full(self.num_envs, None, object)
        disabled = self.autoreset == "disabled"
        given = after if disabled else infos.get("final_obs")
        told = True if disabled else infos.get("_final_obs", True)
        if given is not None:
            for b in np.flatnonzero(dones & told):
                found[b] = deepcopy(self.curiosity.observations.trim(row_of(given, int(b))))
        return found

    def _read_mask(self, options: dict[str, Any] | None) -> Array | None:
        """options["reset_mask"], or None. The environments check it too, but may take it out."""
        if options is None or "reset_mask" not in options:
            return None
        if self.autoreset == "next-step":
            raise ValueError(
                "reset_mask is for environments whose autoreset is disabled or same-step; these"
                " reset by themselves, in the next step"
            )
        mask = np.array(options["reset_mask"])
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(
                f"reset_mask is {mask.dtype} of shape {mask.shape}; it must be bool of shape"
                f" ({self.num_envs},)"
            )
        if not self.has_begun:
            raise gymnasium.error.ResetNeeded("call reset() without a reset_mask first")
        return mask
