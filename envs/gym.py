"""Gymnasium environments with image or vector observations and Discrete actions, as a VectorEnv."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from afterwit.envs.arrays import Array
from afterwit.envs.assignments import constructor_arguments
from afterwit.envs.gym_config import KWARGS, GymConfig
from afterwit.envs.gym_make import MODES, Wrapping, make_vector
from afterwit.envs.gym_noise import Noise, resolved_dose
from afterwit.envs.infos import ENTRIES, check_entry, declared_entries, read_number_of_cells
from afterwit.envs.interface import interface_of
from afterwit.envs.noise import LAYERS
from afterwit.envs.seeds import global_draws_of, seed_global, stream
from afterwit.envs.specs import EnvironmentFault, EnvSpec, TimeStep, check_action, reraise_as


class GymVector:
    """A gymnasium.vector.VectorEnv as Afterwit's VectorEnv.

    The batch and the autoreset stay the same. Observations become channels first, uint8 or float32
    (see envs/images.py). Actions are counted from 0 here, wherever the environment's Discrete space
    starts. An ending that is both terminal and truncated is terminal.

    `info` holds only the entries that the environment's metadata declares (see envs/infos.py).

    Args:
      venv: A vector environment with Box observations, Discrete actions and next-step autoreset.
      seed: Seed of the first reset. Later resets continue from there.
      wrapping: The wrappers that were applied, as text. Agents name them in error messages.

    Raises:
      ValueError: The spaces or the autoreset mode do not fit.
    """

    def __init__(
        self, venv: gymnasium.vector.VectorEnv[Any, Any, Any], seed: int, wrapping: str = ""
    ):
        name = venv.spec.id if venv.spec is not None else type(venv.unwrapped).__name__
        mode = venv.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(
                f"{name} has autoreset mode {mode}; make it with"
                " autoreset_mode=AutoresetMode.NEXT_STEP (or set metadata['autoreset_mode'] where"
                " that is what it does)"
            )
        self.interface = interface_of(
            name, venv.single_observation_space, venv.single_action_space, wrapping
        )
        view, tells = self.interface.view, declared_entries(venv.metadata)
        self.venv, self.seed = venv, self._spread(seed)
        self.cells = read_number_of_cells(venv.metadata) if "cell" in tells else None
        self.spec = EnvSpec(
            name=name,
            num_envs=venv.num_envs,
            observation_shape=view.shape,
            observation_dtype=view.dtype,
            num_actions=self.interface.num_actions,
            max_episode_steps=venv.spec.max_episode_steps if venv.spec is not None else None,
            semantics={
                "backend": "gymnasium",
                "backend_version": gymnasium.__version__,
                "autoreset": "next-step",
                "observations": str(view),
                **({} if self.cells is None else {"cells": self.cells}),
            },
            tells=tells,
            interface=self.interface,
        )
        self.over = np.ones(venv.num_envs, bool)  # the next step is a reset
        self.started = False
        self.widths: dict[str, int] = {}  # lengths of the entries of `info` with two axes
        self.frame_shape: tuple[int, ...] | None = None  # shape of the last rendered frame

    @staticmethod
    def _spread(seed: int) -> int:
        """A seed whose environments are not those of the neighbouring seeds.

        Gymnasium gives environment k the seed s + k.
        """
        return int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)

    def reset(self) -> TimeStep:
        """Start new episodes in all environments."""
        observation, info = self.venv.reset(seed=None if self.started else self.seed)
        self.started = True
        idle = np.zeros(self.spec.num_envs, bool)
        self.over = ~idle
        return self._time_step(observation, np.zeros(self.spec.num_envs), idle, idle, info)

    def step(self, action: Array) -> TimeStep:
        """Take one agent step with integer actions [B], counted from 0. See VectorEnv."""
        if not self.started:
            raise RuntimeError("step() before reset(): call reset() once to start the environments")
        return self._time_step(
            *self.venv.step(self.interface.to_environment(check_action(action, self.spec)))
        )

    def _time_step(
        self,
        observation: Array,
        reward: Array,
        terminal: Array,
        truncated: Array,
        info: dict[str, Any],
    ) -> TimeStep:
        first, terminal = self.over, np.array(terminal, bool)
        truncated = np.array(truncated, bool) & ~terminal
        self.over = terminal | truncated
        known = {
            key: value
            for key in self.spec.tells
            if (value := self._entry(key, info, first)) is not None
        }
        # All arrays are copied: some vector environments return arrays that they reuse.
        self._check_size("observations", np.asarray(observation))
        self._check_size("rewards", np.asarray(reward))
        with np.errstate(all="ignore"):  # overrides the caller's error state
            rewards = np.array(reward, np.float32)
        return TimeStep(
            self.interface.view(observation), first, rewards, terminal, truncated, known
        )

    def _check_size(self, what: str, numbers: Array) -> None:
        """Raise an EnvironmentFault that names the first number that float32 cannot hold."""
        if numbers.dtype.kind != "f" or numbers.dtype.itemsize <= 4:
            return
        size = np.abs(numbers)
        if (beyond := (size > np.finfo(np.float32).max) & (size < np.inf)).any():
            index = np.argwhere(beyond)[0]
            raise EnvironmentFault(
                f"the environment {self.spec.name} returned {what} with {numbers[tuple(index)]}"
                f" (environment {index[0]} of {self.spec.num_envs}), which float32 cannot hold:"
                " scale or clip them in a wrapper"
            )

    def _entry(self, key: str, info: dict[str, Any], first: Array) -> Array | None:
        """One declared entry of `info` for all B environments.

        It is 0 for environments that reset and do not report it. None: no environment has reported
        it yet.
        """
        present = np.asarray(info.get(f"_{key}", np.full(len(first), key in info)), bool)
        if not (present | first).all():
            index = int(np.argmin(present | first))
            raise EnvironmentFault(
                f"the environment {self.spec.name} declares {key} in metadata['afterwit_tells'],"
                f" but environment {index} did not report it in this step; put it into the info of"
                " each step, or do not declare it"
            )
        entry = ENTRIES[key]
        if present.any():
            values = info[key]
            if not present.all():
                values = [value for value, there in zip(values, present, strict=True) if there]
            given = check_entry(self.spec.name, key, values, int(present.sum()), self.cells)
        elif entry.many and key not in self.widths:
            return None
        else:
            given = np.zeros(
                (0, self.widths[key]) if entry.many else 0, bool if entry.flag else np.int64
            )
        if entry.many and self.widths.setdefault(key, given.shape[1]) != given.shape[1]:
            raise EnvironmentFault(
                f"the environment {self.spec.name} returned {given.shape[1]} {key}, and before"
                f" {self.widths[key]}"
            )
        result = np.zeros((len(first), *given.shape[1:]), given.dtype)
        result[present] = given
        return result

    def render(self) -> Array:
        """An image of environment 0.

        Returns:
          uint8 [height, width, 3], of the same size each time.

        Raises:
          EnvironmentFault: The environment fails to draw, or returns something else.
        """
        name, mode = self.spec.name, self.venv.render_mode
        if mode not in MODES:
            raise EnvironmentFault(
                f"the environment {name} cannot be drawn: it was made with render_mode {mode!r};"
                " make it with 'rgb_array', which its constructor must take as an argument"
            )
        with reraise_as(f"the environment {name} cannot be drawn"):
            frames: Any = self.venv.render()
        frame = frames[0] if isinstance(frames, list | tuple) and frames else frames
        if isinstance(frame, list | tuple) and frame and isinstance(frame[-1], np.ndarray):
            frame = frame[-1]  # the list holds all frames since the last call
        if (
            not isinstance(frame, np.ndarray)
            or frame.dtype != np.uint8
            or frame.ndim != 3
            or frame.shape[2] != 3
            or not frame.size
        ):
            kind = (
                f"{frame.dtype} {frame.shape}"
                if isinstance(frame, np.ndarray)
                else type(frame).__name__
            )
            raise EnvironmentFault(
                f"the environment {name} drew {kind}; render() must return uint8 [height, width, 3]"
            )
        if self.frame_shape not in (None, frame.shape):
            raise EnvironmentFault(
                f"the environment {name} drew {frame.shape}, and before {self.frame_shape}; all"
                " frames must be of one size"
            )
        self.frame_shape = frame.shape
        return frame.copy()

    def close(self) -> None:
        """Close all environments.

        Raises:
          EnvironmentFault: An environment cannot be closed.
        """
        try:
            with reraise_as(f"the environment {self.spec.name} cannot be closed"):
                self.venv.close()
        finally:
            # else Gymnasium would close it again, and print a traceback
            self.venv.unwrapped.closed = True


class Gym(GymVector):
    """Environments that Gymnasium makes from a GymConfig.

    Environments may draw from the global random state of Python, NumPy or torch. That state is
    seeded while they are made, and again at the first reset. So their draws, too, are reproducible.

    Args:
      config: Which environments, and their noise.
      seed: Seed of the environments and of the noise.
      wrappers: Applied to each environment, before its noise.
      wrapping: The wrappers as text, for error messages.
      **options: Further arguments of the environment's constructor.
    """

    def __init__(
        self,
        config: GymConfig,
        seed: int,
        wrappers: tuple[Wrapping, ...] = (),
        wrapping: str = "",
        **options: Any,
    ):
        self.config, self.run_seed = config, seed
        chosen = constructor_arguments(config.kwargs, KWARGS)
        for name in chosen.keys() & options.keys():
            raise ValueError(f"{KWARGS} sets {name}, which has an option of its own: --env.{name}")
        if config.noise != "none":
            noise = partial(
                Noise,
                noise=config.noise,
                dose=config.dose,
                density=config.density,
                noise_action=config.noise_action,
            )
            wrappers = (*wrappers, noise)
        with global_draws_of(stream(seed, "global")):
            venv = make_vector(
                config.id,
                config.num_envs,
                {**options, **chosen},
                wrappers,
                config.episode_steps,
                config.render,
            )
        dose = resolved_dose(config.noise, config.dose)
        if config.noise in LAYERS:
            noise_call = (
                f"afterwit.envs.Noise(env, {config.noise!r}, dose={dose}, density={config.density},"
                f" noise_action={config.noise_action})"
            )
            wrapping = ", then ".join(filter(None, (wrapping, noise_call)))
        super().__init__(venv, seed, wrapping)
        noise_action = config.noise_action if config.noise == "on-demand" and dose > 0 else None
        semantics = {
            "noise": config.noise,
            "dose": dose,
            "density": config.density,
            "noise_action": noise_action,
        }
        if config.kwargs:
            semantics["kwargs"] = list(config.kwargs)
        self.spec = replace(self.spec, semantics={**self.spec.semantics, **semantics})

    def reset(self) -> TimeStep:
        """Start new episodes in all environments."""
        if not self.started:
            seed_global(stream(self.run_seed, "global", "episodes"))
        return super().reset()
