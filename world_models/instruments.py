"""Instruments: diagnostics of a world model on one trajectory, read at log time.

Nothing is learned from them.

    rank/*          Effective rank of embeddings, beliefs and z. At 1 they all lie on one line.
    spread/*        The error of the best constant prediction. A useful model has a smaller one.
    leak/*          How much z reveals of the state and action, which it must not know: by the
                    critic, and by a linear probe.
    use/*           How much larger the error gets with the z of other transitions.
    collapse/alarm  1 if a rank or a spread is so small that almost nothing is left to predict.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

ALARM = "collapse/alarm"
# by section or by name (our choice; not published)
ALARM_THRESHOLDS = {"rank": 2.0, "spread/target": 0.01}
RIDGE = 1e-3  # the probe's penalty, as a share of its inputs' variance (our choice)


@torch.no_grad()
def effective_rank(vectors: Tensor, mask: Tensor) -> Tensor:
    """exp(entropy of the normalised singular values) of vectors about their mean.

    It is 1 if they all lie on one line, N if they fill the space, and 0 if they are all the same
    (Roy & Vetterli, 2007).

    Args:
      vectors: float [..., N].
      mask: bool [...]: the vectors that count.

    Returns:
      The rank []. NaN if the singular values cannot be computed.
    """
    rows, weight = vectors.detach().flatten(0, -2).float(), mask.flatten().unsqueeze(-1).float()
    # A broken network's vectors must not raise an error here: its loss is reported first.
    rows = rows.nan_to_num().clamp(-1e6, 1e6)
    rows = (rows - (rows * weight).sum(0) / weight.sum().clamp(min=1)) * weight
    try:
        values = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0).sqrt()
    except torch.linalg.LinAlgError:  # an instrument must not end a run
        return rows.new_full((), torch.nan)
    total = values.sum()
    share = values / total.clamp(min=1e-12)
    return torch.where(total > 1e-6, torch.exp(-(share * share.clamp(min=1e-12).log()).sum()), 0.0)


@torch.no_grad()
def spread(vectors: Tensor, mask: Tensor) -> Tensor:
    """2 - 2 |mean unit vector| of vectors: 0 if all point the same way, at most 2.

    It is the smallest mean squared distance on unit vectors that a constant prediction can have, so
    it has the unit of the reconstruction error. A reconstruction error of 0.001 says nothing if the
    spread is 0.001 too.

    Args:
      vectors: float [..., N].
      mask: bool [...]: the vectors that count.

    Returns:
      The spread [].
    """
    unit = F.normalize(vectors.detach().float(), dim=-1) * mask.unsqueeze(-1)
    return 2 - 2 * (unit.flatten(0, -2).sum(0) / mask.sum().clamp(min=1)).norm()


@torch.no_grad()
def explained_variance(inputs: Tensor, outputs: Tensor, mask: Tensor) -> Tensor:
    """How much of the outputs a linear probe predicts from the inputs, on new data.

    A ridge regression is fitted on every other environment and evaluated on the rest.

    Args:
      inputs: float [T, B, N].
      outputs: float [T, B, P].
      mask: bool [T, B]: the steps that count.

    Returns:
      1 - squared error / variance, []. 1: everything; 0: no more than the mean; below 0: less than
      the mean. NaN if one half is empty or never varies.
    """
    in_fit = torch.arange(mask.shape[1], device=mask.device) % 2 == 0
    x, y = inputs[mask & in_fit].double(), outputs[mask & in_fit].double()
    new_x, new_y = inputs[mask & ~in_fit].double(), outputs[mask & ~in_fit].double()
    if not len(x) or not len(new_x):
        return torch.full((), torch.nan)
    x_mean, y_mean = x.mean(0), y.mean(0)
    gram = (x - x_mean).T @ (x - x_mean)
    penalty = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
    penalty = penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + penalty, (x - x_mean).T @ (y - y_mean))
    error = (new_y - y_mean - (new_x - x_mean) @ weights).square().sum()
    variance = (new_y - new_y.mean(0)).square().sum()
    return torch.where(variance > 0, 1 - error / variance, torch.nan).float()


def representation(beliefs: Tensor, embeddings: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Ranks and spread, [] each, of the torso's beliefs and embeddings.

    Args:
      beliefs: float [T+1, B, M].
      embeddings: float [T+1, B, N].
      real: bool [T, B]: steps that happened.
    """
    seen = {"belief": beliefs[1:], "embedding": embeddings[1:]}
    ranks = {f"rank/{name}": effective_rank(vectors, real) for name, vectors in seen.items()}
    return ranks | {"spread/embedding": spread(embeddings[1:], real)}


def alarm(readings: Mapping[str, float]) -> list[str]:
    """Sentences about each rank and spread that is below its threshold."""
    warnings = []
    for name, value in readings.items():
        least = ALARM_THRESHOLDS.get(name, ALARM_THRESHOLDS.get(name.split("/")[0]))
        if least is not None and not value >= least:
            warnings.append(f"the {name.replace('/', ' of the ')} is {value:.3g}, below {least:g}")
    return warnings
