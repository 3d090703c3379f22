"""The data of the probe: real transitions, their embeddings, and their places and noise."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from afterwit.agents.actor import Actor
from afterwit.envs.arrays import Array
from afterwit.envs.make import EnvConfig
from afterwit.envs.maze import BLOCK, NOISE, MazeConfig, build_map
from afterwit.envs.seeds import stream
from afterwit.runs.training.run import Run
from afterwit.world_models.models.byol_hindsight import BYOLHindsight


@dataclass(frozen=True)
class Reading:
    """What the environment declares of N outcomes: places, and what is noise in them."""

    # int [N]: equal if the noise in view is equal. None: everything in view counts
    noise: Array | None = None
    noisy: Array | None = None  # bool [N]: noise is in view. None: unknown
    place: Array | None = None  # int [N], below P. None: unknown
    alike: Array | None = None  # bool [P, P]: places that count as the same


@dataclass(frozen=True)
class Bank:
    """N real transitions of a policy, and what the model computes for them."""

    frames: Array  # [S+1, B, ...]: all observations
    step: Array  # int [N]: frames[step, env] was seen, frames[step + 1, env] followed
    env: Array  # int [N]
    action: Array  # int [N]
    ahead: Tensor  # [N, M]: b_{t,1}, the open-loop belief after the action
    latent: Tensor  # [N, Z]: z
    # [N, E]: target embedding of what followed, where squared distance is the model's error
    target: Tensor
    reading: Reading
    info: Mapping[str, Array]  # [N, ...]: info of what followed

    def __len__(self) -> int:
        return len(self.step)

    def seen(self, index: int) -> Array:
        return self.frames[self.step[index], self.env[index]]

    def followed(self, index: int) -> Array:
        return self.frames[self.step[index] + 1, self.env[index]]

    @cached_property
    def frame_number(self) -> Array:
        """int [S+1, B]: equal observations have the same number."""
        numbers: dict[bytes, int] = {}
        return np.array(
            [
                [numbers.setdefault(frame.tobytes(), len(numbers)) for frame in row]
                for row in self.frames
            ]
        )

    @cached_property
    def _distinct(self) -> tuple[Array, Array]:
        _, representative, outcome = np.unique(
            self.frame_number[self.step + 1, self.env], return_index=True, return_inverse=True
        )
        return representative, outcome

    @property
    def representative(self) -> Array:
        """int [D]: a transition into each of the D distinct observations that followed."""
        return self._distinct[0]

    @property
    def outcome(self) -> Array:
        """int [N], below D: which of the distinct observations followed."""
        return self._distinct[1]

    @cached_property
    def noise(self) -> Array:
        return self.outcome if self.reading.noise is None else self.reading.noise

    @cached_property
    def outcomes(self) -> Tensor:
        """[D, E]: target embeddings of the distinct outcomes."""
        return self.target[torch.from_numpy(self.representative)]

    @cached_property
    def places(self) -> Array:
        """bool [D, P]: the places of each distinct outcome. Several places may look the same."""
        assert self.reading.place is not None and self.reading.alike is not None
        met = np.zeros((len(self.representative), len(self.reading.alike)), bool)
        met[self.outcome, self.reading.place] = True
        return met


def gather(run: Run, steps: int, seed: int, progress: bool) -> Bank:
    """Play at least `steps` agent steps with the acting policy.

    Returns:
      The real transitions among them.
    """
    learner, model, batch = run.learner, run.learner.world_model, run.spec.num_envs
    assert isinstance(model, BYOLHindsight)
    actor = Actor(run.actors[0].env, learner.policy, run.config.unroll_length, seed, learner.device)
    actor.set_weights(learner.acting, learner.version)
    frames: list[Tensor] = []
    parts: list[tuple[Tensor, ...]] = []
    infos: list[Mapping[str, Tensor]] = []
    with (
        torch.no_grad(),
        model.watching(),
        tqdm(
            total=steps,
            unit="step",
            desc="playing",
            disable=not progress,
            dynamic_ncols=True,
            file=sys.stdout,
        ) as bar,
    ):
        model.random.manual_seed(stream(seed, "probe", "noise"))  # `watching` restores it
        while len(parts) * run.config.unroll_length * batch < steps:
            trajectory = actor.unroll()
            seen, beliefs, _ = learner.perceive(trajectory)
            target, ahead, state = model.unroll(seen, beliefs)
            target, ahead, state = target[0], ahead[0], state[0]  # one step ahead
            latent, _ = model.generate(state, model.foresee(ahead), target)
            parts.append((trajectory.real, trajectory.action, ahead, latent, target))
            frames.append(trajectory.obs[:-1])
            infos.append(trajectory.info)
            bar.update(min(trajectory.action.numel(), steps - bar.n))
        frames.append(trajectory.obs[-1:])
    real, action, ahead, latent, target = (torch.cat(part) for part in zip(*parts, strict=True))
    if real.sum() < 2:
        raise ValueError(
            f"steps is {steps}; that gave {int(real.sum())} transitions, and a probe needs at least"
            " 2; play more steps"
        )
    names = [name for name in infos[0] if all(name in info for info in infos)]
    info = {name: torch.cat([info[name] for info in infos])[real].numpy() for name in names}
    target = model.target.coordinates(target)
    observations, (step, env) = torch.cat(frames).numpy(), real.nonzero(as_tuple=True)
    reading = read(run.config.env, observations[step.numpy() + 1, env.numpy()], info)
    return Bank(
        observations,
        step.numpy(),
        env.numpy(),
        action[real].numpy(),
        ahead[real],
        latent[real],
        target[real],
        reading,
        info,
    )


def read(env: EnvConfig, outcome: Array, info: Mapping[str, Array]) -> Reading:
    """Return places and noise of outcomes [N, ...], as far as the environment declares them.

    For the maze these are its cells and noise, for a game its rooms if they are known.
    """
    if isinstance(env, MazeConfig):
        noisy = info["noise_on"] | (info["block_in_view"] & (env.noise == "brownian"))
        # Sticky noise moves the agent. So any difference may be noise, and two different moves lead
        # to cells that are up to two apart.
        if env.noise == "sticky":
            return Reading(None, noisy, info["cell"], alike_cells(2, env.layout))
        noise = outcome[:, [BLOCK, NOISE]].reshape(len(outcome), -1)
        return Reading(
            np.unique(noise, axis=0, return_inverse=True)[1].reshape(-1),
            noisy,
            info["cell"],
            alike_cells(1, env.layout),
        )
    place = info.get("room")
    alike = None if place is None else np.eye(int(place.max()) + 1, dtype=bool)
    return Reading(None, info.get("noise_on"), place, alike)


def alike_cells(distance: int, layout: str) -> Array:
    """Return which cells of the maze count as the same place, bool [P, P].

    They look the same except for blocks and noise, or they are at most `distance` cells apart, also
    diagonally.
    """
    maze = build_map(layout)
    cells = np.stack(np.divmod(np.arange(len(maze.views)), maze.width), 1)
    look = np.unique(maze.views.reshape(len(cells), -1), axis=0, return_inverse=True)[1].reshape(-1)
    alike: Array = (np.abs(cells[:, None] - cells).max(-1) <= distance) | (look[:, None] == look)
    return alike


def split(bank: Bank) -> dict[str, Array]:
    """Return the indices of transitions with and without noise in view.

    All of them if the environment does not declare noise.
    """
    noisy = bank.reading.noisy
    if noisy is None:
        return {"all": np.arange(len(bank))}
    return {"noisy": np.flatnonzero(noisy), "quiet": np.flatnonzero(~noisy)}


@dataclass(frozen=True)
class Comparison:
    """Q reconstructions beside the real outcomes: the nearest, its place and its noise."""

    nearest: Array  # int [Q]: a transition into the nearest outcome
    distance: Array  # [Q]: squared distance between reconstruction and nearest outcome
    error: Array  # [Q]: the same between reconstruction and what really followed the query
    # int [Q]: rank of what really followed among the distinct outcomes; 1 is the nearest
    rank: Array
    changed: Array  # bool [Q]: the noise is not the query's
    kept: Array | None  # bool [Q]: the place is the query's
    follows: Array | None  # bool [Q]: the place is the other transition's


@dataclass(frozen=True)
class Row:
    """One query of the figure.

    It is shown with its own z, with `swaps` others, and with one of its own kind.
    """

    query: int
    kind: str
    other: Array  # int [swaps + 2]: whose z
    looks: Comparison  # of swaps + 2 reconstructions


TITLES = {"noisy": "noise in view", "quiet": "no noise in view", "all": "all transitions"}
