"""The agent alone: it acts as the actor does, keeps a memory, and is loaded from a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from afterwit.agents import Actor, Agent, Policy
from afterwit.envs import Noise
from afterwit.envs.atari import AtariConfig
from afterwit.envs.gym import Gym, GymConfig
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.envs.minigrid import MiniGridConfig
from afterwit.runs.configs.presets import gym, maze
from afterwit.runs.configs.run_config import RunConfig, write_config
from afterwit.runs.evaluation.trained_agent import load_agent
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run
from tests.helpers import same

CONFIG = replace(maze(), env=MazeConfig(num_envs=3, episode_steps=11), unroll_length=25)


def policy() -> Policy:
    run = Run(CONFIG)
    run.step()
    return run.learner.policy


@pytest.mark.parametrize("greedy", (False, True))
def test_it_acts_as_the_actor_does(greedy: bool) -> None:
    network = policy()
    trajectory = Actor(Maze(CONFIG.env, 7), network, 25, 5, torch.device("cpu"), greedy).unroll()
    agent, env = Agent(network, 3, 5, torch.device("cpu"), greedy), Maze(CONFIG.env, 7)
    step = env.reset()
    for t in range(25):
        action = agent.act(step.observation, step.first)
        assert action.tolist() == trajectory.action[t].tolist()
        step = env.step(action)


def test_a_single_environment_needs_no_batch_and_forgets_at_an_episodes_start() -> None:
    network = policy()
    observations = np.random.default_rng(0).integers(0, 256, (6, 8, 5, 5), np.uint8)
    one, batched = (Agent(network, 1, 5, torch.device("cpu")) for _ in range(2))
    for index, observation in enumerate(observations):
        action = one.act(observation, index == 0)
        assert (
            np.ndim(action) == 0
            and [action] == batched.act(observation[None], np.array([index == 0])).tolist()
        )
    remembered = one.core.clone()
    one.act(observations[0], first=True)
    fresh = Agent(network, 1, 5, torch.device("cpu"))
    fresh.act(observations[0], first=True)
    assert torch.equal(one.core, fresh.core) and not torch.equal(one.core, remembered)


def test_observations_of_another_shape_are_named() -> None:
    agent = Agent(policy(), 2, 0, torch.device("cpu"))
    for shape in ((8, 5, 5), (3, 8, 5, 5), (2, 5, 5)):
        with pytest.raises(
            ValueError, match=r"the observation has shape \(.*\); this agent acts on \(2, 8, 5, 5\)"
        ):
            agent.act(np.zeros(shape, np.uint8), False)


def test_it_comes_out_of_a_run_and_plays_a_gymnasium_environment(tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path / "run")
    run = Run(CONFIG)
    run.step()
    checkpoint.save(tmp_path / "run", run.state())
    agent = load_agent(tmp_path / "run", seed=3)
    assert same(dict(agent.policy.state_dict()), dict(run.learner.acting))

    env = gymnasium.make("afterwit.envs:afterwit/NoisyMaze-v0", noise="brownian", episode_steps=11)
    observation, _ = env.reset(seed=1)
    steps, over = 0, False
    while not over:
        observation, _, terminated, truncated, _ = env.step(
            agent.act(observation, first=steps == 0)
        )
        steps, over = steps + 1, terminated or truncated
    assert steps == 11


def test_a_folder_without_a_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path / "run")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_agent(tmp_path / "run")


def saved(config: RunConfig, folder: Path) -> Path:
    write_config(config, folder)
    run = Run(config)
    run.step()
    checkpoint.save(folder, run.state())
    run.close()
    return folder


def gym_run(folder: Path, env: GymConfig) -> Path:
    config = gym(model="icm")
    torso = replace(config.learner.torso, channels=(2,), blocks=1)
    return saved(
        replace(config, env=env, unroll_length=4, learner=replace(config.learner, torso=torso)),
        folder,
    )


class Camera(gymnasium.Env[Any, Any]):
    """Shows images [height, width, channels] and takes the actions 10, 11 and 12."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = (
            Box(0, 255, (17, 16, 3), np.uint8),
            Discrete(3, start=10),
        )

    def look(self) -> Any:
        return self.np_random.integers(0, 256, (17, 16, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.look(), 0.0, False, False, {}


def test_on_a_persons_own_observations_it_acts_as_the_actor_did_in_training(tmp_path: Path) -> None:
    if "Camera-v0" not in gymnasium.registry:
        gymnasium.register("Camera-v0", entry_point=Camera)
    folder = gym_run(tmp_path / "run", GymConfig("Camera-v0", num_envs=2))
    env = Gym(GymConfig("Camera-v0", num_envs=2), 3)
    single = [gymnasium.make("Camera-v0") for _ in range(2)]
    agent = load_agent(folder, num_envs=2, seed=5)
    trajectory = Actor(env, agent.policy, 9, 5, torch.device("cpu")).unroll()
    observation = np.stack(
        [each.reset(seed=env.seed + index)[0] for index, each in enumerate(single)]
    )
    for t in range(9):
        np.testing.assert_array_equal(np.moveaxis(observation, -1, 1), trajectory.obs[t].numpy())
        action = agent.act(observation, t == 0)
        assert (action - 10).tolist() == trajectory.action[t].tolist()
        observation = np.stack(
            [each.step(chosen)[0] for each, chosen in zip(single, action, strict=True)]
        )
    for turn in (
        lambda o: np.moveaxis(o, -1, 1),
        torch.from_numpy,
        lambda o: o.astype(np.int64),
        lambda o: o.tolist(),
    ):
        assert (
            load_agent(folder, 2).act(turn(observation), True).tolist()
            == load_agent(folder, 2).act(observation, True).tolist()
        )
    for bad, message in ((observation / 255, "float64"), (observation.astype(int) + 300, "span 3")):
        with pytest.raises(ValueError, match=message):
            agent.act(bad, False)


def test_what_the_environment_was_wrapped_in_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("minigrid")
    folder = gym_run(
        tmp_path / "noise", GymConfig("CartPole-v1", num_envs=2, noise="on-demand", noise_action=1)
    )
    observation = np.zeros(4, np.float64)
    expected = (
        r"acts on \(1, 8\): wrap the environment as in training, in afterwit.envs.Noise\(env,"
        r" 'on-demand', dose=1.0, density=0.5, noise_"
    )
    with pytest.raises(ValueError, match=expected):
        load_agent(folder).act(observation, True)
    env = Noise(gymnasium.make("CartPole-v1"), "on-demand", dose=1.0, density=0.5, noise_action=1)
    assert load_agent(folder).act(env.reset(seed=0)[0], True) in (0, 1)

    folder = gym_run(tmp_path / "minigrid", MiniGridConfig(num_envs=2))
    world = gymnasium.make("afterwit.envs:afterwit/NoisyTV-v0")
    observation = world.reset(seed=0)[0]
    with pytest.raises(
        ValueError,
        match=r"the observation is a dict; .* in afterwit.envs.minigrid_tv.OneHot\(env\)",
    ):
        load_agent(folder).act(observation, True)
    from afterwit.envs.minigrid_tv import OneHot

    assert load_agent(folder).act(OneHot(world).observation(observation), True) in range(7)

    folder = gym_run(
        tmp_path / "atari", AtariConfig("Pong", num_envs=2, image_size=42, frame_stack=2)
    )
    with pytest.raises(
        ValueError,
        match=(
            r"\(210, 160, 3\).*AtariPreprocessing\(env, noop_max=30, frame_skip=4,"
            r" screen_size=42.*Frame"
        ),
    ):
        load_agent(folder).act(np.zeros((210, 160, 3), np.uint8), True)
    assert load_agent(folder).act(np.zeros((2, 42, 42), np.uint8), True) in range(18)


def test_a_loaded_agent_acts_whatever_torchs_default_is(tmp_path: Path) -> None:
    folder = saved(CONFIG, tmp_path / "run")
    observation = np.zeros((8, 5, 5), np.uint8)
    expected = load_agent(folder, seed=3).act(observation, True)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            assert load_agent(folder, seed=3).act(observation, True) == expected
    finally:
        torch.set_default_dtype(torch.float32)


class OnePlane(Camera):
    """Shows images of one plane."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = Box(0, 255, (17, 16), np.uint8), Discrete(3)

    def look(self) -> Any:
        return self.np_random.integers(0, 256, (17, 16), np.uint8)


@pytest.fixture(scope="module")
def plane_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "OnePlane-v0" not in gymnasium.registry:
        gymnasium.register("OnePlane-v0", entry_point=OnePlane)
    return gym_run(tmp_path_factory.mktemp("plane") / "run", GymConfig("OnePlane-v0", num_envs=2))


def test_a_batch_of_one_plane_is_a_batch(plane_run: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (17, 16), np.uint8)
    shapes = {(17, 16): (), (1, 17, 16): (1,), (1, 1, 17, 16): (1,)}
    actions = {shape: load_agent(plane_run).act(image.reshape(shape), True) for shape in shapes}
    assert {shape: np.shape(action) for shape, action in actions.items()} == shapes
    assert len({int(np.ravel(action)[0]) for action in actions.values()}) == 1


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"num_envs": "1"}, "^num_envs is '1'; it must be an integer$"),
    "half": ({"num_envs": 1.5}, "^num_envs is 1.5; it must be an integer$"),
    "none": ({"num_envs": 0}, "^num_envs is 0; it must be at least 1$"),
    "negative": ({"seed": -1}, "^seed is -1; it must be an integer of 0 or more"),
    "seed": ({"seed": "x"}, "^seed is 'x'; it must be"),
    "greedy": ({"greedy": "no"}, "^greedy is 'no'; it must be True or False$"),
    "name": ({"name": None}, "^name is None; it must be the name"),
    "run": ({"run": 3}, "^run is 3; it must be the folder"),
}


@pytest.mark.parametrize("what", BAD)
def test_arguments_of_another_kind_are_named(what: str, plane_run: Path) -> None:
    arguments, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        load_agent(**({"run": plane_run} | arguments))


def test_a_home_folder_is_found_and_no_seed_is_another_each_time(
    plane_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(plane_run.parent))
    one, other = (load_agent(f"~/{plane_run.name}", np.int64(2), seed=None) for _ in range(2))
    assert one.seed != other.seed and one.num_envs == 2
