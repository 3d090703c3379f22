"""Pay by surprise: take off the error that was to be expected here.

A prediction error pays what is always unpredictable for ever. But how large an error will be can be
foreseen, even where the outcome cannot. With r the raw reward in units of what a model that knows
nothing would have (`WorldModelOutput.ignorance`), and e its expectation:

    difference   surprise = r - e                        e estimates E[r | b, a]
    relative     surprise = (r - e) / (e + floor)        the same e
    log          surprise = log(r + floor) - e           e estimates E[log(r + floor) | b, a]

So noise is paid nothing on average. News is paid more, because e comes from what was learnt.
`relative` and `log` weigh a misjudged e by its share, `difference` by its size; and where r and e
are far below the floor, `relative` and `log` pay nothing. All three are then multiplied by the
ignorance again, so that a surprise has the unit of the raw reward. The idea is that of aleatoric
mapping (Mavor-Parker et al., 2022) with one number in place of a variance for each feature.

A small head h reads belief and action. For `difference` and `relative` it learns e = exp(h) by
minimising r / e + log e. Its minimum is the mean of r, and errors of every size weigh alike. For
`log` it is a least-squares fit.

What is taken off is a choice (`Takes`). An e that knows every place leaves no place to seek: all
pay nothing on average. What the action adds to it can be taken off alone:

    all       e(b, a)
    action    e(b, a) - mean over all actions a' of e(b, a') + u(a, action before)

A place is then paid as long as the model errs there more than elsewhere, whatever is done in it.
If e is right, who makes noise in a place that is well known is paid as little as anybody there.
Noise of many dimensions that stays in one place is paid, too.

A head lags, and lag favours noise: errors that can be learnt fall, those of noise do not, or rise
while the encoder learns. So u is what a step of this action still pays on average, and the step
after it; also what all steps pay. It is least squares (least_squares.py), and in the agent has seen
the batch that it judges, so that on average no action pays more than another. `IntrinsicReward`
pays before it learns, and there u has seen the steps before. Under sticky actions these are the
actions chosen. Of steps that are few for each action, u takes more than is due: with 18 actions,
11% of what has nothing to do with them if a batch has 320 steps, and half if it has 20.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afterwit.world_models.actions import action_numbers, with_action
from afterwit.world_models.least_squares import LeastSquares
from afterwit.world_models.torso import mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean

Form = Literal["off", "difference", "relative", "log"]
Takes = Literal["all", "action"]

HIDDEN = 64  # width of the head
# Rate of the head, as a multiple of the others'. It must know what is always unpredictable before
# the policy goes there; but what it knows early is also taken off what could still be learnt.
RATE = 10.0
MOST_ACTIONS = 128  # of which one can be compared with all; least squares costs their cube
# Bounds of h, where exp(h) is an error in units of ignorance. A head that learns so fast at times
# says far more than that where it has seen little, and one such step would set the bonus's unit.
LEAST, MOST = -10.0, 1.4  # exp(MOST) is 4


def bounded(h: Tensor) -> Tensor:
    """h within its bounds. The gradient passes, so that what is beyond them can come back."""
    return h + (h.clamp(LEAST, MOST) - h).detach()


class ExpectedError(nn.Module):
    """The expectation, and the surprise that is left of a raw reward.

    Its loss reaches the head alone: neither beliefs nor rewards get a gradient.

    Args:
      form: One of Form.
      floor: Error, in units of ignorance, below which differences do not count (relative, log).
      belief: M, size of the belief.
      num_actions: Number of actions, or of numbers of a continuous action.
      rate: Multiple of the learning rate at which the head learns.
      takes: What is taken off, one of Takes.
    """

    def __init__(
        self,
        form: Form,
        floor: float,
        belief: int,
        num_actions: int,
        rate: float = RATE,
        takes: Takes = "all",
    ):
        super().__init__()
        self.form, self.floor, self.num_actions, self.rate = form, floor, num_actions, rate
        self.takes = takes
        if form == "off":
            return
        self.head = mlp(belief + num_actions, HIDDEN, 1, 1)
        if takes == "action":
            self.usual = LeastSquares(2 * num_actions)

    def forward(
        self,
        reward: Tensor,
        ignorance: Tensor,
        paid: Tensor,
        trajectory: Trajectory,
        beliefs: Tensor,
        learning: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The surprise of each transition, and the head's loss.

        Args:
          reward: Raw rewards, float [T, B], at least 0.
          ignorance: The raw reward of a model that knows nothing, [].
          paid: bool [T, B]: transitions that have a raw reward. The others are no lesson.
          trajectory: The steps.
          beliefs: float [T+1, B, M].
          learning: Whether these steps are a lesson for u, before it judges them.

        Returns:
          The surprise, float [T, B], without gradient, and the loss []. If the form is off, the raw
          reward and 0.
        """
        if self.form == "off":
            return reward, torch.zeros_like(ignorance)
        known, error = beliefs[:-1].detach(), reward.detach() / ignorance
        h = bounded(self.head(with_action(known, trajectory.action, self.num_actions)).squeeze(-1))
        if self.form == "log":
            target = (error + self.floor).log()
            expected, loss = h, (target - h).square()
        else:
            target, expected = error, h.exp()
            loss = error / expected + h
        surprise = (target - expected).detach()
        if self.takes == "action":
            surprise = surprise + self.of_place(known)
            chosen = last_two(trajectory, self.num_actions).to(known.dtype)
            if learning:
                self.usual.update(chosen, surprise, paid)
            surprise = surprise - self.usual(chosen)
        elif self.form == "relative":
            surprise = surprise / (expected.detach() + self.floor)
        return torch.where(paid, surprise * ignorance, 0.0), masked_mean(loss, paid)

    @torch.no_grad()
    def of_place(self, known: Tensor) -> Tensor:
        """The mean over all actions of what is expected with known beliefs [T, B, M]: [T, B]."""
        every = torch.eye(self.num_actions, device=known.device, dtype=known.dtype)
        first, *rest = self.head
        assert isinstance(first, nn.Linear)
        of_belief, of_action = first.weight.split([known.shape[-1], self.num_actions], 1)
        # beliefs [T, B, 1, M] beside actions [K, A], without a copy of each belief for each action
        inner = F.linear(known, of_belief, first.bias)[..., None, :] + F.linear(every, of_action)
        h = bounded(nn.Sequential(*rest)(inner).squeeze(-1))
        return (h if self.form == "log" else h.exp()).mean(-1)


def last_two(trajectory: Trajectory, num_actions: int) -> Tensor:
    """The numbers of each action and of the one before it, [T, B, 2A].

    An episode's first step has no action before it.
    """
    action = action_numbers(trajectory.action, num_actions)
    before = action_numbers(trajectory.previous_actions[:-1], num_actions)
    return torch.cat([action, before.masked_fill(trajectory.first[:-1, :, None], 0)], -1)


def head_groups(module: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """The groups of all heads in `module`, for an optimiser whose other groups have this rate.

    Returns:
      A group for each rate at which heads learn. None if there is no head.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for head in module.modules():
        if isinstance(head, ExpectedError):
            groups.setdefault(head.rate, []).extend(head.parameters())
    return [
        {"params": parameters, "lr": learning_rate * rate}
        for rate, parameters in groups.items()
        if parameters
    ]
