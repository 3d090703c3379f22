"""How configs are compared: names that tell apart what differs, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from afterwit.envs.gym_config import GymConfig
from afterwit.runs.configs.comparison import compared, label, world_name
from afterwit.runs.configs.overrides import changed
from afterwit.runs.configs.presets import atari_small, maze


def test_labels_name_as_many_fields_as_tell_all_apart() -> None:
    others = [{"x.a": a, "x.b": b, "x.c": c, "d": 0} for a, b, c in product((1, 2), repeat=3)]
    labels = [label("rnd", this, others) for this in others]
    assert labels[0] == "rnd, a 1, b 1, c 1"
    assert len(set(labels)) == len(others)
    assert label("rnd", others[0], others[:1] * 2) == "rnd"
    pair = [{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}]
    assert label("rnd", pair[0], pair) == "rnd, a 1, b 1"  # two tell them apart


def test_runs_of_one_group_share_all_but_seed_and_resources() -> None:
    config = atari_small()
    same = {"seed": 5, "threads": 3, "env.threads": 3, "log_interval": 10, "keep_checkpoints": 9}
    for path, value in same.items():
        assert compared(changed(config, {path: value})) == compared(config), path
    other = {"total_steps": 5, "env.sticky": 0.5, "learner.torso.embedding": 8}
    for path, value in other.items():
        assert compared(changed(config, {path: value})) != compared(config), path


def test_the_noise_of_every_world_is_in_its_name() -> None:
    config = replace(maze(), env=GymConfig())
    assert world_name(config) == "CartPole-v1"
    assert world_name(changed(config, {"env.noise": "pixel"})) == "CartPole-v1 with pixel noise"
    assert world_name(changed(atari_small(), {"env.noise": "walk"})).endswith(" with walk noise")
    dosed = changed(maze(), {"env.dose": 0.5})
    assert world_name(dosed) == "the maze with brownian noise (dose 0.5)"
