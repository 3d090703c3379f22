"""ALE's single games, and its vector environment as a second implementation of EnvPool's interface.

For the same game, seed and actions EnvPool and the vector environment agree bit for bit in
observations, rewards and endings, with sticky actions too, as long as their games open alike
(tests/envs/test_atari_ale.py). They differ in these points, and neither is wrong:

- EnvPool opens an episode with 1 to `noop_max` no-ops, ALE with 0 to `noop_max`. Each draws them in
  its own way.
- The frame of the step that reaches the time limit is not always the same.
- With `frame_stack` above 1, ALE fills the frames before the first with zeros. EnvPool repeats the
  first.
- ALE does not expose the game's RAM, so `info` has no `room` and no `cell`.
- With `episodic_life`, ALE restarts the whole game after a lost life. This setting is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afterwit.envs.arrays import Array


def emulator(rom: str, seed: int = 0, sticky: float = 0.0, sound: bool = False) -> Any:
    """One game in ALE's own interface, loaded and quiet.

    Args:
      rom: The name of its ROM, such as montezuma_revenge.
      seed: Of the emulator's draws, below 2**31.
      sticky: Probability, per emulator frame, that the previous action is repeated.
      sound: Whether it gives its sound.
    """
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", sticky)
    ale.setBool("sound_obs", sound)
    path = ale_py.roms.get_rom_path(rom)
    assert path is not None, f"ale-py has no ROM of {rom}"
    ale.loadROM(path)
    return ale


def open_with_noops(ale: Any, random: np.random.Generator, most: int) -> None:
    """Start a new game with 1 to `most` no-ops (emulator frames, drawn uniformly)."""
    noop = ale.getMinimalActionSet()[0]
    ale.reset_game()
    for _ in range(int(random.integers(1, most + 1))):
        ale.act(noop)
        if ale.game_over():
            ale.reset_game()


class ALEGames:
    """ALE's games with EnvPool's `reset` and `step`, without RAM.

    AtariConfig checks the arguments: bad ones hang ALE.
    """

    def __init__(self, rom: str, seeds: list[int], threads: int, settings: dict[str, Any]):
        import ale_py
        from ale_py.vector_env import AtariVectorEnv
        from gymnasium.vector import AutoresetMode

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.seeds, self.frame_skip = np.array(seeds, np.int64), settings["frame_skip"]
        self.games = AtariVectorEnv(
            rom,
            len(seeds),
            num_threads=threads,
            autoreset_mode=AutoresetMode.NEXT_STEP,
            maxpool=self.frame_skip > 1,
            # as in EnvPool, the no-ops at the start do not count
            max_num_frames_per_episode=settings["max_episode_steps"] * self.frame_skip,
            noop_max=settings["noop_max"] + 1,  # ALE draws a number below this one
            repeat_action_probability=settings["repeat_action_probability"],
            full_action_space=settings["full_action_space"],
            img_height=settings["img_height"],
            img_width=settings["img_width"],
            grayscale=settings["gray_scale"],
            stack_num=settings["stack_num"],
            frameskip=self.frame_skip,
            episodic_life=False,
            reward_clipping=False,
            use_fire_reset=settings["use_fire_reset"],
        )
        self.action_space = self.games.single_action_space
        self.length = np.zeros(len(seeds), np.int64)  # agent steps of the episode
        self.over = np.zeros(len(seeds), bool)
        self.seeded = False

    def reset(self) -> tuple[Array, dict[str, Array]]:
        # a second seeding would replay the same game
        observation, info = self.games.reset(seed=None if self.seeded else self.seeds)
        self.seeded = True
        self.length[:], self.over[:] = 0, False
        return self._frames(observation), self._info(info)

    def step(self, action: Array) -> tuple[Array, Array, Array, Array, dict[str, Array]]:
        observation, reward, terminal, truncated, info = self.games.step(action)
        self.length = np.where(self.over, 0, self.length + 1)
        self.over = terminal | truncated
        return (
            self._frames(observation),
            reward.astype(np.float32),
            terminal & ~truncated,
            truncated,
            self._info(info),
        )

    def _frames(self, observation: Array) -> Array:
        """Channels first: [B, stack, height, width], or [B, stack * 3, height, width] in colour."""
        if observation.ndim == 5:
            observation = np.moveaxis(observation, -1, 2)
            observation = observation.reshape(len(observation), -1, *observation.shape[3:])
        return np.array(observation)  # a copy, since ALE reuses its arrays

    def _info(self, info: dict[str, Any]) -> dict[str, Array]:
        return {"lives": info["lives"], "elapsed_step": self.length.copy()}

    def close(self) -> None:
        self.games.close()
