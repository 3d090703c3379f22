"""Losses, rewards and gradients against slow loops written from the papers' equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from afterwit.agents.popart import PopArt
from afterwit.agents.returns import n_step_returns
from afterwit.agents.vmpo import Duals, VMPOConfig, vmpo_loss
from afterwit.world_models.base import cosine_error
from afterwit.world_models.byol_explore import BYOLExplore, BYOLExploreConfig
from afterwit.world_models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig, Critic, contrast
from afterwit.world_models.intrinsic_reward import RewardNormaliser
from afterwit.world_models.open_loop import pair_mask, pair_mean
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory
from tests.helpers import A, B, T, close, gradients, gru_step, look, pair_is_valid, random_trajectory, seeded, tiny_spec, tiny_torso

WEIGHT = 0.2


def explorer(torso: Torso, horizon: int) -> BYOLExplore:
    return seeded(lambda: BYOLExplore(BYOLExploreConfig(horizon=horizon, hidden=16), torso, tiny_spec(), 0), 1)


def hindsighter(torso: Torso, horizon: int) -> BYOLHindsight:
    config = BYOLHindsightConfig(horizon=horizon, hidden=16, invariance_weight=WEIGHT, noise=3, latent=4, critic_embedding=5)
    return seeded(lambda: BYOLHindsight(config, torso, tiny_spec(), 0), 1)


def unit_distance(left: Tensor, right: Tensor) -> Tensor:
    return ((left / left.norm() - right / right.norm()) ** 2).sum()


def open_loop(model: BYOLExplore | BYOLHindsight, beliefs: Tensor, trajectory: Trajectory, t: int, b: int, k: int) -> Tensor:
    """b_{t,k}: k steps of the GRU on the actions a_t .. a_{t+k-1}."""
    belief = beliefs[t, b]
    for step in range(k):
        belief = gru_step(model.open_loop.rnn, model.open_loop.action_embedding(trajectory.action[t + step, b]), belief)
    return belief


def average_and_sum(errors: dict[tuple[int, int, int], Tensor]) -> tuple[Tensor, Tensor]:
    """Loss: mean over k of each (t, b), then over (t, b). Reward: errors added to the transition that they concern."""
    starts = sorted({(t, b) for t, b, _ in errors})
    per_start = [torch.stack([e for (t, b, _), e in errors.items() if (t, b) == start]).mean() for start in starts]
    reward = torch.zeros(T, B)
    for (t, b, k), error in errors.items():
        reward[t + k - 1, b] += error.detach()
    return torch.stack(per_start).mean(), reward


def pairs(trajectory: Trajectory, horizon: int) -> list[tuple[int, int, int]]:
    found = [(t, b, k) for t in range(T) for b in range(B) for k in range(1, horizon + 1)]
    return [(t, b, k) for t, b, k in found if pair_is_valid(trajectory.first, t, k, b)]


@pytest.mark.parametrize("horizon", [1, 3])
def test_byol_explore_is_its_equation(horizon: int) -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    model = explorer(torso, horizon)
    beliefs, embeddings = look(torso, trajectory)
    out = model(trajectory, beliefs, embeddings)
    target = model.target(trajectory.obs)
    errors = {
        (t, b, k): unit_distance(model.predictor(open_loop(model, beliefs, trajectory, t, b, k)), target[t + k, b])
        for t, b, k in pairs(trajectory, horizon)
    }
    loss, reward = average_and_sum(errors)
    close(out.loss, loss)
    close(out.reward, reward)
    assert (out.reward[trajectory.first[1:]] == 0).all() and not out.reward.requires_grad


@pytest.mark.parametrize("horizon", [1, 3])
def test_byol_hindsight_is_its_equation(horizon: int) -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    model = hindsighter(torso, horizon)
    beliefs, embeddings = look(torso, trajectory)
    state = model.get_extra_state()
    out = model(trajectory, beliefs, embeddings)
    model.set_extra_state(state)
    noise = torch.randn(horizon, T, B, 3, generator=model.random)
    target = model.target(trajectory.obs)
    rec: dict[tuple[int, int, int], Tensor] = {}
    s, z = {}, {}
    valid = pairs(trajectory, horizon)
    for t, b, k in valid:
        before, after = (open_loop(model, beliefs, trajectory, t, b, step) for step in (k - 1, k))
        action = nn.functional.one_hot(trajectory.action[t + k - 1, b], A).float()
        s[t, b, k] = torch.cat([before, action])
        z[t, b, k] = model.generator(torch.cat([noise[k - 1, t, b], s[t, b, k], target[t + k, b]]))
        rec[t, b, k] = unit_distance(model.reconstructor(torch.cat([after, z[t, b, k]])), target[t + k, b])

    def score(state: Tensor, latent: Tensor) -> Tensor:
        return 5 * torch.tanh((model.critic.state(state) * model.critic.latent(latent)).sum() / math.sqrt(5))

    inv = {}
    for t, b, k in valid:
        scores = torch.stack([score(s[t, b, k], z[t, c, k]) for c in range(B) if (t, c, k) in z])
        inv[t, b, k] = score(s[t, b, k], z[t, b, k]) - scores.exp().mean().log()
        assert inv[t, b, k] <= math.log(len(scores)) + 1e-5
    (rec_loss, rec_reward), (inv_loss, inv_reward) = average_and_sum(rec), average_and_sum(inv)
    close(out.metrics["reconstruction"], rec_loss)
    close(out.metrics["invariance"], inv_loss)
    close(out.reward, rec_reward / WEIGHT + inv_reward)


def test_who_minimises_what() -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    model = hindsighter(torso, 2)
    both = nn.ModuleDict({"torso": torso, "model": model})
    state = model.get_extra_state()
    found = gradients(model(trajectory, *look(torso, trajectory)).loss, both)

    model.set_extra_state(state)
    target, ahead, s = model.unroll(trajectory, look(torso, trajectory)[0])
    z = model.generate(s, target)
    valid = pair_mask(trajectory.real, 2)
    rec = gradients(pair_mean(cosine_error(model.reconstruct(ahead, z), target), valid), both)
    inv = gradients(pair_mean(contrast(model.critic(s, z), valid), valid), both)
    for name, gradient in found.items():
        if ".critic." in name:
            close(gradient, -inv[name])  # climbs
            assert gradient.abs().sum() > 0
        elif ".generator." in name:
            close(gradient, rec[name] + WEIGHT * inv[name])  # descends both
            assert inv[name].abs().sum() > 0
        else:
            close(gradient, rec[name])
            assert inv[name].abs().sum() == 0, f"the invariance reaches {name}"
    assert not any(p.requires_grad for p in model.target.parameters())


def test_nothing_that_did_not_happen_changes_anything() -> None:
    torso, trajectory = tiny_torso(), random_trajectory()
    for make in (explorer, hindsighter):
        outputs = []
        for garbage in (0.0, 1e3):
            model = make(torso, 3)
            obs = trajectory.obs.clone()
            beliefs, embeddings = look(torso, trajectory)
            actions = trajectory.action.clone()
            actions[~trajectory.real] = 0 if garbage else A - 1  # the action before a reset is ignored
            changed = Trajectory(**{**vars_of(trajectory), "obs": obs, "action": actions})
            out = model(changed, beliefs, embeddings)
            outputs.append((out.loss, out.reward))
        close(outputs[0][0], outputs[1][0])
        close(outputs[0][1], outputs[1][1])


def vars_of(trajectory: Trajectory) -> dict[str, Tensor]:
    names = ("obs", "first", "action", "behaviour", "reward", "terminal", "core", "prev_action")
    return {name: getattr(trajectory, name) for name in names}


def test_the_critic_finds_a_planted_leak_and_not_pure_noise() -> None:
    random = torch.Generator().manual_seed(0)
    found = {}
    for leaks in (True, False):
        critic = seeded(lambda: Critic(7, 4, 32, 8, 5.0), 3)
        optimiser = torch.optim.Adam(critic.parameters(), 3e-3)
        for _ in range(400):
            s = torch.randn(8, 16, 7, generator=random)
            z = s[..., :4] + 0.1 * torch.randn(8, 16, 4, generator=random) if leaks else torch.randn(8, 16, 4, generator=random)
            value = contrast(critic(s, z), torch.ones(8, 16, dtype=torch.bool)).mean()
            optimiser.zero_grad()
            (-value).backward()
            optimiser.step()
        found[leaks] = value.item()
    assert found[True] > 0.6 * math.log(16) and abs(found[False]) < 0.1


@pytest.mark.parametrize("prioritise", [True, False])
def test_reward_statistics_are_bias_corrected_emas(prioritise: bool) -> None:
    random = np.random.default_rng(0)
    normaliser = RewardNormaliser(prioritise, 0.9)
    m = m2 = mn = 0.0
    for n in range(1, 8):
        reward, real = random.gamma(2.0, 3.0, (T, B)), random.random((T, B)) < 0.8
        tensors = torch.tensor(reward, dtype=torch.float32), torch.tensor(real)
        normaliser.update(*tensors)
        m, m2 = 0.9 * m + 0.1 * reward[real].mean(), 0.9 * m2 + 0.1 * (reward[real] ** 2).mean()
        correction = 1 - 0.9**n
        sigma = math.sqrt(max(m2 / correction - (m / correction) ** 2, 0) + 1e-8)
        mn = 0.9 * mn + 0.1 * (reward[real] / sigma).mean()
        expected = np.maximum(reward / sigma - mn / correction, 0) if prioritise else reward / sigma
        close(normaliser(*tensors), torch.tensor(np.where(real, expected, 0.0)), 1e-4)
    before = {name: value.clone() for name, value in normaliser.state_dict().items()}
    normaliser.update(torch.full((T, B), 9.0), torch.zeros(T, B, dtype=torch.bool))
    assert all(torch.equal(before[name], value) for name, value in normaliser.state_dict().items())


def test_returns_know_terminal_truncation_and_reset() -> None:
    trajectory, value = random_trajectory(), torch.randn(T + 1, B, generator=torch.Generator().manual_seed(5))
    real = trajectory.real
    found = n_step_returns(reward=trajectory.reward, terminal=trajectory.terminal, real=real, value=value, discount=0.9)
    kinds = set()
    for b in range(B):
        for t in range(T):
            if not real[t, b]:
                continue
            expected, factor, step = 0.0, 1.0, t
            while True:
                expected += factor * float(trajectory.reward[step, b])
                if trajectory.terminal[step, b]:
                    kinds.add("terminal")
                    break
                factor *= 0.9
                if step == T - 1 or not real[step + 1, b]:
                    kinds.add("end" if step == T - 1 else "truncated")
                    expected += factor * float(value[step + 1, b])
                    break
                step += 1
            assert found[t, b].item() == pytest.approx(expected, abs=1e-5)
    assert kinds == {"terminal", "truncated", "end"}


def test_vmpo_is_its_equation() -> None:
    trajectory, random = random_trajectory(), torch.Generator().manual_seed(2)
    log_probs = torch.randn(T, B, A, generator=random).log_softmax(-1).requires_grad_()
    advantage, real, config = torch.randn(T, B, generator=random), trajectory.real, VMPOConfig()
    duals = Duals(config)
    loss, metrics = vmpo_loss(
        log_probs=log_probs, behaviour=trajectory.behaviour, action=trajectory.action, advantage=advantage, real=real, duals=duals,
        config=config,
    )  # fmt: skip
    rows = sorted(((advantage[t, b].item(), t, b) for t in range(T) for b in range(B) if real[t, b]), reverse=True)
    half = rows[: (len(rows) + 1) // 2]
    exponents = np.exp([a / 0.5 for a, _, _ in half])
    policy = -sum(
        w * log_probs[t, b, trajectory.action[t, b]].item() for w, (_, t, b) in zip(exponents / exponents.sum(), half, strict=True)
    )
    p, q = trajectory.behaviour.double().exp().numpy(), log_probs.detach().double().numpy()
    kl = (p * (trajectory.behaviour.double().numpy() - q)).sum(-1)[real.numpy()].mean()
    temperature = 0.5 * (config.temperature_epsilon + math.log(exponents.mean()))
    trust = 0.5 * (config.trust_region_epsilon - kl) + 0.5 * kl
    assert loss.item() == pytest.approx(policy + temperature + trust, rel=1e-4)
    assert metrics["kl"].item() == pytest.approx(kl, rel=1e-4)
    by_temperature, by_trust, by_policy = torch.autograd.grad(loss, [duals.temperature, duals.trust_region, log_probs])
    weights = exponents / exponents.sum()
    slope = config.temperature_epsilon + math.log(exponents.mean()) - sum(w * a for w, (a, _, _) in zip(weights, half, strict=True)) / 0.5
    assert by_temperature.item() == pytest.approx(slope, rel=1e-3)
    assert by_trust.item() == pytest.approx(config.trust_region_epsilon - kl, rel=1e-4)  # below 0: alpha grows while KL is too large
    assert by_policy[~real].abs().sum() == 0


def test_popart_follows_the_targets_and_keeps_its_outputs() -> None:
    head = seeded(lambda: PopArt(6, 0.1), 0)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(T, B, 6, generator=random)
    first = second = 0.0
    for n in range(1, 6):
        targets, mask = 50 + 9 * torch.randn(T, B, generator=random), torch.rand(T, B, generator=random) < 0.7
        before = head.denormalise(head(features))
        head.update(targets, mask)
        close(head.denormalise(head(features)), before, 1e-3)
        first, second = 0.9 * first + 0.1 * targets[mask].mean(), 0.9 * second + 0.1 * (targets[mask] ** 2).mean()
        mean = first / (1 - 0.9**n)
        close(head.scale.mean, mean, 1e-4)
        close(head.scale.deviation, (second / (1 - 0.9**n) - mean**2).sqrt(), 1e-3)
        close(head.normalise(head.denormalise(torch.tensor(0.7))), torch.tensor(0.7), 1e-4)
