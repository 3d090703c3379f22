"""Pay by surprise: take off the error that was to be expected here.

A prediction error pays what is always unpredictable for ever. But how large an error will be can be
foreseen, even where the outcome cannot. A small head h reads the belief and the action, and says
how large the error is on average, in units of what a model that knows nothing would have
(`WorldModelOutput.ignorance`). With r the raw reward in these units, and e the head's expectation:

    difference   surprise = r - e                        e estimates E[r | b, a]
    relative     surprise = (r - e) / (e + floor)        the same e
    log          surprise = log(r + floor) - e           e estimates E[log(r + floor) | b, a]

So noise is paid nothing on average. News is paid more, because the head has only seen what was
learnt. `relative` and `log` weigh a misjudged e by its share, `difference` by its size; and where r
and e are far below the floor, `relative` and `log` pay nothing. All three are then multiplied by
the ignorance again, so that a surprise has the unit of the raw reward. The idea is that of
aleatoric mapping (Mavor-Parker et al., 2022) with one number in place of a variance for each
feature.

A head that knows every place leaves no place to seek: all pay nothing on average. So it may read
less (`Reads`): the action alone, or the last two, so that the step after noise is told as well.
Then a place keeps its pay until the model knows it. Under sticky actions these are the actions that
were chosen. Noise of many dimensions that stays in one place is then paid, too.

For `difference` and `relative` the head learns e = exp(h) by minimising r / e + log e. Its minimum
is the mean of r, and errors of every size weigh alike. For `log` it is a least-squares fit.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from afterwit.world_models.actions import action_numbers, with_action
from afterwit.world_models.torso import mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean

Form = Literal["off", "difference", "relative", "log"]
Reads = Literal["belief", "action", "actions"]

HIDDEN = 64  # width of the head
# Rate of the head, as a multiple of the others'. It must know what is always unpredictable before
# the policy goes there; but what it knows early is also taken off what could still be learnt.
RATE = 10.0
# Bounds of h, where exp(h) is an error in units of ignorance. A head that learns so fast at times
# says far more than that where it has seen little, and one such step would set the bonus's unit.
LEAST, MOST = -10.0, 1.4  # exp(MOST) is 4


def bounded(h: Tensor) -> Tensor:
    """h within its bounds. The gradient passes, so that what is beyond them can come back."""
    return h + (h.clamp(LEAST, MOST) - h).detach()


class ExpectedError(nn.Module):
    """The head, and the surprise that is left of a raw reward.

    Its loss reaches the head alone: neither beliefs nor rewards get a gradient.

    Args:
      form: One of Form.
      floor: Error, in units of ignorance, below which differences do not count (relative, log).
      belief: M, size of the belief.
      num_actions: Number of actions, or of numbers of a continuous action.
      rate: Multiple of the learning rate at which the head learns.
      reads: belief: h reads belief and action; action: the action alone; actions: the action and
          the one before it.
    """

    def __init__(
        self,
        form: Form,
        floor: float,
        belief: int,
        num_actions: int,
        rate: float = RATE,
        reads: Reads = "belief",
    ):
        super().__init__()
        self.form, self.floor, self.num_actions, self.rate = form, floor, num_actions, rate
        self.reads = reads
        # numbers that h reads beside those of the action
        beside = {"belief": belief, "action": 0, "actions": num_actions}[reads]
        if form != "off":
            self.head = mlp(beside + num_actions, HIDDEN, 1, 1)

    def forward(
        self,
        reward: Tensor,
        ignorance: Tensor,
        paid: Tensor,
        trajectory: Trajectory,
        beliefs: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The surprise of each transition, and the head's loss.

        Args:
          reward: Raw rewards, float [T, B], at least 0.
          ignorance: The raw reward of a model that knows nothing, [].
          paid: bool [T, B]: transitions that have a raw reward. The others are no lesson.
          trajectory: The steps.
          beliefs: float [T+1, B, M].

        Returns:
          The surprise, float [T, B], without gradient, and the loss []. If the form is off, the raw
          reward and 0.
        """
        if self.form == "off":
            return reward, torch.zeros_like(ignorance)
        seen = with_action(self.beside(trajectory, beliefs), trajectory.action, self.num_actions)
        h = bounded(self.head(seen).squeeze(-1))
        error = reward.detach() / ignorance
        if self.form == "log":
            surprise = (error + self.floor).log() - h
            loss = surprise.square()
        else:
            expected = h.exp()
            surprise = error - expected
            if self.form == "relative":
                surprise = surprise / (expected + self.floor)
            loss = error / expected + h
        surprise = torch.where(paid, surprise.detach() * ignorance, 0.0)
        return surprise, masked_mean(loss, paid)

    def beside(self, trajectory: Trajectory, beliefs: Tensor) -> Tensor:
        """What h reads beside the action, [T, B, ...], without gradient."""
        known = beliefs[:-1].detach()
        if self.reads == "belief":
            return known
        if self.reads == "action":
            return known[..., :0]
        before = action_numbers(trajectory.previous_actions[:-1], self.num_actions)
        # an episode's first step has no action before it
        return torch.where(trajectory.first[:-1, :, None], 0.0, before.to(known.dtype))


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
