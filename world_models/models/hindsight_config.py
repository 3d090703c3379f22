"""The settings of BYOL-Hindsight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, get_args

from afterwit.world_models.base import ModelConfig, check_sizes
from afterwit.world_models.models.byol_explore import check_byol, check_horizon
from afterwit.world_models.models.hindsight_critic import CriticForm, check_contrast
from afterwit.world_models.open_loop import Edges


@dataclass(frozen=True)
class BYOLHindsightConfig(ModelConfig):
    """BYOL-Hindsight: prediction error after what could not be foreseen has been explained."""

    scale_fields: ClassVar[tuple[str, ...]] = (
        "horizon",
        "hidden",
        "noise",
        "latent",
        "layers",
        "critic_embedding",
        "critic_rate",
    )

    horizon: int = 1
    """K, open-loop steps that are predicted ahead. The paper's Atari value is 8."""
    reward_edges: Edges = "whole"
    """What the first K - 1 transitions of an unroll or episode are paid, which fewer than K
    predictions concern. whole: as much as any other; sum: the sum over the fewer, as published,
    which underpays them."""
    target_decay: float = 0.99
    """Share of the target encoder kept at each learner step (the paper's alpha)."""
    standardise_decay: float | None = 0.95
    """Share kept at each learner step by the running mean and size in whose units embeddings are
    predicted. None: unit vectors are, as published. (Ours.)"""
    invariance_weight: float = 0.01
    """lambda of Jarrett et al.: weight of the invariance in the generator's loss. No paper states a
    value. Smaller leaves z free to explain more of the noise; larger makes it tell less of place
    and action. With invariance_in_reward it also weighs the two parts of the reward, reconstruction
    / lambda + invariance; without, the bonus does not depend on it."""
    invariance_in_reward: bool = False
    """Pay the invariance, too, as published; re-implementations disagree. Off: the reconstruction's
    error alone is paid. In short runs the critic does not come to know the truth, and what it says
    is noise in the reward."""
    foresight_weight: float = 5.0
    """Weight of a loss that predicts without z, beside the reconstruction's 1: it teaches the
    encoder to drop noise that means nothing for what follows, and is paid to nobody. 0: none, as in
    the paper. (Ours.)"""
    noise: int = 16
    """Numbers in the generator's noise. (256 in re-implementations at Atari scale; the paper gives
    none.)
    """
    latent: int = 16
    """Numbers in the hindsight latent z. (256 in re-implementations at Atari scale; the paper gives
    none.)
    """
    hidden: int = 128
    """Width of generator, reconstructor and critic. (512 in re-implementations; the paper gives
    none.)
    """
    layers: int = 2
    """Hidden layers of generator and reconstructor. (3 in re-implementations; the paper gives
    none.)
    """
    contrast_size: int | None = None
    """How many z one contrast is over, the positive among them: those of neighbouring environments
    at the same step, and of neighbouring steps where it exceeds the environments. Unset: all
    environments. It must divide environments x steps."""
    critic: CriticForm = "dot"
    """dot: cosine of an embedding of (place, action) and one of z; mlp: one hidden layer that reads
    both. (Ours.)
    """
    critic_embedding: int = 32
    """Size of the two embeddings of the dot critic. (Ours.)"""
    critic_scale: float = 5.0
    """The dot critic is critic_scale * cosine: bounded, so that it cannot run away. (Ours.)"""
    critic_steps: int = 6
    """Gradient steps of the critic after each learner step: the first on all its pairs, as in the
    paper, each further one on the s and z of one of the K horizons in turn, in groups drawn anew. 1
    is quicker, but in short runs such a critic misses much of what z tells. (Our choice.)"""
    critic_rate: float = 1e-3
    """Step size of the critic's Adam, which trains nothing else. (Our choice.)"""
    loss_scale: float = 5.0
    """Weight of the world model's loss in the total (the paper's Atari value)."""
    prioritise: bool = True
    """Pay only what lies above the running mean of the normalised reward (the paper's clipping)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_byol(self)
        check_sizes(self, "noise", "latent", "hidden", "layers", "critic_embedding", "critic_steps")
        if not self.invariance_weight >= 1e-8:
            raise ValueError(
                f"world_model.invariance_weight is {self.invariance_weight}; the reward divides by"
                " it: at least 1e-8"
            )
        if not self.foresight_weight >= 0:
            raise ValueError(
                f"world_model.foresight_weight is {self.foresight_weight}; it must be 0 (off) or"
                " more"
            )
        if self.contrast_size is not None and self.contrast_size < 2:
            raise ValueError(
                f"world_model.contrast_size is {self.contrast_size}; a contrast needs at least 2:"
                " one z against another"
            )
        if not self.critic_rate > 0:
            raise ValueError(f"world_model.critic_rate is {self.critic_rate}; it must be above 0")
        if self.critic not in get_args(CriticForm):
            raise ValueError(
                f"unknown world_model.critic {self.critic!r}; choose from"
                f" {', '.join(get_args(CriticForm))}"
            )

    def at_rate(self, learning_rate: float) -> BYOLHindsightConfig:
        return replace(self, critic_rate=learning_rate)

    def check_batch(self, steps: int, environments: int) -> None:
        if environments < 2:
            raise ValueError(
                f"byol-hindsight needs at least 2 environments, not {environments}: what z tells is"
                " judged against the z of the others"
            )
        check_horizon(self.horizon, steps)
        check_contrast(self.contrast_size, steps, environments)

    @classmethod
    def published(cls) -> BYOLHindsightConfig:
        """As Jarrett et al. publish it; the sizes are those of re-implementations at Atari scale,
        the critic's form and lambda are ours, for want of published ones."""
        return cls(
            horizon=8,
            reward_edges="sum",
            standardise_decay=None,
            invariance_in_reward=True,
            foresight_weight=0.0,
            noise=256,
            latent=256,
            hidden=512,
            layers=3,
            critic="mlp",
            critic_embedding=128,
            critic_steps=1,
            critic_rate=1e-4,
        )
