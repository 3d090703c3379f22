"""The state of IntrinsicReward: a stream in pieces is paid as the whole stream."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

from afterwit.world_models import IntrinsicReward
from afterwit.world_models.models.mix import MixConfig
from tests.helpers import A, B, T, same, tiny_torso_config
from tests.world_models.curiosities import ACTIONS, VECTOR, curiosity, steps


@pytest.mark.parametrize("autoreset", ("next-step", "same-step"))
# byol-hindsight draws noise at each call
@pytest.mark.parametrize("name", ("byol-explore", "rnd", "icm"))
def test_a_stream_in_pieces_is_paid_as_the_whole_stream(name: str, autoreset: str) -> None:
    """It is cut before, at and after the steps that end episodes and that only reset."""
    intrinsic, (obs, actions, dones) = curiosity(name, autoreset=autoreset), steps(length=3 * T)
    dones[[T, T + 1, 2 * T - 1], [3, 3, 4]] = True
    if autoreset == "next-step":
        dones[1:] &= ~dones[:-1]  # a step that only resets ends nothing
    intrinsic.update(obs, actions, dones)
    before = deepcopy(intrinsic.state_dict())
    whole, end = intrinsic.reward(obs, actions, dones, state=intrinsic.initial_state(B))
    np.testing.assert_array_equal(whole, intrinsic.reward(obs, actions, dones))
    for cut in range(1, 3 * T):
        state, paid = intrinsic.initial_state(B), []
        for start, stop in ((0, cut), (cut, 3 * T)):
            piece = obs[start : stop + 1], actions[start:stop], dones[start:stop]
            bonus, state = intrinsic.reward(*piece, state=state)
            paid.append(bonus)
        np.testing.assert_allclose(np.concatenate(paid), whole, atol=1e-5, err_msg=f"cut at {cut}")
        torch.testing.assert_close(state.core, end.core, rtol=1e-4, atol=1e-5)
        assert torch.equal(state.opens, end.opens) and torch.equal(state.ended, end.ended)
    assert same(intrinsic.state_dict(), before)
    if name == "byol-explore":  # the memory makes a difference
        blank = intrinsic.reward(
            obs[T:], actions[T:], dones[T:], None if autoreset == "same-step" else dones[T - 1]
        )
        assert not np.allclose(blank[0], whole[T], atol=1e-3)


@pytest.mark.parametrize(
    "model", ("byol-hindsight", MixConfig(parts=("byol-hindsight", "rnd"))), ids=("alone", "mixed")
)
def test_each_step_of_a_stream_has_noise_of_its_own(model: Any) -> None:
    """Otherwise an environment's z would have the same noise at all steps between two updates."""
    intrinsic = curiosity(model)
    intrinsic.update(*steps())
    before = deepcopy(intrinsic.state_dict())
    piece, start = steps(1), intrinsic.initial_state(B)
    paid, later = intrinsic.reward(*piece, state=start)
    assert later.steps == T
    np.testing.assert_array_equal(intrinsic.reward(*piece, state=start)[0], paid)
    other, _ = intrinsic.reward(*piece, state=replace(start, steps=T))
    assert np.abs(other - paid).max() > 1e-3
    assert same(dict(intrinsic.state_dict()["modules"]), dict(before["modules"]))


def test_a_state_does_not_depend_on_the_programs_own_modes() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        state = curiosity().initial_state(B)
        with torch.device("meta"):
            other = curiosity().initial_state(B)
        bonus, following = curiosity().reward(*steps(), state=state)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (
        state.core.dtype == other.core.dtype == following.core.dtype == torch.float32
        and other.core.device.type == "cpu"
    )
    np.testing.assert_array_equal(bonus, curiosity().reward(*steps(), state=other)[0])


@pytest.mark.parametrize(
    "state",
    (
        {},
        None,
        [],
        {"modules": {}},
        {"modules": {}, "optimiser": {}},
        curiosity("icm").state_dict(),
    ),
    ids=range(6),
)
def test_a_saved_state_of_something_else_is_named(state: Any) -> None:
    with pytest.raises(ValueError, match="this state does not belong to byol-hindsight") as raised:
        curiosity().load_state_dict(state)
    whole = isinstance(state, dict) and {"modules", "optimiser"} <= state.keys()
    assert whole != str(raised.value).endswith("give what state_dict() returned")


def test_tensors_without_numbers_are_named() -> None:
    obs, actions, dones = steps()
    for given in (torch.tensor(obs).to_sparse(), torch.tensor(obs).to("meta")):
        with pytest.raises(ValueError, match="obs is no array"):
            curiosity().reward(given, actions, dones)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="previous_dones is for next-step"):
        curiosity(autoreset="same-step").reward(obs, actions, dones, np.zeros(B, bool))


def test_an_update_reads_the_state_that_the_reward_was_given() -> None:
    intrinsic, (obs, actions, dones) = curiosity("byol-explore"), steps(length=2 * T)
    _, state = intrinsic.reward(
        obs[: T + 1], actions[:T], dones[:T], state=intrinsic.initial_state(B)
    )
    losses = []
    for given in (state, None):
        twin = curiosity("byol-explore")
        losses.append(twin.update(obs[T:], actions[T:], dones[T:], state=given)["loss"])
    assert losses[0] != losses[1]


def wrong_states() -> dict[str, Any]:
    """Objects that are not a state of `curiosity()` with B environments."""
    small = tiny_torso_config("mlp")
    more_actions = IntrinsicReward("rnd", VECTOR, Discrete(A + 2), seed=0, torso=small)
    obs, actions, dones = steps()
    own, others = curiosity().initial_state(B), more_actions.initial_state(B)
    _, largest = more_actions.reward(obs, 0 * actions + A + 1, dones, state=others)
    return {
        "number": 1,
        "word": "blank",
        "pair": curiosity().reward(obs, actions, dones, state=own),
        "of others": curiosity().initial_state(B + 1),
        "other actions": largest,
        "other autoreset": curiosity(autoreset="same-step").initial_state(B),
        "numbers for flags": replace(own, ended=own.action),
        "other torso": IntrinsicReward("rnd", VECTOR, ACTIONS, seed=0).initial_state(B),
    }


@pytest.mark.parametrize("state", wrong_states().values(), ids=wrong_states())
def test_a_state_of_something_else_is_named(state: Any) -> None:
    with pytest.raises(ValueError, match=f"it must come from initial_state.{B}.") as raised:
        curiosity().reward(*steps(), state=state)
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="state and previous_dones are both given"):
        curiosity().update(
            *steps(), previous_dones=np.zeros(B, bool), state=curiosity().initial_state(B)
        )
    for number in (0, 1.5, True, None):
        with pytest.raises(ValueError, match=f"num_envs is {number}"):
            curiosity().initial_state(number)  # type: ignore[arg-type]
