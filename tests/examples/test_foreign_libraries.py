"""In Stable-Baselines3, CleanRL's PPO and TorchRL the bonus is paid in time, and rightly."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.examples.loading import load, run
from tests.house.import_graph import SOURCE

pytestmark = pytest.mark.slow


@pytest.fixture
def sparse_task(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SOURCE / "examples"))  # it imports the other examples
    return load("sparse_task")


def test_ppo_without_the_marked_lines_is_plain_ppo(tmp_path: Path) -> None:
    text = (SOURCE / "examples/bonus_in_cleanrl_ppo.py").read_text(encoding="utf-8")
    code = text[text.index("from __future__") :]
    marked = re.findall(r"^ *# \+ curiosity\n(.*?)^ *# - curiosity\n", code, re.S | re.M)
    added = [line for block in marked for line in block.splitlines() if line.strip()]
    assert 5 <= len(added) <= 15
    plain = re.sub(r"^ *# \+ curiosity\n.*?^ *# - curiosity\n", "", code, flags=re.S | re.M)
    assert "curio" not in plain.lower() and "bonus" not in plain.lower()
    (tmp_path / "plain.py").write_text(plain)
    assert "goal reached in" in run(tmp_path / "plain.py", "--small", cwd=tmp_path)


def test_the_wrapper_for_stable_baselines_pays_what_one_call_pays() -> None:
    """Step by step, with the state carried, as the whole stream at once; own rewards are kept."""
    from stable_baselines3.common.env_util import make_vec_env

    example = load("bonus_in_sb3")
    env = make_vec_env("CartPole-v1", 3, seed=0)
    curious = example.CuriousVecEnv(env, "rnd", weight=2.0, update_every=1000)
    observations, actions, dones, final, paid = [curious.reset()], [], [], [], []
    bonus_of, draw = curious.curiosity, np.random.default_rng(0)
    curious.metrics = bonus_of.update(  # so that statistics are known, and do not move any more
        np.stack(observations * 4), np.zeros((3, 3), int), np.zeros((3, 3), bool)
    )
    for _ in range(60):
        actions.append(draw.integers(0, 2, 3))
        obs, rewards, done, infos = curious.step(actions[-1])
        observations.append(obs)
        dones.append(done)
        final.append(np.stack([info.get("terminal_observation", obs[0]) for info in infos]))
        own = np.array([info["extrinsic_reward"] for info in infos])
        assert (own == 1).all()
        paid.append((rewards - own) / 2)
    assert np.any(dones), "an episode ended"
    state = bonus_of.initial_state(3)
    steps = np.stack(observations), np.stack(actions), np.stack(dones)
    whole, _ = bonus_of.reward(*steps, state=state, final_observations=np.stack(final))
    np.testing.assert_allclose(np.stack(paid), whole, rtol=1e-3, atol=1e-4)
    assert (whole > 0).all(), "the last steps of episodes too"


def test_the_wrapper_copies_what_environments_fill_anew() -> None:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecEnvWrapper

    example = load("bonus_in_sb3")

    class SameArrays(VecEnvWrapper):
        def reset(self) -> Any:
            self.obs, self.dones = self.venv.reset(), np.zeros(self.num_envs, bool)
            return self.obs

        def step_wait(self) -> Any:
            self.obs[:], rewards, self.dones[:], infos = self.venv.step_wait()
            return self.obs, rewards, self.dones, infos

    paid: list[list[Any]] = [[], []]
    for kind, rewards in zip((lambda env: env, SameArrays), paid, strict=True):
        venv = kind(make_vec_env("CartPole-v1", 3, seed=0))
        curious = example.CuriousVecEnv(venv, "byol-hindsight", weight=1.0, update_every=10)
        curious.reset()
        actions, draw = np.zeros(3, int), np.random.default_rng(0)
        for _ in range(60):
            actions[:] = draw.integers(0, 2, 3)
            _, reward, _, infos = curious.step(actions)
            rewards.append(reward)
            whole = [info["extrinsic_reward"] + info["intrinsic_reward"] for info in infos]
            np.testing.assert_allclose(reward, whole, rtol=1e-6)
    np.testing.assert_array_equal(*paid)


@pytest.mark.parametrize("name", ["PPO", "A2C"])
def test_stable_baselines_computes_its_returns_from_the_bonus(name: str) -> None:
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env

    example = load("bonus_in_sb3")
    curious = example.CuriousVecEnv(make_vec_env("CartPole-v1", 3), "rnd", 0.5, update_every=20)
    algorithm = getattr(stable_baselines3, name)
    agent = algorithm("MlpPolicy", curious, n_steps=60, device="cpu", seed=0)
    agent.learn(180)  # one rollout
    buffer = agent.rollout_buffer
    assert (buffer.rewards[:20] == 1).all(), "no bonus before the first update"
    assert (buffer.rewards[20:] > 1).mean() > 0.8
    # The agent has flattened these three, environment after environment.
    values, advantages, returns = (
        x.reshape(3, 60).T for x in (buffer.values, buffer.advantages, buffer.returns)
    )
    goes_on = 1 - buffer.episode_starts[1:]  # [59, B]; the last step's value is not kept
    value = values[1:] * goes_on
    delta = buffer.rewards[:-1] + agent.gamma * value - values[:-1]
    following = agent.gamma * agent.gae_lambda * goes_on * advantages[1:]
    np.testing.assert_allclose(advantages[:-1], delta + following, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(returns, advantages + values, rtol=1e-5)


def test_the_replay_buffer_of_dqn_holds_the_bonus_as_it_was_paid() -> None:
    """A second model that reads the buffer's stream pays, step by step, what is in the buffer."""
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    example, every, weight = load("bonus_in_sb3"), 20, 0.5
    venv = make_vec_env("CartPole-v1", 3)
    curious = example.CuriousVecEnv(venv, "rnd", weight, update_every=every, seed=3)
    dqn = DQN("MlpPolicy", curious, learning_starts=90, train_freq=1, device="cpu", seed=0)
    dqn.learn(3 * 5 * every)
    assert dqn.num_timesteps == 300 and dqn._n_updates > 0
    assert (venv.buf_rews == 1).all(), "each step's own reward"
    buffer = dqn.replay_buffer
    assert buffer is not None and not buffer.timeouts[:100].any()
    spaces = venv.observation_space, venv.action_space
    second = example.IntrinsicReward("rnd", *spaces, seed=3, autoreset="same-step")
    state = second.initial_state(3)
    for start in range(0, 100, every):
        rows = slice(start, start + every)
        after = dqn._last_obs if start + every == 100 else buffer.observations[start + every]
        steps = (
            np.concatenate([buffer.observations[rows], np.asarray(after)[None]]),
            buffer.actions[rows].reshape(every, 3),
            buffer.dones[rows].astype(bool),
        )
        final = {"final_observations": buffer.next_observations[rows]}
        bonus, next_state = second.reward(*steps, state=state, **final)
        second.update(*steps, state=state, **final)
        state = next_state
        expected = 1 + weight * bonus if start else np.ones((every, 3))
        np.testing.assert_allclose(buffer.rewards[rows], expected, rtol=1e-3, atol=1e-4)
    assert buffer.dones[:100].any() and (buffer.rewards[every:100] > 1).mean() > 0.8
    batch = buffer.sample(300)
    assert (batch.rewards > 1).float().mean() > 0.5, "and it is learned from"


def test_the_step_for_torchrl_adds_the_bonus_of_its_batches() -> None:
    from torchrl.collectors import Collector
    from torchrl.envs import GymWrapper, SerialEnv

    example = load("bonus_in_torchrl")
    curious = example.Curious(example.make(), "rnd", 1.0, 2)
    envs = SerialEnv(2, lambda: GymWrapper(example.make(), categorical_action_encoding=True))
    collector = Collector(envs, None, frames_per_batch=2 * 600, total_frames=2 * 600)
    (batch,) = collector
    obs, done = batch["observation"], batch["next", "done"].squeeze(-1)
    assert done.any() and obs.shape[:2] == (2, 600)
    where = done[:, :-1].nonzero()[0]  # a step after an ending begins with a new episode
    row, step = where.tolist()
    assert not bool((batch["next", "observation"][row, step] == obs[row, step + 1]).all())
    own = batch["next", "reward"].clone()
    curious(batch)
    bonus = (batch["next", "reward"] - own).squeeze(-1)
    assert (bonus > 0).all(), "the last steps of episodes too"
    assert bool((batch["next", "extrinsic_reward"] == own).all())
    collector.shutdown()


def test_the_step_for_torchrl_reads_vectors_of_actions() -> None:
    from torchrl.envs import GymWrapper, SerialEnv

    example = load("bonus_in_torchrl")
    curious = example.Curious(gymnasium.make("Pendulum-v1"), "icm", 1.0, 2)
    envs = SerialEnv(2, lambda: GymWrapper(gymnasium.make("Pendulum-v1")))
    batch = envs.rollout(7)
    own = batch["next", "reward"].clone()
    curious(batch)
    steps = batch["observation"].transpose(0, 1), batch["next", "observation"][:, -1:]
    obs = np.concatenate([steps[0].numpy(), steps[1].transpose(0, 1).numpy()])
    second = example.Curious(gymnasium.make("Pendulum-v1"), "icm", 1.0, 2).bonus
    dones = np.zeros((7, 2), bool)
    state = second.initial_state(2)
    bonus, _ = second.reward(obs, batch["action"].transpose(0, 1), dones, state=state)
    paid = (batch["next", "reward"] - own).squeeze(-1).T
    np.testing.assert_allclose(paid.numpy(), bonus, rtol=1e-3, atol=1e-4)


class Acts(gymnasium.Wrapper):
    """Remembers what was done in it."""

    def __init__(self, env: gymnasium.Env, done: list[int]):
        super().__init__(env)
        self.done = done

    def step(self, action: Any) -> Any:
        self.done.append(int(action))
        return self.env.step(action)


def acting(example: ModuleType, done: list[int]) -> gymnasium.Env:
    return Acts(example.make(), done)


@pytest.mark.parametrize("library", ["sb3-ppo", "sb3-a2c", "sb3-dqn", "cleanrl-ppo", "torchrl-ppo"])
def test_the_agent_learns_from_the_bonus_and_from_nothing_else(
    library: str, sparse_task: ModuleType
) -> None:
    """All own rewards are the same here, so what differs after the first learning is the bonus.

    Without the bonus, what the example adds must not be felt; in the first rollout neither.
    """
    acts: dict[float, list[int]] = {}
    for weight in (0.0, 1.0, 1e-12):
        done = acts[weight] = list[int]()
        settings = {"model": "rnd", "weight": weight, "entropy": 0.01}
        if library == "sb3-dqn":
            del settings["entropy"]
        make = partial(acting, sparse_task.sb3, done)
        sparse_task.train(library, make, 0, 2_048, settings)
    assert acts[1e-12] == acts[0.0], "a bonus of no weight changes nothing"
    assert len(acts[1.0]) == len(acts[0.0]) >= 2_000
    assert acts[1.0] != acts[0.0]
    first = 500 if library.startswith("sb3-a2c") else 1_000  # before the first update that is felt
    assert acts[1.0][:first] == acts[0.0][:first]


def test_the_experiment_skips_runs_that_it_has(
    sparse_task: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def stub(library: str, name: str, settings: Any, seed: int, steps: int) -> dict[str, Any]:
        calls.append((library, name, seed))
        return {"library": library, "setting": name, "seed": seed, "steps": steps, "curve": ""}

    monkeypatch.setattr(sparse_task, "run", stub)
    runs = [("sb3-ppo", "rnd x 0.1", 5), ("sb3-ppo", "rnd x 0.1", 6), ("sb3-a2c", "rnd x 0.1", 5)]
    for each in [*runs, *runs]:
        sparse_task.fill(tmp_path / "runs.csv", *each, 100)
    assert calls == runs
    assert len(sparse_task.read(tmp_path / "runs.csv")) == 3


def test_as_many_settings_were_tried_with_the_bonus_as_without(sparse_task: ModuleType) -> None:
    for library in sparse_task.LIBRARIES:
        weights = [bool(each.get("weight")) for each in sparse_task.tried(library).values()]
        assert sum(weights) == len(weights) / 2
        chosen = [
            bool(sparse_task.tried(library)[n].get("weight")) for n in sparse_task.CHOSEN[library]
        ]
        assert chosen == [True, False]


def test_the_experiment_knows_a_goal_from_a_time_limit(
    sparse_task: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that pushes in the direction of motion reaches the hill; one that waits does not."""

    def play(library: str, make: Any, seed: int, steps: int, settings: dict[str, Any]) -> None:
        env, action = make(), 1
        for _ in range(3):
            over, (obs, _) = False, env.reset(seed=seed)
            while not over:
                push = settings["push"]
                action = (2 if obs[1] >= 0 else 0) if push else 1
                obs, _, terminated, truncated, _ = env.step(action)
                over = terminated or truncated

    monkeypatch.setattr(sparse_task, "train", play)
    wins = sparse_task.run("sb3-ppo", "", {"push": True}, 0, 400)
    waits = sparse_task.run("sb3-ppo", "", {"push": False}, 0, 600)
    assert wins["goals"] == wins["episodes"] == 3 and wins["success_last_tenth"] == 1
    assert -200 < wins["return_last_tenth"] < -80 and wins["first_goal"] < 200
    assert waits["goals"] == 0 and waits["episodes"] == 3 and waits["first_goal"] == ""
    assert waits["return_last_tenth"] == -200 and set(waits["curve"].split()) == {"-200"}
