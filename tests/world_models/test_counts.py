"""The oracle of counts against a dict, and a closed form."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from afterwit.agents import Learner, LearnerConfig, PolicyConfig
from afterwit.envs.maze import Maze, MazeConfig
from afterwit.envs.specs import EnvSpec
from afterwit.runs.training.checkpoint import equal_states
from afterwit.world_models import IntrinsicReward, find_model
from afterwit.world_models.models.counts import Counts, CountsConfig
from afterwit.world_models.published import model_config
from afterwit.world_models.registry import ORACLES, WORLD_MODELS, world_model_name
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import A, B, T, close, look, random_trajectory, tiny_torso, tiny_torso_config
from tests.world_models.curiosities import ACTIONS, VECTOR

HEIGHT, WIDTH, STATES = 3, 4, 2


def told(states: int = STATES) -> EnvSpec:
    tells = ("cell", "state") if states > 1 else ("cell",)
    semantics = {"map": [HEIGHT, WIDTH]} | ({"states": states} if states > 1 else {})
    return EnvSpec("told", B, (6,), "float32", A, tells=tells, semantics=semantics)


def make(states: int = STATES) -> Counts:
    return Counts(CountsConfig(), tiny_torso(), told(states), 0)


def visiting(seed: int, states: int = STATES) -> Trajectory:
    rng = np.random.default_rng(seed)
    info = {"cell": torch.from_numpy(rng.integers(0, HEIGHT * WIDTH, (T, B)))}
    if states > 1:
        info["state"] = torch.from_numpy(rng.integers(0, states, (T, B)))
    return replace(random_trajectory(seed=seed), info=info)


@pytest.mark.parametrize("states", [1, STATES])
def test_it_pays_what_a_dict_of_visits_pays(states: int) -> None:
    model, visits = make(states), Counter[tuple[int, int]]()
    for seed in range(5):
        trajectory = visiting(seed, states)
        out = model(trajectory, *look(tiny_torso(), trajectory))
        cell = trajectory.info["cell"]
        state = trajectory.info.get("state", torch.zeros_like(cell))
        happened = [(t, b) for t in range(T) for b in range(B) if not trajectory.first[t + 1, b]]
        for t, b in happened:
            visits[int(state[t, b]), int(cell[t, b])] += 1
        expected = torch.zeros(T, B)
        for t, b in happened:
            expected[t, b] = visits[int(state[t, b]), int(cell[t, b])] ** -0.5
        close(out.reward, expected)
        assert out.reward.dtype == torch.float32 and torch.equal(out.parts["visits"], out.reward)
        assert float(out.loss) == 0 and not out.loss.requires_grad
        assert float(out.metrics["places"]) == len(visits)
    assert int(model.visits.sum()) == visits.total()


def test_the_nth_visit_pays_one_over_the_root_of_n() -> None:
    model, trajectory = make(), random_trajectory(length=2, batch=1, resets=())
    beliefs, embeddings = look(tiny_torso(), trajectory)
    for n in range(1, 30):
        # one visit of cell 5, and one of a cell in another state
        info = {"cell": torch.tensor([[5], [5]]), "state": torch.tensor([[0], [1]])}
        reward = model(replace(trajectory, info=info), beliefs, embeddings).reward
        close(reward, torch.full((2, 1), n**-0.5))
    # visits in one batch share one price
    info = {"cell": torch.full((2, 1), 7), "state": torch.zeros(2, 1, dtype=torch.int64)}
    close(
        model(replace(trajectory, info=info), beliefs, embeddings).reward,
        torch.full((2, 1), 2**-0.5),
    )


def test_scoring_pays_what_training_would_and_counts_nothing() -> None:
    model, scored = make(), []
    for seed in range(3):
        trajectory = visiting(seed)
        inputs = look(tiny_torso(), trajectory)
        before = model.visits.clone()
        with model.watching():
            scored = [model(trajectory, *inputs).reward for _ in range(2)]
        assert torch.equal(model.visits, before)
        paid = model(trajectory, *inputs).reward
        assert all(torch.equal(reward, paid) for reward in scored)
        assert not torch.equal(model.visits, before)


def test_steps_that_only_reset_count_nothing() -> None:
    model, everywhere = make(), [(t, b) for t in range(T + 1) for b in range(B)]
    trajectory = replace(visiting(0), first=random_trajectory(resets=everywhere).first)
    out = model(trajectory, *look(tiny_torso(), trajectory))
    assert not out.reward.any() and not model.visits.any()


def test_counts_are_in_checkpoints() -> None:
    model, other = make(), make()
    for seed in range(3):
        trajectory = visiting(seed)
        model(trajectory, *look(tiny_torso(), trajectory))
    other.load_state_dict(model.state_dict())
    trajectory = visiting(9)
    inputs = look(tiny_torso(), trajectory)
    assert torch.equal(model(trajectory, *inputs).reward, other(trajectory, *inputs).reward)
    assert torch.equal(model.visits, other.visits)


@pytest.mark.parametrize("shared", [True, False])
def test_an_agent_learns_with_nothing_to_train_in_the_model(shared: bool) -> None:
    config = LearnerConfig(
        world_model=CountsConfig(),
        torso=tiny_torso_config(),
        policy=PolicyConfig(hidden=16),
        shared_torso=shared,
    )
    learner = Learner(config, told(), seed=0, device=torch.device("cpu"))
    before = learner._snapshot()
    for seed in range(3):
        metrics = learner.update(visiting(seed))
    assert not equal_states(before, learner._snapshot())
    assert float(metrics["intrinsic_visits"]) > 0 and "model_places" in metrics
    again = Learner(config, told(), seed=1, device=torch.device("cpu"))
    again.load_state(learner.state())
    left, right = learner.update(visiting(7)), again.update(visiting(7))
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("layout", ["row", "branches"])
def test_its_table_has_the_maze_s_places(layout: str) -> None:
    maze = Maze(MazeConfig(2, layout=layout), seed=0)
    model = Counts(CountsConfig(), tiny_torso(), maze.spec, 0)
    states = 2**maze.map.num_levers
    assert (states > 1) == (layout == "branches")
    assert model.visits.shape == (states, maze.map.walls.size)


def test_where_places_are_not_told_it_says_so() -> None:
    message = "counts reads the true place, and tiny does not tell it; take a world that has `cell`"
    with pytest.raises(ValueError, match=message):
        Counts(CountsConfig(), tiny_torso(), replace(told(), name="tiny", tells=()), 0)
    with pytest.raises(ValueError, match="yours does not tell it"):
        IntrinsicReward("counts", VECTOR, ACTIONS, seed=0)


def test_it_is_an_oracle_and_no_method() -> None:
    assert {"counts": Counts} == ORACLES and "counts" not in WORLD_MODELS
    assert find_model("counts") is Counts and world_model_name(CountsConfig()) == "counts"
    assert "oracle" in Counts.predicts and "not a method" in Counts.predicts
    assert not CountsConfig().prioritise
    with pytest.raises(ValueError, match="counts has no published form"):
        model_config("counts", "published", "ours", rate=1e-3)
