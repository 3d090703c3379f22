"""The predictor of BYOL models: from a belief to the embedding of the outcome.

    mlp           one hidden layer, trained
    linear        f = projection(b), then W f; both trained
    direct-pred   the same, but W is set from statistics of f (Tian, Chen & Ganguli, ICML 2021)
    direct-copy   likewise, without eigenvectors (Wang, Chen, Du & Tian, 2021)

With F = E[f f'] over past and present batches (not centred), its eigenvectors U and eigenvalues s,
and m = max s:

    direct-pred   W = U diag(sqrt(s / m) + floor) U'
    direct-copy   W = F / m + floor I

So W follows the features that the projection has, and the projection follows W. A predictor that
minimises the error at all times ruins the features (DirectPred, table 8), so it is not solved for.

The division by m is that of the authors' code, not of the paper. It gives W a spectral norm of 1 +
floor whatever the scale of f, and leaves the scale to the projection.

The gradient of an error e = |W f - y|^2 in f is 2 W' (W f - y): a feature learns at a rate in
proportion to its eigenvalue in W. IsoLoss (Halvagal, Laborieux & Zenke, NeurIPS 2023) leaves W'
out, so that all eigenmodes learn at one rate:

    isotropic     d e / d f = 2 (W f - y), the gradient of |f - sg(y + f - W f)|^2

`isotropic` below does it to a prediction, so it serves both forms of the paper: Euclidean here,
and cosine where targets are unit vectors. It is published for a W that is set. Where W is trained,
W has its own full gradient (ours).

With a linear predictor, a decay of the weights decides which features are learnt. In the linear
theory of DirectPred, a feature whose variance is l, and whose correlation between two views is r,
is kept if r^2 l > 4 decay, and lost otherwise. With the isotropic gradient it is kept if r l >
decay, and there is no collapse from small weights. tests/world_models/test_predictors.py has both.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel
from afterwit.world_models.torso import mlp

Kind = Literal["mlp", "linear", "direct-pred", "direct-copy"]


def direct_weights(correlation: Tensor, kind: Kind, floor: float) -> Tensor:
    """W of DirectPred or DirectCopy.

    Args:
      correlation: F, symmetric and positive semi-definite, float [N, N].
      kind: direct-pred or direct-copy.
      floor: What every eigenvalue of W has at least.

    Returns:
      W, float [N, N]. It is floor times the identity if F is 0.
    """
    values, vectors = torch.linalg.eigh(correlation)
    values = values.clamp(min=0)
    share = values / torch.where(values[-1] > 0, values[-1], 1.0)
    share = share.sqrt() if kind == "direct-pred" else share
    return (vectors * (share + floor)) @ vectors.T


@torch.no_grad()
def shrink(module: nn.Module, share: float) -> None:
    """Take `share` off all trained matrices and kernels of a module; biases and scales stay."""
    if share:
        torch._foreach_mul_([w for w in module.parameters() if w.dim() > 1], 1 - share)


def isotropic(prediction: Tensor, features: Tensor) -> Tensor:
    """The prediction W f, with the gradient of f.

    Args:
      prediction: W f, float [..., N]. What reaches W through it stays; nothing else must.
      features: f, float [..., N].
    """
    return prediction + (features - features.detach())


class MLPPredictor(nn.Sequential):
    """One hidden layer with ReLU. `valid` is ignored."""

    def __init__(self, belief: int, hidden: int, embedding: int):
        super().__init__(*mlp(belief, hidden, embedding, 1))

    def forward(self, belief: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(belief)

    def after_step(self) -> None:
        """Nothing is set from statistics."""

    def readings(self) -> dict[str, Tensor]:
        """No instrument."""
        return {}


class SquarePredictor(nn.Module):
    """A trained projection to features f, and a square matrix W that is trained or set.

    Args:
      kind: linear, direct-pred or direct-copy.
      belief: M, size of what is read.
      embedding: N, size of f and of the prediction.
      decay: Share of F that is kept at each learner step. The first batch is F's start.
      floor: Added to all eigenvalues of W, where W is set.
      every: Learner steps from one setting of W to the next. In between W is trained.
      isotropic: Whether errors reach f as if W were the identity (IsoLoss).
    """

    weight: Tensor
    correlation: Tensor
    steps: Tensor

    def __init__(
        self,
        kind: Kind,
        belief: int,
        embedding: int,
        decay: float,
        floor: float,
        every: int,
        isotropic: bool = False,
    ):
        super().__init__()
        self.kind, self.decay, self.floor, self.every = kind, decay, floor, every
        self.isotropic = isotropic
        self.project = nn.Linear(belief, embedding)
        start = torch.eye(embedding)
        if kind == "linear" or every > 1:
            self.weight = nn.Parameter(start)
        else:
            self.register_buffer("weight", start)
        self.register_buffer("correlation", torch.zeros(embedding, embedding))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, belief: Tensor, valid: Tensor | None = None) -> Tensor:
        """Predictions, [..., M] to [..., N]. In training mode F follows the features.

        Args:
          belief: float [..., M].
          valid: bool [...]: the beliefs that count in F. None: F does not follow.
        """
        features = self.project(belief)
        if self.training and valid is not None:
            self.observe(features.detach(), valid)
        if self.isotropic:
            return isotropic(features.detach() @ self.weight.T, features)
        return features @ self.weight.T

    @torch.no_grad()
    def observe(self, features: Tensor, valid: Tensor) -> None:
        """Include features [..., N] where `valid` [...] in F. An empty batch changes nothing."""
        rows = torch.where(valid.unsqueeze(-1), features, 0.0).flatten(0, -2)
        batch = data_parallel.average(rows.T @ rows) / data_parallel.mean_count(valid)
        keep = torch.where(self.correlation.any(), self.decay, 0.0)
        keep = torch.where(data_parallel.any_true(valid), keep, 1.0)
        self.correlation.lerp_(batch, 1 - keep)

    @torch.no_grad()
    def after_step(self) -> None:
        """Set W, if it is its turn. Called after each optimiser step, so W acts from the next.

        The eigenvectors make a GPU wait.
        """
        self.steps += 1
        if self.kind == "linear" or int(self.steps) % self.every:
            return
        # nothing was seen yet, or a broken loss, which is reported by its owner
        if self.correlation.any() and self.correlation.isfinite().all():
            self.weight.copy_(direct_weights(self.correlation, self.kind, self.floor))

    @torch.no_grad()
    def readings(self) -> dict[str, Tensor]:
        """Whether W and F share their eigenvectors (DirectPred, figure 2), [] each.

        align/predictor is the mean cosine of u and W u over F's eigenvectors u: 1 if all are
        eigenvectors of W. align/commutator is |FW - WF| / (|F| |W|): 0 if they commute.
        """
        weight, correlation = self.weight.detach(), self.correlation
        try:
            vectors = torch.linalg.eigh(correlation)[1]
        except torch.linalg.LinAlgError:  # an instrument must not end a run
            vectors = torch.full_like(correlation, torch.nan)
        turned = weight @ vectors
        cosine = nn.functional.cosine_similarity(vectors, turned, dim=0).mean()
        size = (correlation.norm() * weight.norm()).clamp(min=1e-12)
        apart = (correlation @ weight - weight @ correlation).norm() / size
        return {"align/predictor": cosine, "align/commutator": apart}
