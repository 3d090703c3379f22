"""Every example runs in small mode and has its page; what users write themselves is trained."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from afterwit.runs.command_line.main import main
from afterwit.runs.training.run_log import read_metrics
from tests.examples.loading import load, run
from tests.house.import_graph import SOURCE

pytestmark = pytest.mark.slow
EXAMPLES = sorted((SOURCE / "examples").glob("*.py"))
PAGES = [*(SOURCE / "docs").glob("*.md"), *(SOURCE / "docs" / "guides").glob("*.md")]
GUIDES = sorted((SOURCE / "docs" / "guides").glob("*.md"))
WRITES = ("two_agents_in_a_noisy_maze", "compare_two_methods", "sparse_task")  # these take --out
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
