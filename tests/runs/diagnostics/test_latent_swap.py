"""The probe: models whose z carries known things, its data, its figure, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from afterwit.envs.atari import AtariConfig
from afterwit.envs.gym import GymConfig
from afterwit.envs.maze import NOISE, PALETTE, RADIUS, Maze, MazeConfig
from afterwit.envs.maze_map import FLOOR, TRACKER, WALL, draw_view
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import atari_small, maze
from afterwit.runs.configs.run_config import RunConfig, read_config, write_config
from afterwit.runs.diagnostics.latent_swap import choose, measure, probe
from afterwit.runs.diagnostics.latent_swap_data import (
    Bank,
    Reading,
    alike_cells,
    gather,
    read,
    split,
)
from afterwit.runs.diagnostics.latent_swap_figure import bars, drawer, in_colour
from afterwit.runs.diagnostics.latent_swap_text import table
from afterwit.runs.training import checkpoint
from afterwit.runs.training.loop import train
from afterwit.runs.training.run import Run
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig

SMALL = replace(
    maze(),
    env=MazeConfig(num_envs=3, episode_steps=9),
    total_steps=60,
    unroll_length=5,
    log_interval=30,
)
PLACES, NOISES, STEPS, ENVS = 5, 3, 40, 4


def planted() -> Bank:
    """Return transitions to random places under random noise.

    (b, a) carries the place, z the noise, and the target both.
    """
    random = np.random.default_rng(0)
    place = random.integers(PLACES, size=(STEPS + 1, ENVS))
    noise = random.integers(NOISES, size=(STEPS + 1, ENVS))
    step, env = (index.reshape(-1) for index in np.indices((STEPS, ENVS)))
    where, what = place[step + 1, env], noise[step + 1, env]
    ahead = F.one_hot(torch.from_numpy(where), PLACES).float()
    latent = F.one_hot(torch.from_numpy(what), NOISES).float()
    reading = Reading(what, what > 0, where, np.eye(PLACES, dtype=bool))
    frames = np.stack([place, noise], -1).astype(np.float32)
    return Bank(
        frames,
        step,
        env,
        where * 0,
        ahead,
        latent,
        torch.cat([ahead, latent], -1),
        reading,
        {"noise_on": what > 0},
    )


def z_is_the_noise(ahead: Tensor, latent: Tensor) -> Tensor:
    return torch.cat([ahead, latent], -1)


def z_is_ignored(ahead: Tensor, latent: Tensor) -> Tensor:
    return torch.cat([ahead, torch.full_like(latent, 0.1)], -1)


def measured(
    bank: Bank, reconstruct: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, dict[str, float]]:
    return measure(bank, reconstruct, np.arange(len(bank)), 4, np.random.default_rng(1))


def test_where_z_is_the_noise_the_noise_changes_and_the_place_stays() -> None:
    numbers = measured(planted(), z_is_the_noise)
    own, other, moved = numbers["own_z"], numbers["other_z"], numbers["other_place"]
    assert (
        own["place_kept"] == 1
        and own["noise_changed"] == 0
        and own["median_rank"] == 1
        and own["error"] == pytest.approx(0, abs=1e-5)
    )
    assert (
        other["place_kept"] == 1 and other["place_kept_and_noise_changed"] == other["noise_changed"]
    )
    # The target is a one-hot place and a one-hot noise: a swap that changes the noise costs 2.
    assert other["error"] == pytest.approx(2 * other["noise_changed"], abs=1e-5)
    assert other["noise_changed"] == pytest.approx(1 - 1 / NOISES, abs=0.08)
    assert (
        moved["place_of_other"] == 1
        and moved["place_kept"] == pytest.approx(1 / PLACES, abs=0.08)
        and moved["noise_changed"] == 0
    )


def test_where_z_is_ignored_another_z_changes_nothing() -> None:
    numbers = measured(planted(), z_is_ignored)
    assert numbers["other_z"]["error"] == pytest.approx(numbers["own_z"]["error"])
    assert numbers["other_z"]["noise_changed"] == pytest.approx(numbers["own_z"]["noise_changed"])
    assert numbers["other_z"]["place_kept"] == 1


def test_a_z_that_carries_the_place_is_found_out() -> None:
    bank = planted()
    leaking = replace(bank, latent=bank.target)
    numbers = measured(leaking, lambda ahead, latent: latent)
    assert numbers["own_z"]["place_kept"] == 1
    assert numbers["other_z"]["place_of_other"] == 1 and numbers["other_z"][
        "place_kept"
    ] == pytest.approx(1 / PLACES, abs=0.08)
    assert numbers["other_place"]["place_kept"] == 1


def test_the_rank_counts_the_distinct_outcomes_that_are_nearer() -> None:
    bank = planted()
    backwards = measured(bank, lambda ahead, latent: -z_is_the_noise(ahead, latent))
    assert backwards["own_z"]["median_rank"] == len(bank.representative) == PLACES * NOISES


def test_the_world_is_the_same_observation_and_action_again() -> None:
    bank = planted()
    frames = bank.frames.copy()
    frames[:, :, 0] = 0  # every observation shows its noise alone
    numbers = measured(replace(bank, frames=frames), z_is_the_noise)["world"]
    assert numbers["noise_changed"] == pytest.approx(1 - 1 / NOISES, abs=0.08)
    assert numbers["place_kept"] == pytest.approx(1 / PLACES, abs=0.08)
    alone = replace(bank, action=np.arange(len(bank)))
    assert measured(alone, z_is_the_noise)["world"] == {"measured": 0}


def test_queries_are_varied_and_of_both_kinds() -> None:
    bank = planted()
    chosen = choose(bank, z_is_the_noise, 6, np.random.default_rng(0))
    assert len(chosen) == 6 and sum(bank.reading.noisy[list(chosen)]) == 3  # type: ignore[index]
    assert len({int(bank.outcome[query]) for query in chosen}) == 6
    untold = replace(bank, reading=Reading())

    def worse_and_worse(ahead: Tensor, latent: Tensor) -> Tensor:
        return torch.cat([ahead, latent + torch.arange(len(ahead))[:, None]], -1)

    kinds = choose(untold, worse_and_worse, 4, np.random.default_rng(0))
    assert sorted(kinds.values()) == ["large error", "large error", "small error", "small error"]
    assert all((query >= 0.9 * len(bank)) or kind == "small error" for query, kind in kinds.items())


@pytest.mark.parametrize("shared", (True, False))
def test_the_bank_holds_what_the_learner_sees_of_the_steps_that_happened(shared: bool) -> None:
    config = replace(
        SMALL,
        env=replace(SMALL.env, stagger=False),
        learner=replace(SMALL.learner, shared_torso=shared),
    )
    run = Run(config)
    model = run.learner.world_model
    assert isinstance(model, BYOLHindsight)
    before = model.random.get_state()
    bank = gather(run, steps=60, seed=5, progress=False)
    assert torch.equal(model.random.get_state(), before)
    # All three mazes reset together: of 20 agent steps each, those from 9 and 19 are resets.
    assert len(bank) == 3 * 18 and not {9, 19} & set(bank.step.tolist()) and len(bank.frames) == 21
    followed = torch.from_numpy(np.stack([bank.followed(index) for index in range(len(bank))]))
    with torch.no_grad(), model.watching():
        # the target looks at obs[1:] alone
        seen = replace(run.actors[0].unroll(), obs=torch.stack([followed, followed]))
        torch.testing.assert_close(bank.target, model.target(seen)[0])

    trajectory = run.actors[0].unroll()
    shown, beliefs, _ = run.learner.perceive(trajectory)
    expected = run.learner.appraise(trajectory)[0].parts["reconstruction"]
    with torch.no_grad(), model.watching():
        target, ahead, state = model.unroll(shown, beliefs)
        foreseen = model.foresee(ahead)
        latent, _ = model.generate(state, foreseen, target)
        error = (model.reconstruct(ahead, latent, foreseen) - target)[0].square().sum(-1)
    torch.testing.assert_close(error * trajectory.real, expected)


def test_the_same_seed_plays_and_draws_the_same() -> None:
    banks = [gather(Run(SMALL), steps=60, seed=seed, progress=False) for seed in (5, 5, 6)]
    assert torch.equal(banks[0].latent, banks[1].latent) and np.array_equal(
        banks[0].frames, banks[1].frames
    )
    assert not np.array_equal(banks[0].action, banks[2].action)


def test_what_the_maze_tells_of_noise_and_place() -> None:
    outcome = np.zeros((3, 8, 5, 5), np.uint8)
    outcome[1, NOISE, 0, 0] = outcome[2, WALL, 0, 0] = 255
    info = {
        "noise_on": np.array([0, 1, 0], bool),
        "block_in_view": np.array([0, 0, 1], bool),
        "cell": np.array([5, 6, 7]),
    }
    reading = read(MazeConfig(noise="pixel"), outcome, info)
    assert reading.noise is not None and reading.noisy is not None
    assert reading.noise[0] == reading.noise[2] != reading.noise[1] and reading.noisy.tolist() == [
        False,
        True,
        False,
    ]
    brownian = read(MazeConfig(noise="brownian"), outcome, info)
    bouncing = read(MazeConfig(noise="none"), outcome, info)
    assert brownian.noisy is not None and brownian.noisy.tolist() == [False, True, True]
    assert bouncing.noisy is not None and bouncing.noisy.tolist() == [False, True, False]
    rooms = read(AtariConfig(), outcome, {"room": np.array([1, 1, 4])})
    assert (
        rooms.noisy is None
        and rooms.alike is not None
        and rooms.alike[1, 1]
        and not rooms.alike[1, 4]
    )


def test_cells_that_look_alike_or_touch_are_the_same_place() -> None:
    world, alike = Maze(MazeConfig(num_envs=1), 0).map, alike_cells(1, "row")

    def cell(row: int, column: int) -> int:
        return row * world.width + column

    assert alike[cell(3, 3), cell(2, 4)] and not alike[cell(3, 1), cell(3, 3)]
    inside = [
        column
        for column in range(12, 40)
        if np.array_equal(world.views[cell(3, 11)], world.views[cell(3, column)])
    ]
    assert len(inside) > 2 and all(alike[cell(3, 11), cell(3, column)] for column in inside)
    assert (alike == alike.T).all() and alike.diagonal().all()
    assert alike_cells(2, "row")[cell(3, 1), cell(3, 3)]


def test_a_view_is_drawn_in_the_colours_of_the_maze() -> None:
    view = np.zeros((8, 5, 5), np.uint8)
    view[WALL, 0] = view[FLOOR, 4] = view[TRACKER + 2, 4, 0] = view[NOISE, 1, 1] = 255
    picture = draw_view(view)
    assert picture.shape == (40, 40, 3)
    cells = {(0, 2): "wall", (4, 3): "floor", (4, 0): "R3", (1, 1): "noise", (3, 3): "open"}
    assert {at: tuple(picture[8 * at[0] + 1, 8 * at[1] + 1]) for at in cells} == {
        at: PALETTE[name] for at, name in cells.items()
    }
    assert tuple(picture[RADIUS * 8 + 4, RADIUS * 8 + 4]) == PALETTE["agent"]


def test_what_differs_from_the_truth_is_tinted_and_nothing_else() -> None:
    frames = np.zeros((2, 1, 1, 6, 7), np.uint8)
    frames[1, 0, 0, 2, 3] = 200
    draw = drawer(AtariConfig(image_size=42), frames)
    plain, tinted = draw(frames[1, 0], None), draw(frames[1, 0], frames[0, 0])
    assert plain.shape == (6, 7, 3) and plain[2, 3, 0] == pytest.approx(200 / 255)
    assert np.argwhere((plain != tinted).any(-1)).tolist() == [[2, 3]]


def test_other_observations_are_drawn_too() -> None:
    colour = np.random.default_rng(0).random((3, 4, 5))
    assert np.array_equal(in_colour(colour), colour.transpose(1, 2, 0))
    # channels side by side, a white line between them
    assert in_colour(np.zeros((8, 5, 5))).shape == (3 * 6 - 1, 3 * 6 - 1, 3)
    strip = bars(np.array([0.0, 1.0, 0.5]), None)
    filled = (strip[..., 0] < 1).sum(0)
    assert filled[0] < filled[41] and filled[20] > filled[41]


WORLDS = {
    "maze": replace(SMALL, env=MazeConfig(num_envs=3, noise="on-demand")),
    "sticky maze": replace(SMALL, env=MazeConfig(num_envs=3, noise="sticky")),
    "atari": replace(
        atari_small(), env=AtariConfig(num_envs=2, image_size=42), total_steps=20, unroll_length=5
    ),
    "vector": replace(SMALL, env=GymConfig(id="CartPole-v1", num_envs=3)),
    "channels": replace(SMALL, env=GymConfig(id="afterwit.envs:afterwit/NoisyMaze-v0", num_envs=3)),
}


def trained(config: RunConfig, folder: Path) -> Path:
    write_config(config, folder)
    assert train(folder, progress=False)
    return folder


@pytest.mark.parametrize("world", WORLDS)
def test_every_kind_of_world_is_measured_and_drawn(world: str, tmp_path: Path) -> None:
    folder = trained(WORLDS[world], tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = probe(folder, queries=3, swaps=2, steps=60, seed=7, progress=False)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {folder / "probe.json", folder / "probe.png"}
    assert all(after[path] == content for path, content in before.items())
    written = json.loads((folder / "probe.json").read_text())
    assert written["kinds"] == result["kinds"] and result["meaning"] in table(result)
    assert ("place_kept" in next(iter(result["kinds"].values()))["own_z"]) == (
        "maze" in world or world == "atari"
    )
    assert (
        np.asarray(Image.open(folder / "probe.png").convert("L")).std() > 20
        and (folder / "probe.png").stat().st_size < 300_000
    )
    elsewhere = probe(
        folder, queries=3, swaps=2, steps=60, seed=7, out=tmp_path / "other", progress=False
    )
    assert (
        elsewhere["kinds"] == result["kinds"]
        and (tmp_path / "other" / "probe.png").read_bytes() == after[folder / "probe.png"]
    )


def test_a_long_horizon_is_looked_at_one_step_ahead(tmp_path: Path) -> None:
    learner = replace(SMALL.learner, world_model=BYOLHindsightConfig(horizon=3))
    bank = gather(Run(replace(SMALL, learner=learner)), steps=60, seed=5, progress=False)
    assert len(bank.ahead) == len(bank.target) == len(bank) and bank.ahead.dim() == 2
    assert sum(map(len, split(bank).values())) == len(bank)


def test_what_cannot_be_probed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explore = replace(SMALL, learner=replace(SMALL.learner, world_model=BYOLExploreConfig()))
    write_config(explore, tmp_path / "explore")
    write_config(SMALL, tmp_path / "untrained")
    refused = {
        ("explore",): "was trained with byol-explore, which has no z",
        ("untrained",): "has no checkpoint yet (checkpoint.pt); train it first",
        ("nowhere",): "is no run folder",
        ("untrained", "--queries", "0"): "queries is 0; it must be at least 1",
        ("untrained", "--swaps", "-1"): "swaps is -1; it must be at least 1",
        ("untrained", "--queries", "1000"): "queries is 1000; the picture has room for 20",
        ("untrained", "--swaps", "21"): "swaps is 21; the picture has room for 20",
    }
    for (name, *options), message in refused.items():
        assert main(["probe", str(tmp_path / name), *options]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("probe.*"))


def test_the_command_says_what_the_numbers_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(SMALL, tmp_path / "run")
    assert main(["probe", str(folder), "--queries", "2", "--swaps", "2", "--steps", "60"]) == 0
    printed = capsys.readouterr().out
    assert "place kept" in printed and "a leak" in printed and str(folder / "probe.png") in printed
    saved = checkpoint.load(folder, read_config(folder))
    assert saved["agent_steps"] == 60
