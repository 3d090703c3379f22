"""The separation benchmark: its worlds, numbers against slow definitions, and mistakes."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterwit.envs.arrays import Array
from afterwit.runs.command_line.main import main
from afterwit.runs.diagnostics.separation import SeparationConfig, benchmark_separation, separate
from afterwit.runs.diagnostics.separation_rules import RULE_WORLDS
from afterwit.runs.diagnostics.separation_verdicts import auc, judge, table, verdict
from afterwit.runs.diagnostics.separation_world import (
    ACTIONS,
    FAMILIAR,
    KINDS,
    NOISY,
    NOVEL,
    PLACES,
    Log,
    State,
    World,
)
from afterwit.runs.diagnostics.separation_worlds import WORLDS
from afterwit.world_models import WORLD_MODELS

torch.set_num_threads(1)  # networks this small only lose time to a second thread

TINY = SeparationConfig(
    models=("rnd", "byol-hindsight"),
    worlds=("jump", "pixels"),
    seeds=2,
    updates=2,
    steps=4,
    batch=9,
)
each_world = pytest.mark.parametrize("name", WORLDS)
# where news is new pictures with rules of their own
each_place = pytest.mark.parametrize("name", [name for name in WORLDS if name not in RULE_WORLDS])


def log_of(
    name: str, steps: int = 40, batch: int = 300, unseen: float = 1 / 3, seed: int = 0
) -> tuple[World, Log]:
    world = WORLDS[name](seed)
    return world, world.log(steps, batch, unseen, np.random.default_rng([seed, 9]))


def outcomes(log: Log, kinds: tuple[int, ...]) -> dict[tuple[bytes, int], list[bytes]]:
    """Return what followed on each (observation, action) in these kinds, by a loop."""
    found: dict[tuple[bytes, int], list[bytes]] = {}
    for t, b in np.argwhere(np.isin(log.kind, kinds)):
        found.setdefault((log.obs[t, b, :2].tobytes(), int(log.action[t, b])), []).append(
            log.obs[t + 1, b].tobytes()
        )
    return found


@each_world
def test_what_is_called_deterministic_is_decided_by_observation_and_action(name: str) -> None:
    """Pixels are ignored: pixels of the last frame must not matter."""
    _, log = log_of(name, batch=600)
    for kind in (FAMILIAR, NOVEL):
        seen = outcomes(log, (kind,))
        repeated = [values for values in seen.values() if len(values) > 1]
        least = (30 if kind == FAMILIAR else 7) if name in RULE_WORLDS else 40
        assert len(repeated) > least and all(len(set(values)) == 1 for values in repeated)


@each_world
def test_noise_cannot_be_foreseen(name: str) -> None:
    """From the same observation and action, noise leads to many outcomes.

    For a coin these are two, equally often.
    """
    world, _ = log_of(name)
    count = 4000
    state, action = one_noisy_state(world, count)
    after, kind = world.step(state, action, np.random.default_rng(3))
    noisy = kind == NOISY
    assert noisy.mean() == pytest.approx(0.25 if name == "pixels" else 1, abs=0.05)
    shares = (
        np.unique(
            world.observe(after)[noisy].reshape(int(noisy.sum()), -1), axis=0, return_counts=True
        )[1]
        / noisy.sum()
    )
    expected = {"jump": PLACES, "lever": PLACES, "ticket": PLACES, "ball": 8, "coin": 2}
    expected |= {"exits": PLACES, "portal": PLACES, "door": PLACES, "gallery": 25}
    if name in expected:
        assert len(shares) == expected[name]
        np.testing.assert_allclose(shares, 1 / expected[name], atol=0.03)
    else:
        assert shares.max() < 0.01


def one_noisy_state(world: World, count: int) -> tuple[State, Array]:
    """Return `count` copies of one state and action at which noise can occur."""
    rng = np.random.default_rng(2)
    while True:
        one = State(
            rng.integers(PLACES, size=1),
            rng.integers(len(world.things), size=1),
            np.zeros((1, 5, 5), bool),
            np.zeros(1, bool),
        )
        action = rng.integers(ACTIONS, size=1)
        if any(world.is_noisy(one, action, rng)[0] for _ in range(50)):
            parts = (getattr(one, field.name).repeat(count, 0) for field in fields(State))
            return State(*parts), action.repeat(count)


@each_world
def test_noise_decides_what_follows_where_the_world_says_so(name: str) -> None:
    """Two environments run on from one noisy step with the same chance.

    Views after the frame that noise drew must differ only if noise decides what follows.
    """
    world, _ = log_of(name)
    state, action = one_noisy_state(world, 400)
    after, kind = world.step(state, action, np.random.default_rng(3))
    later, _ = world.step(
        replace(after, pixels=np.zeros_like(after.pixels)), (action + 1) % ACTIONS, Constant()
    )
    views = world.observe(later)[kind == NOISY]
    assert (len(np.unique(views.reshape(len(views), -1), axis=0)) > 1) == world.relevant


class Constant(np.random.Generator):
    """The same for every environment: what still differs comes from the state."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def random(self, size: Any = None) -> Any:  # type: ignore[override]
        return np.full(size, 0.9)

    def integers(self, low: Any, high: Any = None, size: Any = None) -> Any:  # type: ignore[override]
        return np.zeros(size, np.int64)


@each_place
def test_never_seen_places_are_seen_in_held_out_logs_alone(name: str) -> None:
    world, training = log_of(name, unseen=0.0)
    assert not (training.kind == NOVEL).any()
    _, mixed = log_of(name)
    looks = {obs.tobytes() for obs in training.obs[:, :, 0].reshape(-1, 25)}
    new = {mixed.obs[t, b, 0].tobytes() for t, b in np.argwhere(mixed.kind == NOVEL)}
    assert len(looks) == PLACES and len(new) == PLACES and not looks & new
    assert not (world.table[:PLACES] >= PLACES).any() and not (world.table[PLACES:] < PLACES).any()
    # dynamics of their own
    assert (world.table[PLACES:] - PLACES != world.table[:PLACES]).mean() > 0.5


@pytest.mark.parametrize("name", ("exits", "portal", "door"))
def test_a_new_rule_shows_familiar_pictures_alone_and_a_new_step(name: str) -> None:
    """Every picture before and after news was seen in training, but never one after the other."""
    _, training = log_of(name, steps=60, batch=600, unseen=0.0)
    _, mixed = log_of(name)
    assert not (training.kind == NOVEL).any() and (mixed.kind == NOVEL).mean() > 0.015
    pictures = {obs.tobytes() for obs in training.obs.reshape(-1, 3 * 25)}
    steps = {
        (training.obs[t, b].tobytes(), int(training.action[t, b]), training.obs[t + 1, b].tobytes())
        for t, b in np.argwhere(training.kind == FAMILIAR)
    }
    for t, b in np.argwhere(mixed.kind == NOVEL):
        before, after = mixed.obs[t, b].tobytes(), mixed.obs[t + 1, b].tobytes()
        assert {before, after} <= pictures
        assert (before, int(mixed.action[t, b]), after) not in steps


@pytest.mark.parametrize("name", ("exits", "door"))
def test_the_same_place_and_action_were_often_seen_with_another_outcome(name: str) -> None:
    _, training = log_of(name, steps=60, batch=600, unseen=0.0)
    _, mixed = log_of(name)
    known, new = outcomes(training, (FAMILIAR,)), outcomes(mixed, (NOVEL,))
    assert new.keys() <= known.keys()
    assert not any(set(new[key]) & set(known[key]) for key in new)


def test_in_the_gallery_only_the_picture_is_new() -> None:
    """The ball moves as everywhere, and the never-seen look stays."""
    _, training = log_of("gallery", steps=60, batch=600, unseen=0.0)
    _, mixed = log_of("gallery")
    looks = {obs.tobytes() for obs in training.obs[:, :, 0].reshape(-1, 25)}
    rules: dict[tuple[bytes, int], bytes] = {}
    for t, b in np.argwhere(training.kind == FAMILIAR):
        key = training.obs[t, b, 1].tobytes(), int(training.action[t, b])
        after = training.obs[t + 1, b, 1].tobytes()
        assert rules.setdefault(key, after) == after
    news = np.argwhere(mixed.kind == NOVEL)
    assert len(news) > 1000
    for t, b in news:
        before, after = mixed.obs[t, b], mixed.obs[t + 1, b]
        assert before[0].tobytes() not in looks and np.array_equal(before[0], after[0])
        assert rules[before[1].tobytes(), int(mixed.action[t, b])] == after[1].tobytes()


@each_world
def test_familiar_and_noisy_transitions_are_often_seen(name: str) -> None:
    """Tested on a sixth of one training.

    Every (place, action) occurs many times, and at least one step in ten is noisy. The portal's
    action was never tried outside the pits.
    """
    world, log = log_of(name, steps=10, batch=64 * 100, unseen=0.0)
    visits = np.zeros((PLACES, ACTIONS), np.int64)
    codes = {world.looks[place].tobytes(): place for place in range(PLACES)}
    bits, index = np.unique((log.obs[:-1, :, 0] > 0).reshape(-1, 25), axis=0, return_inverse=True)
    places = np.array([codes[row.tobytes()] for row in bits])[index.reshape(-1)]
    np.add.at(visits, (places, log.action.reshape(-1)), 1)
    if name == "portal":
        assert not visits[PLACES // 4 :, -1].any()
        visits[PLACES // 4 :, -1] = 100
    assert visits.min() > 80
    assert 0.1 < (log.kind == NOISY).mean() < 0.55


@each_world
def test_the_same_seed_gives_the_same_log(name: str) -> None:
    logs = [log_of(name, batch=12, seed=seed)[1] for seed in (3, 3, 4)]
    assert all(
        np.array_equal(getattr(logs[0], part), getattr(logs[1], part))
        for part in ("obs", "action", "done", "kind")
    )
    assert not np.array_equal(logs[0].obs, logs[2].obs)


def test_a_log_is_what_the_facade_takes() -> None:
    _, log = log_of("ball", steps=4, batch=9)
    assert (
        log.obs.shape == (5, 9, 3, 5, 5)
        and log.obs.dtype == np.uint8
        and set(np.unique(log.obs)) == {0, 255}
    )
    assert log.action.shape == log.done.shape == log.kind.shape == (4, 9)
    assert log.done[-1].all() and not log.done[:-1].any()
    assert (log.kind[:, :3] == NOVEL).all() and not (log.kind[:, 3:] == NOVEL).any()


def test_auc_equals_a_double_loop_with_ties() -> None:
    rng = np.random.default_rng(0)
    for levels, n, m in ((3, 7, 5), (10, 13, 40), (1, 4, 6), (10**6, 30, 20)):
        news, noise = rng.integers(levels, size=n) / 7, rng.integers(levels, size=m) / 7
        slow = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in news for b in noise) / (n * m)
        assert auc(news, noise) == pytest.approx(slow, abs=1e-12)
    assert auc(np.array([2.0]), np.array([1.0])) == 1 and auc(np.array([1.0]), np.array([2.0])) == 0


def test_the_numbers_of_a_result_are_those_of_its_rewards() -> None:
    numbers = judge(
        [np.array([0.0, 0.1, 5.0]), np.array([1.0, 3.0]), np.array([2.0, 4.0, 9.0, 4.0])]
    )
    assert (
        numbers["median"] == {"familiar": 0.1, "noisy": 2.0, "novel": 4.0}
        and numbers["ratio"] == 0.5
    )
    assert numbers["mean"]["novel"] == 4.75 and numbers["count"] == {
        "familiar": 3,
        "noisy": 2,
        "novel": 4,
    }
    assert numbers["auc"] == 7 / 8
    assert judge([np.zeros(2), np.ones(2), np.zeros(2)])["ratio"] == np.inf


def test_verdicts() -> None:
    cases = {
        (0.98, 0.02): "ok",
        (1.0, 0.021): "leaks",
        (0.979, 0.0): "unclear",
        (0.51, 1.0): "unclear",
        (0.5, 0.0): "trapped",
    }
    assert {case: verdict(*case) for case in cases} == cases


def test_every_world_model_has_a_config_and_is_judged_unclipped() -> None:
    for name, model in WORLD_MODELS.items():
        config = TINY.model(name)
        assert type(config) is model.Config and not config.prioritise


def test_a_training_is_repeatable_and_learns(tmp_path: Path) -> None:
    """RND in the world of jumps, after a few hundred updates.

    Places that it knows must pay less than those that it does not know.
    """
    config = replace(TINY, updates=120, batch=32)
    first, again = (separate(config, "jump", "rnd", 1, tmp_path) for _ in range(2))
    assert first["rewards"] == again["rewards"] and first["auc"] == again["auc"]
    assert (
        first["auc"] > 0.9 > separate(replace(config, updates=1), "jump", "rnd", 1, tmp_path)["auc"]
    )


def test_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    alone = benchmark_separation(
        TINY, jobs=1, out=tmp_path / "sub" / "numbers.json", progress=False
    )
    spread_out = benchmark_separation(TINY, jobs=2, out=None, progress=False)
    assert [run["rewards"] for run in alone["runs"]] == [
        run["rewards"] for run in spread_out["runs"]
    ]
    kept = json.loads((tmp_path / "sub" / "numbers.json").read_text())
    assert (
        kept["provenance"]["commit"] == alone["provenance"]["commit"]
        and kept["config"]["updates"] == 2
    )
    assert len(kept["runs"]) == 8 and {entry["verdict"] for entry in kept["summary"]} <= {
        "ok",
        "leaks",
        "unclear",
        "trapped",
    }
    picture = tmp_path / "sub" / "numbers.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and 2_000 < picture.stat().st_size < 300_000


def test_the_command_prints_a_row_a_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = (
        "--models icm byol-explore --worlds coin --seeds 1 --updates 1 --steps 3 --batch 6 --jobs 1"
        " --byol-explore.horizon 2"
    )
    out = tmp_path / "numbers.json"
    assert main(["benchmark", "--separation", *options.split(), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "coin: noise that decides what follows" in printed and f"written: {out}" in printed
    assert (
        len(re.findall(r"^  (icm|byol-explore) .*(ok|leaks|unclear|trapped)$", printed, re.M)) == 2
    )
    assert json.loads(out.read_text())["config"]["configs"]["byol-explore"]["horizon"] == 2


def test_the_table_says_what_the_summary_holds() -> None:
    entry = {
        "world": "jump",
        "model": "rnd",
        "median": dict(zip(KINDS, (0.25, 0.5, 50.0), strict=True)),
        "auc": 0.99,
        "auc_lowest": 0.9,
        "auc_highest": 1.0,
        "ratio": 0.01,
        "noise": {"pay": 0.42, "time": 0.28},
        "verdict": "ok",
    }
    sizes = {"updates": 5, "steps": 4, "batch": 9}
    result = {
        "summary": [entry, entry | {"world": "private-eye", "model": "byol-hindsight"}],
        "runs": [{"cpu_seconds": 7.0, **sizes}, {"cpu_seconds": 8.0, **sizes}],
        "wall_seconds": 12.0,
        "config": {"seeds": 1},
    }
    lines = table(result).splitlines()
    row = next(line for line in lines if line.startswith("  rnd"))
    assert row.split() == [
        *("rnd", "0.25", "0.50", "50.00", "0.990", "0.90-1.00", "1.0%", "42%,", "28%", "ok")
    ]
    assert "jump: noise that decides what follows" in lines
    assert "private-eye: steps over familiar borders" in lines
    assert lines.count("5 updates of 4 steps x 9 environments") == 1
    assert all(len(line) <= 80 for line in lines if not line.startswith("  leaks"))


MISTAKES = {
    "model": (
        ["--models", "rdn"],
        "unknown world model 'rdn'; choose from byol-explore, byol-hindsight, rnd, icm",
    ),
    "world": (["--worlds", "maze"], "unknown world 'maze'; choose from pixels"),
    "twice": (
        ["--models", "rnd", "rnd"],
        "models is 'rnd rnd'; name at least one model, each once",
    ),
    "nothing": (["--worlds"], "worlds is ''; name at least one world"),
    "seeds": (["--seeds", "0"], "seeds is 0; it must be at least 1"),
    "batch": (["--batch", "2"], "batch is 2; it must be at least 3"),
    "rate": (["--learning-rate", "-1"], "learning_rate is -1.0; it must be above 0"),
    "no rate": (["--learning-rate", "inf"], "learning_rate is inf; it must be a finite number"),
    "horizon": (["--byol-explore.horizon", "11"], "byol-explore: world_model.horizon is 11"),
    "jobs": (["--jobs", "0"], "jobs is 0"),
    "out": (["--out", "numbers"], "out is 'numbers'; it must end in .json"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    args, message = MISTAKES[name]
    assert main(["benchmark", "--separation", *args]) == 2
    assert message in capsys.readouterr().err


def test_a_mistake_in_a_models_config_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", "--separation", "--byol-hindsight.invariance-weight", "0"])
    assert "world_model.invariance_weight" in capsys.readouterr().err


def test_a_model_that_breaks_is_named(tmp_path: Path) -> None:
    config = replace(TINY, updates=9, learning_rate=1e9)
    with pytest.raises(ValueError, match="rnd in jump, seed 0: the reward of rnd is"):
        separate(config, "jump", "rnd", 0, tmp_path)
