"""V-MPO (Song et al., 2019): policy improvement by the better half of the advantages, inside a
trust region.

Both constraints are met, not only pulled at. V-MPO publishes a gradient step on each dual variable
per learner step; at the networks' rate these take longer than a run. Here (our choice) the
temperature eta is solved for on each batch, where its convex problem has one unknown, and the
multiplier alpha climbs by the factor exp(rate * (KL / epsilon_alpha - 1)), so that it crosses
orders of magnitude in tens of steps. `temperature_ratio` and `trust_region_ratio` say how well they
do: each is a KL by its epsilon, 1 where the constraint is met with equality. Two ends of alpha are
worth knowing. At LEAST the trust region does not bind: the learning rate limits the policy, and the
ratio stays below 1. At MOST it is broken: what is asked is less than what one step of Adam moves,
and the ratio stays above 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from afterwit.envs.checks import check_numbers
from afterwit.world_models import data_parallel
from afterwit.world_models.trajectory import masked_mean

# of alpha: it comes back from there within a hundred steps, and above, Adam jitters
LEAST, MOST = 1e-2, 1e2
SURPRISE = 4.0  # the most of KL / epsilon - 1 that one step of alpha takes in
# of the interval that holds eta, and its upper by its lower end: 30 give eta to 1e-8
HALVINGS, RANGE = 30, 1e6


@dataclass(frozen=True)
class VMPOConfig:
    """V-MPO; the epsilons and the period are BYOL-Explore's on Atari."""

    temperature_epsilon: float = 0.01
    """KL, in nats, from the uniform distribution over the better half of the samples to the
    improved one (epsilon_eta). Larger: only the best samples count."""
    trust_region_epsilon: float = 0.005
    """KL, in nats, from the acting to the trained policy, allowed as a mean over steps and learner
    steps (epsilon_alpha). The acting policy is that of the recorded steps; with a policy lag it is
    older than the newest one handed out."""
    trust_region_init: float = 0.5
    """First value of the multiplier alpha of the trust region."""
    trust_region_rate: float = 0.1
    """How fast alpha follows: per learner step, log alpha moves by this times (KL /
    trust_region_epsilon - 1), and where the period is longer than 10 steps by 10 / period of that,
    since the KL grows from 0 within each. (Our choice.)"""
    target_period: int = 10
    """Learner steps after which the trained policy becomes the acting one. At 1 the KL is 0: there
    is no trust region.
    """

    def __post_init__(self) -> None:
        check_numbers(self, "vmpo.", counts=("target_period",))
        if not self.temperature_epsilon >= 1e-5:
            raise ValueError(
                f"vmpo.temperature_epsilon is {self.temperature_epsilon}; it must be at least 1e-5:"
                " float32 tells no less"
            )
        for name in ("trust_region_epsilon", "trust_region_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"vmpo.{name} is {getattr(self, name)}; it must be above 0")
        if not LEAST <= self.trust_region_init <= MOST:
            raise ValueError(
                f"vmpo.trust_region_init is {self.trust_region_init}; it must lie between {LEAST:g}"
                f" and {MOST:g}"
            )
        if self.target_period < 1:
            raise ValueError(
                f"vmpo.target_period is {self.target_period}; it must be at least 1 learner step"
            )


class TrustRegion(nn.Module):
    """The multiplier alpha of the trust region, [], between LEAST and MOST."""

    alpha: Tensor

    def __init__(self, config: VMPOConfig):
        super().__init__()
        self.config = config
        self.register_buffer("alpha", torch.tensor(config.trust_region_init))

    @torch.no_grad()
    def follow(self, kl: Tensor, happened: Tensor) -> None:
        """Take in the mean KL [] of a learner step: alpha rises where it is above epsilon_alpha,
        and falls where it is below. Where nothing `happened` (bool []), there was no KL, and alpha
        stays."""
        excess = (kl / self.config.trust_region_epsilon - 1).clamp(max=SURPRISE)
        rate = self.config.trust_region_rate * min(1.0, 10 / self.config.target_period)
        self.alpha.mul_(torch.where(happened, rate * excess, 0.0).exp()).clamp_(LEAST, MOST)


@torch.no_grad()
def solve_temperature(advantage: Tensor, chosen: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The eta [] that minimises eta (epsilon + log mean exp(A / eta)) over the `chosen`, and the KL
    [] that it reaches.

    advantage, chosen (bool) [n]. There KL(psi || uniform over the chosen) = epsilon, psi =
    softmax(A / eta). The KL falls as eta grows, and lies below epsilon from (max A - min A) /
    sqrt(8 epsilon) on (Hoeffding's lemma), so halving an interval finds it; nothing waits for a
    value. The KL stays below epsilon where even the best alone does not reach it (few samples, or
    equal ones).
    """
    best = advantage.masked_fill(~chosen, -torch.inf).max()
    below = torch.where(chosen, advantage - best, 0.0)  # at most 0
    spread = torch.where(below.min() < 0, -below.min(), 1.0)
    below = below / spread  # from -1 to 0: the products below stay in float32 whatever the unit
    high = torch.full_like(spread, (8 * epsilon) ** -0.5)
    low, log_count = high / RANGE, chosen.sum().clamp(min=1).log()

    def divergence(temperature: Tensor) -> Tensor:
        log_psi = (below / temperature).masked_fill(~chosen, -torch.inf).log_softmax(0)
        return torch.where(chosen, log_psi.exp() * log_psi, 0.0).sum() + log_count

    for _ in range(HALVINGS):
        middle = (low * high).sqrt()
        sharp = divergence(middle) > epsilon
        low, high = torch.where(sharp, middle, low), torch.where(sharp, high, middle)
    return spread * high, torch.where(chosen.any(), divergence(high), 0.0)


def top_half(advantage: Tensor, real: Tensor) -> Tensor:
    """bool [T, B]: the half (rounded up) of the real steps with the largest advantages."""
    ranked = advantage.masked_fill(~real, -torch.inf).flatten()
    order = ranked.argsort(descending=True)
    count = (real.sum() + 1) // 2
    chosen = torch.empty_like(real.flatten())
    chosen[order] = torch.arange(len(order), device=order.device) < count
    return chosen.view_as(real)


def vmpo_loss(
    *,
    log_probs: Tensor,
    behaviour: Tensor,
    action: Tensor,
    advantage: Tensor,
    real: Tensor,
    alpha: Tensor,
    config: VMPOConfig,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy loss + alpha * KL [], and metrics; `kl`, without gradient, is what
    `TrustRegion.follow` takes.

    log_probs, behaviour [T, B, A]: of the trained and of the acting policy; action [T, B];
    advantage [T, B] without gradient; real [T, B]. The acting policy is V-MPO's target policy, so
    its recorded log-probabilities are pi_target.
    """
    assert (
        log_probs.shape == behaviour.shape
        and log_probs.shape[:2] == action.shape == advantage.shape == real.shape
    )
    assert not advantage.requires_grad and not behaviour.requires_grad and not alpha.requires_grad
    everyones = data_parallel.gather(advantage, 1)
    chosen = top_half(everyones, data_parallel.gather(real, 1))
    temperature, sharpness = solve_temperature(
        everyones.flatten(), chosen.flatten(), config.temperature_epsilon
    )
    scaled = (everyones / temperature).masked_fill(~chosen, -torch.inf)
    weights = torch.where(chosen, torch.softmax(scaled.flatten(), 0).view_as(scaled), 0.0)
    taken = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    policy_loss = -(data_parallel.own(weights, 1) * taken).sum() * data_parallel.learners()
    mean_kl = masked_mean((behaviour.exp() * (behaviour - log_probs)).sum(-1), real)
    metrics = {
        "policy_loss": policy_loss.detach(),
        "kl": mean_kl.detach(),
        "temperature": temperature,
        "trust_region": alpha.clone(),
        "temperature_ratio": sharpness / config.temperature_epsilon,
        "trust_region_ratio": mean_kl.detach() / config.trust_region_epsilon,
    }
    return policy_loss + alpha * mean_kl, metrics


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats [...] of log-probabilities [..., A]; the uniform policy has log A."""
    return -(log_probs.exp() * log_probs).sum(-1)
