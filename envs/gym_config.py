"""The settings of Gymnasium environments."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

from afterwit.envs.assignments import arguments
from afterwit.envs.checks import check_counts, check_numbers, is_reading
from afterwit.envs.gym_noise import check_noise
from afterwit.envs.maze import MazeConfig
from afterwit.envs.noise import NOOP
from afterwit.envs.specs import blamed
from afterwit.envs.user_modules import import_module

KWARGS = "env.kwargs"


@dataclass(frozen=True)
class GymConfig:
    """A batch of environments that Gymnasium knows."""

    id: str = "CartPole-v1"
    """Gymnasium's name; `package:name` imports the package that registers it first."""
    num_envs: int = 8
    """Environments stepped together, one after the other in this process."""
    kwargs: tuple[str, ...] = ()
    """Arguments of the environment's constructor, as name=value: --env.kwargs size=8 mode=hard.
    Values are JSON or words."""
    episode_steps: int | None = None
    """Agent steps after which an episode is truncated. Unset: the limit that the environment was
    registered with.
    """
    render: bool = False
    """Make environments that can be rendered (video of an evaluation needs it); many ask for extra
    packages then.
    """
    noise: str = "none"
    """none; pixel / on-demand / frozen: a layer of noise lies on images, or beside the entries of
    vectors, at random / when noise_action is taken / in a fixed pattern and rhythm; sticky: the
    previous action is repeated."""
    dose: float | None = None
    """Strength of the noise, a probability per agent step (on-demand: per noise_action; frozen:
    share of frames). Unset: 1 for on-demand, 0.25 for the others. 0 is no noise, in observations of
    the same shape."""
    density: float = MazeConfig.density
    """Share of the picture that a noise layer covers, or of the entries beside a vector that carry
    noise.
    """
    noise_action: int = NOOP
    """The action, counted from 0, that on-demand noise answers to."""

    def __post_init__(self) -> None:
        check_counts(
            num_envs=self.num_envs,
            **({} if self.episode_steps is None else {"episode_steps": self.episode_steps}),
        )
        check_numbers(self, counts=("episode_steps",))
        check_noise(self.noise, self.dose, self.density, self.noise_action)
        if "render_mode" in arguments(self.kwargs, KWARGS):
            raise ValueError(
                f"{KWARGS} sets render_mode; leave it out: a video (afterwit evaluate --video) and"
                " env.render choose it"
            )
        if is_reading():
            return
        package, _, name = self.id.rpartition(":")
        with blamed(f"unknown Gymnasium environment {self.id!r}", ValueError):
            if package:
                import_module(package)
            gymnasium.spec(name)

    @property
    def label(self) -> str:
        """The environment and its arguments, as comparisons name it."""
        return f"{self.id} ({', '.join(self.kwargs)})" if self.kwargs else self.id
