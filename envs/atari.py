"""Sticky-action Atari over EnvPool (or ALE's own vector environment), with every setting that
changes the game written down.

EnvPool's own defaults (no sticky actions, FIRE pressed on reset, fewer actions) differ from the
protocol of Machado et al. (2018) that the exploration papers follow, and it checks little of what
it is given: some bad values are taken in silence, others end the process. So all settings are
explicit here, checked before EnvPool sees them, and recorded in `EnvSpec.semantics`.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
from gymnasium.spaces import Box

from afterwit.envs.arrays import Array
from afterwit.envs.atari_ale import ALEGames
from afterwit.envs.atari_noise import NOISES, FrameNoise, Overflow
from afterwit.envs.checks import THREADS, check_numbers, is_reading
from afterwit.envs.images import view_of
from afterwit.envs.interface import Interface
from afterwit.envs.noise import NOOP
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvSpec, TimeStep, check_action

# Where games keep room, x and y of the player, in their 128 bytes of RAM (Anand et al., 2019, arXiv
# 1906.08226; Pitfall's room by looking, and of it no more: its y is nonsense while the player comes
# back to life). Of other games coverage is not counted. Montezuma's rooms have the same numbers on
# each level.
POSITION_BYTES: dict[str, tuple[int, ...]] = {
    "MontezumaRevenge": (3, 42, 43),
    "Pitfall": (1,),
    "PrivateEye": (92, 63, 86),
    "Venture": (90, 85, 26),
}
SQUARE = 16  # of x and y, that make one cell of a room
SIDE = 256 // SQUARE  # cells of a room in a row and in a column
CELLS = 256 * SIDE**2
RENDER_SCALE = 4
Backend = Literal["envpool", "ale"]


@dataclass(frozen=True)
class AtariConfig:
    """A batch of Atari games."""

    game: str = "MontezumaRevenge"
    """The game, as EnvPool and ALE spell it: MontezumaRevenge, Pitfall, PrivateEye, …"""
    num_envs: int = 32
    """Games stepped together."""
    sticky: float = 0.25
    """Probability, per emulator frame, that the emulator repeats the action it executed on the
    frame before.
    """
    frame_skip: int = 4
    """Emulator frames that one agent step takes; the agent sees the maximum of the last two."""
    noop_max: int = 30
    """An episode opens with 1 to this many no-ops (emulator frames, drawn evenly)."""
    full_action_space: bool = True
    """All 18 joystick actions, instead of the ones the game reacts to."""
    fire_reset: bool = False
    """Press FIRE once when an episode opens. Off: the agent has to find the button."""
    episodic_life: bool = False
    """End the episode (terminal) on every lost life; the game itself goes on. Off: a life lost ends
    nothing.
    """
    image_size: int = 84
    """Height and width of the image, in pixels."""
    grayscale: bool = True
    """One channel a frame, instead of three (red, green, blue)."""
    frame_stack: int = 1
    """Frames in one observation, oldest first."""
    episode_frames: int = 108_000
    """Emulator frames after which an episode is truncated (108,000 are 30 minutes), no-ops at its
    start not counted.
    """
    noise: str = "none"
    """Laid on each new frame: none; pixel (random bytes, always on unless dose says otherwise);
    on-demand (the same, after a no-op); frozen (the control: a fixed pattern); walk (a random walk
    in every pixel, whose steps depend on the action)."""
    dose: float = 1.0
    """Strength of pixel, on-demand and frozen: the probability, or share of agent steps, with which
    the layer is on.
    """
    density: float = 0.5
    """Share of the pixels that pixel, on-demand and frozen cover."""
    noise_height: float = 1.0
    """Part of the frame that noise lies on, from the top: 1 is a full layer, 0.25 a strip. (Ours.)
    """
    walk_modulus: int = 50
    """The walk is taken modulo this."""
    walk_steps: tuple[int, int] = (1, 11)
    """A pixel's step, up or down, after an even and after an odd action. (Which parity takes which,
    the paper does not say.)
    """
    walk_overflow: Overflow = "clip"
    """What becomes of sums above 255: clip them, or wrap around. (Ours.)"""
    walk_restarts: bool = False
    """Draw the walk anew when an episode opens. Off: it goes on. (Ours.)"""
    threads: int = 0
    """Threads that step the games. 0: the backend chooses."""
    backend: Backend = "envpool"
    """What steps the games: envpool, or ale: ALE's own vector environment. envs/atari_ale.py tells
    where they differ.
    """

    def __post_init__(self) -> None:
        check_numbers(self, counts=("episode_frames",))
        for name in ("num_envs", "frame_skip", "image_size", "frame_stack"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.sticky < 1:
            raise ValueError(
                f"sticky is {self.sticky}; it is a probability, from 0 (off) to below 1 (0.25 is"
                " usual)"
            )
        if self.noop_max < 1:
            raise ValueError(
                f"noop_max is {self.noop_max}; EnvPool opens every episode with at least 1 no-op,"
                " so the least is 1"
            )
        if not self.frame_skip <= self.episode_frames < 2**31:
            raise ValueError(
                f"episode_frames is {self.episode_frames}; an episode has at least one agent step"
                f" ({self.frame_skip} emulator frames) and fewer than {2**31} frames"
            )
        if self.noise not in NOISES:
            raise ValueError(f"unknown Atari noise {self.noise!r}; choose from {', '.join(NOISES)}")
        for name in ("dose", "density", "noise_height"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, between 0 and 1")
        if not 1 <= self.walk_modulus <= 256:
            raise ValueError(f"walk_modulus is {self.walk_modulus}; it lies between 1 and 256")
        if not all(0 <= step <= self.walk_modulus for step in self.walk_steps):
            raise ValueError(
                f"walk_steps is {self.walk_steps}; each step lies between 0 and the modulus,"
                f" {self.walk_modulus}"
            )
        if not 0 <= self.threads <= THREADS:
            raise ValueError(
                f"threads is {self.threads}; give 0 (the backend chooses), or at most {THREADS}"
            )
        if self.backend not in get_args(Backend):
            raise ValueError(
                f"unknown Atari backend {self.backend!r}; choose from"
                f" {', '.join(get_args(Backend))}"
            )
        if self.backend == "ale" and self.episodic_life:
            raise ValueError(
                "episodic_life with backend 'ale' would start the whole game anew after each life;"
                " use backend 'envpool'"
            )
        if not is_reading() and self.game not in games():
            raise ValueError(f"unknown game {self.game!r}; {_suggestion(self.game)}")


@cache
def games() -> dict[str, str]:
    """The games EnvPool has, with the name of each one's ROM: {"MontezumaRevenge":
    "montezuma_revenge", …}.
    """
    # Imported here because EnvPool takes 0.6 s to import, which a maze should not pay.
    from envpool.atari.registration import atari_game_list

    return {"".join(word.capitalize() for word in rom.split("_")): rom for rom in atari_game_list}


# What Gymnasium's and ALE's names have around a game's: ALE/Pong-v5, PongNoFrameskip-v4,
# Pong-ram-v4, PongDeterministic-v0.
AROUND = re.compile(r"^ale/|(-ram)?(-?(noframeskip|deterministic))?(-v\d+)?$")


def _suggestion(game: str) -> str:
    spelled = {name.lower(): name for name in games()}
    plain = re.sub(r"[^a-z0-9]", "", AROUND.sub("", game.strip().lower()))
    begun = [name for name in spelled if len(plain) > 2 and name.startswith(plain)]
    close = (
        [plain]
        if plain in spelled
        else begun[:1] or difflib.get_close_matches(plain, spelled, n=1, cutoff=0.7)
    )
    return (
        f"did you mean {spelled[close[0]]!r}?"
        if close
        else f"EnvPool has {len(games())}, such as 'MontezumaRevenge' and 'Pong'"
    )


@cache
def action_names(game: str, full_action_space: bool) -> tuple[str, ...]:
    """ALE's names for a game's actions, in the order of their numbers: ("NOOP", "FIRE", "UP",
    …).
    """
    import ale_py

    if full_action_space:
        return tuple(ale_py.Action.__members__)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    rom = ale_py.roms.get_rom_path(games()[game])
    assert rom is not None, f"ale-py has no ROM of {game}"
    ale.loadROM(rom)
    return tuple(action.name for action in ale.getMinimalActionSet())


def make_pool(config: AtariConfig, seeds: list[int], settings: dict[str, Any]) -> tuple[Any, str]:
    """What steps the games, called as EnvPool is, and its version."""
    if config.backend == "ale":
        return ALEGames(games()[config.game], seeds, config.threads, settings), version("ale-py")
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


def frame_noise(config: AtariConfig, rng: np.random.Generator) -> FrameNoise:
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
    """To a game of Gymnasium's, whose frames AtariPreprocessing has made as small and as gray as
    these."""
    size = (config.image_size, config.image_size)
    one = size if config.grayscale else (*size, 3)
    stack = (config.frame_stack, *one) if config.frame_stack > 1 else one
    wrapping = (
        f"gymnasium.wrappers.AtariPreprocessing(env, noop_max={config.noop_max},"
        f" frame_skip={config.frame_skip}, screen_size={config.image_size},"
        f" grayscale_obs={config.grayscale})"
    )
    if config.frame_stack > 1:
        wrapping += f", then gymnasium.wrappers.FrameStackObservation(env, {config.frame_stack})"
    return Interface(view_of(Box(0, 255, stack, np.uint8)), num_actions, wrapping=wrapping)


def noise_semantics(config: AtariConfig) -> dict[str, Any]:
    """What is recorded of the noise, and nothing where there is none."""
    if config.noise == "none":
        return {}
    if config.noise == "walk":
        walk = {
            name: getattr(config, name)
            for name in ("walk_modulus", "walk_steps", "walk_overflow", "walk_restarts")
        }
        return {"noise": "walk", "noise_height": config.noise_height, **walk}
    told = {
        "noise": config.noise,
        "dose": config.dose,
        "density": config.density,
        "noise_height": config.noise_height,
    }
    return told | {
        "noise_action": NOOP if config.noise == "on-demand" and config.dose > 0 else None
    }


class Atari:
    """B Atari games as a VectorEnv. Observations are uint8 [B, frame_stack * (1 or 3), image_size,
    image_size].

    Rewards are the game's own, neither clipped nor scaled. The time limit truncates and never
    terminates (a game lost on the very step of the limit counts as truncated). The same seed gives
    the same rollout bit for bit for any number of threads, and environment k does not depend on how
    many others there are.

    `info` per environment: `lives`, `episode_frames` (emulator frames since the game began), with
    noise `noise_on`, and for the games of POSITION_BYTES `room` and (but for Pitfall) `cell`: which
    16x16 square of which room the player is in. The action that was executed is not among them:
    sticky actions are drawn inside the emulator, frame by frame, and EnvPool does not tell. Nor can
    EnvPool save a game's state: a resumed run starts new episodes. Processes that step games must
    be spawned; after a fork EnvPool hangs.
    """

    def __init__(self, config: AtariConfig, seed: int):
        self.config = config
        # EnvPool gives environment k the seed s + k, so that runs with neighbouring seeds would
        # share games.
        self.seeds = [
            int(state)
            for state in np.random.SeedSequence(seed).generate_state(config.num_envs) >> 1
        ]
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
        self.noise = (
            None
            if config.noise == "none"
            else frame_noise(config, np.random.default_rng(stream(seed, "noise")))
        )
        # ALE shows no RAM.
        self.position_bytes = (
            POSITION_BYTES.get(config.game, ()) if config.backend == "envpool" else ()
        )
        names = action_names(config.game, config.full_action_space)
        tells = ["lives", "episode_frames", *["noise_on"] * (self.noise is not None)]
        tells += ["room"] * bool(self.position_bytes) + ["cell"] * (len(self.position_bytes) == 3)
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
                **({"cells": CELLS} if len(self.position_bytes) == 3 else {}),
            },
        )
        self.over = np.ones(config.num_envs, bool)  # the next step is a reset
        self.frame: Array | None = None

    def reset(self) -> TimeStep:
        observation, info = self.pool.reset()
        idle = np.zeros(self.config.num_envs, bool)
        self.over = ~idle
        nothing = np.zeros(self.config.num_envs, np.int64)
        return self._time_step(
            nothing, observation, nothing.astype(np.float32), idle, idle.copy(), info
        )

    def step(self, action: Array) -> TimeStep:
        if self.frame is None:
            raise RuntimeError("step() before reset(): call reset() once to start the games")
        # Far out of range, an action would end the process; EnvPool itself does not check.
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
        if self.position_bytes:
            known["room"], *place = info["ram"][:, self.position_bytes].astype(np.int64).T
            if place:
                x, y = place
                known["cell"] = (known["room"] * SIDE + y // SQUARE) * SIDE + x // SQUARE
        return TimeStep(observation, first, reward, terminal, truncated, known)

    def render(self) -> Array:
        """The frame that the agent of game 0 saw last, each pixel as 4x4: uint8 [4 * image_size, 4
        * image_size, 3].
        """
        if self.frame is None:
            raise RuntimeError("render() before reset(): call reset() once to start the games")
        newest = self.frame[-1:].repeat(3, 0) if self.config.grayscale else self.frame[-3:]
        return newest.transpose(1, 2, 0).repeat(RENDER_SCALE, 0).repeat(RENDER_SCALE, 1)

    def close(self) -> None:
        self.pool.close()
