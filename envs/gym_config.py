"""The settings of Gymnasium environments."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

from afterwit.envs.assignments import constructor_arguments
from afterwit.envs.checks import check_counts, check_numbers, is_reading
from afterwit.envs.gym_noise import check_noise
from afterwit.envs.maze import MazeConfig
from afterwit.envs.noise import NOOP
from afterwit.envs.specs import reraise_as
from afterwit.envs.user_modules import import_module

KWARGS = "env.kwargs"


@dataclass(frozen=True)
class GymConfig:
    """A batch of Gymnasium environments."""

    id: str = "CartPole-v1"
    """Gymnasium's name of the environment. `package:name` first imports the package that registers
    it."""
    num_envs: int = 8
    """Number of environments, stepped one after the other in this process."""
    kwargs: tuple[str, ...] = ()
    """Arguments of the environment's constructor as name=value: --env.kwargs size=8 mode=hard.
    Values are read as JSON, or else as strings."""
    episode_steps: int | None = None
    """Agent steps after which an episode is truncated. Unset: the environment's registered limit.
    """
    render: bool = False
    """Make environments that can be rendered, as the video of an evaluation needs. Many then need
    extra packages."""
    noise: str = "none"
    """none; pixel, on-demand or frozen: a noise layer on images, or beside the entries of vectors;
    sticky: the previous action is repeated. The layer shows at random (pixel), when noise_action is
    taken (on-demand), or in a fixed pattern and rhythm (frozen)."""
    dose: float | None = None
    """Strength of the noise: probability per agent step (on-demand: per noise_action; frozen: share
    of frames). Unset: 1 for on-demand, 0.25 for the others; 0: no noise, in observations of the
    same shape."""
    density: float = MazeConfig.density
    """Share of the image that a noise layer covers, or of the entries beside a vector that carry
    noise."""
    noise_action: int = NOOP
    """The action, counted from 0, that triggers on-demand noise."""

    def __post_init__(self) -> None:
        check_counts(
            num_envs=self.num_envs,
            **({} if self.episode_steps is None else {"episode_steps": self.episode_steps}),
        )
        check_numbers(self, counts=("episode_steps",))
        check_noise(self.noise, self.dose, self.density, self.noise_action)
        if "render_mode" in constructor_arguments(self.kwargs, KWARGS):
            raise ValueError(
                f"{KWARGS} sets render_mode; leave it out: a video (afterwit evaluate --video) and"
                " env.render choose it"
            )
        if is_reading():
            return
        package, _, name = self.id.rpartition(":")
        with reraise_as(f"unknown Gymnasium environment {self.id!r}", ValueError):
            if package:
                import_module(package)
            gymnasium.spec(name)

    @property
    def label(self) -> str:
        """The environment and its arguments, as comparisons name it."""
        return f"{self.id} ({', '.join(self.kwargs)})" if self.kwargs else self.id
