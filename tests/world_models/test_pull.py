"""Embeddings that are drawn towards their predictions, and an expectation of the action alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models.base import TargetEncoder
from afterwit.world_models.models.byol_config import BYOLConfig
from afterwit.world_models.models.byol_explore import BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig
from afterwit.world_models.registry import make_world_model
from tests.helpers import (
    EMBEDDING,
    B,
    T,
    close,
    look,
    random_trajectory,
    seeded,
    tiny_spec,
    tiny_torso,
)

MODELS: dict[str, BYOLConfig] = {
    "explore": BYOLExploreConfig(hidden=16),
    "explore, 3 ahead": BYOLExploreConfig(hidden=16, horizon=3, stride=2),
    "explore, unit vectors": BYOLExploreConfig(hidden=16, standardise_decay=None),
    "hindsight": BYOLHindsightConfig(hidden=16, latent=3),
    "hindsight, 3 ahead": BYOLHindsightConfig(hidden=16, latent=3, horizon=3),
}


def target(decay: float | None, size: int = EMBEDDING) -> TargetEncoder:
    """A target whose statistics have seen one batch."""
    made = seeded(lambda: TargetEncoder(nn.Linear(6, size), size, 0.9, decay), 0)
    made(random_trajectory(seed=5))
    return made


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("decay", [0.9, None])
def test_the_pull_is_the_formula(decay: float | None) -> None:
    made, mask = target(decay), random_trajectory().real
    embeddings, prediction = drawn(T, B, EMBEDDING, seed=1) + 2, drawn(T, B, EMBEDDING, seed=2)
    if made.mean is None or made.square is None:
        own, guess = (F.normalize(v, dim=-1)[mask] for v in (embeddings, prediction))
    else:
        own = ((embeddings - made.mean.mean) / (made.square.mean + 1e-8).sqrt())[mask]
        guess = prediction[mask]
    errors = [float((o - g) @ (o - g)) for o, g in zip(own, guess, strict=True)]
    pull = float(made.pull(embeddings, prediction, mask))
    assert pull == pytest.approx(sum(errors) / len(errors), 1e-4)


def test_its_gradient_reaches_the_embeddings_of_real_outcomes_alone() -> None:
    made, mask = target(0.9), random_trajectory().real
    embeddings = drawn(T, B, EMBEDDING, seed=1).requires_grad_()
    prediction = drawn(T, B, EMBEDDING, seed=2).requires_grad_()
    made.pull(embeddings, prediction, mask).backward()
    assert prediction.grad is None and embeddings.grad is not None
    assert not embeddings.grad[~mask].any() and embeddings.grad[mask].any(-1).all()
    assert all(p.grad is None for p in made.slow.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_adds_it_to_its_loss_and_pays_as_before(name: str) -> None:
    def read(weight: float) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        torso = tiny_torso()
        config = replace(MODELS[name], pull_weight=weight)
        model = seeded(lambda: make_world_model(config, torso, tiny_spec(), 0), 1)
        trajectory = random_trajectory()
        beliefs, embeddings = look(torso, trajectory)
        beliefs, embeddings = beliefs.detach(), embeddings.detach().requires_grad_()
        out = model(trajectory, beliefs, embeddings)
        if weight:
            out.loss.backward()
        gradient = torch.zeros(()) if embeddings.grad is None else embeddings.grad
        return out.loss.detach(), out.reward, out.metrics, gradient

    loss, reward, metrics, gradient = read(0.0)
    assert "pull" not in metrics and not gradient.any()
    pulled, same_reward, metrics, gradient = read(2.0)
    close(pulled, loss + 2 * metrics["pull"])
    assert torch.equal(reward, same_reward) and metrics["pull"] > 0
    assert not gradient[0].any() and gradient[1:].any()  # outcomes are embeddings[1:]


def test_hindsight_draws_towards_what_it_says_with_z() -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    config = BYOLHindsightConfig(hidden=16, latent=3, pull_weight=1.0)
    model = seeded(lambda: BYOLHindsight(config, torso, tiny_spec(), 0), 1)
    said: list[Tensor] = []
    reconstruct = model.reconstruct

    def listen(*inputs: Tensor | None) -> Tensor:
        said.append(reconstruct(*inputs))  # type: ignore[arg-type]
        return said[-1]

    model.reconstruct = listen  # type: ignore[method-assign]
    beliefs, embeddings = look(torso, trajectory)
    pull = model(trajectory, beliefs, embeddings).metrics["pull"]
    close(pull, model.target.pull(embeddings[1:], said[0][0], trajectory.real).detach())


def noise_kept(pull_weight: float, task: bool = True) -> tuple[float, float]:
    """The share of noise in a linear encoder's weights after learning, and their square sum.

    Half of each observation lasts and half is fresh noise of the same size. The task is to read
    what lasts from the embedding, as a policy would.
    """
    torch.manual_seed(0)
    encoder, predictor = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
    reader = nn.Linear(4, 2)
    goal = TargetEncoder(encoder, 4, 0.9, 0.9)
    parameters = [*encoder.parameters(), *predictor.parameters(), *reader.parameters()]
    optimiser = torch.optim.Adam(parameters, 3e-3)
    trajectory = random_trajectory(12, 16, resets=())
    for _ in range(400):
        lasting = torch.randn(1, 16, 2).expand(13, 16, 2)
        moving = replace(trajectory, obs=torch.cat([lasting, torch.randn(13, 16, 2)], -1))
        embeddings, wanted = encoder(moving.obs), goal(moving)
        said = predictor(embeddings[:-1])
        loss = goal.error(said, wanted).mean()
        if task:
            loss = loss + (reader(embeddings) - lasting).square().mean()
        if pull_weight:
            loss = loss + pull_weight * goal.pull(embeddings[1:], said, moving.real)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        goal.update()
    size = encoder.weight.detach().square().sum(0)
    return float(size[2:].sum() / size.sum()), float(size.sum())


def test_an_encoder_that_is_pulled_drops_what_nothing_foresees() -> None:
    kept, dropped = noise_kept(0.0)[0], noise_kept(0.5)[0]
    assert dropped < 0.001 < 0.05 < kept


def test_the_pull_alone_shrinks_embeddings_to_nothing() -> None:
    """So it is for agents whose policy reads the same encoder."""
    assert noise_kept(1.0, task=False)[1] < 1e-4 < 1 < noise_kept(0.0, task=False)[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"pull_weight": -1.0}, "pull_weight is -1.0; it must be 0"),
        ({"pull_weight": float("nan")}, "pull_weight"),
        ({"pull_weight": 1.0, "target_view": "change"}, "pull_weight is 1.0, but with target_view"),
    ),
)
def test_mistakes_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BYOLExploreConfig(), **changes)  # type: ignore[arg-type]
