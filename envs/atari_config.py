"""The settings of sticky-action Atari, checked before an emulator sees them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from afterwit.envs.atari_noise import NOISES, Overflow
from afterwit.envs.checks import THREADS, check_numbers, is_reading

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
