"""A clamp whose gradient still leads back."""

from __future__ import annotations

import torch

from afterwit.world_models.bounded import within


def test_only_a_gradient_that_leads_further_out_stops() -> None:
    values = torch.tensor([-3.0, -3.0, -1.0, 0.0, 0.0, 1.0, 3.0, 3.0], requires_grad=True)
    gradient = torch.tensor([2.0, -2.0, 2.0, 2.0, -2.0, -2.0, 2.0, -2.0])
    bounded = within(values, -1, 1)
    assert bounded.tolist() == [-1, -1, -1, 0, 0, 1, 1, 1]
    bounded.backward(gradient)
    assert values.grad is not None
    # a step goes against the gradient: below the bounds a negative one leads back
    assert values.grad.tolist() == [0, -2, 2, 2, -2, -2, 2, 0]
