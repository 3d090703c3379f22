"""Every example runs in small mode, has its page, and pays what the library pays."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from afterwit.runs.command_line.main import main
from afterwit.runs.training.run_log import read_metrics
from tests.house.import_graph import SOURCE

pytestmark = pytest.mark.slow
EXAMPLES = sorted((SOURCE / "examples").glob("*.py"))
PAGES = [*(SOURCE / "docs").glob("*.md"), *(SOURCE / "docs" / "guides").glob("*.md")]
GUIDES = sorted((SOURCE / "docs" / "guides").glob("*.md"))
WRITES = ("two_agents_in_a_noisy_maze", "compare_two_methods")  # these take --out
# From a user's folder: what is typed, and what the log then has.
COMMANDS = {
    "my_bonus": (["maze", "--model", "my_bonus:Disagreement"], "learner/model_error"),
    "my_world": (
        ["gym", "--id", "my_world:Corridor-v0", "--env.kwargs", "length=12", "--model", "rnd"],
        "explored/cells",
    ),
    "my_noise": (
        ["gym", "--id", "my_noise:StripedCartPole-v0", "--env.kwargs", "dose=0.5"],
        "share_of_pay/noise_on",
    ),
}


def run(path: Path, *options: str, cwd: Path = SOURCE) -> str:
    command = [sys.executable, str(path), *options]
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", SOURCE / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_in_small_mode(path: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")] if path.stem in WRITES else []
    printed = run(path, "--small", *out)
    assert printed or path.stem == "my_bonus"  # which is a module for `afterwit train`


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_page_shows_it(path: Path) -> None:
    assert any(f"examples/{path.name}" in page.read_text(encoding="utf-8") for page in PAGES)


def test_pages_name_no_example_that_is_not_there() -> None:
    for page in PAGES:
        for name in re.findall(r"examples/(\w+\.py)", page.read_text(encoding="utf-8")):
            assert (SOURCE / "examples" / name).exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_includes_its_example(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"\{literalinclude\} ../../examples/\w+\.py\n", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_afterwit_trains_what_lies_in_a_users_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, logged = COMMANDS[name]
    (tmp_path / f"{name}.py").write_bytes((SOURCE / f"examples/{name}.py").read_bytes())
    monkeypatch.chdir(tmp_path)
    small = ["--total-steps", "4000", "--log-interval", "1000", "--quiet", "--out", "run"]
    assert main(["train", *options, *small]) == 0
    assert logged in read_metrics(tmp_path / "run")[-1]


def test_own_noise_is_reproducible_and_leaves_the_world_alone() -> None:
    import gymnasium

    example, rolls = load("my_noise"), []
    for dose in (0.5, 0.5, 0.0):
        env = example.Stripes(gymnasium.make("CartPole-v1"), dose)
        seen = [env.reset(seed=0)[0]]
        for step in range(60):  # of several episodes
            observation, _, terminated, truncated, _ = env.step(step % 2)
            over = terminated or truncated
            seen.append(env.reset()[0] if over else observation)
        rolls.append(np.array(seen))
    np.testing.assert_array_equal(rolls[0], rolls[1])
    np.testing.assert_array_equal(rolls[0][:, :4], rolls[2][:, :4])
    assert rolls[0][:, 4:].any() and not rolls[2][:, 4:].any()


def test_my_bonus_is_about_forty_lines() -> None:
    text = (SOURCE / "examples/my_bonus.py").read_text(encoding="utf-8")
    body = text[text.index("@dataclass") :]
    assert sum(bool(line.strip()) for line in body.splitlines()) <= 42


def test_ppo_without_the_marked_lines_is_plain_ppo(tmp_path: Path) -> None:
    text = (SOURCE / "examples/bonus_in_cleanrl_ppo.py").read_text(encoding="utf-8")
    code = text[text.index("from __future__") :]
    marked = re.findall(r"^ *# \+ curiosity\n(.*?)^ *# - curiosity\n", code, re.S | re.M)
    added = [line for block in marked for line in block.splitlines() if line.strip()]
    assert 5 <= len(added) <= 15
    plain = re.sub(r"^ *# \+ curiosity\n.*?^ *# - curiosity\n", "", code, flags=re.S | re.M)
    assert "curio" not in plain.lower() and "bonus" not in plain.lower()
    (tmp_path / "plain.py").write_text(plain)
    assert "cells seen in" in run(tmp_path / "plain.py", "--small", cwd=tmp_path)


def test_the_wrapper_for_stable_baselines_pays_what_one_call_pays() -> None:
    """Step by step, with the state carried, as the whole stream at once; own rewards are kept."""
    from stable_baselines3.common.env_util import make_vec_env

    example = load("bonus_in_sb3")
    env = make_vec_env("CartPole-v1", 3, seed=0)
    curious = example.CuriousVecEnv(env, "rnd", weight=2.0, update_every=1000)
    observations, actions, dones, final, paid = [curious.reset()], [], [], [], []
    bonus_of, draw = curious.curiosity, np.random.default_rng(0)
    curious.metrics = bonus_of.update(  # so that statistics are known, and do not move any more
        np.stack(observations * 3), np.zeros((2, 3), int), np.zeros((2, 3), bool)
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


def test_stable_baselines_computes_its_returns_from_the_bonus() -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    example = load("bonus_in_sb3")
    curious = example.CuriousVecEnv(make_vec_env("CartPole-v1", 3), "rnd", 0.5, update_every=20)
    ppo = PPO("MlpPolicy", curious, n_steps=60, batch_size=60, device="cpu", seed=0)
    ppo.learn(180)  # one rollout
    buffer = ppo.rollout_buffer
    assert (buffer.rewards[:20] == 1).all(), "no bonus before the first update"
    assert (buffer.rewards[20:] > 1).mean() > 0.8
    # PPO has flattened these two, environment after environment.
    values, advantages = (x.reshape(3, 60).T for x in (buffer.values, buffer.advantages))
    t = next(t for t in range(20, 58) if not buffer.episode_starts[t + 1].any())
    delta = buffer.rewards[t] + ppo.gamma * values[t + 1] - values[t]
    following = ppo.gamma * ppo.gae_lambda * advantages[t + 1]
    np.testing.assert_allclose(advantages[t], delta + following, rtol=1e-4, atol=1e-5)


def test_the_step_for_torchrl_adds_the_bonus_of_its_batches() -> None:
    from torchrl.collectors import Collector
    from torchrl.envs import SerialEnv

    example = load("bonus_in_torchrl")
    curious = example.Curious(example.make()._env, "rnd", 2)
    collector = Collector(
        SerialEnv(2, example.make), None, frames_per_batch=2 * 600, total_frames=2 * 600
    )
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
