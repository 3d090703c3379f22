"""Encoders and the closed-loop RNN: what is remembered, what is cleared, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from afterwit.world_models.torso import Encoder, Torso, TorsoConfig
from tests.helpers import (
    BELIEF,
    EMBEDDING,
    RESETS,
    A,
    B,
    T,
    close,
    gru_step,
    look,
    random_trajectory,
    seeded,
    tiny_torso,
    tiny_torso_config,
)

RESET_SETS = {
    "none": (),
    "awkward": RESETS,
    "first row": tuple((0, b) for b in range(B)),
    "last row": tuple((T, b) for b in range(B)),
    "everywhere": tuple((t, b) for t in range(T + 1) for b in range(B)),
}


@pytest.mark.parametrize("resets", RESET_SETS.values(), ids=RESET_SETS)
def test_beliefs_equal_a_step_by_step_loop_that_forgets(
    resets: tuple[tuple[int, int], ...],
) -> None:
    torso, trajectory = tiny_torso(), random_trajectory(resets=resets)
    beliefs, embeddings, core = torso(
        trajectory.obs,
        trajectory.first,
        trajectory.previous_actions,
        trajectory.core,
        trajectory.resets,
    )
    assert beliefs.shape == (T + 1, B, BELIEF) and embeddings.shape == (T + 1, B, EMBEDDING)
    for b in range(B):
        state = trajectory.core[b]
        for t in range(T + 1):
            action = trajectory.action[t - 1, b] if t else trajectory.prev_action[b]
            previous = torso.action_embedding.weight[action]
            if trajectory.first[t, b]:
                state, previous = torch.zeros_like(state), torch.zeros_like(previous)
            embedding = torso.encoder(trajectory.obs[t, b][None])[0]
            state = gru_step(torso.rnn, torch.cat([embedding, previous]), state)
            close(embeddings[t, b], embedding)
            close(beliefs[t, b], state)
        close(core[b], state)


@pytest.mark.parametrize("start", (0, 1, 4, T))
def test_a_sequence_after_first_equals_one_from_a_blank_state(start: int) -> None:
    torso, trajectory = tiny_torso(), random_trajectory(resets=[(start, b) for b in range(B)])
    beliefs, _ = look(torso, trajectory)
    blank = torso.initial_core(B)
    assert blank.shape == (B, BELIEF) and not blank.any()
    other_action = (trajectory.previous_actions[start:] + 1) % A
    other_action[1:] = trajectory.previous_actions[start + 1 :]
    fresh, _, _ = torso(trajectory.obs[start:], trajectory.first[start:], other_action, blank + 7)
    close(beliefs[start:], fresh)


def influence(
    torso: Torso, obs: Tensor, core: Tensor, first: Tensor, actions: Tensor, t: int, b: int
) -> tuple[Tensor, Tensor]:
    """What the belief at (t, b) depends on.

    Observations, bool [T+1, B], and states before the first step, bool [B].
    """
    obs, core = obs.clone().requires_grad_(), core.clone().requires_grad_()
    resets = tuple(int(time) for time in range(1, len(first)) if first[time].any())
    beliefs, _, _ = torso(obs, first, actions, core, resets)
    by_obs, by_core = torch.autograd.grad(beliefs[t, b].sum(), (obs, core))
    return by_obs.flatten(2).any(-1), by_core.any(-1)


def test_nothing_flows_across_a_reset_nor_between_environments() -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    for b in range(B):
        for t in range(T + 1):
            by_obs, by_core = influence(
                torso,
                trajectory.obs,
                trajectory.core,
                trajectory.first,
                trajectory.previous_actions,
                t,
                b,
            )
            openings = [time for time in range(t + 1) if trajectory.first[time, b]]
            start = max(openings, default=0)
            expected = torch.zeros(T + 1, B, dtype=torch.bool)
            expected[start : t + 1, b] = True
            assert torch.equal(by_obs, expected), (t, b)
            assert by_core.tolist() == [other == b and not openings for other in range(B)], (t, b)


ENCODERS: dict[str, Any] = {
    "mlp": (3, 5, 4),
    "conv": (2, 36, 40),
    "small": (2, 23, 26),
    "resnet": (2, 9, 12),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("lead", ((1,), (3,), (4, 3)), ids=str)
def test_embeddings_have_the_shape_of_what_they_were_given(
    encoder: str, lead: tuple[int, ...]
) -> None:
    shape = ENCODERS[encoder]
    network = seeded(lambda: Encoder(tiny_torso_config(encoder), shape), 0)
    obs = torch.randint(0, 256, (*lead, *shape), dtype=torch.uint8)
    embedding = network(obs)
    assert embedding.shape == (*lead, EMBEDDING) and embedding.dtype == torch.float32
    close(embedding, network(obs.float() / 255))  # uint8 means 0..1
    assert not torch.allclose(embedding, network(obs.float()))
    if lead == (4, 3):
        close(embedding[2, 1], network(obs[2, 1][None])[0])  # each observation for itself


def test_an_mlp_reads_any_shape() -> None:
    for shape in ((6,), (2, 3), (2, 3, 4, 5)):
        assert Encoder(tiny_torso_config("mlp"), shape)(torch.randn(T, B, *shape)).shape == (
            T,
            B,
            EMBEDDING,
        )


@pytest.mark.parametrize(
    ("encoder", "shape", "message"),
    [
        ("conv", (6,), r"'conv' reads images .* not observations of shape \(6,\)"),
        ("resnet", (84, 84), r"'resnet' reads images .* not observations of shape \(84, 84\)"),
        ("conv", (1, 35, 84), r"at least 36x36, not 35x84"),
        ("conv", (1, 84, 20), r"at least 36x36, not 84x20"),
        ("small", (1, 23, 22), r"at least 23x23, not 23x22"),
    ],
)
def test_observations_that_an_encoder_cannot_read_are_named(
    encoder: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(tiny_torso_config(encoder), shape)


@pytest.mark.parametrize("name", ("hidden", "blocks", "embedding", "belief", "action_embedding"))
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"torso\.{name} is 0"):
        replace(TorsoConfig(), **{name: 0})  # type: ignore[arg-type]


def test_the_small_encoder_has_three_layers() -> None:
    with pytest.raises(ValueError, match=r"torso\.channels is \(16, 32\); .* needs three numbers"):
        TorsoConfig(encoder="small", channels=(16, 32))


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="vit"):
        Encoder(replace(TorsoConfig(), encoder="vit"), (1, 40, 40))  # type: ignore[arg-type]


def test_images_in_bfloat16_are_nearly_those_in_float32_and_train_float32_weights() -> None:
    shape, random = (1, 36, 36), torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (3, 2, *shape), generator=random, dtype=torch.uint8)
    config = tiny_torso_config("resnet")
    exact, half = (
        seeded(lambda: Encoder(config, shape), 0),
        seeded(lambda: Encoder(replace(config, bfloat16=True), shape), 0),
    )
    found, expected = half(obs), exact(obs)
    assert found.dtype == expected.dtype == torch.float32
    close(found, expected, 3e-2)
    assert not torch.equal(found, expected), "or nothing was encoded in bfloat16"
    found.square().sum().backward()
    expected.square().sum().backward()
    assert all(p.dtype == torch.float32 for p in half.parameters())
    one, other = (
        torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])
        for encoder in (half, exact)
    )
    assert (one - other).norm() < 0.1 * other.norm()
