"""Noise in every space: it stays in the declared space, keeps the dtype and is drawn uniformly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from afterwit.envs.gym import GymVector
from afterwit.envs.gym_noise import Noise
from afterwit.envs.images import view_of
from tests.envs.toys import Toy, toys

INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
FLOATS = (np.float16, np.float32, np.float64)
VECTOR, IMAGES = (6,), ((9, 8), (3, 9, 8), (9, 8, 3), (2, 9, 8, 3))


def bounds(dtype: Any, shape: tuple[int, ...]) -> list[tuple[Any, Any]]:
    """Lows and highs that a space of `dtype` may have."""
    steps = np.arange(np.prod(shape)).reshape(shape)
    if dtype is bool:
        return [(0, 1)]
    if dtype in FLOATS:
        return [
            (0, 1),
            (-1, 1),
            (5, np.inf),
            (-np.inf, -5),
            (-np.inf, np.inf),
            (-np.inf, 0.25),
            (2, 9),
            (steps / 10, steps / 10 + 3),
        ]
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    ends = [
        (0, 10),
        (3, 10),
        (least, most),
        (most - 1, most),
        (least, least + 3),
        (least, most - 1),
        (most // 2, most),
    ]
    return [*ends, (steps % 7, steps % 7 + 1 + steps % 5), (0, 1)]


def space_of(low: Any, high: Any, shape: tuple[int, ...], dtype: Any) -> Box:
    kind = np.int64 if dtype is bool else dtype
    low, high = (
        np.broadcast_to(
            np.asarray(end).astype(kind) if np.ndim(end) else np.asarray(end, kind), shape
        )
        for end in (low, high)
    )
    return Box(low.astype(dtype), high.astype(dtype), dtype=dtype)


class Lowest(Toy):
    """Shows the lowest observation of its space. (Gymnasium cannot sample the whole of int64.)"""

    def look(self, number: int) -> Any:
        space = self.observation_space
        assert isinstance(space, Box)
        return np.where(np.isfinite(space.low), space.low, np.minimum(space.high, 0)).astype(
            space.dtype
        )


def play(space: Box, noise: str, frames: int, **options: Any) -> tuple[Noise, np.ndarray[Any, Any]]:
    """`frames` observations with noise, all in the space that the wrapper declares."""
    env = Noise(Lowest(space), noise, **options)
    observations = [env.reset(seed=0)[0], *(env.step(1)[0] for _ in range(frames - 1))]
    for observation in observations:
        assert env.observation_space.contains(observation), (observation, env.observation_space)
        assert observation.dtype == space.dtype
    return env, np.stack(observations)


@pytest.mark.parametrize(
    "dtype", (bool, *INTEGERS, *FLOATS), ids=lambda dtype: np.dtype(dtype).name
)
@pytest.mark.parametrize("shape", (VECTOR, *IMAGES), ids=str)
def test_noise_lies_in_the_space_and_is_drawn_from_it(shape: tuple[int, ...], dtype: Any) -> None:
    for low, high in bounds(dtype, shape):
        space = space_of(low, high, shape, dtype)
        if len(shape) == 2 and not view_of(space).image:
            with pytest.raises(ValueError, match="vectors or images"):
                Noise(Toy(space), "pixel")
            continue
        env, observations = play(space, "pixel", 40, dose=1.0, density=1.0)
        noise = observations[:, 6:] if shape == VECTOR else observations
        least, most = (end.astype(np.longdouble) for end in (env.low, env.high))
        seen = (
            noise.astype(np.longdouble)
            if shape == VECTOR
            else env.view.to_planes(noise).astype(np.longdouble)
        )
        assert ((seen >= least) & (seen <= most)).all() and (least < most).all()
        place = ((seen - least) / (most - least)).mean()
        assert abs(place - 0.5) < 0.12, (low, high, place)
        assert len(np.unique(seen)) > 1
        spread = most - least
        assert (spread < 2**16).all()
        if dtype not in FLOATS and np.ndim(low) == 0 and int(high) - int(low) < 2**16:
            assert (least == low).all() and (most == high).all(), "all of a range that is bounded"


def test_bytes_below_256_and_above_0_keep_to_their_bounds() -> None:
    _, image = play(Box(0, 10, (9, 8, 3), np.uint8), "pixel", 50, dose=1.0, density=1.0)
    assert sorted(np.unique(image)) == list(range(11))
    _, vector = play(Box(0, 10, (6,), np.uint8), "pixel", 50, dose=1.0, density=1.0)
    assert sorted(np.unique(vector[:, 6:])) == list(range(11))
    _, idle = play(Box(3, 10, (6,), np.int32), "pixel", 20, dose=0.0)
    assert (idle[:, 6:] == 3).all(), "what is off shows what of its bounds is nearest to 0"
    _, sixteen = play(Box(0, 65535, (16, 17), np.uint16), "pixel", 50, dose=1.0, density=1.0)
    assert sixteen.max() > 65000 and sixteen.min() < 500


def test_the_frozen_layer_and_vectors_of_integers_train() -> None:
    env, once = play(Box(-5, 5, (6,), np.int64), "frozen", 9)
    _, again = play(Box(-5, 5, (6,), np.int64), "frozen", 9)
    np.testing.assert_array_equal(once[:, 6:], again[:, 6:])
    assert once[4, 6:].any() and not once[3, 6:].any()
    spec = GymVector(toys(env.observation_space, Discrete(2)), seed=0).spec
    assert (spec.observation_shape, spec.observation_dtype) == ((12,), "float32")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", (VECTOR, (3, 9, 8)), ids=str)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_widest_of_ranges_is_noised_without_a_warning(
    shape: tuple[int, ...], dtype: Any
) -> None:
    most = np.finfo(dtype).max
    for errors in ("warn", "raise"):
        with np.errstate(all=errors):
            _, observations = play(
                Box(-most, most, shape, dtype), "pixel", 9, dose=1.0, density=1.0
            )
        noise = observations[:, 6:] if shape == VECTOR else observations
        assert (np.abs(noise) <= 1).all() or dtype == np.float16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dose": "a"}, "dose is 'a'; it is a probability"),
        ({"dose": True}, "dose is True"),
        ({"density": None}, "density is None; it is"),
        ({"density": [0.5]}, "density is "),
        ({"noise_action": 1.5}, "noise_action is 1.5; it must be an integer"),
        ({"noise_action": None}, "noise_action is None"),
        ({"noise_action": -1}, "noise_action is -1; it must be at least 0"),
        ({"dose": float("nan")}, "dose is nan"),
    ],
)
def test_options_of_another_kind_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Noise(Toy(Box(0, 1, (6,))), "pixel", **options)
