"""Any Gymnasium environment with images or vectors to see and numbered actions, as a VectorEnv."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from afterwit.envs.checks import check_numbers, is_reading
from afterwit.envs.gym_noise import Noise, check_noise, is_channels_last, resolved_dose
from afterwit.envs.maze import MazeConfig
from afterwit.envs.noise import NOOP
from afterwit.envs.specs import Array, EnvSpec, TimeStep, check_action, check_spaces

Wrapping = Callable[[gymnasium.Env[Any, Any]], gymnasium.Wrapper[Any, Any, Any, Any]]


@dataclass(frozen=True)
class GymConfig:
    """A batch of environments that Gymnasium knows."""

    id: str = "CartPole-v1"
    """Gymnasium's name; `package:name` imports the package that registers it first."""
    num_envs: int = 8
    """Environments stepped together, one after the other in this process."""
    episode_steps: int | None = None
    """Agent steps after which an episode is truncated. Unset: the limit that the environment was registered with."""
    render: bool = False
    """Make environments that can be rendered (video of an evaluation needs it); many ask for extra packages then."""
    noise: str = "none"
    """none; pixel / on-demand / frozen: a layer of noise lies on images, or beside the entries of vectors, at random /
    when noise_action is taken / in a fixed pattern and rhythm; sticky: the previous action is repeated."""
    dose: float | None = None
    """Strength of the noise, a probability per agent step (on-demand: per noise_action; frozen: share of frames).
    Unset: 1 for on-demand, 0.25 for the others. 0 is no noise, in observations of the same shape."""
    density: float = MazeConfig.density
    """Share of the picture that a noise layer covers, or of the entries beside a vector that carry noise."""
    noise_action: int = NOOP
    """The action, counted from 0, that on-demand noise answers to."""

    def __post_init__(self) -> None:
        check_numbers(self, counts=("episode_steps",))
        if self.num_envs < 1:
            raise ValueError(f"num_envs is {self.num_envs}; it must be at least 1")
        if self.episode_steps is not None and self.episode_steps < 1:
            raise ValueError(f"episode_steps is {self.episode_steps}; an episode has at least 1 agent step")
        check_noise(self.noise, self.dose, self.density, self.noise_action)
        if is_reading():
            return
        package, _, name = self.id.rpartition(":")
        try:
            if package:
                importlib.import_module(package)
            gymnasium.spec(name)
        except Exception as error:  # a package may raise anything while it is imported
            raise ValueError(f"unknown Gymnasium environment {self.id!r}: {error}") from error


class GymVector:
    """A gymnasium.vector.VectorEnv as our VectorEnv: same batch, same autoreset, channels first, float32.

    Takes Box observations (uint8, or floats, which become float32) and Discrete actions (counted from 0
    here, wherever they start there). A uint8 image whose last axis has at most 4 entries and whose first has
    more is taken as height, width, channels and turned channels first. An ending that is both is terminal.
    `info` keeps Gymnasium's numeric arrays with B rows and drops the rest; which there are may change from
    step to step. The first reset is seeded with `seed`, later ones continue from there.
    """

    def __init__(self, venv: gymnasium.vector.VectorEnv[Any, Any, Any], seed: int):
        name = venv.spec.id if venv.spec is not None else type(venv.unwrapped).__name__
        space, actions, mode = venv.single_observation_space, venv.single_action_space, venv.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(
                f"{name} has autoreset mode {mode}; make it with autoreset_mode=AutoresetMode.NEXT_STEP "
                "(or set metadata['autoreset_mode'] where that is what it does)"
            )
        if not isinstance(space, Box) or not (space.dtype == np.uint8 or np.issubdtype(space.dtype, np.floating)):
            raise ValueError(f"{name} has observation space {space}; wrap it so that it is a Box of uint8 or floats")
        if not isinstance(actions, Discrete):
            raise ValueError(f"{name} has action space {actions}; wrap it so that it is Discrete")
        check_spaces(name, space, actions)
        self.venv, self.seed, self.first_action = venv, self._spread(seed), int(actions.start)
        shape = space.shape
        self.channels_last = is_channels_last(space)
        self.spec = EnvSpec(
            name=name,
            num_envs=venv.num_envs,
            observation_shape=(shape[2], *shape[:2]) if self.channels_last else shape,
            observation_dtype="uint8" if space.dtype == np.uint8 else "float32",
            num_actions=int(actions.n),
            max_episode_steps=venv.spec.max_episode_steps if venv.spec is not None else None,
            semantics={"backend": "gymnasium", "backend_version": gymnasium.__version__, "autoreset": "next-step"},
        )
        self.over = np.ones(venv.num_envs, bool)  # the next step is a reset
        self.started = False

    @staticmethod
    def _spread(seed: int) -> int:
        """Gymnasium gives environment k the seed s + k: neighbouring seeds would share environments."""
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
        return self._time_step(*self.venv.step(check_action(action, self.spec) + self.first_action))

    def _time_step(self, observation: Array, reward: Array, terminal: Array, truncated: Array, info: dict[str, Any]) -> TimeStep:
        first, terminal = self.over, np.array(terminal, bool)
        truncated = np.array(truncated, bool) & ~terminal
        self.over = terminal | truncated
        if self.channels_last:
            observation = np.moveaxis(observation, -1, 1)
        numbers = {
            key: np.array(value)
            for key, value in info.items()
            if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.shape[:1] == (self.spec.num_envs,)
        }
        # Copies throughout: some vector environments hand out the arrays that they work in.
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite: the actor tells
            observed = np.array(observation, self.spec.observation_dtype, order="C")
            return TimeStep(observed, first, np.array(reward, np.float32), terminal, truncated, numbers)

    def render(self) -> Array:
        frames = self.venv.render() if self.venv.render_mode == "rgb_array" else None
        if frames is None:
            raise RuntimeError(f"{self.spec.name} was made with render_mode {self.venv.render_mode!r}; make it with 'rgb_array'")
        return np.asarray(frames[0], np.uint8)

    def close(self) -> None:
        self.venv.close()


class Gym(GymVector):
    """Environments made by Gymnasium from a GymConfig, each in `wrappers` and then its noise; `options` go to its constructor."""

    def __init__(self, config: GymConfig, seed: int, wrappers: tuple[Wrapping, ...] = (), **options: Any):
        self.config = config
        if config.noise != "none":
            noise = partial(Noise, noise=config.noise, dose=config.dose, density=config.density, noise_action=config.noise_action)
            wrappers = (*wrappers, noise)
        try:
            venv = gymnasium.make_vec(
                config.id,
                num_envs=config.num_envs,
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": AutoresetMode.NEXT_STEP},
                wrappers=wrappers,
                max_episode_steps=config.episode_steps,
                render_mode="rgb_array" if config.render else None,
                **options,
            )
        except (ImportError, gymnasium.error.Error) as error:  # a package that it needs, or a render mode that it lacks
            raise ValueError(f"{config.id!r} cannot be made: {error}") from error
        super().__init__(venv, seed)
        dose = resolved_dose(config.noise, config.dose)
        noise_action = config.noise_action if config.noise == "on-demand" and dose > 0 else None
        semantics = {"noise": config.noise, "dose": dose, "density": config.density, "noise_action": noise_action}
        self.spec = replace(self.spec, semantics={**self.spec.semantics, **semantics})
        if config.episode_steps is not None:
            self.spec = replace(self.spec, max_episode_steps=config.episode_steps)
