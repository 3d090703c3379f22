"""What every world model is: trajectory and beliefs in, loss and raw intrinsic reward out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.envs.checks import check_numbers
from afterwit.world_models import data_parallel
from afterwit.world_models.running_scale import RunningMean
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class ModelConfig:
    """What every world model's config has. A model's own config derives from it and adds fields.

    `scale_fields` names the fields that say how large networks are, how far they look ahead and
    how fast they learn. All others say what the method is.
    """

    scale_fields: ClassVar[tuple[str, ...]] = ()

    loss_scale: float = 1.0
    """Weight of the world model's loss in the agent's total loss."""
    prioritise: bool = False
    """Pay only what lies above the running mean of the normalised reward."""

    def __post_init__(self) -> None:
        check_numbers(self, "world_model.")

    @classmethod
    def published(cls) -> Self | None:
        """The form that a paper publishes, for Atari; None where there is none."""
        return None

    def at_rate(self, learning_rate: float) -> Self:
        """This config where every optimiser steps at the agent's learning rate."""
        return self

    def check_batch(self, steps: int, environments: int) -> None:
        """Raise a ValueError where the model cannot learn from [steps, environments] at a time."""


def check_sizes(config: ModelConfig, *names: str) -> None:
    """Raise a ValueError where one of these fields is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(
                f"world_model.{name} is {getattr(config, name)}; it must be at least 1"
            )


@dataclass(frozen=True)
class WorldModelOutput:
    """One error tensor feeds both: `loss` has gradients, `reward` has none."""

    loss: Tensor  # []
    reward: Tensor  # [T, B]: raw intrinsic reward of the transition into obs[t+1]; 0 where not real
    # [T, B] each: what the reward is the sum of
    parts: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)  # [] each, detached


MODEL_OF: dict[type[ModelConfig], type[WorldModel]] = {}  # which model a config belongs to


class WorldModel(nn.Module, ABC):
    """Base class of every curiosity model.

    A model of your own derives from it, names its config class as `Config`, takes the arguments
    `(config, torso, spec, seed)` and implements `forward`. `package.module:Class` then names it
    wherever a model is chosen.
    """

    Config: ClassVar[type[ModelConfig]]
    predicts: ClassVar[str] = ""  # for tables: what the model predicts
    pays: ClassVar[str] = ""  # for tables: what its bonus is
    source: ClassVar[str] = ""  # the paper
    deviations: ClassVar[tuple[str, ...]] = ()  # what the published form does not share with it

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "Config" in cls.__dict__:
            if "name" in (field.name for field in fields(cls.Config)):
                raise TypeError(f"{cls.Config.__name__} has a field `name`, which is taken")
            owner = MODEL_OF.setdefault(cls.Config, cls)
            if owner is not cls:
                raise TypeError(
                    f"{cls.Config.__name__} is the config of {owner.__name__}; give"
                    f" {cls.__name__} a config class of its own"
                )

    def __init__(self, seed: int):
        super().__init__()
        # on the host, so that a seed means the same everywhere
        self.random = torch.Generator().manual_seed(seed)

    @abstractmethod
    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and reward of T steps of B environments, from beliefs [T+1, B, M] and embeddings
        [T+1, B, N].
        """

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        """The model's own instruments (see instruments.py) on one trajectory, [] each. Called under
        `watching`, without gradient.
        """
        return {}

    def after_step(self) -> None:
        """Called after each optimiser step: move targets and averages."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it lasts, `forward` leaves no trace: no statistic moves and random draws are taken
        back.
        """
        was_training, state = self.training, self.random.get_state()
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)
            self.random.set_state(state)


class TargetEncoder(nn.Module):
    """What is predicted: embeddings by a slow copy of an encoder, phi <- decay * phi + (1 - decay)
    * theta, standardised.

    A fresh encoder maps all that it sees to nearly the same direction. On unit vectors, as
    published, there is then next to nothing to predict, and everything is paid alike. So the
    embeddings' running mean is taken off, and they are measured in units of their running root mean
    square distance from it (ours; the papers do not say what keeps their embeddings apart). One
    unit for all, not a unit vector each: what the encoder hardly tells apart stays small, noise
    that means nothing too. Of an error, which is a difference, the mean drops out: it decides only
    where a predictor has to start, and as it follows the policy the target moves with it (the part
    of the error that all transitions share is about 1% on the maze). `standardise_decay` None
    compares directions, as published.
    """

    def __init__(self, online: nn.Module, size: int, decay: float, standardise_decay: float | None):
        super().__init__()
        self.slow = deepcopy(online).requires_grad_(False)
        self.decay = decay
        self.mean = None if standardise_decay is None else RunningMean(standardise_decay, (size,))
        self.square = None if standardise_decay is None else RunningMean(standardise_decay)
        self.online = (online,)  # in a tuple: the encoder belongs to the torso, not to this module

    @torch.no_grad()
    def forward(self, trajectory: Trajectory) -> Tensor:
        """Of each transition's outcome obs[t+1]: [T, B, N], no gradient. In training the statistics
        follow the real steps.
        """
        embeddings = self.slow(trajectory.obs[1:])
        if self.mean is None or self.square is None:
            return embeddings
        if self.training:
            self.mean.update(embeddings, trajectory.real)
        centred = embeddings - self.mean.mean
        if self.training:
            self.square.update(centred.square().sum(-1), trajectory.real)
        return centred / torch.where(self.square.weight > 0, (self.square.mean + 1e-8).sqrt(), 1.0)

    def coordinates(self, embeddings: Tensor) -> Tensor:
        """Predictions or targets [..., N], where squared distance is the error: as they are; not
        standardised, as unit vectors.
        """
        return F.normalize(embeddings, dim=-1) if self.mean is None else embeddings

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Squared distance, [..., N] to [...]. About 1 for a model that knows nothing but the mean;
        of unit vectors, in [0, 4].
        """
        return (self.coordinates(prediction) - self.coordinates(target)).square().sum(-1)

    def spread(self, target: Tensor, mask: Tensor) -> Tensor:
        """The error [] of the best guess that never changes, over targets [..., N] where `mask`
        [...]: reconstruction has to beat it.
        """
        guess = data_parallel.average(masked_mean(self.coordinates(target), mask))
        return masked_mean(self.error(guess.expand_as(target), target), mask)

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(
            list(self.slow.parameters()), list(self.online[0].parameters()), 1 - self.decay
        )
