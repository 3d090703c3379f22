"""Sticky-action Atari over EnvPool, or over ALE's own vector environment.

EnvPool's defaults differ from the protocol of Machado et al. (2018), which the exploration papers
follow: EnvPool has no sticky actions, presses FIRE on reset and uses fewer actions. EnvPool also
accepts some bad values silently, and ends the process on others. Therefore all settings are
explicit (`atari_config.py`), are checked before EnvPool reads them, and are recorded in
`EnvSpec.semantics`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from afterwit.envs.arrays import Array
from afterwit.envs.atari_ale import ALEGames, emulator
from afterwit.envs.atari_config import AtariConfig, games
from afterwit.envs.atari_noise import FrameNoise
from afterwit.envs.atari_places import CELLS, PLACES, Place, read_place
from afterwit.envs.atari_sound import SoundGames
from afterwit.envs.images import view_of
from afterwit.envs.interface import Interface
from afterwit.envs.noise import NOOP
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvSpec, TimeStep, check_action

RENDER_SCALE = 4


@cache
def action_names(game: str, full_action_space: bool) -> tuple[str, ...]:
    """ALE's names for a game's actions, in the order of their numbers: "NOOP", "FIRE", "UP", …."""
    import ale_py

    if full_action_space:
        return tuple(ale_py.Action.__members__)
    return tuple(action.name for action in emulator(games()[game]).getMinimalActionSet())


def make_pool(config: AtariConfig, seeds: list[int], settings: dict[str, Any]) -> tuple[Any, str]:
    """Make the object that steps the games, with EnvPool's interface. Also returns its version."""
    if config.backend == "ale":
        return ALEGames(games()[config.game], seeds, config.threads, settings), version("ale-py")
    if config.backend == "sound":
        return SoundGames(games()[config.game], seeds, settings), version("ale-py")
    import envpool

    task = f"{config.game}-v5"
    pool = envpool.make(
        task,
        env_type="gymnasium",
        num_envs=config.num_envs,
        num_threads=config.threads,
        seed=seeds,
        **settings,
    )
    return pool, version("envpool")


def make_frame_noise(config: AtariConfig, rng: np.random.Generator) -> FrameNoise:
    """Make the noise that the config asks for."""
    return FrameNoise(
        config.noise,
        config.num_envs,
        1 if config.grayscale else 3,
        config.image_size,
        rng,
        dose=config.dose,
        density=config.density,
        height=config.noise_height,
        walk_modulus=config.walk_modulus,
        walk_steps=config.walk_steps,
        walk_overflow=config.walk_overflow,
        walk_restarts=config.walk_restarts,
    )


def frames_interface(config: AtariConfig, num_actions: int) -> Interface:
    """Describe how an Atari game of Gymnasium must be wrapped to look like these games.

    The agent can then act in that environment. Gymnasium's AtariPreprocessing gives frames of the
    same size and colour.
    """
    size = (config.image_size, config.image_size)
    frame = size if config.grayscale else (*size, 3)
    stack = (config.frame_stack, *frame) if config.frame_stack > 1 else frame
    wrapping = (
        f"gymnasium.wrappers.AtariPreprocessing(env, noop_max={config.noop_max},"
        f" frame_skip={config.frame_skip}, screen_size={config.image_size},"
        f" grayscale_obs={config.grayscale})"
    )
    if config.frame_stack > 1:
        wrapping += f", then gymnasium.wrappers.FrameStackObservation(env, {config.frame_stack})"
    return Interface(view_of(Box(0, 255, stack, np.uint8)), num_actions, wrapping=wrapping)


def noise_semantics(config: AtariConfig) -> dict[str, Any]:
    """What `EnvSpec.semantics` records about the noise. Empty without noise."""
    if config.noise == "none":
        return {}
    if config.noise == "walk":
        walk = {
            name: getattr(config, name)
            for name in ("walk_modulus", "walk_steps", "walk_overflow", "walk_restarts")
        }
        return {"noise": "walk", "noise_height": config.noise_height, **walk}
    return {
        "noise": config.noise,
        "dose": config.dose,
        "density": config.density,
        "noise_height": config.noise_height,
        "noise_action": NOOP if config.noise == "on-demand" and config.dose > 0 else None,
    }


class Atari:
    """B Atari games as a VectorEnv.

    Observations are uint8 [B, frame_stack * (1 or 3), image_size, image_size].

    Rewards are the game's own. They are neither clipped nor scaled. The time limit truncates and
    never terminates: a game lost on the very step of the limit counts as truncated.

    The same seed gives the same rollout bit for bit, for any number of threads. Game k does not
    depend on the number of games; the noise on it does.

    `info` per environment:

    - `lives`.
    - `episode_frames`: emulator frames since the game began.
    - `noise_on`: only with noise.
    - `room`: for the games in PLACES except Freeway, which has one.
    - `cell`: for the same games except Pitfall, and for Freeway. It says which 16x16 square of
      which room the player is in.

    The executed action is not in `info`: the emulator draws sticky actions frame by frame, and
    EnvPool does not report them. EnvPool cannot save a game's state, so a resumed run starts new
    episodes. Processes that step games must be spawned: EnvPool hangs after a fork.

    Args:
      config: The game and its settings.
      seed: Seed of all games and of the noise.
    """

    def __init__(self, config: AtariConfig, seed: int):
        self.config = config
        # Given one seed s, EnvPool seeds environment k with s + k. Runs with neighbouring seeds
        # would then share games.
        states = np.random.SeedSequence(seed).generate_state(config.num_envs) >> 1
        self.seeds = [int(state) for state in states]
        settings: dict[str, Any] = {
            "repeat_action_probability": config.sticky,
            "frame_skip": config.frame_skip,
            "noop_max": config.noop_max,
            "full_action_space": config.full_action_space,
            "use_fire_reset": config.fire_reset,
            "episodic_life": config.episodic_life,
            "zero_discount_on_life_loss": False,
            "reward_clip": False,
            "max_episode_steps": config.episode_frames // config.frame_skip,  # agent steps
            "img_height": config.image_size,
            "img_width": config.image_size,
            "gray_scale": config.grayscale,
            "use_inter_area_resize": True,
            "stack_num": config.frame_stack,
            "mode": -1,  # the game's own default
            "difficulty": -1,
        }
        self.pool, backend_version = make_pool(config, self.seeds, settings)
        self.noise: FrameNoise | None = None
        if config.noise != "none":
            self.noise = make_frame_noise(config, np.random.default_rng(stream(seed, "noise")))
        # ALE's vector environment does not expose the RAM.
        self.place = PLACES.get(config.game, Place()) if config.backend != "ale" else Place()
        squares = self.place.y is not None
        names = action_names(config.game, config.full_action_space)
        tells = ["lives", "episode_frames", *["noise_on"] * (self.noise is not None)]
        tells += ["room"] * bool(self.place.room) + ["cell"] * squares
        assert len(names) == self.pool.action_space.n, (
            f"{config.backend} and ALE disagree about the actions"
        )
        self.spec = EnvSpec(
            name=f"atari-{config.game}",
            num_envs=config.num_envs,
            observation_shape=(
                config.frame_stack * (1 if config.grayscale else 3),
                config.image_size,
                config.image_size,
            ),
            observation_dtype="uint8",
            num_actions=len(names),
            frames_per_step=config.frame_skip,
            max_episode_steps=settings["max_episode_steps"],
            action_names=names,
            tells=tuple(tells),
            interface=frames_interface(config, len(names)),
            semantics={
                "backend": config.backend,
                "backend_version": backend_version,
                "task": f"{config.game}-v5",
                **settings,
                "sticky_drawn": "per emulator frame",
                "frame_pooling": "maximum of the last two" if config.frame_skip > 1 else "none",
                "episode_frames": config.episode_frames,
                "autoreset": "next-step",
                **noise_semantics(config),
                **({"cells": CELLS} if squares else {}),
            },
        )
        self.over = np.ones(config.num_envs, bool)  # the next step is a reset
        self.frame: Array | None = None
        self.ram: Array | None = None  # uint8 [B, 128], of the last step; ALE's has none
        # uint8 [B, frame_skip, 512]: the last step's samples; with backend "sound" only
        self.sound: Array | None = None

    def reset(self) -> TimeStep:
        """Start new episodes in all games."""
        observation, info = self.pool.reset()
        idle = np.zeros(self.config.num_envs, bool)
        self.over = ~idle
        nothing = np.zeros(self.config.num_envs, np.int64)
        return self._time_step(
            nothing, observation, nothing.astype(np.float32), idle, idle.copy(), info
        )

    def step(self, action: Array) -> TimeStep:
        """Take one agent step with integer actions [B]. See VectorEnv."""
        if self.frame is None:
            raise RuntimeError("step() before reset(): call reset() once to start the games")
        # EnvPool does not check actions. An action far out of range would end the process.
        action = check_action(action, self.spec)
        return self._time_step(action, *self.pool.step(action.astype(np.int32)))

    def _time_step(
        self,
        action: Array,
        observation: Array,
        reward: Array,
        terminal: Array,
        truncated: Array,
        info: dict[str, Any],
    ) -> TimeStep:
        first, self.over = self.over, terminal | truncated
        known = {}
        if self.noise is not None:
            observation, known["noise_on"] = self.noise.cover(observation, action, first)
        self.frame = observation[0].copy()
        known |= {
            "lives": info["lives"].astype(np.int64),
            "episode_frames": info["elapsed_step"].astype(np.int64) * self.config.frame_skip,
        }
        self.ram = info["ram"].copy() if "ram" in info else None
        self.sound = info.get("sound")
        known |= read_place(self.ram, self.place)
        return TimeStep(observation, first, reward, terminal, truncated, known)

    def render(self) -> Array:
        """The last frame that the agent of game 0 saw, magnified 4 times.

        Returns:
          uint8 [4 * image_size, 4 * image_size, 3].

        Raises:
          RuntimeError: `reset` has not been called.
        """
        if self.frame is None:
            raise RuntimeError("render() before reset(): call reset() once to start the games")
        newest = self.frame[-1:].repeat(3, 0) if self.config.grayscale else self.frame[-3:]
        return newest.transpose(1, 2, 0).repeat(RENDER_SCALE, 0).repeat(RENDER_SCALE, 1)

    def close(self) -> None:
        """End the games' threads."""
        self.pool.close()
