"""Several bonuses as one: a weighted sum, or a product of powers.

    b_i    = bonus of part i: what it would pay alone
    sum:     reward = sum of weight_i * b_i
    product: reward = product of max(b_i, 0) ^ weight_i

Each part is trained by its own loss and keeps its own memory. NGU is a product of this kind, with a
clip in between; Henaff et al. (2022) multiply E3B by NovelD.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from afterwit.envs.specs import EnvSpec
from afterwit.world_models.base import ModelConfig, WorldModel, check_choices
from afterwit.world_models.catalogue import WORLD_MODELS
from afterwit.world_models.episodic_memory import EpisodicMemory, JoinedMemory
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.reward_normaliser import RewardNormaliser
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory

Operation = Literal["sum", "product"]


@dataclass(frozen=True)
class MixConfig(ModelConfig):
    """Several bonuses as one."""

    parts: tuple[str, ...] = ("e3b", "rnd")
    """Names of the bonuses, each with its default settings, also those of its pay."""
    weights: tuple[float, ...] = ()
    """A weight for each; in a product, its power. None at all: 1 for each."""
    operation: Operation = "sum"
    """sum or product. In a product a bonus below zero counts as zero."""
    scale_decay: float = 0.99
    """Share of each part's running deviation that is kept at each learner step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, operation=Operation)
        for name in self.parts:
            if name not in WORLD_MODELS:
                raise ValueError(
                    f"world_model.parts has {name!r}; choose from {', '.join(WORLD_MODELS)}"
                )
        if len(self.parts) < 2 or len(set(self.parts)) < len(self.parts):
            raise ValueError(
                f"world_model.parts is {' '.join(self.parts)!r}; name at least two bonuses, each"
                " once"
            )
        if self.weights and len(self.weights) != len(self.parts):
            raise ValueError(
                f"world_model.weights has {len(self.weights)} numbers for {len(self.parts)} parts;"
                " give one for each"
            )
        if any(not weight > 0 for weight in self.weights):
            raise ValueError(f"world_model.weights is {self.weights}; all must be above 0")
        if not 0 <= self.scale_decay < 1:
            raise ValueError(
                f"world_model.scale_decay is {self.scale_decay}; it must be at least 0 and below 1"
            )

    def below_zero(self) -> str:
        parts = self.part_configs() if self.operation == "sum" else []
        if any(part.expected_error != "off" or part.below_zero() for part in parts):
            return "a part of the sum may pay less than nothing"
        return ""

    def part_configs(self) -> list[ModelConfig]:
        """The config of each part."""
        return [WORLD_MODELS[name].Config() for name in self.parts if name in WORLD_MODELS]

    def couples(self) -> str:
        return next(filter(None, (config.couples() for config in self.part_configs())), "")

    def check_batch(self, steps: int, environments: int) -> None:
        for config in self.part_configs():
            config.check_batch(steps, environments)


class Mix(WorldModel):
    """Several bonuses as one.

    Args:
      config: The settings.
      torso: What the parts read.
      spec: The environments.
      seed: Seed of the parts' random draws.
    """

    Config = MixConfig
    continuous_actions = True
    predicts = "what its parts predict"
    pays = "a weighted sum or product of other bonuses"

    def __init__(self, config: MixConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.config = config
        self.weights = config.weights or (1.0,) * len(config.parts)
        self.parts = nn.ModuleDict()
        self.expected, self.normalisers = nn.ModuleDict(), nn.ModuleDict()
        self.loss_scales: dict[str, float] = {}
        for index, (name, part) in enumerate(zip(config.parts, config.part_configs(), strict=True)):
            self.parts[name] = cast(Any, WORLD_MODELS[name])(part, torso, spec, seed + index)
            self.loss_scales[name] = part.loss_scale
            self.expected[name] = part.make_expected_error(torso.config.belief, spec)
            self.normalisers[name] = RewardNormaliser(
                part.prioritise, config.scale_decay, part.absolute_zero
            )
        self.memory: EpisodicMemory = JoinedMemory(
            {name: part.memory for name, part in self.models.items()}
        )

    @property
    def models(self) -> dict[str, WorldModel]:
        """The parts by name."""
        return {name: part for name, part in self.parts.items() if isinstance(part, WorldModel)}

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        outputs: dict[str, WorldModelOutput] = {}
        bonuses, nothing, losses = {}, {}, []
        for name, part in self.models.items():
            outputs[name] = output = part(trajectory, beliefs, embeddings)
            paid, normaliser = output.paid(trajectory), self.normalisers[name]
            assert isinstance(normaliser, RewardNormaliser)
            surprise, expected_loss = self.expected[name](
                output.reward, output.ignorance, paid, trajectory, beliefs, self.training
            )
            if self.training:
                normaliser.update(surprise, paid, output.ignorance)
            else:
                normaliser = normaliser.with_statistics(surprise, paid, output.ignorance)
            bonuses[name] = normaliser(surprise, paid)
            nothing[name] = output.ignorance / normaliser.deviation
            losses.append(self.loss_scales[name] * output.loss + expected_loss)
        reward = self.joined(bonuses)
        judged = torch.stack([output.paid(trajectory) for output in outputs.values()])
        shares = (
            {name: weight * bonuses[name] for name, weight in self.weighted}
            if self.config.operation == "sum"
            else {"product": reward}
        )
        metrics = {
            f"{name}_{metric}": value
            for name, output in outputs.items()
            for metric, value in output.metrics.items()
        }
        return WorldModelOutput(
            torch.stack(losses).sum(),
            reward,
            shares,
            metrics,
            self.joined(nothing),
            judged.any(0) if self.config.operation == "sum" else judged.all(0),
        )

    @property
    def weighted(self) -> list[tuple[str, float]]:
        """The parts' names with their weights."""
        return list(zip(self.config.parts, self.weights, strict=True))

    def joined(self, bonuses: dict[str, Tensor]) -> Tensor:
        """The weighted sum or product of tensors of one shape."""
        terms = [
            weight * bonuses[name]
            if self.config.operation == "sum"
            else bonuses[name].clamp(min=0) ** weight
            for name, weight in self.weighted
        ]
        stacked = torch.stack(terms)
        return stacked.sum(0) if self.config.operation == "sum" else stacked.prod(0)

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        """The parts' instruments. Of equal names the last part's stands."""
        return {
            name: value
            for part in self.models.values()
            for name, value in part.inspect(trajectory, beliefs, embeddings).items()
        }

    def after_step(self) -> None:
        for part in self.models.values():
            part.after_step()

    @contextmanager
    def watching(self, step: int | None = None) -> Iterator[None]:
        with ExitStack() as stack:
            for part in self.models.values():
                stack.enter_context(part.watching(step))
            with super().watching(step):
                yield
