"""Instruments: what a world model makes of what it sees. Read at log time from one trajectory;
nothing is learnt by them.

rank/*          effective rank of embeddings, beliefs and z: at 1 they all lie on one line spread/*
the error that the best guess which never changes would make: reconstruction has to beat it leak/*
how far z gives away the place and action that it must not know: by the critic, by a linear probe
use/*           how much worse the reconstruction gets with the z of other transitions
collapse/alarm  1 where a rank or a spread is so small that there is hardly anything left to predict
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

ALARM = "collapse/alarm"
LEAST = {"rank": 2.0, "spread/target": 0.01}  # the alarm's thresholds, by section or name (ours)
RIDGE = 1e-3  # the probe's penalty, as a share of its inputs' variance (ours)


@torch.no_grad()
def effective_rank(vectors: Tensor, mask: Tensor) -> Tensor:
    """exp(entropy of the normalised singular values) of the vectors [..., N] where `mask` [...],
    about their mean.

    1 means that they all lie on one line, N that they fill the space, 0 that they are all the same
    (Roy & Vetterli, 2007).
    """
    rows, weight = vectors.detach().flatten(0, -2).float(), mask.flatten().unsqueeze(-1).float()
    # of a broken network the loss is reported; this must not fail before it
    rows = rows.nan_to_num().clamp(-1e6, 1e6)
    rows = (rows - (rows * weight).sum(0) / weight.sum().clamp(min=1)) * weight
    values = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0).sqrt()
    total = values.sum()
    share = values / total.clamp(min=1e-12)
    return torch.where(total > 1e-6, torch.exp(-(share * share.clamp(min=1e-12).log()).sum()), 0.0)


@torch.no_grad()
def spread(vectors: Tensor, mask: Tensor) -> Tensor:
    """2 - 2 |mean unit vector| of the vectors [..., N] where `mask` [...]: 0 where all point the
    same way, at most 2.

    It is the least mean squared distance on unit vectors that one guess for all of them can have,
    so it is in the units of the reconstruction error: a reconstruction of 0.001 says nothing where
    the spread is 0.001, too.
    """
    unit = F.normalize(vectors.detach().float(), dim=-1) * mask.unsqueeze(-1)
    return 2 - 2 * (unit.flatten(0, -2).sum(0) / mask.sum().clamp(min=1)).norm()


@torch.no_grad()
def explained_variance(inputs: Tensor, outputs: Tensor, mask: Tensor) -> Tensor:
    """How much of the outputs a linear probe tells from the inputs: 1 - squared error / variance,
    on data it was not fitted to.

    inputs [T, B, N], outputs [T, B, P], mask bool [T, B]. A ridge regression is fitted on every
    other environment and judged on the rest. 1: everything; 0: no more than their mean tells; below
    0: less than that. NaN where one half is empty or never varies.
    """
    fitted = torch.arange(mask.shape[1], device=mask.device) % 2 == 0
    halves = [
        (inputs[mask & side].double(), outputs[mask & side].double()) for side in (fitted, ~fitted)
    ]
    (x, y), (new_x, new_y) = halves
    if not len(x) or not len(new_x):
        return torch.full((), torch.nan)
    centre, middle = x.mean(0), y.mean(0)
    gram = (x - centre).T @ (x - centre)
    penalty = (
        RIDGE
        * gram.diagonal().mean().clamp(min=1e-12)
        * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    )
    weights = torch.linalg.solve(gram + penalty, (x - centre).T @ (y - middle))
    error = (new_y - middle - (new_x - centre) @ weights).square().sum()
    variance = (new_y - new_y.mean(0)).square().sum()
    return torch.where(variance > 0, 1 - error / variance, torch.nan).float()


def representation(beliefs: Tensor, embeddings: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Ranks and spread, [] each, of what a model looks through: beliefs [T+1, B, M], embeddings
    [T+1, B, N], real [T, B].
    """
    seen = {"belief": beliefs[1:], "embedding": embeddings[1:]}
    ranks = {f"rank/{name}": effective_rank(vectors, real) for name, vectors in seen.items()}
    return ranks | {"spread/embedding": spread(embeddings[1:], real)}


def alarm(readings: Mapping[str, float]) -> list[str]:
    """What is wrong with the readings, in words: one entry for each rank and spread below its
    threshold.
    """
    found = []
    for name, value in readings.items():
        least = LEAST.get(name, LEAST.get(name.split("/")[0]))
        if least is not None and not value >= least:
            found.append(f"the {name.replace('/', ' of the ')} is {value:.3g}, below {least:g}")
    return found
