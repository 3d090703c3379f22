"""BYOL-Hindsight in the innovation form: equations, what z can know, and the controls."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig
from tests.helpers import (
    BELIEF,
    EMBEDDING,
    A,
    B,
    T,
    close,
    gradients,
    look,
    random_trajectory,
    tiny_torso,
)
from tests.world_models.byol_models import HINDSIGHT, INNOVATION, hindsight, move_target
from tests.world_models.test_byol import RESETS, gru_step, pair_is_valid
from tests.world_models.test_byol_learning import trained_terms


@pytest.mark.parametrize("horizon", (1, 3))
@pytest.mark.parametrize("resets", (RESETS, ()), ids=("awkward", "none"))
def test_loss_and_reward_equal_the_loops(horizon: int, resets: tuple[tuple[int, int], ...]) -> None:
    torso, trajectory = tiny_torso(), random_trajectory(resets=resets)
    config = replace(
        INNOVATION, horizon=horizon, standardise_decay=None, reward_edges="sum"
    )  # unit vectors: the target needs no statistics
    model = hindsight(torso, config)
    move_target(model)
    beliefs, embeddings = look(torso, trajectory)
    model.random.manual_seed(5)
    out = model(trajectory, beliefs, embeddings)
    noise = torch.randn(horizon, T, B, config.latent, generator=torch.Generator().manual_seed(5))
    starts: list[Tensor] = []
    reward = torch.zeros(T, B)
    assert model.predictor is not None
    for b in range(B):
        for t in range(T):
            belief, terms = beliefs[t, b], []
            for k in range(1, horizon + 1):
                if not pair_is_valid(trajectory.first, t, k, b):
                    break
                action = trajectory.action[t + k - 1, b]
                target = model.target.slow(trajectory.obs[t + k, b][None])[0].detach()
                belief = gru_step(
                    model.open_loop.rnn, model.open_loop.action_embedding.weight[action], belief
                )
                fore = model.predictor(belief)
                mean, log_deviation = model.generator(target - fore.detach()).chunk(2)
                deviation = log_deviation.clamp(-6, 2).exp()
                latent = mean + deviation * noise[k - 1, t, b]
                nats = torch.distributions.kl_divergence(
                    torch.distributions.Normal(mean, deviation),
                    torch.distributions.Normal(0.0, 1.0),
                ).sum()
                known = model.reconstructor(torch.cat([belief, latent])) + fore.detach()
                unit = F.normalize(target, dim=-1)
                error = (F.normalize(known, dim=-1) - unit).square().sum()
                foresight = (F.normalize(fore, dim=-1) - unit).square().sum()
                reward[t + k - 1, b] += error.detach()
                terms.append((error, nats, foresight))
            if terms:
                means = [torch.stack(each).mean() for each in zip(*terms, strict=True)]
                starts.append(torch.stack(means))
    error, nats, foresight = torch.stack(starts).mean(0)
    loss = error + 0.3 * foresight.detach() * nats + config.foresight_weight * foresight
    close(out.loss, loss)
    close(out.reward, reward)
    close(out.metrics["nats"], nats)
    close(out.metrics["foresight"], foresight)
    assert set(out.parts) == {"reconstruction"} and "invariance" not in out.metrics
    for module in (model, torso):
        expected = gradients(loss, module)
        for name, gradient in gradients(out.loss, module).items():
            close(gradient, expected[name], 1e-5)


def form(**changes: object) -> BYOLHindsight:
    return hindsight(tiny_torso(), replace(INNOVATION, **changes))  # type: ignore[arg-type]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_z_knows_nothing_but_what_was_not_foreseen() -> None:
    """Another place, action and outcome with the same difference give the same z."""
    model = form()
    state, foreseen = random(T, B, BELIEF + A), random(T, B, EMBEDDING)
    target = random(T, B, EMBEDDING, seed=1)
    shift = random(T, B, EMBEDDING, seed=2)
    draws = []
    for s, f, w in (
        (state, foreseen, target),
        (state + 7, foreseen, target),
        (state, foreseen + shift, target + shift),
    ):
        model.random.manual_seed(3)
        draws.append(model.generate(s, f, w))
    for latent, nats in draws[1:]:
        close(latent, draws[0][0], 1e-5)
        close(nats, draws[0][1], 1e-4)
    model.random.manual_seed(3)
    assert not torch.allclose(model.generate(state, foreseen, target + shift)[0], draws[0][0])


def test_where_z_is_ignored_the_outcome_is_the_foresight() -> None:
    model = form()
    for p in model.reconstructor.parameters():
        p.data.zero_()
    foreseen = random(T, B, EMBEDDING)
    close(model.reconstruct(random(T, B, BELIEF), random(T, B, 3), foreseen), foreseen)


def test_a_latent_of_pure_noise_costs_nothing_and_a_sure_one_what_it_tells() -> None:
    """The closed forms 0 and (mean^2 + variance - 1) / 2 - log deviation."""
    model = form(latent=2)
    for p in model.generator.parameters():
        p.data.zero_()
    state, outcome = random(T, B, BELIEF + A), random(T, B, EMBEDDING)
    assert not model.generate(state, outcome, outcome)[1].any()
    last = [p for p in model.generator.parameters() if p.dim() == 1][-1]
    last.data[:] = torch.tensor([2.0, 0.0, 0.0, math.log(0.5)])  # means, then log deviations
    nats = 4 / 2 + (0.25 - 1) / 2 - math.log(0.5)
    close(model.generate(state, outcome, outcome)[1], torch.full((T, B), nats), 1e-5)


def test_noise_is_explained_at_a_price() -> None:
    torso = tiny_torso().requires_grad_(False)
    cheap, dear = (
        trained_terms(
            hindsight(torso, replace(INNOVATION, latent=4, hidden=32, latent_price=price)),
            500,
            "noise",
        )[0]
        for price in (0.003, 3.0)
    )
    assert dear > 0.15  # as BYOL-Explore: nothing is worth that price
    assert cheap < 0.3 * dear


def test_the_controls_lack_what_they_say() -> None:
    """Noise: z does not depend on the outcome. Autoencoder: the past changes nothing."""
    state, foreseen = random(T, B, BELIEF + A), random(T, B, EMBEDDING)
    target, ahead = random(T, B, EMBEDDING, seed=1), random(T, B, BELIEF)
    noise, blind = form(control="noise"), form(control="autoencoder")
    for model, same in ((noise, True), (blind, False)):
        model.random.manual_seed(3)
        first = model.generate(state, foreseen, target)
        model.random.manual_seed(3)
        other = model.generate(state + 1, foreseen + 1, target)
        assert torch.equal(first[0], other[0]) and torch.equal(first[1], other[1])
        model.random.manual_seed(3)
        assert torch.equal(model.generate(state, foreseen, target + 1)[0], first[0]) == same
    assert not noise.generate(state, foreseen, target)[1].any()
    latent = random(T, B, 3)
    assert torch.equal(
        blind.reconstruct(ahead, latent, foreseen),
        blind.reconstruct(ahead + 1, latent, foreseen + 1),
    )
    assert not torch.equal(
        noise.reconstruct(ahead, latent, foreseen), noise.reconstruct(ahead + 1, latent, foreseen)
    )


def test_the_default_has_no_critic_and_the_published_form_has_no_foresight() -> None:
    assert not any(name.startswith("critic") for name, _ in form().named_parameters())
    published = BYOLHindsightConfig.published()
    assert (published.generator_reads, published.purity) == ("outcome", "critic")
    assert published.foresight_weight == 0 and published.invariance_in_reward


def test_both_halves_of_the_default_can_be_chosen_alone() -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    for reads in ("innovation", "outcome"):
        for purity in ("price", "critic"):
            config = replace(HINDSIGHT, generator_reads=reads, purity=purity)
            model = hindsight(torso, config)
            out = model(trajectory, *look(torso, trajectory))
            assert ("nats" in out.metrics) == (purity == "price")
            assert ("invariance" in out.metrics) == (purity == "critic")
            grown = gradients(out.loss, model)
            assert all(grown[name].any() for name in grown if name.startswith("generator"))


MISTAKES = {
    "price": ({"latent_price": -1.0}, "latent_price is -1.0; it must be 0 or more"),
    "reads": ({"generator_reads": "all"}, "generator_reads 'all'; choose from innovation, outcome"),
    "purity": ({"purity": "high"}, "purity 'high'; choose from price, critic"),
    "control": ({"control": "on"}, "control 'on'; choose from off, noise, autoencoder"),
    "foresight": ({"foresight_weight": 0.0}, "set it above 0, or generator_reads to outcome"),
    "reward": ({"invariance_in_reward": True}, "needs a critic; set world_model.purity to critic"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_settings_that_do_not_go_together_are_named(name: str) -> None:
    changes, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        BYOLHindsightConfig(**changes)  # type: ignore[arg-type]
