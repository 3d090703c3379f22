"""Random configs, spaces and trajectories: they work, or a ValueError names the value."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from afterwit.agents import Actor, Agent, Learner, PolicyConfig
from afterwit.agents.policy import Policy
from afterwit.envs.gym import Gym, GymConfig, GymVector
from afterwit.envs.gym_noise import NOISES, Noise
from afterwit.envs.specs import EnvironmentFault
from afterwit.runs.configs.overrides import assignments, changed
from afterwit.runs.configs.run_config import RunConfig, from_dict, to_dict
from afterwit.runs.training.run import Run
from afterwit.world_models import WORLD_MODELS, IntrinsicReward
from afterwit.world_models.caller_spaces import stack
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import BELIEF, A, B, T, random_trajectory, seeded, tiny_spec, tiny_torso_config
from tests.properties.strategies import BASES, HUGE, JSON, NAN, base, leaves, options, values


def one_line(error: BaseException, *names: str) -> None:
    text = str(error)
    assert all(name in text for name in names), f"{names} not in {text!r}"
    assert "\n" not in text and len(text) < 2000, text


# --- configs


@pytest.mark.parametrize(
    "config",
    BASES,
    ids=lambda config: f"{type(config.env).__name__}-{type(config.learner.world_model).__name__}",
)
def test_what_is_no_number_or_absurd_is_named_for_every_field(config: RunConfig) -> None:
    for path, hint in leaves(config):
        bad = [value for value in NAN if float in options(hint)] + [
            value for value in HUGE[1:] if int in options(hint)
        ]
        for value in bad:
            with pytest.raises(ValueError) as caught:
                changed(config, {path: value})
            one_line(caught.value, path.split(".")[-1], str(value))


@settings(max_examples=15)
@given(st.data())
def test_a_config_trains_or_is_refused(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from(BASES))
    for path, hint in leaves(config):
        if path != "compile" and data.draw(st.booleans()):
            value = data.draw(values(hint), path)
            try:
                config = changed(config, {path: value})
            except ValueError as error:
                one_line(error)
    try:
        run = Run(config)
        run.step()
        run.close()
    # a rate or weight with which no float32 stays finite
    except (ValueError, FloatingPointError) as error:
        one_line(error)
    finally:
        torch.set_num_threads(1)


@given(st.data())
def test_a_value_of_another_type_is_named_with_its_path(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from(BASES))
    path, _ = data.draw(st.sampled_from(list(leaves(config))))
    path = data.draw(
        st.sampled_from([path, path.rpartition(".")[0] or path, path + ".x", path[:-1]])
    )
    value = data.draw(JSON)
    try:
        result = changed(config, {path: value})
    except ValueError as error:
        one_line(error, path.split(".")[-1].removesuffix("_x"))
    else:
        assert to_dict(from_dict(json.loads(json.dumps(to_dict(result))))) == to_dict(result)


@given(st.data())
@example(None)
def test_a_config_file_is_read_as_it_stands_or_its_path_and_value_are_named(
    data: st.DataObject | None,
) -> None:
    if data is None:  # values that were once read as something else
        cases = [
            ("learner.torso.hidden", "5"),
            ("learner.torso.hidden", 3.7),
            ("env.stagger", "false"),
            ("seed", True),
            ("learner", []),
            ("device", "tpu"),
            ("learner.discount", 10**400),
            ("env.name", []),
        ]
    else:
        paths = [path for path, _ in leaves(BASES[0])]
        paths += [path.rpartition(".")[0] for path in paths if "." in path] + [
            "env.name",
            "learner.world_model.name",
        ]
        cases = [(data.draw(st.sampled_from(paths)), data.draw(JSON))]
    for path, value in cases:
        written = json.loads(json.dumps(to_dict(BASES[0])))
        *way, last = path.split(".")
        inner = written
        for name in way:
            inner = inner[name]
        inner[last] = value
        try:
            read = to_dict(from_dict(written))
        except ValueError as error:
            one_line(error, last)
            assert data is not None or path in str(error)
        else:
            assert data is not None, (path, value)
            for name in way:
                read = read[name]
            assert (
                not isinstance(value, bool | str | None)
                or read[last] is value
                or read[last] == value
            )
            assert not isinstance(value, int | float) or (
                read[last] == value and isinstance(read[last], bool) == isinstance(value, bool)
            )


@given(
    st.lists(
        st.text(max_size=12)
        | st.sampled_from(["a=" + "[" * 100_000, "a=" + "9" * 5000, "=", "a=", "a=NaN", "a=1e999"]),
        max_size=3,
    )
)
def test_any_text_is_an_assignment_or_is_named(texts: list[str]) -> None:
    try:
        assert len(assignments(texts)) <= len(texts)
    except ValueError as error:
        assert any(repr(text) in str(error) for text in texts)


# --- spaces

DTYPES = (np.uint8, np.int8, np.uint16, np.int64, np.uint64, np.float16, np.float32, np.float64)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple) | st.sampled_from(
    [(36, 36, 3), (1, 17, 20)]
)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    dtype = draw(st.sampled_from(DTYPES))
    bounds = (
        [(0, 1), (0, 100)]
        if np.issubdtype(dtype, np.integer)
        else [(0.0, 1.0), (-math.inf, math.inf), (-3.0, math.inf)]
    )
    low, high = draw(st.sampled_from(bounds))
    if dtype == np.uint8:
        low, high = 0, 255
    return Box(low, high, draw(SHAPES), dtype)


OTHERS = st.sampled_from(
    [Text(3), MultiBinary(2), MultiDiscrete([2, 3]), Dict({"a": Discrete(2)}), Box(-1, 1, (2,))]
)
OBSERVATIONS = boxes() | OTHERS | st.just(Discrete(3))
ACTIONS = (
    st.builds(Discrete, st.integers(1, 5), start=st.sampled_from([0, 0, 0, 2, -3]))
    | OTHERS
    | st.just(Discrete(10**12))
)


def names_a_space(error: BaseException, *spaces: gymnasium.Space[Any]) -> None:
    assert any(" ".join(str(space).split()) in " ".join(str(error).split()) for space in spaces), (
        str(error)
    )


def episode(space: gymnasium.Space[Any], length: int = 3, batch: int = 2) -> Any:
    space.seed(0)
    if not isinstance(space, Box):
        several = batch_space(space, batch)
        several.seed(0)
        return stack([several.sample() for _ in range(length + 1)])
    return np.array(
        [[space.sample() for _ in range(batch)] for _ in range(length + 1)], space.dtype
    ).reshape(length + 1, batch, *space.shape)


@given(st.sampled_from(list(WORLD_MODELS)), OBSERVATIONS, ACTIONS)
def test_an_intrinsic_reward_works_in_a_space_or_names_it(
    name: str, observation: Any, action: Any
) -> None:
    try:
        curiosity = IntrinsicReward(name, observation, action, seed=0, torso=tiny_torso_config())
    except ValueError as error:
        return names_a_space(error, observation, action)
    obs = episode(observation)
    actions = episode(action, length=2)
    dones = np.eye(3, 2, dtype=bool)
    assert all(map(math.isfinite, curiosity.update(obs, actions, dones).values()))
    assert np.isfinite(curiosity.reward(obs, actions, dones)).all()
    return None


class Anywhere(gymnasium.Env[Any, Any]):
    """An environment that shows random observations of its space, for three steps."""

    def __init__(self, observation: gymnasium.Space[Any], action: gymnasium.Space[Any]):
        self.observation_space, self.action_space = observation, action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(0)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observation_space.sample(), 0.5, self.steps == 3, False, {}


@given(st.sampled_from(NOISES), OBSERVATIONS, ACTIONS)
def test_an_environment_of_any_space_trains_or_its_space_is_named(
    noise: str, observation: Any, action: Any
) -> None:
    def made() -> Any:
        env = Anywhere(observation, action)
        return env if noise == "none" else Noise(env, noise)

    try:
        env = GymVector(SyncVectorEnv([made, made], autoreset_mode=AutoresetMode.NEXT_STEP), 0)
    except ValueError as error:
        return names_a_space(error, observation, action)
    step = env.reset()
    space = env.venv.single_observation_space
    assert all(space.contains(seen) for seen in env.venv.reset(seed=0)[0])
    learner = base("maze", "icm").learner
    policy = Policy(learner.policy, learner.torso, env.spec)
    agent = Agent(policy, 2, 0, torch.device("cpu"))
    for _ in range(5):
        assert (
            step.observation.shape == (2, *env.spec.observation_shape)
            and step.observation.dtype == env.spec.observation_dtype
        )
        step = env.step(agent.act(step.observation, step.first))
    env.close()
    return None


@pytest.mark.parametrize(
    "error",
    (
        gymnasium.error.DependencyNotInstalled("pip install swamp"),
        ImportError("no module named swamp"),
    ),
    ids=repr,
)
def test_an_environment_that_needs_a_package_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LunarLander without Box2D is such an environment."""

    def make(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(gymnasium, "make", make)
    with pytest.raises(ValueError, match=r"'CartPole-v1' cannot be made: .*swamp"):
        Gym(GymConfig(), 0)


@given(st.sampled_from([math.nan, math.inf, -math.inf, 1e300]), st.booleans())
def test_an_environment_that_returns_no_number_is_named(bad: float, as_reward: bool) -> None:
    class Broken(Anywhere):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, reward, *rest = super().step(action)
            return (
                (observation, bad, *rest)
                if as_reward
                else (np.full_like(observation, bad), reward, *rest)
            )  # type: ignore[return-value]

    made = lambda: Broken(Box(-1, 1, (2,), np.float64), Discrete(2))  # noqa: E731
    env = GymVector(SyncVectorEnv([made], autoreset_mode=AutoresetMode.NEXT_STEP), 0)
    actor = Actor(
        env, Policy(PolicyConfig(), tiny_torso_config(), env.spec), 3, 0, torch.device("cpu")
    )
    why = (
        r"(-?inf|nan).*must be finite"
        if bad != 1e300
        else r"(inf.*must be finite|1e\+300.*which float32 cannot hold)"
    )
    with pytest.raises(
        EnvironmentFault, match=f"returned {'rewards' if as_reward else 'observations'} with {why}"
    ):
        actor.unroll()


# --- trajectories


def arrays(shapes: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """Return a strategy for arrays of any shape and dtype, all of one value."""
    kinds = [
        "bool",
        "uint8",
        "int8",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "<U3",
        "object",
        "datetime64[s]",
    ]
    fill = st.sampled_from([0, 1, -1, 3, 100, 1e5, math.nan, math.inf])

    def full(shape: tuple[int, ...], kind: str, value: float) -> np.ndarray[Any, Any]:
        with np.errstate(all="ignore"):
            return np.full(shape, value).astype(kind)

    return st.builds(full, shapes, st.sampled_from(kinds), fill)


def near(*shape: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Return a strategy for a shape, or one that may be confused with it."""
    return st.sampled_from(
        [
            shape,
            shape,
            shape,
            shape[1:],
            shape[::-1],
            (*shape, 1),
            (0, *shape[1:]),
            (shape[0] + 1, *shape[1:]),
            (),
        ]
    )


@settings(max_examples=150)
@given(st.data())
def test_a_bonus_is_paid_or_the_array_is_named(data: st.DataObject) -> None:
    curiosity = IntrinsicReward(
        "icm", Box(-3, 3, (6,)), Discrete(4), seed=0, torso=tiny_torso_config()
    )
    before = {
        name: value.clone()
        for name, value in curiosity.modules.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    given = {
        "obs": np.ones((4, 2, 6), np.float32),
        "actions": np.ones((3, 2), int),
        "dones": np.eye(3, 2, dtype=bool),
        "previous_dones": None,
    }
    name = data.draw(st.sampled_from(list(given)))
    given[name] = data.draw(
        arrays(near(*{"obs": (4, 2, 6), "previous_dones": (2,)}.get(name, (3, 2))))
    )
    try:
        metrics = curiosity.update(**given)  # type: ignore[arg-type]
    except (ValueError, FloatingPointError) as error:
        assert any(name in str(error) for name in given), str(error)
        assert all(
            torch.equal(value, before[name])
            for name, value in curiosity.modules.state_dict().items()
            if name in before
        )
    else:
        assert (
            all(map(math.isfinite, metrics.values()))
            and np.isfinite(curiosity.reward(**given)).all()
        )  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ("uint8", "float32"))
@settings(max_examples=80)
@given(data=st.data())
def test_an_agent_acts_or_names_what_it_was_given(dtype: str, data: st.DataObject) -> None:
    learner = base("maze", "icm").learner
    agent = Agent(
        Policy(learner.policy, learner.torso, tiny_spec(dtype=dtype, num_envs=2)),
        2,
        0,
        torch.device("cpu"),
    )
    observation, first = np.ones((2, 6), dtype), np.ones(2, bool)
    name = data.draw(st.sampled_from(["observation", "first"]))
    if name == "observation":
        observation = data.draw(arrays(near(2, 6)))
    else:
        first = data.draw(arrays(near(2)) | st.sampled_from([True, 0, None, "yes", 2.5]))
    try:
        action = agent.act(observation, first)
    except ValueError as error:
        one_line(error, name)
    else:
        assert action.shape == (2,) and action.min() >= 0 and action.max() < A
        assert torch.isfinite(agent.core).all()


@settings(max_examples=5)
@given(
    first=st.lists(st.booleans(), min_size=(T + 1) * B, max_size=(T + 1) * B),
    ends=st.lists(st.booleans(), min_size=T * B, max_size=T * B),
)
@example(first=[True] * ((T + 1) * B), ends=[False] * (T * B))
@example(first=[False] * ((T + 1) * B), ends=[True] * (T * B))
@pytest.mark.parametrize("name", WORLD_MODELS)
def test_any_pattern_of_resets_teaches_finitely_and_what_did_not_happen_teaches_nothing(
    name: str, first: list[bool], ends: list[bool]
) -> None:
    """Absurd rewards and actions in steps that only reset change no bit of the loss."""
    opens = torch.tensor(first).view(T + 1, B)
    terminal = torch.tensor(ends).view(T, B) & ~opens[1:]
    clean = replace(random_trajectory(resets=()), first=opens, terminal=terminal)
    clean = replace(clean, reward=clean.reward.masked_fill(opens[1:], 0))
    garbage = replace(
        clean,
        reward=clean.reward.masked_fill(opens[1:], 1e6),
        action=clean.action.masked_fill(opens[1:], 0),
        behaviour=clean.behaviour.masked_fill(opens[1:].unsqueeze(-1), -9.0),
    )
    clean = replace(clean, action=clean.action.masked_fill(opens[1:], A - 1))
    metrics = [updated(name, trajectory) for trajectory in (clean, garbage)]
    for update in metrics:
        assert all(bool(torch.isfinite(value).all()) for value in update.values())
        assert not update["bonus"][opens[1:]].any()
    assert all(torch.equal(value, metrics[1][key]) for key, value in metrics[0].items())


def updated(name: str, trajectory: Trajectory) -> dict[str, torch.Tensor]:
    config = replace(base("maze", name).learner, torso=tiny_torso_config(), extrinsic_weight=1.0)
    learner = Learner(config, tiny_spec(), 0, torch.device("cpu"))
    assume(trajectory.core.shape[1] == BELIEF)
    return {
        key: value.clone() for key, value in seeded(lambda: learner.update(trajectory), 0).items()
    }
