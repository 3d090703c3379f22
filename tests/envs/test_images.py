"""Which Boxes hold images, where their channels are, and which encoder reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from afterwit.envs.images import view_of
from afterwit.envs.interface import interface_of
from afterwit.world_models.torso import Torso, TorsoConfig
from tests.helpers import seeded

BYTES = [  # shape of a space of bytes, what networks read, in words
    ((84, 84, 3), (3, 84, 84), "images 84x84 with 3 channels last, turned channels first"),
    ((84, 84, 1), (1, 84, 84), "images 84x84 with 1 channel last, turned channels first"),
    ((210, 160, 3), (3, 210, 160), "images 210x160 with 3 channels last, turned channels first"),
    ((84, 84, 12), (12, 84, 84), "images 84x84 with 12 channels last, turned channels first"),
    ((4, 84, 84), (4, 84, 84), "images 84x84 with 4 channels first"),
    ((16, 84, 84), (16, 84, 84), "images 84x84 with 16 channels first"),
    ((3, 3, 3), (3, 3, 3), "images 3x3 with 3 channels first"),
    ((4, 64, 4), (4, 64, 4), "images 64x4 with 4 channels first"),
    ((19, 7, 7), (19, 7, 7), "images 7x7 with 19 channels first"),
    ((84, 80), (1, 84, 80), "images 84x80 of one plane"),
    (
        (4, 84, 80, 3),
        (12, 84, 80),
        "stacks of 4 images 84x80 with 3 channels last, turned channels first",
    ),
    ((4, 1, 20, 18), (4, 20, 18), "stacks of 4 images 20x18 with 1 channel first"),
    ((128,), (128,), "vectors of 128 numbers"),
]


@pytest.mark.parametrize(("raw", "shape", "words"), BYTES, ids=str)
def test_bytes_are_images_channels_first(
    raw: tuple[int, ...], shape: tuple[int, ...], words: str
) -> None:
    view = view_of(Box(0, 255, raw, np.uint8))
    assert (view.shape, view.dtype, str(view)) == (shape, "uint8", words)
    seen = np.random.default_rng(0).integers(0, 256, (2, 3, *raw), np.uint8)
    read = view(seen)
    assert (
        read.shape == (2, 3, *shape)
        and read.flags.c_contiguous
        and not np.shares_memory(read, seen)
    )
    np.testing.assert_array_equal(view.from_planes(read[1, 2]), seen[1, 2])
    for frame, channel in ((0, 0), (raw[0] - 1 if len(raw) == 4 else 0, -1)):
        if len(raw) == 4:
            one = (
                seen[1, 2, frame, ..., channel]
                if view.channels_last
                else seen[1, 2, frame, channel]
            )
            np.testing.assert_array_equal(
                read[1, 2].reshape(raw[0], -1, *shape[1:])[frame, channel], one
            )


@pytest.mark.parametrize(
    ("space", "shape", "dtype", "image"),
    [
        (Box(0, 1, (20, 18, 3), np.float32), (3, 20, 18), "float32", True),
        (Box(-1, 1, (20, 18, 3), np.float64), (3, 20, 18), "float32", True),
        (Box(-np.inf, np.inf, (3, 20, 18), np.float16), (3, 20, 18), "float32", True),
        (Box(0, 1, (20, 18), np.float32), (1, 20, 18), "float32", True),
        (Box(0, 1, (5, 6), np.float32), (5, 6), "float32", False),
        (Box(-np.inf, np.inf, (20, 18), np.float32), (20, 18), "float32", False),
        (Box(0, 255, (20, 18, 3), np.int32), (3, 20, 18), "uint8", True),
        (Box(0, 1, (20, 18), bool), (1, 20, 18), "float32", True),
        (Box(0, 9, (20, 18), np.int64), (1, 20, 18), "float32", True),
        (Box(0, 255, (6,), np.int64), (6,), "float32", False),
        (Box(0, 255, (2, 2, 2, 2, 2), np.uint8), (2, 2, 2, 2, 2), "uint8", False),
    ],
    ids=str,
)
def test_numbers_of_other_kinds(
    space: Box, shape: tuple[int, ...], dtype: str, image: bool
) -> None:
    view = view_of(space)
    assert (view.shape, view.dtype, view.image) == (shape, dtype, image)
    space.seed(0)
    seen = space.sample()
    read = view(seen)
    assert read.dtype == dtype and read.shape == shape
    assert sorted(read.ravel().tolist()) == pytest.approx(
        sorted(seen.astype(np.float32).ravel().tolist())
    )


def test_what_no_network_reads_is_named() -> None:
    view = view_of(Box(0, 255, (6,), np.uint8))
    for bad, message in (
        (np.ones(6), "float64"),
        (np.full(6, 256), "span 256..256"),
        (np.full(6, -1), "span -1..-1"),
        (["a"] * 6, "<U1"),
    ):
        with pytest.raises(ValueError, match=message):
            view(bad)
    for observation, action, message in (
        (Discrete(3), Discrete(2), "observation space Discrete"),
        (Box(0, 1, (3,)), Box(0, 1, (3,)), "action space Box"),
        (Box(0, 1, ()), Discrete(2), "neither a vector nor an image"),
        (Box(0, 1, (3,)), Discrete(10**9), "actions are supported"),
    ):
        with pytest.raises(ValueError, match=f"mine has {message}|{message}"):
            interface_of("mine", observation, action)


@pytest.mark.parametrize(
    ("shape", "encoder"),
    [
        ((4,), "mlp"),
        ((19, 7, 7), "mlp"),
        ((3, 15, 40), "mlp"),
        ((3, 16, 16), "resnet"),
        ((1, 84, 84), "resnet"),
        ((3, 210, 160), "conv"),
        ((1, 30, 900), "resnet"),
        ((20, 18), "mlp"),
    ],
    ids=str,
)
def test_auto_takes_a_convolution_from_a_size_on(shape: tuple[int, ...], encoder: str) -> None:
    config = TorsoConfig(encoder="auto", hidden=4, channels=(2, 2), blocks=1, embedding=3, belief=4)
    torso = seeded(lambda: Torso(config, shape, 2), 0)
    assert (
        torso.config.encoder == encoder
        and torso.describe() == f"encoder: {encoder}, of {'x'.join(map(str, shape))} numbers"
    )
    assert torso.encoder(torch.zeros(2, *shape)).shape == (2, 3)
    named = seeded(lambda: Torso(replace(config, encoder=encoder), shape, 2), 0)  # type: ignore[arg-type]
    assert all(
        torch.equal(value, named.state_dict()[name]) for name, value in torso.state_dict().items()
    )


@pytest.mark.parametrize("number", (1e-300, 1e300, np.nan, np.inf), ids=str)
def test_numbers_are_read_whatever_numpy_is_set_to(number: float) -> None:
    view = view_of(Box(-np.inf, np.inf, (4,), np.float64))
    with np.errstate(all="raise"):
        read = view(np.full((2, 4), number))
    expected = {1e-300: 0.0, 1e300: np.inf}.get(number, number)
    np.testing.assert_array_equal(read, np.full((2, 4), expected, np.float32))


@pytest.mark.parametrize("shape", ((16,), (7, 7), (7, 7, 3), (20, 20, 3)))
def test_small_numbers_of_uint8_are_no_bytes(shape: tuple[int, ...]) -> None:
    """Divided by 255, zeros and ones would all be black: an agent with them learnt nothing."""
    for high in (1, 10, 16):
        view = view_of(Box(0, high, shape, np.uint8))
        assert view.dtype == "float32"
        assert view.shape == view_of(Box(0, 255, shape, np.uint8)).shape
        seen = np.full((2, 3, *shape), high, np.uint8)
        assert float(view(seen).max()) == high and view(seen).dtype == np.float32
    assert view_of(Box(0, 17, shape, np.uint8)).dtype == "uint8"
