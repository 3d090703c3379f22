"""Features of logged frames: from a run's networks, from random ones, or from any function.

A reader maps a whole log to features float32 [T * B, N], frame t of environment b in row
t * B + b. `frames_reader` makes one from a function of single frames, which is all that an encoder
of your own needs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from afterwit.envs.seeds import stream
from afterwit.runs.representation.frame_log import FrameLog
from afterwit.world_models.draws import draws_of
from afterwit.world_models.encoder_file import load_encoder
from afterwit.world_models.torso import Encoder, Torso, TorsoConfig

CHUNK = 256  # frames that are encoded at a time
Encode = Callable[[Tensor], Tensor]  # frames [n, C, H, W], as logged -> features [n, N]
Read = Callable[[FrameLog], Tensor]  # a log -> features [T * B, N]


class NatureCNN(nn.Sequential):
    """The encoder of AtariARI: frames uint8 [n, 1, 210, 160] to features [n, 256].

    Four layers, orthogonal weights of gain sqrt 2, and no ReLU at the end (Anand et al., 2019,
    arXiv 1906.08226).
    """

    def __init__(self, seed: int):
        super().__init__(
            nn.Conv2d(1, 32, 8, 4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(),
            nn.Conv2d(64, 128, 4, 2),
            nn.ReLU(),
            nn.Conv2d(128, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 9 * 6, 256),
        )
        random = torch.Generator().manual_seed(stream(seed, "random cnn"))
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.weight, 2**0.5, generator=random)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames: Tensor) -> Tensor:
        scaled = frames.float() / 255
        features: Tensor = super().forward(scaled.contiguous(memory_format=torch.channels_last))
        return features


def frames_reader(encode: Encode) -> Read:
    """Return a reader that encodes each frame by itself, without gradient."""

    @torch.no_grad()
    def read(log: FrameLog) -> Tensor:
        frames = log.obs.reshape(-1, *log.obs.shape[2:])
        parts = [
            encode(torch.from_numpy(frames[start : start + CHUNK].copy())).float().cpu()
            for start in range(0, len(frames), CHUNK)
        ]
        return torch.cat(parts)

    return read


def already_read(features: Tensor) -> Read:
    """Return a reader that returns these features of a log."""
    return lambda _: features


def read_encoders(paths: Sequence[Path], taken: Collection[str]) -> dict[str, Encoder]:
    """The encoders in files of `afterwit pretrain`, by the files' names without suffix.

    Args:
      paths: the files.
      taken: names of other columns. A file of such a name, or of another file's, keeps its path.

    Raises:
      ValueError: a file is missing, damaged, no encoder's, or named twice.
    """
    encoders: dict[str, Encoder] = {}
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise ValueError(f"--encoder names {path} twice; name each file once")
        stems = [*taken, *(other.stem for other in paths if other != path)]
        encoders[str(path) if path.stem in stems else path.stem] = load_encoder(path)[0].eval()
    return encoders


def check_shapes(encoders: Mapping[str, Encoder], shape: tuple[int, ...]) -> None:
    """Raise a ValueError if an encoder reads observations of another shape."""
    for name, encoder in encoders.items():
        if tuple(encoder.shape) != shape:
            raise ValueError(
                f"the encoder {name} reads observations of shape {tuple(encoder.shape)}, and the"
                f" run's are {shape}; pretrain one with the run's preset and --set"
            )


class Perceived(NamedTuple):
    """What a torso makes of a log."""

    embeddings: Tensor  # [T * B, N]
    beliefs: Tensor  # [T * B, M]


@torch.no_grad()
def perceive(torso: Torso, log: FrameLog) -> Perceived:
    """Embeddings and beliefs of a log. The memory is blank before it, as at a run's start."""
    device = torso.action_embedding.weight.device
    steps, batch = log.first.shape
    first, played = torch.from_numpy(log.first.copy()), torch.from_numpy(log.action.copy())
    before = torch.cat([torch.zeros(1, batch, dtype=torch.int64), played[:-1]])
    core, length = torso.initial_core(batch), max(CHUNK // batch, 1)
    embeddings, beliefs = [], []
    for start in range(0, steps, length):
        now = slice(start, start + length)
        opens = first[now]
        resets = tuple((opens[1:].any(1).nonzero()[:, 0] + 1).tolist())
        obs = torch.from_numpy(log.obs[now].copy())
        inputs = (each.to(device) for each in (obs, opens, before[now]))
        belief, embedding, core = torso(*inputs, core, resets)
        embeddings.append(embedding.flatten(0, 1).cpu())
        beliefs.append(belief.flatten(0, 1).cpu())
    return Perceived(torch.cat(embeddings), torch.cat(beliefs))


def random_torso(config: TorsoConfig, log: FrameLog, seed: int) -> Torso:
    """A torso of the same architecture with fresh weights, for the frames of a log."""
    with draws_of(seed, "random torso"):
        return Torso(config, tuple(log.obs.shape[2:]), log.num_actions)


def random_encoder(config: TorsoConfig, log: FrameLog, seed: int) -> Encoder:
    """An encoder of the same architecture with fresh weights, to be trained on the labels."""
    with draws_of(seed, "supervised"):
        return Encoder(config, tuple(log.obs.shape[2:]))
