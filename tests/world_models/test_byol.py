"""BYOL-Explore and BYOL-Hindsight against loops that are written from the equations.

The references loop over b, t and k and stop at episode boundaries. They share only their layers
with the models.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.world_models.models.byol_explore import BYOLExplore, BYOLExploreConfig
from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig
from afterwit.world_models.open_loop import Edges
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import (
    RESETS,
    A,
    B,
    T,
    close,
    critic_score,
    gradients,
    gru_step,
    look,
    pair_is_valid,
    random_trajectory,
    tiny_torso,
    unit,
)
from tests.world_models.byol_models import (
    HINDSIGHT,
    all_forms,
    each_form,
    explore,
    hindsight,
    move_target,
    run,
)

EVERYWHERE = tuple((t, b) for t in range(T + 1) for b in range(B))


class Pairs(NamedTuple):
    """The terms of the equations for each valid pair (k, t, b), and their averages and sums."""

    reconstruction: dict[tuple[int, int, int], Tensor]
    invariance: dict[tuple[int, int, int], Tensor]
    # BYOL-Explore's error, beside BYOL-Hindsight's own
    foresight: dict[tuple[int, int, int], Tensor]

    def loss(self, errors: dict[tuple[int, int, int], Tensor]) -> Tensor:
        """Average over k = 1 .. K(t), then over t and b."""
        starts = sorted({(t, b) for _, t, b in errors})
        means = [
            torch.stack([errors[key] for key in errors if key[1:] == start]).mean()
            for start in starts
        ]
        return torch.stack(means).mean() if means else torch.zeros(())

    def reward(
        self, errors: dict[tuple[int, int, int], Tensor], edges: Edges, horizon: int
    ) -> Tensor:
        """The sum over p + q = t + 1.

        For "whole" it is divided by the share that the existing distances have in the whole.
        """
        total, present = torch.zeros(T, B), torch.zeros(T, B)
        sizes = [
            torch.stack(
                [e.detach().abs() for (q, _, _), e in errors.items() if q == k] or [torch.ones(())]
            )
            for k in range(1, horizon + 1)
        ]
        for (k, t, b), error in errors.items():
            total[t + k - 1, b] += error.detach()
            present[t + k - 1, b] += sizes[k - 1].mean()
        whole = torch.stack([size.mean() for size in sizes]).sum()
        return total if edges == "sum" else torch.where(present > 0, total * whole / present, 0.0)


def reference_pairs(
    model: BYOLExplore | BYOLHindsight,
    trajectory: Trajectory,
    beliefs: Tensor,
    horizon: int,
    noise: Tensor | None = None,
) -> Pairs:
    """The terms of all valid pairs.

    `noise` [K, T, B, n] holds the generator's draws (BYOL-Hindsight only).
    """
    reconstruction: dict[tuple[int, int, int], Tensor] = {}
    foresight: dict[tuple[int, int, int], Tensor] = {}
    states: dict[tuple[int, int, int], Tensor] = {}
    latents: dict[tuple[int, int, int], Tensor] = {}
    happened = [(t, b) for t in range(T) for b in range(B) if not trajectory.first[t + 1, b]]
    outcomes = [model.target.slow(trajectory.obs[t + 1, b][None])[0].detach() for t, b in happened]
    standardised = model.target.mean is not None
    mean_outcome, size = 0, 1
    if standardised and outcomes:
        mean_outcome = sum(outcomes) / len(outcomes)
        size = (
            sum((outcome - mean_outcome).square().sum() for outcome in outcomes) / len(outcomes)
        ).sqrt()
    for b in range(B):
        for t in range(T):
            belief = beliefs[t, b]  # b_{t,0}
            for k in range(1, horizon + 1):
                if not pair_is_valid(trajectory.first, t, k, b):
                    break
                action = trajectory.action[t + k - 1, b]
                target = model.target.slow(trajectory.obs[t + k, b][None])[0].detach()
                target = (target - mean_outcome) / size if standardised else unit(target)
                before = belief
                belief = gru_step(
                    model.open_loop.rnn, model.open_loop.action_embedding.weight[action], belief
                )
                if isinstance(model, BYOLExplore):
                    prediction = model.predictor(belief)
                else:
                    assert noise is not None
                    # Generator and critic look at the belief; neither shapes it.
                    state = torch.cat([before.detach(), F.one_hot(action, A).float()])
                    latent = model.generator(torch.cat([noise[k - 1, t, b], state, target]))
                    states[k, t, b], latents[k, t, b] = state, latent
                    prediction = model.reconstructor(torch.cat([belief, latent]))
                    if model.predictor is not None:
                        blind = model.predictor(belief)
                        foresight[k, t, b] = (
                            ((blind if standardised else unit(blind)) - target).square().sum()
                        )
                reconstruction[k, t, b] = (
                    ((prediction if standardised else unit(prediction)) - target).square().sum()
                )
    invariance: dict[tuple[int, int, int], Tensor] = {}
    if isinstance(model, BYOLHindsight):
        for (k, t, b), state in states.items():
            # itself among them
            others = [latents[k, t, other] for other in range(B) if (k, t, other) in latents]
            scores = torch.stack([critic_score(model.critic, state, latent) for latent in others])
            positive = critic_score(model.critic, state, latents[k, t, b])
            invariance[k, t, b] = torch.log(positive.exp() / scores.exp().mean())
    return Pairs(reconstruction, invariance, foresight)


def draws(config: BYOLHindsightConfig, seed: int) -> Tensor:
    return torch.randn(
        config.horizon, T, B, config.noise, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize(
    ("standardise_decay", "edges"), ((0.9, "whole"), (None, "sum"), (None, "whole"))
)
@pytest.mark.parametrize("horizon", (1, 3, T))
@pytest.mark.parametrize("resets", (RESETS, (), EVERYWHERE), ids=("awkward", "none", "all"))
def test_byol_explore_equals_the_triple_loop(
    horizon: int, resets: tuple[tuple[int, int], ...], standardise_decay: float | None, edges: Edges
) -> None:
    torso, trajectory = tiny_torso(), random_trajectory(resets=resets)
    model = explore(torso, horizon, standardise_decay, edges)
    move_target(model)
    beliefs, embeddings = look(torso, trajectory)
    out = model(trajectory, beliefs, embeddings)
    pairs = reference_pairs(model, trajectory, beliefs, horizon)
    close(out.loss, pairs.loss(pairs.reconstruction))
    close(out.reward, pairs.reward(pairs.reconstruction, edges, horizon))
    if resets == EVERYWHERE:
        assert not out.reward.any()
        return
    for module in (model, torso):
        expected = gradients(pairs.loss(pairs.reconstruction), module)
        for name, gradient in gradients(out.loss, module).items():
            close(gradient, expected[name], 1e-6)


@pytest.mark.parametrize("horizon", (1, 3, T))
@pytest.mark.parametrize("resets", (RESETS, (), EVERYWHERE), ids=("awkward", "none", "all"))
@pytest.mark.parametrize(("in_reward", "edges"), ((True, "sum"), (True, "whole"), (False, "whole")))
def test_byol_hindsight_equals_the_loops(
    horizon: int, resets: tuple[tuple[int, int], ...], in_reward: bool, edges: Edges
) -> None:
    torso, trajectory = tiny_torso(), random_trajectory(resets=resets)
    config = replace(HINDSIGHT, horizon=horizon, invariance_in_reward=in_reward, reward_edges=edges)
    model = hindsight(torso, config)
    move_target(model)
    beliefs, embeddings = look(torso, trajectory)
    model.random.manual_seed(5)
    out = model(trajectory, beliefs, embeddings)
    pairs = reference_pairs(model, trajectory, beliefs, horizon, draws(config, 5))
    reconstruction = pairs.reward(pairs.reconstruction, edges, horizon)
    invariance = pairs.reward(pairs.invariance, "sum", horizon)
    close(out.reward, reconstruction / config.invariance_weight + (invariance if in_reward else 0))
    close(sum(out.parts.values(), torch.zeros(T, B)), out.reward)
    close(out.parts["reconstruction"], reconstruction / config.invariance_weight)
    assert ("invariance" in out.parts) == in_reward
    close(out.metrics["reconstruction"], pairs.loss(pairs.reconstruction))
    close(out.metrics["invariance"], pairs.loss(pairs.invariance))
    close(out.metrics["foresight"], pairs.loss(pairs.foresight))
    plain = pairs.loss(pairs.reconstruction) - pairs.loss(pairs.invariance)
    close(out.loss, plain + config.foresight_weight * pairs.loss(pairs.foresight), 1e-4)


@pytest.mark.parametrize("horizon", (1, 3))
@pytest.mark.parametrize("weight", (0.0, 5.0))
def test_the_generator_descends_and_critic_and_representation_are_left_alone_by_the_invariance(
    horizon: int, weight: float
) -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    config = replace(HINDSIGHT, horizon=horizon, foresight_weight=weight)
    model = hindsight(torso, config)
    beliefs, embeddings = look(torso, trajectory)
    model.random.manual_seed(5)
    loss = model(trajectory, beliefs, embeddings).loss
    pairs = reference_pairs(model, trajectory, beliefs, horizon, draws(config, 5))
    rec, inv, fore = (
        pairs.loss(errors) for errors in (pairs.reconstruction, pairs.invariance, pairs.foresight)
    )
    errors = rec + weight * fore if weight else rec
    found = gradients(loss, model)
    of_errors = gradients(errors, model)
    of_inv = gradients(inv, model)
    weights = {
        "generator": (1.0, config.invariance_weight),
        "reconstructor": (1.0, 0.0),
        "open_loop": (1.0, 0.0),
    }
    weights |= {"predictor": (1.0, 0.0)} if weight else {}
    assert {name.split(".")[0] for name in found} == set(weights)
    for name, gradient in found.items():
        for_errors, for_inv = weights[name.split(".")[0]]
        close(gradient, for_errors * of_errors[name] + for_inv * of_inv[name], 1e-6)
    # of this loss; it climbs in steps of its own
    assert not any(p.requires_grad for p in model.critic.parameters())
    assert any(g.abs().max() > 1e-4 for name, g in of_inv.items() if name.startswith("generator"))
    torso_gradients, expected = gradients(loss, torso), gradients(errors, torso)
    for name, gradient in torso_gradients.items():
        close(gradient, expected[name], 1e-6)
        assert gradient.any(), name  # the encoder and both of the torso's other parts are trained


def test_the_critic_takes_steps_of_its_own_and_nothing_else_moves() -> None:
    """Against Adam on the definition, pair by pair, in the same groups."""
    torso, trajectory = tiny_torso(), random_trajectory()
    model = hindsight(torso, replace(HINDSIGHT, horizon=2, critic_steps=4, critic_rate=0.01))
    beliefs, embeddings = look(torso, trajectory)
    model(trajectory, beliefs, embeddings)
    assert model.invariance is not None and model.invariance.batch is not None
    state, latent, valid = model.invariance.batch
    assert not state.requires_grad and not latent.requires_grad
    critic = deepcopy(model.critic).requires_grad_(True)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.Adam(critic.parameters(), 0.01)
    random = torch.Generator()
    random.set_state(model.random.get_state())
    model.after_step()
    invariances = []
    # all pairs in their own groups, then one distance in turn, in groups drawn anew
    for horizons in ((0, 1), (0,), (1,), (0,)):
        drawn = (
            torch.randperm(T * B, generator=random).tolist() if len(horizons) == 1 else range(T * B)
        )
        pairs = [divmod(index, B) for index in drawn]
        errors = {}
        for k in horizons:
            for place, (t, b) in enumerate(pairs):
                group = [
                    pair for pair in pairs[place // B * B : place // B * B + B] if valid[k][pair]
                ]
                if (t, b) in group:
                    scores = torch.stack(
                        [critic_score(critic, state[k, t, b], latent[k][other]) for other in group]
                    )
                    errors[k, *divmod(place, B)] = torch.log(
                        scores[group.index((t, b))].exp() / scores.exp().mean()
                    )
        invariances.append(float(Pairs({}, errors, {}).loss(errors).detach()))
        optimiser.zero_grad()
        (-Pairs({}, errors, {}).loss(errors)).backward()
        optimiser.step()
    for name, value in model.named_parameters():
        if name.startswith("critic."):
            # of steps of 0.01
            close(value, critic.get_parameter(name.removeprefix("critic.")), 1e-4)
            assert not torch.equal(value, before[name])
        elif not name.startswith("target."):
            assert torch.equal(value, before[name])
    with torch.no_grad():
        # up, not down
        assert (
            float(model.invariance.of_pairs(state, latent, valid)[0][valid[0]].mean())
            > invariances[0]
        )
    after = {name: value.clone() for name, value in model.critic.named_parameters()}
    model.after_step()  # without a new trajectory there is nothing to learn from
    with model.watching():
        model(trajectory, beliefs, embeddings)
    model.after_step()
    assert all(torch.equal(value, after[name]) for name, value in model.critic.named_parameters())


def test_a_loaded_critic_goes_on_with_its_own_averages() -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    config = replace(HINDSIGHT, horizon=2, critic_steps=4)
    model, twin = hindsight(torso, config), hindsight(torso, config)
    for _ in range(3):
        model(trajectory, *look(torso, trajectory))
        model.after_step()
    twin.load_state_dict(model.state_dict())
    for each in (model, twin):
        each(trajectory, *look(torso, trajectory))
        each.after_step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


@each_form
def test_what_lies_at_no_valid_pair_changes_nothing(index: int) -> None:
    torso, model = all_forms()[index]
    # Environment 0 resets twice in a row: obs[3] opens an episode without a step. Its last row,
    # environment 1's, opens one, too.
    trajectory = random_trajectory(resets=((3, 0), (4, 0), (T, 1), (0, 2), (1, 2), (5, 3)))
    unused = [(3, 0), (T, 1), (0, 2)]
    obs = trajectory.obs.clone()
    action = trajectory.action.clone()
    core = trajectory.core.clone()
    prev_action = trajectory.prev_action
    for t, b in unused:
        obs[t, b] = 1e6
    action[~trajectory.real] = (action[~trajectory.real] + 3) % A
    core[2] = 1e6
    changed = replace(
        trajectory,
        obs=obs,
        action=action,
        core=core,
        prev_action=prev_action.where(torch.arange(B) != 2, (prev_action + 1) % A),
        reward=trajectory.reward + 1e6,
        behaviour=trajectory.behaviour - 1e6,
        terminal=~trajectory.terminal,
    )
    twin = deepcopy(model)  # its running mean has seen as little
    out, grads = run(torso, model, trajectory)
    other, other_grads = run(torso, twin, changed)
    assert torch.equal(out.loss, other.loss) and torch.equal(out.reward, other.reward)
    assert bool((out.reward[trajectory.real] > 0).any())
    for gradient, other_gradient in zip(grads, other_grads, strict=True):
        close(other_gradient, gradient, 1e-7)


OUT_OF_RANGE = (
    lambda: BYOLExploreConfig(horizon=0),
    lambda: BYOLExploreConfig(standardise_decay=1.0),
    lambda: BYOLHindsightConfig(target_decay=1.1),
    lambda: BYOLHindsightConfig(invariance_weight=0),
    lambda: BYOLHindsightConfig(contrast_size=1),
    lambda: BYOLHindsightConfig(critic_steps=0),
    lambda: BYOLHindsightConfig(critic_rate=0),
    lambda: BYOLHindsightConfig(foresight_weight=-1),
)


@pytest.mark.parametrize("make", OUT_OF_RANGE)
def test_values_out_of_range_are_named(make: object) -> None:
    with pytest.raises(ValueError, match=r"world_model\.\w+ is (0|1|1\.0|1\.1|-1);"):
        make()  # type: ignore[operator]
