"""The settings of BYOL-Hindsight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from afterwit.world_models.base import check_choices, check_sizes
from afterwit.world_models.expected_error import Form
from afterwit.world_models.models.byol_config import BYOLConfig
from afterwit.world_models.models.hindsight_critic import CriticForm, check_contrast

Reads = Literal["innovation", "outcome"]
Purity = Literal["price", "critic"]
Control = Literal["off", "noise", "autoencoder"]


@dataclass(frozen=True)
class BYOLHindsightConfig(BYOLConfig):
    """BYOL-Hindsight: prediction error after the unforeseeable part has been explained."""

    scale_fields: ClassVar[tuple[str, ...]] = (
        "horizon",
        "hidden",
        "noise",
        "latent",
        "layers",
        "critic_embedding",
        "critic_rate",
    )

    expected_error: Form = "difference"
    """Pay for more error than is usual here. difference: the error less its expectation, given
    belief and action (our default; not published); relative: that over the expectation; log: the
    difference of logarithms; off: the error itself, as published."""
    absolute_zero: float = 0.02
    """Smallest deviation that errors are divided by, as a share of the error of a model that knows
    nothing. So pay ends when everything is known (our default; not published). 0: no such floor."""
    generator_reads: Reads = "innovation"
    """What z is drawn from. innovation: the outcome less what was foreseen without z, and nothing
    else; the reconstructor then adds to what was foreseen (our default; not published). outcome:
    state, action and the outcome, as published."""
    purity: Purity = "price"
    """What keeps z from telling place and action. price: z is Gaussian, and its divergence from
    N(0, 1) is priced (our default; not published). critic: a critic looks for state and action in
    z, as published."""
    # With 0.05, z stays unused on Atari: a price that is too high at first empties z for good.
    latent_price: float = 0.002
    """Price of a nat of divergence of z from N(0, 1), as a share of the mean error without z
    (purity price; our default; not published). Small: z explains more of the noise; large: less."""
    prioritise: bool = False
    """Pay only the part above the running mean, as published. Off: pay surprises below zero, too,
    so that noise is paid nothing on average (our default). The clip pays what varies."""
    control: Control = "off"
    """Experiments that could refute the method. noise: z is fresh noise; autoencoder: the
    reconstructor sees z alone, and no past."""
    # No paper states a value. A smaller one leaves z free to explain more of the noise. A larger
    # one makes z reveal less of state and action. The reward is rec / lambda + inv, if
    # invariance_in_reward. Without inv the bonus does not depend on lambda.
    invariance_weight: float = 0.01
    """lambda of Jarrett et al. (2023): weight of the invariance in the generator's loss (purity
    critic; our default; not published). Small: z explains more of the noise; large: z reveals less
    of state and action."""
    # Re-implementations disagree. In short runs the critic does not learn enough, and its estimate
    # is noise in the reward.
    invariance_in_reward: bool = False
    """Also pay the invariance, as published. Off: pay the reconstruction error alone."""
    foresight_weight: float = 5.0
    """Weight of a loss that predicts without z, which teaches the encoder to drop meaningless noise
    (our addition; not published). The reconstruction has weight 1; 0: no such loss, as published.
    """
    noise: int = 16
    """Numbers in the generator's noise. 256 in re-implementations at Atari scale; not published."""
    latent: int = 16
    """Numbers in the hindsight latent z. 256 in re-implementations at Atari scale; not published.
    """
    hidden: int = 128
    """Width of generator, reconstructor and critic. 512 in re-implementations; not published."""
    layers: int = 2
    """Hidden layers of generator and reconstructor. 3 in re-implementations; not published."""
    # the z of neighbouring environments at the same step, and of neighbouring steps if
    # contrast_size exceeds the number of environments
    contrast_size: int | None = None
    """Number of z in one contrast, including the positive one. It must divide environments x steps;
    unset: all environments."""
    critic: CriticForm = "dot"
    """dot: cosine of an embedding of (state, action) and one of z; mlp: one hidden layer that reads
    both (our design; not published)."""
    critic_embedding: int = 32
    """Size of the dot critic's two embeddings (our design; not published)."""
    critic_scale: float = 5.0
    """The dot critic is critic_scale * cosine, so it is bounded (our design; not published)."""
    # The first step is on all pairs, as in Jarrett et al. (2023). Each further one is on the pairs
    # of one of the K horizons in turn, in groups drawn anew.
    critic_steps: int = 6
    """Gradient steps of the critic after each learner step (our choice; published: 1). 1 is faster,
    but in short runs such a critic misses much of what z reveals."""
    critic_rate: float = 1e-3
    """Step size of the critic's Adam, which trains nothing else (our choice; not published)."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
        check_choices(
            self, generator_reads=Reads, purity=Purity, control=Control, critic=CriticForm
        )
        if self.stride > 1 and self.purity == "critic":
            raise ValueError(
                f"world_model.stride is {self.stride}, but the critic needs every step as a start;"
                " set world_model.stride to 1, or purity to price"
            )
        if not self.latent_price >= 0:
            raise ValueError(
                f"world_model.latent_price is {self.latent_price}; it must be 0 or more"
            )
        if self.generator_reads == "innovation" and self.foresight_weight == 0:
            raise ValueError(
                "world_model.foresight_weight is 0; what was not foreseen (generator_reads"
                " innovation) needs a foresight: set it above 0, or generator_reads to outcome"
            )
        if self.predictor != "mlp" and self.foresight_weight == 0:
            raise ValueError(
                f"world_model.predictor is {self.predictor}, but nothing is predicted without z;"
                " set world_model.foresight_weight above 0, or predictor to mlp"
            )
        if self.invariance_in_reward and self.purity != "critic":
            raise ValueError(
                "world_model.invariance_in_reward needs a critic; set world_model.purity to critic"
            )
        if self.contrast_size is not None and self.contrast_size < 2:
            raise ValueError(
                f"world_model.contrast_size is {self.contrast_size}; a contrast compares at least"
                " 2 z"
            )
        if not self.critic_rate > 0:
            raise ValueError(f"world_model.critic_rate is {self.critic_rate}; it must be above 0")

    def at_rate(self, learning_rate: float) -> BYOLHindsightConfig:
        return replace(self, critic_rate=learning_rate)

    def couples(self) -> str:
        contrast = "world_model.purity critic compares each z with those of other environments"
        return contrast if self.purity == "critic" else ""

    def check_batch(self, steps: int, environments: int) -> None:
        if self.purity == "critic" and environments < 2:
            raise ValueError(
                f"byol-hindsight needs at least 2 environments, not {environments}: its critic"
                " compares each z with those of the other environments"
            )
        super().check_batch(steps, environments)
        if self.purity == "critic":
            check_contrast(self.contrast_size, steps, environments)

    @classmethod
    def published(cls) -> BYOLHindsightConfig:
        """The form of Jarrett et al. (2023), for Atari.

        They do not publish sizes, the critic's form and lambda. The sizes are those of
        re-implementations at Atari scale. The critic's form and lambda are our choice.
        """
        return cls(
            horizon=8,
            reward_edges="sum",
            standardise_decay=None,
            expected_error="off",
            absolute_zero=0.0,
            prioritise=True,
            generator_reads="outcome",
            purity="critic",
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
