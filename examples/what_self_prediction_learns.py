"""What does self-prediction learn? A chain of eight states, where theory says it exactly.

    python examples/what_self_prediction_learns.py
    python examples/what_self_prediction_learns.py --small

Features f of a state are trained to predict the features of the next state by a linear predictor W
that is at its best at all times (Tang et al., 2022, arXiv 2212.03319):

    error = |W f(x) - sg(f(y))|^2        x uniform, y after x, sg: no gradient

1. The features end in the span of the slowest modes of the chain: of what is predictable for long.
2. If the target has a gradient, too, everything but a constant fades.
3. Two actions. With one predictor for both (BYOL-Pi), modes count by the square of their mean
   eigenvalue; with one for each (BYOL-AC, Khetarpal et al., 2024, arXiv 2406.02035) by the mean of
   the square. So a mode that one action keeps and the other forgets is learnt only if the predictor
   knows the action, as the open loop of Afterwit's BYOL models does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from afterwit.world_models.predictors import SquarePredictor

STATES = 8
MODES = ("constant", "rooms", "left", "right")


def corridor() -> Tensor:
    """A walk on eight cells in a row that rests half of the time: [8, 8], eigenvalues 1 to 0.04."""
    chain = torch.eye(STATES) / 2
    for cell in range(STATES):
        for neighbour in (cell - 1, cell + 1):
            chain[cell, min(max(neighbour, 0), STATES - 1)] += 0.25  # a wall: it stays
    return chain


def rooms() -> tuple[Tensor, dict[str, Tensor]]:
    """Two actions in two rooms of two corners of two cells: [2, 8, 8], and the modes' vectors [8].

    Each action stays in the room with 0.95, read as correlation. Corners of the left room are kept
    by the first action alone (0.8 and 0), those of the right room by both a little (0.6 and 0.3).
    """
    rows = torch.tensor([[1.0] * 8, [1] * 4 + [-1] * 4, [1, 1, -1, -1] + [0] * 4])
    vectors = torch.cat([rows, rows[2].roll(4)[None], *(pair(cell) for cell in range(0, 8, 2))])
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    kept = torch.tensor([[1, 0.95, 0.8, 0.6, *[0.1] * 4], [1, 0.95, 0, 0.3, *[0.1] * 4]])
    chains = torch.einsum("ai,ix,iy->axy", kept, vectors, vectors)
    return chains, dict(zip(MODES, vectors[:4], strict=True))


def pair(cell: int) -> Tensor:
    """The difference of two neighbouring cells: [1, 8]."""
    row = torch.zeros(1, STATES)
    row[0, cell], row[0, cell + 1] = 1, -1
    return row


def learn(
    chains: Sequence[Tensor], start: Tensor, steps: int, rate: float = 0.2, stop: bool = True
) -> list[Tensor]:
    """Train features on chains, one for each predictor. Returns them [S, k] before and after.

    Args:
      chains: Symmetric transition matrices [S, S] whose rows add up to 1.
      start: The first features [S, k].
      steps: Steps of gradient descent, of `rate`.
      rate: The step size. Small: theory has a flow.
      stop: Whether the target has no gradient.
    """
    states, size = start.shape
    heads = [SquarePredictor("linear", states, size, 0.0, 0.0, 1) for _ in chains]
    features = torch.nn.Parameter(start.T.clone())
    for head in heads:
        head.project.weight = features  # all heads read the same features
        torch.nn.init.zeros_(head.project.bias)
    inputs, seen = torch.eye(states), [start]
    for _ in range(steps):
        loss = torch.zeros(())
        for head, chain in zip(heads, chains, strict=True):
            f = features.detach().T
            head.weight.data = torch.linalg.lstsq(f, chain @ f).solution.T
            target = features.detach().T if stop else features.T
            apart = head(inputs)[:, None] - target  # [S, S, k]
            loss = loss + (chain * apart.square().sum(-1)).sum() / 2 / len(chains)
        (change,) = torch.autograd.grad(loss, features)
        with torch.no_grad():
            features.sub_(change, alpha=rate)
        seen.append(features.detach().T.clone())
    return seen


def within(features: Tensor, vectors: Tensor) -> Tensor:
    """Cosines of the angles between the span of features [S, k] and unit vectors [S, m]: [m]."""
    return (torch.linalg.qr(features)[0].T @ vectors).norm(dim=0)


def drawn(size: int, seed: int) -> Tensor:
    """Features of all states, orthogonal: [S, k]."""
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(STATES, size, generator=random))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--small", action="store_true", help="a few steps: it shows nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = 20 if options.small else options.steps

    chain = corridor()
    slow = torch.linalg.eigh(chain)[1].flip(1)
    print("1. A corridor, two features. Cosines with its modes, slowest first:")
    path = learn([chain], drawn(2, 0), steps)
    for name, features in (("before", path[0]), ("after", path[-1])):
        print(f"   {name:8}" + "".join(f"{float(c):6.2f}" for c in within(features, slow)))

    print("2. The same, and the target has a gradient, too. Size of the features' parts:")
    path = learn([chain], drawn(2, 0), steps, stop=False)
    for name, features in (("before", path[0]), ("after", path[-1])):
        mean = features.mean(0).norm() * STATES**0.5
        rest = (features - features.mean(0)).norm()
        print(f"   {name:8}constant {float(mean):.3f}, all else {float(rest):.0e}")

    chains, modes = rooms()
    print("3. Two actions, three features. Cosines with the modes of the rooms:")
    print(f"   {'predictors':16}" + "".join(f"{name:>10}" for name in modes))
    vectors = torch.stack(list(modes.values()), 1)
    for name, heads in (("one for both", [chains.mean(0)]), ("one each", list(chains))):
        cosines = within(learn(heads, drawn(3, 0), steps)[-1], vectors)
        print(f"   {name:16}" + "".join(f"{float(c):10.2f}" for c in cosines))


if __name__ == "__main__":
    main()
