"""V-MPO (Song et al., 2019): policy improvement by the better half of the advantages.

Two constraints bound the improvement: on the temperature eta and on the trust region (alpha).

V-MPO publishes one gradient step on each dual variable per learner step. At the networks' learning
rate these take longer than a run. Here both constraints are met (our choice; not published):

    temperature eta    the solution of its convex problem, which has one unknown, on each batch
    multiplier alpha   alpha <- alpha * exp(rate * (KL / epsilon_alpha - 1))

So alpha crosses orders of magnitude in tens of steps. `temperature_ratio` and `trust_region_ratio`
show how well the constraints are met: each is a KL divided by its epsilon, and is 1 if the
constraint is met with equality.

The published weights of the samples are exp(A / eta), of the better half. They prefer an action
whose advantage varies to one whose advantage does not, also if both have the same mean, as only its
better outcomes count. So an agent seeks noise for which it is paid nothing on average. With
`weights: linear` (ours) the weights are (A - mean A) / eta over all samples, the first order of
softmax(A / eta) around equal weights. Variance means nothing to them. There eta is the deviation of
A / sqrt(2 epsilon_eta), to which the solution of its problem tends for small epsilon_eta.

Linear weights multiply the ratio pi / pi_acting of the taken action's probabilities, not its
log-probability. That is the policy gradient within the same trust region (the surrogate of TRPO,
Schulman et al., 2015). An error of the value that is the same everywhere changes no weight, as the
mean is taken off. One that differs by state makes all advantages of a state err alike. As the
acting policy is some updates old, log-probabilities would move the policy back to it there, or
away from it; with ratios that cancels on average. (What the value errs by in the target of a step
before does not cancel; there is more of that with `return_lambda` below 1.)

At MIN_ALPHA the trust region does not bind: the learning rate limits the policy, and the ratio
stays below 1. At MAX_ALPHA the trust region is broken: one step of Adam moves the policy further
than the constraint allows, and the ratio stays above 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from afterwit.envs.checks import check_numbers
from afterwit.world_models import data_parallel
from afterwit.world_models.trajectory import masked_mean

Weights = Literal["exponential", "linear"]
# Limits of alpha. It returns from MIN_ALPHA within a hundred steps. Above MAX_ALPHA Adam jitters.
MIN_ALPHA, MAX_ALPHA = 1e-2, 1e2
MAX_EXCESS = 4.0  # limit of KL / epsilon - 1 in one step of alpha
# Bisections of the interval of eta, and the ratio of its ends. 30 bisections give eta to 1e-8.
BISECTIONS, RANGE = 30, 1e6
RESOLUTION = 1e-6  # differences below this share of the advantages' mean are float32's rounding


@dataclass(frozen=True)
class VMPOConfig:
    """V-MPO. The epsilons and the period are those of BYOL-Explore (Guo et al., 2022) for Atari."""

    temperature_epsilon: float = 0.01
    """KL, in nats, of the improved distribution over samples from the uniform one (epsilon_eta).
    Larger: only the best samples count."""
    weights: Weights = "exponential"
    """exponential: of the better half of the samples, as published; they prefer actions whose
    advantage varies. linear: of all samples; they multiply pi / pi_acting, and only the mean
    advantage of an action counts (ours)."""
    trust_region_epsilon: float = 0.005
    """Mean KL, in nats, that is allowed from the acting to the trained policy (epsilon_alpha). The
    acting policy is that of the recorded steps; with a policy lag it is older than the newest one.
    """
    trust_region_init: float = 0.5
    """First value of the trust region's multiplier alpha."""
    # with a longer period, since the KL grows from 0 within each period
    trust_region_rate: float = 0.1
    """Per learner step, log alpha moves by this times (KL / trust_region_epsilon - 1) (our rule;
    not published). If the period is above 10 learner steps, it moves by 10 / period of that."""
    target_period: int = 10
    """Learner steps after which the trained policy becomes the acting one. At 1 the KL is 0, and
    there is no trust region."""

    def __post_init__(self) -> None:
        check_numbers(self, "vmpo.", counts=("target_period",))
        if not self.temperature_epsilon >= 1e-5:
            raise ValueError(
                f"vmpo.temperature_epsilon is {self.temperature_epsilon}; it must be at least 1e-5,"
                " the resolution of float32"
            )
        if self.weights not in get_args(Weights):
            raise ValueError(
                f"unknown vmpo.weights {self.weights!r}; choose from {', '.join(get_args(Weights))}"
            )
        for name in ("trust_region_epsilon", "trust_region_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"vmpo.{name} is {getattr(self, name)}; it must be above 0")
        if not MIN_ALPHA <= self.trust_region_init <= MAX_ALPHA:
            raise ValueError(
                f"vmpo.trust_region_init is {self.trust_region_init}; it must lie between"
                f" {MIN_ALPHA:g} and {MAX_ALPHA:g}"
            )
        if self.target_period < 1:
            raise ValueError(
                f"vmpo.target_period is {self.target_period}; it must be at least 1 learner step"
            )


class TrustRegion(nn.Module):
    """The multiplier alpha of the trust region, [], between MIN_ALPHA and MAX_ALPHA."""

    alpha: Tensor

    def __init__(self, config: VMPOConfig):
        super().__init__()
        self.config = config
        self.register_buffer("alpha", torch.tensor(config.trust_region_init))

    @torch.no_grad()
    def follow(self, kl: Tensor, happened: Tensor) -> None:
        """Move alpha: up if the KL is above epsilon_alpha, down if it is below.

        Args:
          kl: []: the mean KL of a learner step.
          happened: bool []: whether the batch has any real step. If not, alpha stays.
        """
        excess = (kl / self.config.trust_region_epsilon - 1).clamp(max=MAX_EXCESS)
        rate = self.config.trust_region_rate * min(1.0, 10 / self.config.target_period)
        self.alpha.mul_(torch.where(happened, rate * excess, 0.0).exp()).clamp_(
            MIN_ALPHA, MAX_ALPHA
        )


@torch.no_grad()
def solve_temperature(advantage: Tensor, chosen: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Solve for the temperature of V-MPO on a batch.

        eta = argmin  eta * (epsilon + log mean exp(A / eta)),   the mean over the chosen samples

    There, KL(psi || uniform over the chosen) = epsilon, with psi = softmax(A / eta). The KL falls
    as eta grows. It is below epsilon from (max A - min A) / sqrt(8 epsilon) on (Hoeffding's lemma),
    so bisection finds eta. Nothing here waits for a value from the device. The KL stays below
    epsilon if even the best sample alone does not reach it (few or equal samples).

    Args:
      advantage: [n].
      chosen: bool [n].
      epsilon: The KL, in nats.

    Returns:
      eta [] and the KL [] that it reaches.
    """
    best = advantage.masked_fill(~chosen, -torch.inf).max()
    below = torch.where(chosen, advantage - best, 0.0)  # at most 0
    spread = torch.where(below.min() < 0, -below.min(), 1.0)
    below = below / spread  # from -1 to 0, so that float32 suffices in any unit
    high = torch.full_like(spread, (8 * epsilon) ** -0.5)
    low, log_count = high / RANGE, chosen.sum().clamp(min=1).log()

    def divergence(temperature: Tensor) -> Tensor:
        log_psi = (below / temperature).masked_fill(~chosen, -torch.inf).log_softmax(0)
        return torch.where(chosen, log_psi.exp() * log_psi, 0.0).sum() + log_count

    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        too_sharp = divergence(middle) > epsilon
        low, high = torch.where(too_sharp, middle, low), torch.where(too_sharp, high, middle)
    return spread * high, torch.where(chosen.any(), divergence(high), 0.0)


def top_half(advantage: Tensor, real: Tensor) -> Tensor:
    """bool [T, B]: the half (rounded up) of the real steps with the largest advantages."""
    ranked = advantage.masked_fill(~real, -torch.inf).flatten()
    order = ranked.argsort(descending=True)
    count = (real.sum() + 1) // 2
    chosen = torch.empty_like(real.flatten())
    chosen[order] = torch.arange(len(order), device=order.device) < count
    return chosen.view_as(real)


def sample_weights(
    advantage: Tensor, real: Tensor, config: VMPOConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """How much each taken action's log-probability (linear: ratio) counts in the policy loss.

    Args:
      advantage: [T, B], of all learners.
      real: bool [T, B]: steps that happened.
      config: The constants.

    Returns:
      The weights [T, B], eta [] and the KL [] that stands against epsilon_eta. Exponential weights
      sum to 1, linear ones to 0. The KL of linear ones is its first order: epsilon_eta.
    """
    if config.weights == "linear":
        count = real.sum().clamp(min=1)
        mean = torch.where(real, advantage, 0.0).sum() / count
        centred = torch.where(real, advantage - mean, 0.0)
        deviation = (centred.square().sum() / count).sqrt()
        temperature = deviation * (2 * config.temperature_epsilon) ** -0.5
        # equal advantages differ from their mean by rounding alone, and prefer nothing
        prefers = deviation > RESOLUTION * mean.abs()
        weights = torch.where(prefers, centred / temperature / count, 0.0)
        return weights, temperature, deviation.new_tensor(config.temperature_epsilon)
    chosen = top_half(advantage, real)
    temperature, sharpness = solve_temperature(
        advantage.flatten(), chosen.flatten(), config.temperature_epsilon
    )
    scaled = (advantage / temperature).masked_fill(~chosen, -torch.inf)
    weights = torch.where(chosen, torch.softmax(scaled.flatten(), 0).view_as(scaled), 0.0)
    return weights, temperature, sharpness


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
    """V-MPO's policy loss plus alpha times the KL.

    The acting policy is V-MPO's target policy: its recorded log-probabilities are those of
    pi_target.

    Args:
      log_probs: [T, B, A]: log-probabilities of the trained policy.
      behaviour: [T, B, A]: log-probabilities of the acting policy.
      action: int64 [T, B].
      advantage: [T, B], without gradient.
      real: bool [T, B]: steps that happened.
      alpha: []: the trust region's multiplier.
      config: The constants.

    Returns:
      The loss [] and metrics [] each. `kl` is what `TrustRegion.follow` takes.
    """
    assert (
        log_probs.shape == behaviour.shape
        and log_probs.shape[:2] == action.shape == advantage.shape == real.shape
    )
    assert not advantage.requires_grad and not behaviour.requires_grad and not alpha.requires_grad
    weights, temperature, sharpness = sample_weights(
        data_parallel.gather(advantage, 1), data_parallel.gather(real, 1), config
    )
    taken = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    if config.weights == "linear":
        acting = behaviour.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        taken = (taken - acting).masked_fill(~real, 0).exp()
    policy_loss = (
        -(data_parallel.own_share(weights, 1) * taken).sum() * data_parallel.num_learners()
    )
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
    """Entropy in nats [...] of log-probabilities [..., A]. The uniform policy has log A."""
    return -(log_probs.exp() * log_probs).sum(-1)
