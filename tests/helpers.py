"""Small trajectories with resets in every awkward place, tiny networks, and the slow definitions
that tests compare with.

Sizes all differ, so that transposed code cannot pass: T, B, A = 8, 5, 7; beliefs 10, embeddings 11,
observations 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from afterwit.envs.specs import EnvSpec
from afterwit.runs.training.checkpoint import equal_states
from afterwit.world_models.models.hindsight_critic import Critic
from afterwit.world_models.torso import Torso, TorsoConfig
from afterwit.world_models.trajectory import Trajectory

M = TypeVar("M")
same = equal_states

torch.set_num_threads(1)  # networks this small only lose time to a second thread

T, B, A = 8, 5, 7
SHAPE = (6,)
BELIEF, EMBEDDING = 10, 11
# (t, b) where obs[t, b] opens an episode: at the start, in the middle, in the last row, twice in a
# row, one real step apart
RESETS = ((0, 0), (4, 1), (8, 2), (3, 3), (4, 3), (2, 4), (4, 4))


def tiny_spec(
    shape: Sequence[int] = SHAPE, num_actions: int = A, dtype: str = "float32", num_envs: int = B
) -> EnvSpec:
    return EnvSpec("tiny", num_envs, tuple(shape), dtype, num_actions)


def tiny_torso_config(encoder: str = "mlp") -> TorsoConfig:
    return TorsoConfig(
        encoder=encoder,  # type: ignore[arg-type]
        hidden=16,
        channels=(3, 4, 5) if encoder == "small" else (3, 4),
        blocks=1,
        embedding=EMBEDDING,
        belief=BELIEF,
        action_embedding=4,
    )


def random_trajectory(
    length: int = T,
    batch: int = B,
    num_actions: int = A,
    shape: Sequence[int] = SHAPE,
    seed: int = 0,
    resets: Iterable[tuple[int, int]] = RESETS,
    dtype: torch.dtype = torch.float32,
    belief: int = BELIEF,
) -> Trajectory:
    """Random steps. Every second ending is terminal, the others are time limits; reset steps have
    reward 0.
    """
    random = torch.Generator().manual_seed(seed)
    first = torch.zeros(length + 1, batch, dtype=torch.bool)
    terminal = torch.zeros(length, batch, dtype=torch.bool)
    for index, (t, b) in enumerate(resets):
        first[t, b] = True
        if t >= 2:
            terminal[t - 2, b] = index % 2 == 0
    terminal &= ~first[1:]
    if dtype == torch.uint8:
        obs = torch.randint(
            0, 256, (length + 1, batch, *shape), generator=random, dtype=torch.uint8
        )
    else:
        obs = torch.randn(length + 1, batch, *shape, generator=random).to(dtype)
    return Trajectory(
        obs=obs,
        first=first,
        action=torch.randint(0, num_actions, (length, batch), generator=random),
        behaviour=torch.randn(length, batch, num_actions, generator=random).log_softmax(-1),
        reward=torch.randn(length, batch, generator=random) * ~first[1:],
        terminal=terminal,
        core=torch.randn(batch, belief, generator=random),
        prev_action=torch.randint(0, num_actions, (batch,), generator=random),
        environments=torch.arange(batch),
    )


def seeded(make: Callable[[], M], seed: int) -> M:
    """What `make` makes, with initial weights that follow `seed`; the global random state is left
    alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def tiny_torso(
    seed: int = 0, shape: Sequence[int] = SHAPE, encoder: str = "mlp", num_actions: int = A
) -> Torso:
    return seeded(lambda: Torso(tiny_torso_config(encoder), tuple(shape), num_actions), seed)


def look(torso: Torso, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Beliefs [T+1, B, M] and embeddings [T+1, B, N]."""
    beliefs, embeddings, _ = torso(
        trajectory.obs,
        trajectory.first,
        trajectory.previous_actions,
        trajectory.core,
        trajectory.resets,
    )
    return beliefs, embeddings


def pair_is_valid(first: Tensor, t: int, k: int, b: int) -> bool:
    """The k steps from obs[t] to obs[t+k] lie inside the trajectory, and none of them is a
    reset.
    """
    return t + k < len(first) and not any(bool(first[t + step, b]) for step in range(1, k + 1))


def gru_step(rnn: nn.GRU, x: Tensor, h: Tensor) -> Tensor:
    """One step of a GRU written out, x [E] and h [M]: r, u gates, n candidate, h' = (1 - u) n + u
    h.
    """
    size = len(h)
    weight_x, weight_h, bias_x, bias_h = rnn.parameters()
    from_x, from_h = weight_x @ x + bias_x, weight_h @ h + bias_h
    reset = torch.sigmoid(from_x[:size] + from_h[:size])
    update = torch.sigmoid(from_x[size : 2 * size] + from_h[size : 2 * size])
    candidate = torch.tanh(from_x[2 * size :] + reset * from_h[2 * size :])
    return (1 - update) * candidate + update * h


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=10 * tolerance, atol=tolerance, check_dtype=False
    )


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """d loss / d each trainable parameter, zeros where there is none."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), found, strict=True)
    }


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def critic_score(critic: Critic, state: Tensor, latent: Tensor) -> Tensor:
    """g(s, z) of one pair [S], [Z]: []."""
    s, z = critic.state(state), critic.latent(latent)
    return (
        critic.scale * unit(s) @ unit(z)
        if critic.form == "dot"
        else critic.head((s + z).clamp(min=0))[0]
    )
