"""Several learners with a share of the environments each do what one learner does.

Losses, rewards, statistics and weights are compared.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from afterwit.agents import Learner, LearnerConfig, PolicyConfig
from afterwit.agents.vmpo import VMPOConfig
from afterwit.world_models import data_parallel
from afterwit.world_models.models.ama import AMAConfig
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.models.counts import CountsConfig
from afterwit.world_models.models.disagreement import DisagreementConfig
from afterwit.world_models.models.e3b import E3BConfig
from afterwit.world_models.models.icm import ICMConfig
from afterwit.world_models.models.lpm import LPMConfig
from afterwit.world_models.models.ngu import NGUConfig
from afterwit.world_models.models.noveld import NovelDConfig
from afterwit.world_models.models.re3 import RE3Config
from afterwit.world_models.models.ride import RIDEConfig
from afterwit.world_models.models.rnd import RNDConfig
from afterwit.world_models.trajectory import BATCH_AXIS, Trajectory, join_trajectories
from tests.helpers import random_trajectory, tiny_spec, tiny_torso_config

BATCH, CELLS = 6, 11
# the last of three learners gets nothing that happened
NEVER_HERE = [(t, b) for t in range(9) for b in (4, 5)]
RESETS = [(), ((0, 0), (4, 1), (8, 2), (3, 3), (4, 3), (2, 5)), NEVER_HERE]
CONFIGS = {
    "byol-explore": LearnerConfig(world_model=BYOLExploreConfig(horizon=3), extrinsic_weight=1.0),
    "byol-hindsight": LearnerConfig(
        world_model=BYOLHindsightConfig(
            horizon=2, generator_reads="outcome", purity="critic", invariance_in_reward=True
        )
    ),
    "small groups": LearnerConfig(
        world_model=BYOLHindsightConfig(purity="critic", contrast_size=4, critic="mlp")
    ),
    "innovation": LearnerConfig(world_model=BYOLHindsightConfig(horizon=2)),
    "direct-pred": LearnerConfig(
        world_model=BYOLExploreConfig(
            horizon=3, predictor="direct-pred", weight_decay=1e-3, centroid=0.5
        )
    ),
    "stride": LearnerConfig(world_model=BYOLExploreConfig(horizon=3, stride=3, centroid=0.5)),
    "hindsight by strides": LearnerConfig(world_model=BYOLHindsightConfig(horizon=3, stride=2)),
    "derivatives": LearnerConfig(
        world_model=BYOLExploreConfig(horizon=2, target_view="alternating")
    ),
    "regularised": LearnerConfig(
        world_model=BYOLExploreConfig(
            predictor="linear", dispersion_weight=1.0, brownian_weight=0.1
        )
    ),
    "pulled": LearnerConfig(
        world_model=BYOLHindsightConfig(horizon=2, pull_weight=1.0, expected_takes="action")
    ),
    "pulled unit vectors": LearnerConfig(
        world_model=BYOLExploreConfig(pull_weight=1.0, standardise_decay=None)
    ),
    "rnd": LearnerConfig(world_model=RNDConfig(), shared_torso=False),
    "icm": LearnerConfig(world_model=ICMConfig()),
    "counts": LearnerConfig(world_model=CountsConfig()),
    "disagreement": LearnerConfig(world_model=DisagreementConfig()),
    "ama": LearnerConfig(world_model=AMAConfig()),
    "lpm": LearnerConfig(world_model=LPMConfig()),
    "ride": LearnerConfig(world_model=RIDEConfig()),
    "ngu": LearnerConfig(world_model=NGUConfig()),
    "e3b": LearnerConfig(
        world_model=E3BConfig(), vmpo=VMPOConfig(weights="linear"), return_lambda=0.9
    ),
    "noveld": LearnerConfig(world_model=NovelDConfig()),
    "re3": LearnerConfig(world_model=RE3Config(memory=100)),
}
CONFIGS = {
    name: replace(config, torso=tiny_torso_config(), policy=PolicyConfig(hidden=16))
    for name, config in CONFIGS.items()
}


def cut(whole: Trajectory, parts: int) -> list[Trajectory]:
    """The trajectory as `parts` equal shares of its environments, in order."""
    pieces = {
        name: value.chunk(parts, BATCH_AXIS.get(name, 1))
        for name, value in whole.state().items()
        if isinstance(value, torch.Tensor)
    }
    info = {name: value.chunk(parts, 1) for name, value in whole.info.items()}
    return [
        Trajectory(
            **{name: piece[i] for name, piece in pieces.items()},
            info={name: piece[i] for name, piece in info.items()},
        )
        for i in range(parts)
    ]


def trajectories(updates: int) -> Iterator[Trajectory]:
    for seed in range(updates):
        whole = random_trajectory(
            batch=BATCH, seed=seed, resets=RESETS[seed % len(RESETS)], dtype=torch.float64
        )
        cells = torch.arange(whole.action.numel()).view(whole.action.shape) * 7 % CELLS
        yield replace(whole, info={"cell": cells})


def learn(name: str, rank: int, learners: int) -> dict[str, Any]:
    """Metrics and bonuses of each update, and at the end everything that is learned.

    It computes in float64, so that rounding makes no difference.
    """
    torch.set_default_dtype(torch.float64)
    try:
        return _learn(name, rank, learners)
    finally:
        torch.set_default_dtype(torch.float32)


def _learn(name: str, rank: int, learners: int) -> dict[str, Any]:
    spec = replace(tiny_spec(num_envs=BATCH), tells=("cell",), semantics={"cells": CELLS})
    learner = Learner(CONFIGS[name], spec, seed=3, device=torch.device("cpu"))
    metrics = [
        learner.update(cut(trajectory, learners)[rank])
        for trajectory in trajectories(8 if name == "byol-hindsight" else 3)
    ]
    readings = learner.inspect(cut(next(trajectories(1)), learners)[rank])
    return {
        "metrics": metrics,
        "readings": readings,
        "weights": dict(learner.named_parameters()),
        "buffers": dict(learner.named_buffers()),
    }


def work(address: str, rank: int, learners: int, names: Sequence[str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    data_parallel.join(address, rank, learners, timeout=60)
    try:
        return {name: learn(name, rank, learners) for name in names}
    finally:
        data_parallel.leave()


def results(learners: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """The results of several learners in processes of their own. They take half a minute."""
    sys.path.insert(0, str(Path(__file__).parents[2]))  # where these processes find this file
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with ProcessPoolExecutor(learners, get_context("spawn")) as pool:
        futures = [pool.submit(work, address, rank, learners, names) for rank in range(learners)]
        found = [future.result(timeout=300) for future in futures]
    sys.path.pop(0)
    return found


# one test for all models, so that these processes are started once; three learners, of which one
# gets nothing, show what two do, but for what depends on how a batch is cut: groups, a loss of the
# whole batch, an episode's memory
@pytest.mark.parametrize(
    ("learners", "names"), ((2, ("small groups", "regularised", "e3b")), (3, tuple(CONFIGS)))
)
def test_they_do_what_one_does(learners: int, names: Sequence[str]) -> None:
    several = results(learners, names)
    for name in names:
        one, each_of = learn(name, 0, 1), [each[name] for each in several]
        for step, whole in enumerate(one["metrics"]):
            parts = [each["metrics"][step] for each in each_of]
            bonus = torch.cat([part["bonus"] for part in parts], 1)
            agree(bonus, whole["bonus"], f"{name}: bonus, step {step}")
            for metric in whole.keys() - {"bonus"}:
                mean = torch.stack([part[metric] for part in parts]).mean(0)
                agree(mean, whole[metric], f"{name}: {metric}, step {step}")
        for kind in ("weights", "buffers"):
            for tensor, value in one[kind].items():
                own = [each[kind][tensor] for each in each_of]
                for other in own:
                    agree(other, value, f"{name}: {tensor}")
                # all end with the same bits
                assert all(torch.equal(own[0], other) for other in own), (name, tensor)
        if "leak/critic" in one["readings"]:  # it is over the whole batch
            for each in each_of:
                leak = each["readings"]["leak/critic"]
                agree(leak, one["readings"]["leak/critic"], f"{name}: leak")


def agree(found: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    torch.testing.assert_close(
        found, wanted, rtol=1e-5, atol=1e-9, msg=lambda text: f"{what}\n{text}"
    )


def test_a_learner_alone_exchanges_nothing() -> None:
    value = torch.arange(6.0).view(2, 3)
    assert data_parallel.num_learners() == 1
    for function in (
        data_parallel.average,
        lambda x: data_parallel.gather(x, 1),
        lambda x: data_parallel.own_share(x, 1),
    ):
        assert function(value) is value
    assert data_parallel.mean_count(value > 1) == 4 and data_parallel.mean_count(value > 9) == 1


def test_a_trajectory_is_cut_and_joined() -> None:
    whole = replace(
        random_trajectory(batch=BATCH), info={"cell": torch.arange(8 * BATCH).view(8, BATCH)}
    )
    for learners in (1, 2, 3):
        again = join_trajectories(cut(whole, learners))
        assert all(
            torch.equal(value, again.state()[name])
            for name, value in whole.state().items()
            if isinstance(value, torch.Tensor)
        )
        assert torch.equal(again.info["cell"], whole.info["cell"])
