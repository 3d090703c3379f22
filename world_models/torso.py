"""The torso turns observations into embeddings and beliefs: an encoder and the closed-loop RNN.

BYOL-Explore (Guo et al., 2022, section 3):

    omega_t = f(o_t)
    b_t     = h(b_{t-1}, a_{t-1}, omega_t)

The policy has one torso. A world model uses the same one or has its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from afterwit.envs.checks import check_numbers
from afterwit.envs.images import MIN_IMAGE_SIZE
from afterwit.world_models.actions import action_map

EncoderName = Literal["mlp", "conv", "small", "resnet", "auto"]
MIN_IMAGE_SIZES = {"conv": 36, "small": 23}  # smallest height and width, in pixels
# Pixels above which auto chooses conv. A resnet processes each pixel: a batch takes several GB.
LARGE_IMAGE = 96 * 96


@dataclass(frozen=True)
class TorsoConfig:
    """Encoder and closed-loop RNN."""

    encoder: EncoderName = "mlp"
    """mlp: two layers, for small views; conv: the three-layer Atari network of DQN; small: three
    layers for images of half that size (our design); resnet: that of IMPALA. auto: mlp, but for
    images of 16x16 and more resnet, and above 96x96 pixels conv."""
    hidden: int = 128
    """Width of the mlp encoder's hidden layer."""
    channels: tuple[int, ...] = (16, 32, 32)
    """Channels of the resnet's stages, each of which halves the image, or of the three layers of
    small. The default is that of re-implementations of BYOL-Explore."""
    blocks: int = 2
    """Residual blocks per stage of the resnet."""
    embedding: int = 64
    """Size N of the embedding omega."""
    belief: int = 96
    """Size M of the belief b, the state of the GRU."""
    action_embedding: int = 16
    """Size of the learned embedding of the previous action."""
    init: str | None = None
    """File of `afterwit pretrain` that a new run's encoder starts from. Unset: random weights."""
    bfloat16: bool = False
    """Encode images in bfloat16; weights and embeddings stay float32. For GPUs: on CPUs it is many
    times slower."""

    def __post_init__(self) -> None:
        check_numbers(self, "torso.")
        if self.encoder not in get_args(EncoderName):
            raise ValueError(
                f"unknown torso.encoder {self.encoder!r}; choose from"
                f" {', '.join(get_args(EncoderName))}"
            )
        if not self.channels or min(self.channels) < 1:
            raise ValueError(
                f"torso.channels is {self.channels}; it needs one number of at least 1 for each"
                " stage"
            )
        if self.encoder == "small" and len(self.channels) != 3:
            raise ValueError(
                f"torso.channels is {self.channels}; the small encoder has three layers, so it"
                " needs three numbers"
            )
        for name in ("hidden", "blocks", "embedding", "belief", "action_embedding"):
            if getattr(self, name) < 1:
                raise ValueError(f"torso.{name} is {getattr(self, name)}; it must be at least 1")

    def resolved(self, shape: tuple[int, ...]) -> TorsoConfig:
        """This config, with auto replaced by the encoder for observations of `shape`.

        Args:
          shape: Shape of an observation, channels first.
        """
        if self.encoder != "auto":
            return self
        if len(shape) != 3 or min(shape[1:]) < MIN_IMAGE_SIZE:
            return replace(self, encoder="mlp")
        large = shape[1] * shape[2] > LARGE_IMAGE and min(shape[1:]) >= MIN_IMAGE_SIZES["conv"]
        return replace(self, encoder="conv" if large else "resnet")


def as_floats(obs: Tensor) -> Tensor:
    """Observations as numbers of order 1: bytes from 0 to 1, others as they are."""
    return obs.float() / 255 if obs.dtype == torch.uint8 else obs


def mlp(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """`layers` hidden layers of width `hidden` with ReLU, and a linear output."""
    modules: list[nn.Module] = []
    for width in [inputs] + [hidden] * (layers - 1) if layers else []:
        modules += [nn.Linear(width, hidden), nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(hidden if layers else inputs, outputs))


class Residual(nn.Module):
    """A residual block: two 3x3 convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def image_layers(config: TorsoConfig, channels: int) -> nn.Sequential:
    """The convolutions of an image encoder."""
    if config.encoder == "conv":
        return nn.Sequential(
            nn.Conv2d(channels, 32, 8, 4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
        )
    if config.encoder == "small":
        one, two, three = config.channels
        layers = (
            nn.Conv2d(channels, one, 5, 3),
            nn.ReLU(),
            nn.Conv2d(one, two, 3, 2),
            nn.ReLU(),
            nn.Conv2d(two, three, 3),
        )
        return nn.Sequential(*layers, nn.GroupNorm(1, three), nn.ReLU())
    stages: list[nn.Module] = []
    for width in config.channels:
        stages += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
        stages += [Residual(width) for _ in range(config.blocks)] + [nn.GroupNorm(1, width)]
        channels = width
    return nn.Sequential(*stages, nn.ReLU())


class Encoder(nn.Module):
    """Observations [..., *shape] to embeddings [..., N].

    uint8 is scaled to 0..1. Floats are read as they are.
    """

    def __init__(self, config: TorsoConfig, shape: tuple[int, ...]):
        super().__init__()
        config = config.resolved(shape)
        self.shape, self.in_bfloat16 = shape, config.bfloat16
        size = 1
        for extent in shape:
            size *= extent
        if config.encoder == "mlp":
            self.layers: nn.Module = nn.Sequential(
                nn.Flatten(), mlp(size, config.hidden, config.embedding, 1)
            )
            return
        if len(shape) != 3:
            raise ValueError(
                f"torso.encoder {config.encoder!r} reads images [channels, height, width], not"
                f" observations of shape {shape}; use 'mlp'"
            )
        least = MIN_IMAGE_SIZES.get(config.encoder, 1)
        if min(shape[1:]) < least:
            others = [
                name
                for name in ("small", "resnet", "mlp")
                if min(shape[1:]) >= MIN_IMAGE_SIZES.get(name, 1)
            ]
            raise ValueError(
                f"torso.encoder {config.encoder!r} needs images of at least {least}x{least}, not"
                f" {shape[1]}x{shape[2]}; use {' or '.join(others)}"
            )
        image = image_layers(config, shape[0])
        with torch.no_grad():
            features = image(torch.zeros(1, *shape)).numel()
        self.layers = nn.Sequential(image, nn.Flatten(), nn.Linear(features, config.embedding))
        # On CPUs this is 2.3 times as fast forward, and 1.6 times with backward.
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, obs: Tensor) -> Tensor:
        lead = obs.shape[: obs.dim() - len(self.shape)]
        x = as_floats(obs.reshape(-1, *self.shape))
        x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            embedding = self.layers(x)
        return embedding.to(x.dtype).unflatten(0, lead)


class Torso(nn.Module):
    """Encoder and closed-loop GRU over T steps of B environments.

    Args:
      config: Sizes and kind of encoder.
      shape: Shape of an observation, channels first.
      num_actions: Number of actions, or of numbers of a continuous action.
      continuous: Whether actions are numbers.
    """

    def __init__(
        self,
        config: TorsoConfig,
        shape: tuple[int, ...],
        num_actions: int,
        continuous: bool = False,
    ):
        super().__init__()
        self.config = config = config.resolved(shape)
        self.encoder = Encoder(config, shape)
        self.action_embedding = action_map(num_actions, config.action_embedding, continuous)
        self.rnn = nn.GRU(config.embedding + config.action_embedding, config.belief)

    def forward(
        self,
        obs: Tensor,
        first: Tensor,
        previous_actions: Tensor,
        core: Tensor,
        resets: tuple[int, ...] = (),
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings and beliefs of T steps of B environments.

        Where `first` is set, the memory and the previous action are cleared. Resets are rare, so
        the fused GRU runs between the times `resets` instead of step by step.

        Args:
          obs: uint8 or float32 [T, B, ...].
          first: bool [T, B]: the observation opens an episode.
          previous_actions: int64 [T, B], or float32 [T, B, A]: the action before each observation.
          core: float32 [B, M]: the memory before the first step.
          resets: Times t > 0 at which any environment opens an episode.

        Returns:
          Beliefs [T, B, M], embeddings [T, B, N] and the memory after the last step [B, M].
        """
        embeddings = self.encoder(obs)
        keep = (~first).unsqueeze(-1).to(embeddings.dtype)  # [T, B, 1]
        inputs = torch.cat([embeddings, self.action_embedding(previous_actions) * keep], -1)
        beliefs = []
        starts = (0, *resets)
        for start, end in zip(starts, (*resets, len(obs)), strict=True):
            chunk, state = self.rnn(inputs[start:end], (core * keep[start])[None])
            core = state[0]
            beliefs.append(chunk)
        return torch.cat(beliefs), embeddings, core

    def initial_core(self, batch: int) -> Tensor:
        """A blank memory [B, M]."""
        return self.action_embedding.weight.new_zeros(batch, self.config.belief)

    def describe(self) -> str:
        """Encoder and observations in words: "encoder: resnet, of 3x84x84 numbers"."""
        return (
            f"encoder: {self.config.encoder}, of {'x'.join(map(str, self.encoder.shape))} numbers"
        )


def compile_encoders(module: nn.Module) -> None:
    """Compile all encoders within `module`, each at its first use."""
    for part in module.modules():
        if isinstance(part, Encoder):
            part.compile(dynamic=False)
