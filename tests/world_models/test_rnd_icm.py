"""RND and ICM against loops over the steps that happened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.world_models.models.icm import ICM, ICMConfig
from afterwit.world_models.models.rnd import RND, RNDConfig
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import (
    RESETS,
    SHAPE,
    A,
    B,
    T,
    close,
    gradients,
    random_trajectory,
    seeded,
    tiny_spec,
    tiny_torso,
)

NOTHING = torch.empty(0)
EVERYWHERE = tuple((t, b) for t in range(T + 1) for b in range(B))


def rnd(
    normalise: bool = True,
    shape: tuple[int, ...] = SHAPE,
    dtype: str = "float32",
    encoder: str = "mlp",
    layers: int = 0,
) -> RND:
    torso = tiny_torso(0, shape, encoder)
    config = RNDConfig(normalise_observations=normalise, predictor_layers=layers)
    return seeded(lambda: RND(config, torso, tiny_spec(shape, dtype=dtype), 0), 1)


def squared_size(targets: dict[tuple[int, int], Tensor]) -> Tensor:
    """The mean square of all targets, which is the error's unit in the first step."""
    return torch.stack([target.square().mean() for target in targets.values()]).mean()


def icm(config: ICMConfig | None = None) -> ICM:
    return seeded(lambda: ICM(config or ICMConfig(hidden=16), tiny_torso(), tiny_spec(), 0), 1)


def happened(trajectory: Trajectory) -> list[tuple[int, int]]:
    return [(t, b) for t in range(T) for b in range(B) if not trajectory.first[t + 1, b]]


def mean(errors: dict[tuple[int, int], Tensor]) -> Tensor:
    return torch.stack(list(errors.values())).mean()


def table(errors: dict[tuple[int, int], Tensor]) -> Tensor:
    reward = torch.zeros(T, B)
    for (t, b), error in errors.items():
        reward[t, b] = error.detach()
    return reward


def test_rnd_equals_the_loop() -> None:
    model, trajectory = rnd(normalise=False), random_trajectory()
    out = model(trajectory, NOTHING, NOTHING)
    targets = {(t, b): model.fixed(trajectory.obs[t + 1, b][None]) for t, b in happened(trajectory)}
    unit = squared_size(targets)
    errors = {
        (t, b): (model.predictor(trajectory.obs[t + 1, b][None]) - y).square().mean() / unit
        for (t, b), y in targets.items()
    }
    close(out.loss, mean(errors))
    close(out.reward, table(errors))
    for name, gradient in gradients(out.loss, model).items():
        close(gradient, gradients(mean(errors), model)[name], 1e-6)
        assert name.startswith("predictor")


def test_rnd_looks_at_whitened_and_clipped_observations() -> None:
    model, trajectory = rnd(), random_trajectory()
    obs = trajectory.obs.clone()
    obs[..., 1] = 3 * obs[..., 1] + 2
    obs[2, 0, 0] = 40  # an outlier: beyond 5 deviations
    obs[..., 5] = 0.25  # never changes
    trajectory = replace(trajectory, obs=obs)
    out = model(trajectory, NOTHING, NOTHING)
    seen = np.array([obs[t + 1, b].double().numpy() for t, b in happened(trajectory)])
    moments = seen.mean(0), np.maximum(seen.std(0), 1e-2)
    white = {
        (t, b): (
            torch.tensor((obs[t + 1, b].double().numpy() - moments[0]) / moments[1])
            .clamp(-5, 5)
            .float()[None]
        )
        for t, b in happened(trajectory)
    }
    targets = {step: model.fixed(values) for step, values in white.items()}
    unit = squared_size(targets)
    errors = {
        step: (model.predictor(values) - targets[step]).square().mean() / unit
        for step, values in white.items()
    }
    close(out.loss, mean(errors), 1e-4)
    close(out.reward, table(errors), 1e-4)


def test_moments_hold_for_small_changes_about_a_large_mean() -> None:
    """E[x^2] - E[x]^2 had lost all of the variance there."""
    model = rnd()
    for seed in range(4):
        trajectory = random_trajectory(seed=seed)
        model(replace(trajectory, obs=trajectory.obs + 1e4), NOTHING, NOTHING)
    wanted = rnd()
    for seed in range(4):
        wanted(random_trajectory(seed=seed), NOTHING, NOTHING)
    torch.testing.assert_close(model.variance, wanted.variance, rtol=1e-2, atol=1e-3)


def test_a_state_with_mean_squares_is_read() -> None:
    """Until November 2026 the moments were the mean and the mean square."""
    model, other = rnd(), rnd()
    model(random_trajectory(), NOTHING, NOTHING)
    state = dict(model.state_dict())
    state["square"] = state.pop("variance") + state["mean"].square()
    other.load_state_dict(state)
    torch.testing.assert_close(other.variance, model.variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ("float32", "uint8"))
def test_rnd_moments_are_those_of_all_real_observations(dtype: str) -> None:
    model, seen = rnd(dtype=dtype), []
    for seed in range(4):
        resets = EVERYWHERE if seed == 1 else RESETS[seed:]
        trajectory = random_trajectory(seed=seed, resets=resets, dtype=getattr(torch, dtype))
        model(trajectory, NOTHING, NOTHING)
        scale = 255 if dtype == "uint8" else 1
        seen += [trajectory.obs[t + 1, b].double().numpy() / scale for t, b in happened(trajectory)]
    assert float(model.count) == len(seen)
    np.testing.assert_allclose(model.mean.numpy(), np.mean(seen, 0), atol=1e-5)
    np.testing.assert_allclose(model.variance.numpy(), np.var(seen, 0), atol=1e-5)
    before = model.mean.clone()
    model.eval()
    model(random_trajectory(seed=9, dtype=getattr(torch, dtype)), NOTHING, NOTHING)
    assert torch.equal(model.mean, before)  # only training moves the moments


def test_rnd_reads_images() -> None:
    model = rnd(shape=(2, 9, 12), dtype="uint8", encoder="resnet")
    out = model(random_trajectory(shape=(2, 9, 12), dtype=torch.uint8), NOTHING, NOTHING)
    assert out.reward.shape == (T, B) and bool(out.loss > 0)


# of target and predictor, as initialisations are alike
@pytest.mark.parametrize("shrink", (1.0, 1e-3, 1e-6))
def test_rnd_starts_with_an_error_of_order_one_however_small_its_target_is(shrink: float) -> None:
    model, trajectory = rnd(), random_trajectory()
    with torch.no_grad():
        # the output layers
        for p in (*list(model.fixed.parameters())[-2:], *list(model.predictor.parameters())[-2:]):
            p.mul_(shrink)
    assert 0.5 < float(model(trajectory, NOTHING, NOTHING).loss) < 5
    before = model.target_scale.size.clone()
    model.eval()
    model(random_trajectory(seed=9), NOTHING, NOTHING)
    assert torch.equal(model.target_scale.size, before)  # only training moves the size


def test_rnd_predicts_with_more_layers_where_asked() -> None:
    model, trajectory = rnd(layers=2), random_trajectory()
    count = sum(isinstance(layer, torch.nn.Linear) for layer in model.head.modules())
    # Burda et al.: two more fc
    assert count == 2 and not any(
        isinstance(layer, torch.nn.Linear) for layer in rnd().head.modules()
    )
    losses = train(model, trajectory, 200)
    assert losses[-1] < 0.2 * losses[0]


def train(model: RND | ICM, trajectory: Trajectory, steps: int) -> list[float]:
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(steps):
        loss = model(trajectory, NOTHING, NOTHING).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        model.after_step()
        losses.append(float(loss.detach()))
    return losses


def test_rnd_learns_its_fixed_target() -> None:
    model, trajectory = rnd(), random_trajectory()
    assert not any(p.requires_grad for p in model.fixed.parameters())
    before = [p.clone() for p in model.fixed.parameters()]
    assert any(
        not torch.equal(p, q) for p, q in zip(model.predictor.parameters(), before, strict=True)
    )
    losses = train(model, trajectory, 400)
    assert losses[-1] < 0.1 * losses[0]
    assert all(torch.equal(p, old) for p, old in zip(model.fixed.parameters(), before, strict=True))
    # What was never seen stays surprising.
    model.eval()
    seen, unseen = (model(random_trajectory(seed=s), NOTHING, NOTHING).reward.sum() for s in (0, 1))
    assert unseen > 3 * seen


def slow_icm(
    model: ICM, trajectory: Trajectory
) -> tuple[dict[tuple[int, int], Tensor], dict[tuple[int, int], Tensor]]:
    forward, inverse, shaped = {}, {}, model.config.forward_shapes_features
    for t, b in happened(trajectory):
        before, after = (model.features(trajectory.obs[time, b][None])[0] for time in (t, t + 1))
        action = trajectory.action[t, b]
        known, outcome = (before, after) if shaped else (before.detach(), after.detach())
        predicted = model.forward_model(torch.cat([known, F.one_hot(action, A).float()]))
        forward[t, b] = 0.5 * (predicted - outcome).square().sum()
        inverse[t, b] = -model.inverse_model(torch.cat([before, after])).log_softmax(-1)[action]
    return forward, inverse


@pytest.mark.parametrize("shaped", (False, True))
@pytest.mark.parametrize("weight", (0.2, 0.7))
def test_icm_equals_the_loop(weight: float, shaped: bool) -> None:
    model = icm(ICMConfig(hidden=16, forward_weight=weight, forward_shapes_features=shaped))
    trajectory = random_trajectory()
    out = model(trajectory, NOTHING, NOTHING)
    forward, inverse = slow_icm(model, trajectory)
    expected = weight * mean(forward) + (1 - weight) * mean(inverse)
    close(out.loss, expected)
    close(out.reward, table(forward))
    close(out.metrics["inverse"], mean(inverse))
    reference = gradients(expected, model)
    for name, gradient in gradients(out.loss, model).items():
        close(gradient, reference[name], 1e-6)


def test_only_the_inverse_model_shapes_the_features_of_icm() -> None:
    model, trajectory = icm(), random_trajectory()
    _, inverse = slow_icm(model, trajectory)
    of_loss = gradients(model(trajectory, NOTHING, NOTHING).loss, model)
    of_inverse = gradients(mean(inverse), model)
    for name in of_loss:
        if name.startswith("features"):
            close(of_loss[name], 0.8 * of_inverse[name], 1e-6)
            assert of_loss[name].any()


@pytest.mark.parametrize("make", (rnd, icm))
def test_what_did_not_happen_changes_nothing(make: object) -> None:
    # Environment 0: obs[3] opens an episode and closes it, nothing real leads to or from it.
    # Environment 1: the last row.
    trajectory = random_trajectory(resets=((3, 0), (4, 0), (T, 1), (0, 2), (1, 2)))
    obs, action = trajectory.obs.clone(), trajectory.action.clone()
    for t, b in ((3, 0), (T, 1), (0, 2)):
        obs[t, b] = 1e4
    action[~trajectory.real] = (action[~trajectory.real] + 1) % A
    changed = replace(
        trajectory,
        obs=obs,
        action=action,
        reward=trajectory.reward + 9,
        terminal=~trajectory.terminal,
    )
    models = make(), make()  # type: ignore[operator]
    out, other = (
        model(data, NOTHING, NOTHING)
        for model, data in zip(models, (trajectory, changed), strict=True)
    )
    close(other.loss, out.loss, 1e-7)
    close(other.reward, out.reward, 1e-7)
    expected = gradients(out.loss, models[0])
    for name, gradient in gradients(other.loss, models[1]).items():
        close(gradient, expected[name], 1e-7)
    if isinstance(models[0], RND):
        close(models[1].mean, models[0].mean, 1e-7)
        close(models[1].target_scale.size, models[0].target_scale.size, 1e-7)


def test_icm_learns_what_it_sees_again() -> None:
    model, trajectory = icm(), random_trajectory()
    losses = train(model, trajectory, 500)
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("weight", (-0.1, 1.1))
def test_a_weight_out_of_range_is_named(weight: float) -> None:
    with pytest.raises(ValueError, match=f"forward_weight is {weight}"):
        ICMConfig(forward_weight=weight)
