"""Which policy does a bonus prefer? Ask before you train an agent on it.

    python examples/what_a_bonus_prefers.py --model e3b
    python examples/what_a_bonus_prefers.py --model e3b --rate 1e-6 --set ridge=0.01
    python examples/what_a_bonus_prefers.py --small

A uniform policy walks in the noisy maze, and the bonus learns from it, as in a training run. First
it is printed what the bonus paid meanwhile, by how often the run had seen a cell before. Then some
fixed policies walk, and each line says what the bonus would pay them in an episode. A bonus that
pays a walk to the last room no more than a walk on the spot cannot teach an agent to explore.
"""

from __future__ import annotations

import argparse

import gymnasium
import numpy as np
import torch

from afterwit.agents.learner_config import LearnerConfig
from afterwit.runs.configs.overrides import assignments, changed
from afterwit.world_models import IntrinsicReward, find_model

ENVS, UNROLL, EPISODE, GAMMA = 64, 20, 500, LearnerConfig.discount
# probabilities of no-op, up, down, left, right; the maze is long, and its rooms lie to the right
POLICIES = {
    "no-op": (1.0, 0.0, 0.0, 0.0, 0.0),
    "up and down": (0.0, 0.5, 0.5, 0.0, 0.0),
    "uniform": (0.2, 0.2, 0.2, 0.2, 0.2),
    "to the right": (0.1, 0.2, 0.2, 0.15, 0.35),
}
Steps = tuple[np.ndarray, np.ndarray, np.ndarray]  # obs [T+1, B, ...], actions, dones [T, B]
BINS = (0, 10, 100, 1000, 10_000)  # earlier visits of the cell, over all mazes of the run


class Walk:
    """A fixed policy in many mazes, an unroll at a time."""

    def __init__(self, policy: str, noise: str, seed: int):
        self.envs = gymnasium.make_vec(
            "afterwit.envs:afterwit/NoisyMaze-v0", num_envs=ENVS, noise=noise
        )
        self.policy, self.draws = POLICIES[policy], np.random.default_rng(seed)
        self.observation, infos = self.envs.reset(seed=seed)
        self.cells, self.trackers = infos["cell"][None], infos["trackers"]

    def unroll(self) -> Steps:
        observations, actions, dones, cells = [self.observation], [], [], [self.cells[-1]]
        for _ in range(UNROLL):
            action = self.draws.choice(5, size=ENVS, p=self.policy)
            self.observation, _, terminated, truncated, infos = self.envs.step(action)
            observations.append(self.observation)
            actions.append(action)
            dones.append(terminated | truncated)
            cells.append(infos["cell"])
        self.cells, self.trackers = np.stack(cells), infos["trackers"]
        return np.stack(observations), np.stack(actions), np.stack(dones)


def learn(curiosity: IntrinsicReward, noise: str, steps: int) -> dict[str, float]:
    """Let the bonus learn from a uniform policy, and print what it paid. Returns its numbers."""
    walk, state, metrics = Walk("uniform", noise, 0), curiosity.initial_state(ENVS), {}
    visits, paid, bins, moved = np.zeros(10_000, int), [], [], []
    for _ in range(steps):
        batch = walk.unroll()
        bonus, after = curiosity.reward(*batch, state=state)
        metrics, state = curiosity.update(*batch, state=state), after
        paid.append(bonus)
        bins.append(np.digitize(visits[walk.cells[1:]], BINS))
        moved.append(walk.cells[1:] != walk.cells[:-1])
        np.add.at(visits, walk.cells[1:], 1)
    # in the first learner steps bonuses have no unit yet
    bonus, kind, move = (np.concatenate(each[len(each) // 20 :]) for each in (paid, bins, moved))
    print(
        "earlier visits of the cell: "
        + ", ".join(
            f"from {low:,}: {bonus[kind == index].mean():.3f}"
            for index, low in enumerate(BINS, 1)
            if (kind == index).any()
        )
    )
    print(f"moves {bonus[move].mean():.3f}, steps on the spot {bonus[~move].mean():.3f}")
    return metrics


def ask(curiosity: IntrinsicReward, policy: str, noise: str) -> tuple[float, np.ndarray]:
    """The share of trackers that an episode reaches, and what it would be paid: [500, B]."""
    walk, state, paid = Walk(policy, noise, 1), curiosity.initial_state(ENVS), []
    for _ in range(EPISODE // UNROLL):
        bonus, state = curiosity.reward(*walk.unroll(), state=state)
        paid.append(bonus)
    return float(walk.trackers.mean()), np.concatenate(paid)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="e3b")
    parser.add_argument("--noise", default="none")
    parser.add_argument("--steps", type=int, default=200, help="learner steps with the uniform one")
    parser.add_argument("--rate", type=float, default=1.0, help="multiple of the learning rate")
    parser.add_argument("--set", nargs="*", default=[], help="fields of the model, as ridge=0.01")
    parser.add_argument("--small", action="store_true", help="two learner steps: it shows nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a second thread slows such small networks down
    config = changed(find_model(options.model).Config(), assignments(options.set))
    envs = Walk("uniform", options.noise, 0).envs
    curiosity = IntrinsicReward(
        config,
        envs.single_observation_space,
        envs.single_action_space,
        seed=0,
        learning_rate=LearnerConfig.learning_rate * options.rate,
        reward_decay=0.9,
    )
    metrics = learn(curiosity, options.noise, 2 if options.small else options.steps)
    print(", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
    print(f"{'policy':14}{'trackers':>10}{'return':>10}{'20 steps':>10}{'later':>10}")
    weights = (1 - GAMMA) * GAMMA ** np.arange(EPISODE)[:, None]
    for policy in POLICIES:
        reached, paid = ask(curiosity, policy, options.noise)
        whole, early, late = (weights * paid).sum(0).mean(), paid[:20].mean(), paid[20:].mean()
        print(f"{policy:14}{reached:10.2f}{whole:10.3f}{early:10.3f}{late:10.3f}")


if __name__ == "__main__":
    main()
