"""What callers bring to IntrinsicReward: their spaces, arrays, torch modes and names."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from afterwit.agents.actor import check_values
from afterwit.envs.checks import MAX_NUMBER
from afterwit.envs.specs import EnvironmentFault
from afterwit.world_models import WORLD_MODELS, IntrinsicReward
from tests.helpers import tiny_spec, tiny_torso_config

T, B, A = 5, 3, 4
VECTOR = Box(-3, 3, (6,), np.float32)


def make_intrinsic(
    model: str = "byol-hindsight",
    space: Box = VECTOR,
    actions: Discrete | None = None,
    **options: Any,
) -> IntrinsicReward:
    options = {"seed": 0, "torso": tiny_torso_config(), **options}
    return IntrinsicReward(model, space, actions or Discrete(A), **options)


def steps(space: Box = VECTOR, start: int = 0) -> tuple[Any, Any, Any]:
    rng, shape = np.random.default_rng(0), (T + 1, B, *space.shape)
    obs = (
        rng.integers(0, 256, shape).astype(space.dtype)
        if np.issubdtype(space.dtype, np.integer)
        else rng.random(shape).astype(space.dtype)
    )
    dones = np.zeros((T, B), bool)
    dones[2, 1] = True
    return obs, rng.integers(start, start + A, (T, B)), dones


def paid(curiosity: IntrinsicReward, *arrays: Any) -> tuple[dict[str, float], Any]:
    metrics = curiosity.update(*arrays)
    assert all(map(math.isfinite, metrics.values()))
    bonus = curiosity.reward(*arrays)
    assert bonus.dtype == np.float32 and np.isfinite(bonus).all() and bonus.any()
    return metrics, bonus


def same(left: tuple[dict[str, float], Any], right: tuple[dict[str, float], Any]) -> None:
    assert left[0] == right[0]
    np.testing.assert_array_equal(left[1], right[1])


@contextmanager
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def on_meta() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


@pytest.mark.parametrize(
    "mode",
    (doubles, torch.no_grad, torch.inference_mode, on_meta, autocast),
    ids=lambda mode: mode.__name__,
)
@pytest.mark.parametrize("model", WORLD_MODELS)
def test_the_callers_torch_modes_change_nothing_and_are_kept(
    model: str, mode: Callable[[], Any]
) -> None:
    expected = paid(make_intrinsic(model), *steps())
    with mode():
        before = (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )
        curiosity = make_intrinsic(model)
        same(paid(curiosity, *steps()), expected)
        assert all(map(math.isfinite, curiosity.inspect(*steps()).values()))
        assert before == (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )
        with pytest.raises(ValueError, match="obs has shape"):
            curiosity.update(*(each[:2] for each in steps()))
        assert before[0] == torch.get_default_dtype()
    same(paid(make_intrinsic(model), *steps()), expected)
    assert math.isfinite(curiosity.update(*steps())["loss"]), (
        "made in that mode, used outside of it"
    )


def read_only(array: Any) -> Any:
    array.setflags(write=False)
    return array


WAYS: dict[str, Callable[[Any], Any]] = {
    "read-only": lambda each: read_only(each.copy()),
    "tensors": torch.from_numpy,
    "lists": lambda each: each.tolist(),
    "not contiguous": lambda each: np.asfortranarray(each),
    "other strides": lambda each: np.repeat(each, 2, 1)[:, ::2],
    "with gradients": lambda each: (
        torch.from_numpy(each).requires_grad_()
        if each.dtype == np.float32
        else torch.from_numpy(each)
    ),
    "doubles": lambda each: each.astype(np.float64) if each.dtype == np.float32 else each,
    "small actions": lambda each: each.astype(np.uint8) if each.dtype == np.int64 else each,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("way", WAYS)
def test_arrays_of_any_kind_mean_the_same(way: str) -> None:
    expected = paid(make_intrinsic(), *steps())
    same(paid(make_intrinsic(), *(WAYS[way](each) for each in steps())), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "convert",
    (lambda obs: obs.astype(np.float16), lambda obs: torch.from_numpy(obs).bfloat16()),
    ids=("float16", "bfloat16"),
)
def test_half_precision_is_read(convert: Callable[[Any], Any]) -> None:
    obs, actions, dones = steps()
    paid(make_intrinsic(), convert(obs), actions, dones)


def test_what_float32_or_a_square_of_it_cannot_hold_is_named() -> None:
    obs, actions, dones = steps()
    for bad in (1e300, 1e30, -1.1e9, math.inf, math.nan):
        huge = obs.astype(np.float64)
        huge[2, 1, 3] = bad
        message = re.escape(f"obs has {bad:g}; observations must be finite and of order 1")
        with pytest.raises(ValueError, match=message):
            make_intrinsic().update(huge, actions, dones)
    with pytest.raises(ValueError, match=r"obs has -9.22337e\+18; observations must be finite"):
        make_intrinsic("icm", Box(-np.inf, np.inf, (6,), np.int64)).update(
            np.full((T + 1, B, 6), np.iinfo(np.int64).min), actions, dones
        )


@pytest.mark.parametrize("model", WORLD_MODELS)
def test_the_limit_of_observations_is_that_of_training(model: str) -> None:
    """Every model stays finite below it, as an agent that trains must."""
    obs, actions, dones = steps()
    curiosity = make_intrinsic(model)
    for size in (1, 9e8, 1):
        block = ((obs - 0.5) * 2 * size).astype(np.float32), actions, dones
        assert np.isfinite(curiosity.reward(*block)).all()
        assert all(map(math.isfinite, curiosity.update(*block).values()))
    spec = tiny_spec(num_envs=B)
    for size in (9.9e8, 1.01e9):
        seen = np.full((B, 6), size, np.float32)
        with nullcontext() if size < MAX_NUMBER else pytest.raises(EnvironmentFault):
            check_values(spec, "observations", seen, (6,), "float32")
        with nullcontext() if size < MAX_NUMBER else pytest.raises(ValueError, match=r"1\.01e"):
            curiosity.reward(np.stack([seen] * (T + 1)), actions, dones)


@pytest.mark.parametrize("start", (10, -3))
def test_actions_are_counted_as_the_space_counts_them(start: int) -> None:
    expected = paid(make_intrinsic(), *steps())
    obs, actions, dones = steps(start=start)
    same(paid(make_intrinsic(actions=Discrete(A, start=start)), obs, actions, dones), expected)
    with pytest.raises(
        ValueError,
        match=rf"must be integers {start}..{start + A - 1}, not {start - 1}..{start - 1}",
    ):
        make_intrinsic(actions=Discrete(A, start=start)).update(
            obs, np.full((T, B), start - 1), dones
        )


IMAGE = Box(0, 255, (17, 18, 3), np.uint8)


@pytest.mark.parametrize("model", ("icm", "rnd"))
def test_images_are_turned_and_read_by_a_convolution_which_is_logged(
    model: str, caplog: pytest.LogCaptureFixture
) -> None:
    last, first = steps(IMAGE), steps(Box(0, 255, (3, 17, 18), np.uint8))
    turned = (np.moveaxis(last[0], -1, 2), *last[1:])
    assert turned[0].shape == first[0].shape
    with caplog.at_level(logging.INFO, "afterwit"):
        curiosity = make_intrinsic(model, IMAGE, torso=None)
    assert caplog.messages == [
        "observations: images 17x18 with 3 channels last, turned channels first; encoder: resnet,"
        " of 3x17x18 numbers"
    ]
    assert curiosity.torso.config.encoder == "resnet" and curiosity.torso.config.embedding == 256
    same(
        paid(curiosity, *last),
        paid(make_intrinsic(model, Box(0, 255, (3, 17, 18), np.uint8), torso=None), *turned),
    )
    plane = make_intrinsic(model, Box(0, 255, (17, 18), np.uint8), torso=None)
    assert plane.spec.observation_shape == (1, 17, 18)
    paid(plane, last[0][..., 0], *last[1:])
    with pytest.raises(ValueError, match=r"obs has shape \(6, 3, 3, 17, 18\)"):
        curiosity.update(*turned)


def test_a_screen_of_pong_is_no_vector() -> None:
    curiosity = IntrinsicReward("icm", Box(0, 255, (210, 160, 3), np.uint8), Discrete(6), seed=0)
    assert curiosity.torso.config.encoder == "conv"
    assert sum(p.numel() for p in curiosity.modules.parameters()) < 2e7, (
        "80 MB of floats; as vectors it would be 415 MB"
    )


@pytest.mark.parametrize(
    "mode", (AutoresetMode.NEXT_STEP, "next-step", "Next_Step", "NEXT STEP", "nextstep"), ids=str
)
def test_autoreset_by_any_of_its_names(mode: Any) -> None:
    assert make_intrinsic(autoreset=mode).autoreset == "next-step"
    other = (
        AutoresetMode.SAME_STEP
        if isinstance(mode, AutoresetMode)
        else mode.lower().replace("next", "same")
    )
    assert make_intrinsic(autoreset=other).autoreset == "same-step"


def test_a_seed_of_none_is_another_one_each_time_and_numpys_integers_are_seeds() -> None:
    losses = {make_intrinsic(seed=None).update(*steps())["loss"] for _ in range(3)}
    assert len(losses) == 3
    same(paid(make_intrinsic(seed=np.int64(7)), *steps()), paid(make_intrinsic(seed=7), *steps()))
    assert (
        make_intrinsic(seed=2**70).update(*steps())["loss"]
        != make_intrinsic(seed=0).update(*steps())["loss"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, r"seed is -1; it must be an integer of 0 or more, or None"),
        ({"seed": True}, "seed is True"),
        ({"seed": 1.0}, r"seed is 1\.0"),
        ({"seed": "3"}, "seed is '3'"),
        ({"device": "warp"}, "device 'warp' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"device": 3.5}, r"device 3\.5 cannot be used"),
        ({"device": ""}, "device '' cannot be used"),
        ({"autoreset": AutoresetMode.DISABLED}, "autoreset is disabled"),
        ({"autoreset": "disabled"}, "autoreset is disabled"),
        ({"autoreset": None}, "unknown autoreset None"),
        ({"autoreset": 1}, "unknown autoreset 1"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": True}, "learning_rate is True"),
        ({"reward_decay": None}, "reward_decay is None"),
        ({"reward_decay": 1}, "reward_decay is 1"),
        ({"torso": "mlp"}, "torso is 'mlp'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_named_in_a_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_intrinsic(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"device 'cuda' cannot be used: .*choose cpu"):
        make_intrinsic(device="cuda")


@pytest.mark.parametrize("which", (0, 1, 2))
@pytest.mark.parametrize("bad", ([[1, 2], [3]], "words", None, {"a": 1}), ids=str)
def test_what_is_no_array_is_named(which: int, bad: Any) -> None:
    arrays = list(steps())
    arrays[which] = bad
    with pytest.raises(ValueError, match=r"obs|actions|dones") as caught:
        make_intrinsic().update(*arrays)
    assert "\n" not in str(caught.value)
