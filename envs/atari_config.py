"""The settings of sticky-action Atari, checked before an emulator sees them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from afterwit.envs.atari_noise import NOISES, Overflow
from afterwit.envs.checks import THREADS, check_numbers, is_reading

Backend = Literal["envpool", "ale", "sound"]


@dataclass(frozen=True)
class AtariConfig:
    """A batch of Atari games."""

    game: str = "MontezumaRevenge"
    """The game's name in EnvPool and ALE, such as MontezumaRevenge, Pitfall or PrivateEye."""
    num_envs: int = 32
    """Number of games that are stepped together."""
    sticky: float = 0.25
    """Probability, per emulator frame, that the emulator repeats the action of the previous frame.
    0 turns sticky actions off."""
    frame_skip: int = 4
    """Emulator frames per agent step. The agent sees the maximum of the last two."""
    noop_max: int = 30
    """An episode opens with 1 to this many no-ops (emulator frames, drawn uniformly)."""
    full_action_space: bool = True
    """Use all 18 joystick actions. Off: only those that the game reacts to."""
    fire_reset: bool = False
    """Press FIRE once when an episode opens. Off: the agent must find the button."""
    episodic_life: bool = False
    """End the episode (terminal) at each lost life, while the game goes on. Off: losing a life ends
    nothing."""
    image_size: int = 84
    """Height and width of the image, in pixels."""
    grayscale: bool = True
    """One channel per frame. Off: three (red, green, blue)."""
    frame_stack: int = 1
    """Frames per observation, oldest first."""
    episode_frames: int = 108_000
    """Emulator frames after which an episode is truncated (108,000 are 30 minutes). The no-ops at
    its start do not count."""
    noise: str = "none"
    """Noise on each new frame: none; pixel (random bytes); on-demand (random bytes after a no-op);
    frozen (a fixed pattern, the control); walk. walk is a random walk in every pixel, whose step
    size depends on the action."""
    dose: float = 1.0
    """Strength of pixel, on-demand and frozen: probability (frozen: share) of agent steps with
    noise. 0 is no noise, 1 is noise each time."""
    density: float = 0.5
    """Share of the pixels that pixel, on-demand and frozen cover."""
    noise_height: float = 1.0
    """Share of the frame's height with noise, from the top. 1 covers the full frame, 0.25 a strip
    (our option; not published)."""
    walk_modulus: int = 50
    """The walk is taken modulo this number."""
    walk_steps: tuple[int, int] = (1, 11)
    """A pixel's step, up or down, after an even action and after an odd action. Jarrett et al.
    (2023) do not say which parity takes which step."""
    walk_overflow: Overflow = "clip"
    """What happens to sums above 255: clip them, or wrap them around (our choice; not published).
    """
    walk_restarts: bool = False
    """Draw a new walk when an episode opens. Off: the walk continues (our default; not published).
    """
    threads: int = 0
    """Threads that step the games. 0: the backend chooses."""
    backend: Backend = "envpool"
    """What steps the games: envpool; ale (ALE's own vector environment; envs/atari_ale.py lists the
    differences); sound (ALE's games one by one, slower, with their sound: envs/atari_sound.py)."""

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
        if self.walk_overflow not in get_args(Overflow):
            raise ValueError(
                f"unknown walk_overflow {self.walk_overflow!r}; choose from"
                f" {', '.join(get_args(Overflow))}"
            )
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
        if self.backend == "sound":
            for name, good in (
                ("episodic_life", False),
                ("fire_reset", False),
                ("grayscale", True),
            ):
                if getattr(self, name) != good:
                    raise ValueError(
                        f"{name} is {getattr(self, name)}, which backend 'sound' does not have; use"
                        " backend 'envpool'"
                    )
        if not is_reading() and self.game not in games():
            raise ValueError(f"unknown game {self.game!r}; {_suggestion(self.game)}")


@cache
def games() -> dict[str, str]:
    """The games that EnvPool has, with the names of their ROMs.

    Returns:
      {"MontezumaRevenge": "montezuma_revenge", …}.
    """
    # Late import: EnvPool takes 0.6 s to import, and the other environments do not need it.
    from envpool.atari.registration import atari_game_list

    return {"".join(word.capitalize() for word in rom.split("_")): rom for rom in atari_game_list}


# Prefixes and suffixes around a game's name in Gymnasium and ALE: ALE/Pong-v5,
# PongNoFrameskip-v4, Pong-ram-v4, PongDeterministic-v0.
AFFIXES = re.compile(r"^ale/|(-ram)?(-?(noframeskip|deterministic))?(-v\d+)?$")


def _suggestion(game: str) -> str:
    spellings = {name.lower(): name for name in games()}
    bare = re.sub(r"[^a-z0-9]", "", AFFIXES.sub("", game.strip().lower()))
    prefixed = [name for name in spellings if len(bare) > 2 and name.startswith(bare)]
    candidates = (
        [bare]
        if bare in spellings
        else prefixed[:1] or difflib.get_close_matches(bare, spellings, n=1, cutoff=0.7)
    )
    return (
        f"did you mean {spellings[candidates[0]]!r}?"
        if candidates
        else f"EnvPool has {len(games())}, such as 'MontezumaRevenge' and 'Pong'"
    )
