"""Any Gymnasium environment with images or vectors to see and numbered actions, as a VectorEnv."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from afterwit.envs.arrays import Array
from afterwit.envs.assignments import arguments
from afterwit.envs.gym_config import KWARGS, GymConfig
from afterwit.envs.gym_make import MODES, Wrapping, make_vector
from afterwit.envs.gym_noise import Noise, resolved_dose
from afterwit.envs.infos import ENTRIES, cells, checked, declared
from afterwit.envs.interface import interface_of
from afterwit.envs.noise import LAYERS
from afterwit.envs.seeds import global_draws_of, seed_global, stream
from afterwit.envs.specs import EnvironmentFault, EnvSpec, TimeStep, blamed, check_action


class GymVector:
    """A gymnasium.vector.VectorEnv as our VectorEnv: same batch, same autoreset, channels first,
    uint8 or float32.

    Takes Box observations of any numbers (envs/images.py says what becomes of images) and Discrete
    actions (counted from 0 here, wherever they start there). An ending that is both is terminal.
    `info` holds what the environment's metadata declares (envs/infos.py), and nothing else. The
    first reset is seeded with `seed`, later ones continue from there.
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
        view, tells = self.interface.view, declared(venv.metadata)
        self.venv, self.seed = venv, self._spread(seed)
        self.cells = cells(venv.metadata) if "cell" in tells else None
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
        self.widths: dict[str, int] = {}  # of entries of `info` with an axis of their own
        self.picture: tuple[int, ...] | None = None  # shape of what render() showed

    @staticmethod
    def _spread(seed: int) -> int:
        """Gymnasium gives environment k the seed s + k: neighbouring seeds would share
        environments.
        """
        return int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)

    def reset(self) -> TimeStep:
        observation, info = self.venv.reset(seed=None if self.started else self.seed)
        self.started = True
        idle = np.zeros(self.spec.num_envs, bool)
        self.over = ~idle
        return self._time_step(observation, np.zeros(self.spec.num_envs), idle, idle, info)

    def step(self, action: Array) -> TimeStep:
        if not self.started:
            raise RuntimeError("step() before reset(): call reset() once to start the environments")
        return self._time_step(
            *self.venv.step(self.interface.taken(check_action(action, self.spec)))
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
        # Copies throughout: some vector environments hand out the arrays that they work in.
        self._check_size("observations", np.asarray(observation))
        self._check_size("rewards", np.asarray(reward))
        with np.errstate(all="ignore"):  # whatever the caller has set
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
        """A declared entry for all B environments: 0 for those that reset and do not tell it; None
        where none has ever told."""
        present = np.asarray(info.get(f"_{key}", np.full(len(first), key in info)), bool)
        if not (present | first).all():
            index = int(np.argmin(present | first))
            raise EnvironmentFault(
                f"the environment {self.spec.name} declares that it tells {key}, and environment"
                f" {index} did not in this step; put it into every step's info, or take it out of"
                " metadata['afterwit_tells']"
            )
        entry = ENTRIES[key]
        if present.any():
            values = (
                info[key]
                if present.all()
                else [value for value, there in zip(info[key], present, strict=True) if there]
            )
            given = checked(self.spec.name, key, values, int(present.sum()), self.cells)
        elif entry.many and key not in self.widths:
            return None
        else:
            given = np.zeros(
                (0, self.widths[key]) if entry.many else 0, bool if entry.flag else np.int64
            )
        if entry.many and self.widths.setdefault(key, given.shape[1]) != given.shape[1]:
            raise EnvironmentFault(
                f"the environment {self.spec.name} told {given.shape[1]} {key}, and before"
                f" {self.widths[key]}"
            )
        result = np.zeros((len(first), *given.shape[1:]), given.dtype)
        result[present] = given
        return result

    def render(self) -> Array:
        """What environment 0 shows a person: uint8 [height, width, 3], of the same size each time.
        Raises EnvironmentFault, in one line, where it shows something else."""
        name, mode = self.spec.name, self.venv.render_mode
        if mode not in MODES:
            raise EnvironmentFault(
                f"the environment {name} cannot be drawn: it was made with render_mode {mode!r};"
                " make it with 'rgb_array', which its constructor must take as an argument"
            )
        with blamed(f"the environment {name} cannot be drawn"):
            frames: Any = self.venv.render()
        frame = frames[0] if isinstance(frames, list | tuple) and frames else frames
        if isinstance(frame, list | tuple) and frame and isinstance(frame[-1], np.ndarray):
            frame = frame[-1]  # all frames since the last time
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
        if self.picture not in (None, frame.shape):
            raise EnvironmentFault(
                f"the environment {name} drew {frame.shape}, and before {self.picture}; all frames"
                " must be of one size"
            )
        self.picture = frame.shape
        return frame.copy()

    def close(self) -> None:
        """Raises EnvironmentFault, in one line, where an environment cannot be closed."""
        try:
            with blamed(f"the environment {self.spec.name} cannot be closed"):
                self.venv.close()
        finally:
            self.venv.unwrapped.closed = True  # Gymnasium would try again, and print a traceback


class Gym(GymVector):
    """Environments made by Gymnasium from a GymConfig, each in `wrappers` and then its noise;
    `options` go to its constructor.

    Environments that draw from the global state of `random`, NumPy or torch draw what belongs to
    `seed`: it is seeded while they are made, and again at the first reset.
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
        chosen = arguments(config.kwargs, KWARGS)
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
        if not self.started:
            seed_global(stream(self.run_seed, "global", "episodes"))
        return super().reset()
