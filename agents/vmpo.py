"""V-MPO (Song et al., 2019): policy improvement by the better half of the advantages, inside a trust region."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from afterwit.envs.checks import check_numbers
from afterwit.world_models import shares
from afterwit.world_models.trajectory import masked_mean

DUAL = 1e-8  # the least of a dual variable


@dataclass(frozen=True)
class VMPOConfig:
    """V-MPO; the values are BYOL-Explore's on Atari."""

    temperature_init: float = 0.5
    """First value of the dual variable eta."""
    trust_region_init: float = 0.5
    """First value of the dual variable alpha."""
    temperature_epsilon: float = 0.01
    """How far the improved distribution over samples may lie from the uniform one (epsilon_eta)."""
    trust_region_epsilon: float = 0.005
    """KL from the acting to the trained policy that is allowed per update of the acting policy (epsilon_alpha)."""
    target_period: int = 10
    """Learner steps after which the trained policy becomes the acting one."""

    def __post_init__(self) -> None:
        check_numbers(self, "vmpo.", counts=("target_period",))
        for name in ("temperature_init", "trust_region_init", "temperature_epsilon", "trust_region_epsilon"):
            least = DUAL if name.endswith("init") else 0
            if not getattr(self, name) > least:
                raise ValueError(f"vmpo.{name} is {getattr(self, name)}; it must be above {least:g}")
        if self.target_period < 1:
            raise ValueError(f"vmpo.target_period is {self.target_period}; it must be at least 1 learner step")


class Duals(nn.Module):
    """The temperature eta and the trust-region multiplier alpha, kept at or above DUAL by `project`."""

    def __init__(self, config: VMPOConfig):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(config.temperature_init))
        self.trust_region = nn.Parameter(torch.tensor(config.trust_region_init))

    @torch.no_grad()
    def project(self) -> None:
        self.temperature.clamp_(min=DUAL)
        self.trust_region.clamp_(min=DUAL)


def top_half(advantage: Tensor, real: Tensor) -> Tensor:
    """bool [T, B]: the half (rounded up) of the real steps with the largest advantages."""
    ranked = advantage.masked_fill(~real, -torch.inf).flatten()
    order = ranked.argsort(descending=True)
    count = (real.sum() + 1) // 2
    chosen = torch.empty_like(real.flatten())
    chosen[order] = torch.arange(len(order), device=order.device) < count
    return chosen.view_as(real)


def vmpo_loss(
    *, log_probs: Tensor, behaviour: Tensor, action: Tensor, advantage: Tensor, real: Tensor, duals: Duals, config: VMPOConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy, temperature and trust-region loss, and metrics.

    log_probs, behaviour [T, B, A]: of the trained and of the acting policy; action [T, B]; advantage [T, B] without
    gradient; real [T, B]. The acting policy is V-MPO's target policy, so its recorded log-probabilities are pi_target.
    """
    assert log_probs.shape == behaviour.shape and log_probs.shape[:2] == action.shape == advantage.shape == real.shape
    assert not advantage.requires_grad and not behaviour.requires_grad
    everyones = shares.gather(advantage, 1)
    chosen = top_half(everyones, shares.gather(real, 1))
    scaled = (everyones / duals.temperature).masked_fill(~chosen, -torch.inf)
    log_mean_exp = scaled.logsumexp((0, 1)) - chosen.sum().clamp(min=1).log()
    log_mean_exp = torch.where(chosen.any(), log_mean_exp, 0.0)
    weights = torch.where(chosen, torch.softmax(scaled.detach().flatten(), 0).view_as(scaled), 0.0)
    taken = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    policy_loss = -(shares.own(weights, 1) * taken).sum() * shares.learners()
    temperature_loss = duals.temperature * (config.temperature_epsilon + log_mean_exp)
    kl = (behaviour.exp() * (behaviour - log_probs)).sum(-1)  # [T, B]
    mean_kl = masked_mean(kl, real)
    trust_region_loss = duals.trust_region * (config.trust_region_epsilon - mean_kl.detach()) + duals.trust_region.detach() * mean_kl
    metrics = {
        "policy_loss": policy_loss.detach(),
        "kl": mean_kl.detach(),
        "temperature": duals.temperature.detach().clone(),
        "trust_region": duals.trust_region.detach().clone(),
    }
    return policy_loss + temperature_loss + trust_region_loss, metrics


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats [...] of log-probabilities [..., A]; the uniform policy has log A."""
    return -(log_probs.exp() * log_probs).sum(-1)
