"""The base class of world models: trajectory and beliefs in, loss and raw intrinsic reward out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.envs.checks import check_numbers
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.episodic_memory import EpisodicMemory
from afterwit.world_models.expected_error import MOST_ACTIONS, RATE, ExpectedError, Form, Takes
from afterwit.world_models.model_output import WorldModelOutput, check_output
from afterwit.world_models.running_scale import RunningMean
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class ModelConfig:
    """What every world model's config has. A model's own config derives from it and adds fields.

    `scale_fields` names the fields that set the size of the networks, the horizon and the learning
    rates. All other fields define the method.
    """

    scale_fields: ClassVar[tuple[str, ...]] = ()

    loss_scale: float = 1.0
    """Weight of the world model's loss in the agent's total loss."""
    prioritise: bool = False
    """Pay only the part of the normalised reward that is above its running mean."""
    expected_error: Form = "off"
    """Pay for more error than is usual here (our option; not published). difference: the error less
    its expectation, given belief and action; relative: that over the expectation; log: the
    difference of logarithms; off: the error itself, as published."""
    expected_floor: float = 0.02
    """Error below which relative and log see no differences, as a share of the error of a model
    that knows nothing."""
    expected_rate: float = RATE
    """Multiple of the learning rate at which the expected error is learnt. Low: what is new is paid
    for longer, and what is always unpredictable, too. High: neither."""
    expected_takes: Takes = "all"
    """What is taken off of the expected error. all: all of it; action: what the action adds to the
    mean of all actions in the same place. So noise which an action makes pays no more than anything
    else there, and a place pays as long as the model errs there more than elsewhere."""
    absolute_zero: float = 0.0
    """Smallest deviation that errors are divided by, as a share of the error of a model that knows
    nothing. So pay ends when everything is known (our option; not published). 0: no such floor."""
    dispersion_weight: float = 0.0
    """Weight of a loss that spreads embeddings evenly over the sphere (regulariser.py; after
    MSBReg, our form). 0: no such loss."""
    brownian_weight: float = 0.0
    """Weight of a loss that moves each embedding in a random direction (regulariser.py; after
    MSBReg; 0.1 in a third party's code). 0: no such loss."""

    def __post_init__(self) -> None:
        check_numbers(self, "world_model.")
        check_choices(self, expected_error=Form, expected_takes=Takes)
        if self.loss_scale < 0:
            raise ValueError(f"world_model.loss_scale is {self.loss_scale}; it must be at least 0")
        if self.expected_error != "off" and (reason := self.below_zero()):
            raise ValueError(
                f"world_model.expected_error is {self.expected_error}, but {reason}, and only an"
                " error has an expected size; leave it off"
            )
        if self.expected_takes == "action" and self.expected_error in ("off", "relative"):
            raise ValueError(
                "world_model.expected_takes is action, but expected_error is"
                f" {self.expected_error}; action goes with difference or log"
            )
        if not self.expected_floor > 0:
            raise ValueError(
                f"world_model.expected_floor is {self.expected_floor}; it must be above 0"
            )
        if not self.expected_rate > 0:
            raise ValueError(
                f"world_model.expected_rate is {self.expected_rate}; it must be above 0"
            )
        if not 0 <= self.absolute_zero <= 1:
            raise ValueError(
                f"world_model.absolute_zero is {self.absolute_zero}; it is a share, between 0 and 1"
            )

        for name in ("dispersion_weight", "brownian_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"world_model.{name} is {getattr(self, name)}; it must be 0 (off) or more"
                )

    @classmethod
    def published(cls) -> Self | None:
        """The configuration that a paper publishes, for Atari. None if there is none."""
        return None

    def at_rate(self, learning_rate: float) -> Self:
        """This config, with all its optimisers at the agent's learning rate."""
        return self

    def below_zero(self) -> str:
        """What makes raw rewards negative at times, in words. Empty: nothing does.

        Such a reward is no size of an error, so `expected_error` is refused.
        """
        return ""

    def make_expected_error(self, belief: int, spec: EnvSpec) -> ExpectedError:
        """The head that knows how large the error is on average.

        Args:
          belief: M, size of the belief.
          spec: The environments.

        Raises:
          ValueError: `expected_takes` is action, and actions cannot be counted or are too many.
        """
        if self.expected_takes == "action" and (spec.continuous or spec.num_actions > MOST_ACTIONS):
            found = "continuous actions" if spec.continuous else f"{spec.num_actions} actions"
            raise ValueError(
                f"world_model.expected_takes is action, but there are {found}; it compares each"
                f" action with all others, and takes at most {MOST_ACTIONS}. Set it to all"
            )
        return ExpectedError(
            self.expected_error,
            self.expected_floor,
            belief,
            spec.num_actions,
            self.expected_rate,
            self.expected_takes,
        )

    def couples(self) -> str:
        """What compares the environments of a batch in the loss, in words. Empty: nothing does.

        A loss that couples them cannot be computed in parts (`learner.micro_batches`).
        """
        return ""

    def check_batch(self, steps: int, environments: int) -> None:
        """Check whether the model can learn from batches of this size.

        Args:
          steps: T, agent steps per batch.
          environments: B.

        Raises:
          ValueError: The model cannot learn from them.
        """


def check_sizes(config: ModelConfig, *names: str) -> None:
    """Raise a ValueError if one of these fields is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(
                f"world_model.{name} is {getattr(config, name)}; it must be at least 1"
            )


def check_choices(config: ModelConfig, **choices: Any) -> None:
    """Raise a ValueError if one of these fields is none of the values of its Literal type."""
    for name, kind in choices.items():
        if getattr(config, name) not in get_args(kind):
            raise ValueError(
                f"unknown world_model.{name} {getattr(config, name)!r}; choose from"
                f" {', '.join(get_args(kind))}"
            )


MODEL_OF: dict[type[ModelConfig], type[WorldModel]] = {}  # the model that a config belongs to


class WorldModel(nn.Module, ABC):
    """Base class of every world model.

    A model of your own derives from this class, names its config class as `Config`, takes the
    arguments `(config, torso, spec, seed)` and implements `forward`. Then `package.module:Class`
    names it wherever a model is chosen.

    Args:
      seed: Seed of the model's random draws.
    """

    Config: ClassVar[type[ModelConfig]]
    predicts: ClassVar[str] = ""  #: for tables: what the model predicts
    pays: ClassVar[str] = ""  #: for tables: what its bonus is
    source: ClassVar[str] = ""  #: the paper
    deviations: ClassVar[tuple[str, ...]] = ()  #: how the published form differs from the paper
    #: whether it takes continuous actions, `trajectory.action` as float32 [T, B, A]
    continuous_actions: ClassVar[bool] = False

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
        # on the host, so that a seed gives the same draws on every device
        self.random = torch.Generator().manual_seed(seed)
        self.memory = EpisodicMemory()  # of what the episodes have seen; here of nothing

    def __call__(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """What `forward` returns.

        Raises:
          ValueError: It is not as WorldModelOutput says.
        """
        output = super().__call__(trajectory, beliefs, embeddings)
        check_output(output, trajectory, type(self).__qualname__)
        return cast(WorldModelOutput, output)

    @abstractmethod
    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward of T steps of B environments.

        In training mode the model may also update its running statistics, and its memory of the
        episodes.

        Args:
          trajectory: The steps.
          beliefs: float32 [T+1, B, M]: the torso's recurrent states.
          embeddings: float32 [T+1, B, N]: the torso's embeddings of the observations.

        Returns:
          The loss and the reward.
        """

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        """The model's own instruments (see instruments.py) on one trajectory.

        It is called within `watching`, without gradient.

        Args:
          trajectory: The steps.
          beliefs: float32 [T+1, B, M].
          embeddings: float32 [T+1, B, N].

        Returns:
          Readings [] by name.
        """
        return {}

    def after_step(self) -> None:
        """Called after each optimiser step, to update targets and averages."""

    @contextmanager
    def watching(self, step: int | None = None) -> Iterator[None]:
        """Inside this context `forward` changes nothing.

        No statistic moves. Afterwards the random state is what it was before.

        Args:
          step: Draws are those of this step of a stream. None: those that training would do next.
        """
        was_training, state = self.training, self.random.get_state()
        self.eval()
        if step is not None:
            self.random.manual_seed(stream(self.random.initial_seed(), "step", step))
        try:
            yield
        finally:
            self.train(was_training)
            self.random.set_state(state)


def in_unit(centred: Tensor, square: RunningMean) -> Tensor:
    """Embeddings [..., N], less their mean, divided by their running root mean square size."""
    return centred / torch.where(square.weight > 0, (square.mean + 1e-8).sqrt(), 1.0)


class TargetEncoder(nn.Module):
    """The prediction target: embeddings by a slow copy of an encoder, standardised.

        slow weights:  phi <- decay * phi + (1 - decay) * theta

    A fresh encoder maps all observations to nearly the same direction. On unit vectors, as
    published, there is then almost nothing to predict, and every transition is paid alike. So the
    running mean of the embeddings is subtracted, and they are divided by their running root mean
    square distance from it (our choice; BYOL-Explore and BYOL-Hindsight do not say what keeps their
    embeddings apart).

    All embeddings share one unit. Differences that the encoder hardly makes stay small, and so does
    meaningless noise. The mean cancels in an error, which is a difference. It only decides where a
    predictor starts. The mean follows the policy, so the target moves with it: the part of the
    error that all transitions share is about 1% in the maze.

    Args:
      online: The encoder that is trained.
      size: N, size of the embedding.
      decay: Share of the slow weights that is kept at each learner step.
      standardise_decay: Share of the running mean and size that is kept at each learner step. None:
          unit vectors are compared, as published.
    """

    def __init__(self, online: nn.Module, size: int, decay: float, standardise_decay: float | None):
        super().__init__()
        self.slow = deepcopy(online).requires_grad_(False)
        self.decay = decay
        self.mean = None if standardise_decay is None else RunningMean(standardise_decay, (size,))
        self.square = None if standardise_decay is None else RunningMean(standardise_decay)
        self.online = (online,)  # in a tuple, so that the torso's encoder is no submodule of this

    @torch.no_grad()
    def forward(self, trajectory: Trajectory) -> Tensor:
        """The embedding of each transition's outcome obs[t+1]: [T, B, N], without gradient.

        In training mode the statistics follow the real steps.
        """
        embeddings = self.slow(trajectory.obs[1:])
        return self.standardised(embeddings, self.known(trajectory), self.mean, self.square)

    def known(self, trajectory: Trajectory) -> Tensor:
        """bool [T, B]: transitions whose outcome there is a target of."""
        return trajectory.real

    def standardised(
        self, embeddings: Tensor, mask: Tensor, mean: RunningMean | None, square: RunningMean | None
    ) -> Tensor:
        """Embeddings [T, B, N] in the unit of these statistics, which follow them in training."""
        if mean is None or square is None:
            return embeddings
        if self.training:
            mean.update(embeddings, mask)
        centred = embeddings - mean.mean
        if self.training:
            square.update(centred.square().sum(-1), mask)
        return in_unit(centred, square)

    def pull(self, embeddings: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
        """The error [] of predictions, with a gradient that reaches the encoder alone.

        So what nothing foresees fades from embeddings. Nothing in it keeps them from shrinking to a
        point, which a stopped gradient, as published, prevents: another loss must hold them apart.

        Args:
          embeddings: Those of the outcomes by the encoder that is trained, float [T, B, N].
          prediction: What was predicted of them, in the unit of the targets, float [T, B, N].
          mask: bool [T, B]: transitions that count.
        """
        if self.mean is not None and self.square is not None:
            embeddings = in_unit(embeddings - self.mean.mean, self.square)
        return masked_mean(self.error(prediction.detach(), embeddings), mask)

    def coordinates(self, embeddings: Tensor) -> Tensor:
        """Predictions or targets [..., N] in the space where squared distance is the error.

        They are unchanged if embeddings are standardised, and unit vectors if not.
        """
        return F.normalize(embeddings, dim=-1) if self.mean is None else embeddings

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Squared distance of predictions and targets, [..., N] to [...].

        It is about 1 for a model that knows nothing but the mean. Between unit vectors it is in [0,
        4].
        """
        return (self.coordinates(prediction) - self.coordinates(target)).square().sum(-1)

    def ignorance(self, target: Tensor, mask: Tensor) -> Tensor:
        """The error [] of a model that knows nothing but the mean, over targets [..., N].

        In the unit of standardised targets it is 1.
        """
        return (
            target.new_ones(())
            if self.mean is not None
            else data_parallel.average(self.spread(target, mask).detach()).clamp(min=1e-8)
        )

    def spread(self, target: Tensor, mask: Tensor) -> Tensor:
        """The error [] of the best constant prediction, over targets [..., N] where `mask` [...].

        A useful model has a smaller error.
        """
        guess = data_parallel.average(masked_mean(self.coordinates(target), mask))
        return masked_mean(self.error(guess.expand_as(target), target), mask)

    @torch.no_grad()
    def update(self) -> None:
        """Move the slow weights towards the online ones."""
        torch._foreach_lerp_(
            list(self.slow.parameters()), list(self.online[0].parameters()), 1 - self.decay
        )
