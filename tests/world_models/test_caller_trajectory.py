"""Last observations that are given apart: same-step autoreset is paid as next-step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Text

from afterwit.world_models import WORLD_MODELS, IntrinsicReward
from afterwit.world_models.caller_trajectory import Final, make_trajectory
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from tests.helpers import A, same, tiny_torso_config
from tests.world_models.curiosities import IMAGE, VECTOR, curiosity

T, B = 12, 4
# steps (t, b) that end an episode: in the first and last step, next to each other, never
ENDS = ((0, 0), (7, 0), (3, 1), (T - 1, 1), (5, 2), (6, 2), (7, 2))
OBJECTS = np.full((T, B), None, object)


def episodes(space: Any = VECTOR, ends: Any = ENDS) -> tuple[Any, Any, Any, Any]:
    """Observations [T+1, B, ...], actions and dones [T, B], and last observations [T, B, ...]."""
    rng = np.random.default_rng(0)
    shape = (2 * T + 1, B, *space.shape)
    obs = (
        rng.integers(0, 256, shape, dtype=np.uint8)
        if space is IMAGE
        else rng.normal(size=shape).astype(np.float32)
    )
    dones = np.zeros((T, B), bool)
    dones[tuple(zip(*ends, strict=True))] = True
    return obs[: T + 1], rng.integers(0, A, (T, B)), dones, obs[T + 1 :]


def with_reset_steps(obs: Any, actions: Any, dones: Any, final: Any, b: int) -> tuple[Any, ...]:
    """Environment b's steps with next-step autoreset, and which of them happened."""
    rows, taken, over, real = [obs[0, b]], [], [], []
    for t in range(T):
        ended = dones[t, b]
        rows.append(final[t, b] if ended else obs[t + 1, b])
        taken.append(actions[t, b]), over.append(ended), real.append(True)
        if ended and t < T - 1:
            rows.append(obs[t + 1, b])
            taken.append(0), over.append(False), real.append(False)
    return (*(np.stack(each)[:, None] for each in (rows, taken, over)), np.array(real))


def test_the_trajectory_is_that_of_next_step_autoreset() -> None:
    """Two episodes of each environment end within these steps."""
    obs, actions, dones, final = episodes(ends=[(t, b) for b in range(B) for t in (b, b + 5)])
    columns = [with_reset_steps(obs, actions, dones, final, b) for b in range(B)]
    padded = make_trajectory(
        obs,
        actions,
        dones,
        curiosity(autoreset="same-step").initial_state(B),
        Final(dones, final[dones]),
    )
    rows, taken, over = (
        np.concatenate([column[index] for column in columns], 1) for index in range(3)
    )
    expected = make_trajectory(rows, taken, over, curiosity().initial_state(B), None)
    assert same(padded.trajectory.state(), expected.trajectory.state())
    assert padded.trajectory.padding is None and len(rows) == T + 3
    np.testing.assert_array_equal(padded.of_steps(torch.from_numpy(taken)), actions)
    for b, column in enumerate(columns):
        np.testing.assert_array_equal(padded.rows[:, b], column[3].nonzero()[0])


def test_the_worked_examples_of_the_module() -> None:
    """Observations and actions are numbers: a0, a1, a2 are 1, 2, 3, b0, b1 are 11, 12, and so on.

    Environment 1 has the row more that makes environment 0 padded.
    """
    (a0, a1, a2), (b0, b1), (c0, c1) = (1, 2, 3), (11, 12), (21, 22)
    obs = np.array([(a0, a1, b0, b1, c0, c1), range(30, 36)], np.float32).T[..., None]
    dones = np.array([(0, 1, 0, 1, 0), (1, 1, 0, 0, 0)], bool).T
    action, known = (
        np.array([(1, 2, 3, 4, 5)] * 2).T,
        dones & [[True], [True], [True], [False], [True]],
    )
    final = Final(known, np.array([[40], [a2], [41]], np.float32))
    made = make_trajectory(
        obs, action, dones, curiosity(autoreset="same-step").initial_state(2), final
    )
    trajectory = made.trajectory
    assert made.rows[:, 0].tolist() == [0, 1, 3, 4, 5]
    assert trajectory.obs[:, 0, 0].tolist() == [a0, a1, a2, b0, b1, c0, c1, 0]
    assert trajectory.action[:, 0].tolist() == [1, 2, 0, 3, 4, 5, 0]
    assert trajectory.first[:, 0].tolist() == [True, False, False, True, False, True, False, True]
    assert trajectory.padding is not None
    assert trajectory.padding.nonzero().tolist() == [[7, 0]]
    dones = np.array([[0], [1], [0], [0]], bool)
    plain = make_trajectory(obs[:5, :1], action[:4, :1], dones, curiosity().initial_state(1), None)
    assert plain.trajectory.first[:, 0].tolist() == [True, False, False, True, False]
    assert plain.rows[:, 0].tolist() == [0, 1, 2, 3] and plain.trajectory.padding is None


@pytest.mark.parametrize("space", (VECTOR, IMAGE), ids=("vector", "image"))
@pytest.mark.parametrize("name", [*WORLD_MODELS, "mix"])
def test_each_environment_is_paid_as_alone_with_next_step(name: str, space: Any) -> None:
    """Environments that are padded too: bonus and memory are those of the steps alone."""
    if name in ("byol-hindsight", "re3"):
        pytest.skip("its bonus depends on the whole batch")
    given = episodes(space)
    before = episodes(space, ends=[(2, 0)])
    together, alone = (
        curiosity(name, space, autoreset=mode) for mode in ("same-step", "next-step")
    )
    for _ in range(2):  # lpm pays nothing in the first one, so it has no unit before the second
        together.update(*before[:3])
    alone.load_state_dict(together.state_dict())
    bonus, state = together.reward(
        *given[:3], state=together.initial_state(B), final_observations=given[3]
    )
    for b in range(B):
        *steps, real = with_reset_steps(*given, b)
        single, after = alone.reward(*steps, state=alone.initial_state(1))
        np.testing.assert_allclose(bonus[:, b], single[real, 0], rtol=1e-3, atol=1e-4)
        for key, row in after.memory.items():
            torch.testing.assert_close(state.memory[key][b], row[0])
        torch.testing.assert_close(state.core[b], after.core[0])
        assert state.action[b] == after.action[0] == given[1][-1, b]
    assert torch.equal(state.opens, torch.from_numpy(given[2][-1]))


@pytest.mark.parametrize("name", ("icm", "e3b", "byol-explore"))
def test_padding_is_not_learned_from(name: str) -> None:
    """The loss of the first update is the mean of those of the environments alone."""
    model = BYOLExploreConfig(standardise_decay=None) if name == "byol-explore" else name
    given, losses = episodes(), []
    for b in range(B):
        *steps, _ = with_reset_steps(*given, b)
        losses.append(curiosity(model).update(*steps)["loss"])
    together = curiosity(model, autoreset="same-step")
    loss = together.update(*given[:3], final_observations=given[3])["loss"]
    assert loss == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("name", ("byol-explore", "ngu"))
def test_a_stream_in_pieces_is_paid_as_the_whole_stream(name: str) -> None:
    intrinsic = curiosity(name, autoreset="same-step")
    obs, actions, dones, final = episodes()
    final = np.where(np.arange(T)[:, None, None] == 6, np.nan, final)  # where nothing ends
    dones[6] = False
    intrinsic.update(obs, actions, dones, final_observations=final)
    whole, end = intrinsic.reward(
        obs, actions, dones, state=intrinsic.initial_state(B), final_observations=final
    )
    for cut in range(1, T):
        state, paid = intrinsic.initial_state(B), []
        for start, stop in ((0, cut), (cut, T)):
            piece = obs[start : stop + 1], actions[start:stop], dones[start:stop]
            bonus, state = intrinsic.reward(
                *piece, state=state, final_observations=final[start:stop]
            )
            paid.append(bonus)
        np.testing.assert_allclose(np.concatenate(paid), whole, atol=1e-4, err_msg=f"cut at {cut}")
        torch.testing.assert_close(state.core, end.core, rtol=1e-4, atol=1e-5)
        assert torch.equal(state.opens, end.opens)
        for key, row in end.memory.items():
            torch.testing.assert_close(state.memory[key], row)


def test_what_is_not_known_is_not_paid() -> None:
    """And the horizon ends there: no pair reaches over an ending, known or not."""
    intrinsic = curiosity(BYOLExploreConfig(horizon=3), autoreset="same-step")
    obs, actions, dones, final = episodes()
    intrinsic.update(obs, actions, dones)
    some = OBJECTS.copy()
    for t, b in ENDS[::2]:
        some[t, b] = final[t, b]
    paid = intrinsic.reward(obs, actions, dones, final_observations=some)
    unknown = tuple(zip(*ENDS[1::2], strict=True))
    assert not paid[unknown].any()
    nothing = intrinsic.reward(obs, actions, dones)
    np.testing.assert_array_equal(
        intrinsic.reward(obs, actions, dones, final_observations=OBJECTS), nothing
    )
    whole = intrinsic.reward(obs, actions, dones, final_observations=final)
    np.testing.assert_array_equal(paid[:, 3], nothing[:, 3])
    np.testing.assert_allclose(paid[:3, 1], whole[:3, 1], atol=1e-5)
    assert intrinsic.inspect(obs, actions, dones, final_observations=final) != intrinsic.inspect(
        obs, actions, dones
    )


def test_final_observations_of_any_space_as_arrays_or_objects() -> None:
    space = Dict({"place": Discrete(5), "at": Box(-1, 1, (2,)), "say": Text(5)})
    intrinsic = IntrinsicReward(
        "ngu", space, Discrete(A), 0, tiny_torso_config(), autoreset="same-step"
    )
    rng, (_, actions, dones, _) = np.random.default_rng(0), episodes()
    drawn = {
        "place": rng.integers(0, 5, (2 * T + 1, B)),
        "at": rng.random((2 * T + 1, B, 2)),
        "say": np.full((2 * T + 1, B), "x"),
    }
    obs, final = (
        {name: part[rows] for name, part in drawn.items()}
        for rows in (slice(T + 1), slice(T + 1, None))
    )
    objects = OBJECTS.copy()
    for t, b in ENDS:
        objects[t, b] = {name: part[t, b] for name, part in final.items()}
    final["place"][~dones] = -1  # is not read
    arrays = intrinsic.reward(obs, actions, dones, final_observations=final)
    np.testing.assert_array_equal(
        intrinsic.reward(obs, actions, dones, final_observations=objects), arrays
    )
    assert arrays[dones].any()
    final["place"][dones] = 5
    with pytest.raises(ValueError, match=r"final_observations\['place'\] spans 5..5, outside"):
        intrinsic.reward(obs, actions, dones, final_observations=final)


def objects_of(value: Any) -> Any:
    result = OBJECTS.copy()
    for t, b in ENDS:
        result[t, b] = value
    return result


@pytest.mark.parametrize(
    ("final", "message"),
    [
        (np.zeros((T, B, 5)), r"observations of shape \(5,\); they must be \(6,\), like"),
        (np.zeros((T + 1, B, 6)), r"shape \(13, 4, 6\); it must begin with \(12, 4\)"),
        (np.full((T, B, 6), np.nan), "final_observations has nan; observations must be finite"),
        (np.full((T, B, 6), "x"), "final_observations has dtype <U1; it must hold numbers"),
        (OBJECTS[1:], r"object array of shape \(11, 4\); it must be \(12, 4\), like dones"),
        (objects_of(np.zeros(5)), r"observations of shape \(5,\)"),
        (objects_of("word"), "final_observations has dtype <U4"),
    ],
    ids=range(7),
)
def test_bad_final_observations_are_named(final: Any, message: str) -> None:
    intrinsic, (*steps, _) = curiosity(autoreset="same-step"), episodes()
    for call in (intrinsic.reward, intrinsic.update):
        with pytest.raises(ValueError, match=message) as raised:
            call(*steps, final_observations=final)
        assert "\n" not in str(raised.value)
    mixed = objects_of(np.zeros(6))
    mixed[ENDS[0]] = np.zeros(5)
    with pytest.raises(ValueError, match="final_observations differ in kind or shape"):
        intrinsic.reward(*steps, final_observations=mixed)
    with pytest.raises(ValueError, match="final_observations is for same-step autoreset"):
        curiosity().reward(*steps, final_observations=final)
