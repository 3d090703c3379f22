"""Atari games with their sound, one by one through ALE's own interface, behind EnvPool's.

Neither EnvPool nor ALE's vector environment gives sound. Here `info` has the RAM, and `sound`: the
512 samples of each emulator frame of the step, of which 128 is silence. It is slower: one game at a
time, no threads.

For the same game, seed and actions it agrees with EnvPool in rewards, endings and RAM, with sticky
actions too, as long as games open alike. Frames are scaled by exact area averages, and differ from
EnvPool's by at most two grey levels (tests/envs/test_atari_sound.py). Each game draws its no-ops in
its own way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.atari_ale import emulator, open_with_noops

SAMPLES, SILENCE = 512, 128
BANDS = 32  # of a frame's spectrum


def area_means(values: Array, parts: int, axis: int) -> Array:
    """Averages of `parts` equal, also fractional, parts of an axis: exact, in float64."""
    values = np.moveaxis(values, axis, 0)
    size = len(values)
    sums = np.zeros((size + 2, *values.shape[1:]))  # one row more, read with weight 0
    sums[1:-1] = values
    sums = sums.cumsum(0)
    edges = np.linspace(0, size, parts + 1)
    whole = edges.astype(np.int64)
    share = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    at = sums[whole] * (1 - share) + sums[whole + 1] * share
    means: Array = np.moveaxis(np.diff(at, axis=0) * (parts / size), 0, axis)
    return means


def spectrum(sound: Array, bands: int = BANDS) -> Array:
    """Loudness by pitch: the logarithm of the largest magnitude in equal bands of frequency.

    Args:
      sound: uint8 [..., 512].
      bands: Bands of a frame; 1 to 256.

    Returns:
      float32 [..., bands], 0 for silence and about 1 for a full tone in the band.
    """
    waves = (sound.astype(np.float32) - SILENCE) / 128
    magnitude = np.abs(np.fft.rfft(waves))[..., 1:] * (2 / SAMPLES)
    parts = np.array_split(magnitude, bands, -1)
    loudness = np.stack([part.max(-1) for part in parts], -1)
    result: Array = (np.log1p(100 * loudness) / np.log(101)).astype(np.float32)
    return result


def silent_share(sound: Array) -> float:
    """The share of emulator frames that are silent: all of their samples are the same number.

    Args:
      sound: uint8 [..., 512].
    """
    return float((sound == sound[..., :1]).all(-1).mean())


class Game:
    """One game: its emulator, its no-ops and its frames."""

    def __init__(self, rom: str, seed: int, settings: dict[str, Any]):
        sticky = settings["repeat_action_probability"]
        self.ale, self.settings = emulator(rom, seed % 2**31, sticky, sound=True), settings
        full = settings["full_action_space"]
        self.actions: Sequence[Any] = (
            self.ale.getLegalActionSet() if full else self.ale.getMinimalActionSet()
        )
        self.random = np.random.default_rng(seed)
        self.size = settings["img_height"], settings["img_width"]
        self.stack: deque[Array] = deque(maxlen=settings["stack_num"])
        self.sound = np.full((settings["frame_skip"], SAMPLES), SILENCE, np.uint8)
        self.screens: list[Array] = []  # the last two that a step ended with
        self.length = 0

    def reset(self) -> None:
        """Start an episode with 1 to `noop_max` no-ops, and FIRE if it is asked for."""
        open_with_noops(self.ale, self.random, self.settings["noop_max"])
        self.sound[:] = SILENCE
        self.sound[-1] = self.ale.getAudio()
        self.length = 0
        self.stack.clear()
        screen = self.ale.getScreenGrayscale()
        self.screens = [screen, screen]
        self.stack.extend([self.scaled(screen)] * self.settings["stack_num"])

    def step(self, action: int) -> tuple[float, bool]:
        """Repeat an action for `frame_skip` emulator frames. Returns the reward, and the end."""
        skip, reward = self.settings["frame_skip"], 0.0
        self.sound[:] = SILENCE
        for frame in range(skip):
            reward += self.ale.act(self.actions[action])
            self.sound[frame] = self.ale.getAudio()
            over = self.ale.game_over()
            # as in EnvPool: a game that ends earlier shows the screens of the step before
            if frame >= skip - 2:
                self.screens[frame - skip] = self.ale.getScreenGrayscale()
            if over:
                break
        self.length += 1
        seen = np.maximum(*self.screens) if skip > 1 else self.screens[-1]
        self.stack.append(self.scaled(seen))
        return reward, over

    def scaled(self, screen: Array) -> Array:
        rows, columns = self.size
        means = area_means(area_means(screen, columns, 1), rows, 0)
        frame: Array = np.rint(means).astype(np.uint8)
        return frame


class SoundGames:
    """B games with EnvPool's `reset` and `step`. AtariConfig checks the settings."""

    def __init__(self, rom: str, seeds: list[int], settings: dict[str, Any]):
        self.games = [Game(rom, seed, settings) for seed in seeds]
        self.most = settings["max_episode_steps"]
        self.action_space = SimpleNamespace(n=len(self.games[0].actions))
        self.over = np.zeros(len(seeds), bool)

    def reset(self) -> tuple[Array, dict[str, Array]]:
        for game in self.games:
            game.reset()
        self.over[:] = False
        return self._frames(), self._info()

    def step(self, action: Array) -> tuple[Array, Array, Array, Array, dict[str, Array]]:
        reward = np.zeros(len(self.games), np.float32)
        terminal, truncated = np.zeros_like(self.over), np.zeros_like(self.over)
        for index, game in enumerate(self.games):
            if self.over[index]:  # next-step autoreset: this step only resets
                game.reset()
                continue
            reward[index], ended = game.step(int(action[index]))
            truncated[index] = game.length >= self.most
            terminal[index] = ended and not truncated[index]
        self.over = terminal | truncated
        return self._frames(), reward, terminal, truncated, self._info()

    def close(self) -> None:
        """Nothing is held."""

    def _frames(self) -> Array:
        return np.stack([np.stack(game.stack) for game in self.games])

    def _info(self) -> dict[str, Array]:
        return {
            "lives": np.array([game.ale.lives() for game in self.games]),
            "elapsed_step": np.array([game.length for game in self.games]),
            "ram": np.stack([game.ale.getRAM() for game in self.games]),
            "sound": np.stack([game.sound for game in self.games]),
        }
