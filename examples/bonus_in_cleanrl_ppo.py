"""The bonus in a single-file PPO in the style of CleanRL.

    python examples/bonus_in_cleanrl_ppo.py            # half a minute
    python examples/bonus_in_cleanrl_ppo.py --small

All that the bonus needs stands between `# + curiosity` and `# - curiosity`. Take these lines out
and plain PPO is left. Vectors of Gymnasium reset in the step after an ending, which ignores its
action: `valid` leaves such steps out of PPO's losses, and IntrinsicReward pays them nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import RescaleObservation, TransformReward
from torch import nn
from torch.distributions import Categorical

# + curiosity
from afterwit.world_models import IntrinsicReward

# - curiosity

torch.set_num_threads(1)  # a second thread slows such small networks down
SMALL = "--small" in sys.argv
NUM_ENVS, NUM_STEPS, EPOCHS, MINIBATCHES = 16, 64, 4, 4
GAMMA, LAMBDA, CLIP, VALUE = 0.99, 0.95, 0.2, 0.5


@dataclass
class Args:
    seed: int = 0
    total_steps: int = 100_000
    rate: float = 1e-3
    entropy: float = 0.01
    # + curiosity
    model: str = "rnd"
    weight: float = 0.1
    # - curiosity


def make() -> gymnasium.Env:
    """MountainCar: -0.1 a step until the car is on the hill, at most 200 steps."""
    env = gymnasium.make("MountainCar-v0")
    scaled = RescaleObservation(env, np.float32(-1), np.float32(1))
    return TransformReward(scaled, lambda reward: 0.1 * float(reward))


def network(outputs: int) -> nn.Sequential:
    hidden = nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()
    return nn.Sequential(*hidden, nn.Linear(64, outputs))


def train(args: Args, make: Callable[[], gymnasium.Env] = make) -> list[bool]:
    """Whether each episode reached the goal, in the order of their ends."""
    torch.manual_seed(args.seed)
    envs = SyncVectorEnv([make] * NUM_ENVS)
    actor, critic = network(3), network(1)
    parameters = [*actor.parameters(), *critic.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=args.rate, eps=1e-5)
    # + curiosity
    spaces = envs.single_observation_space, envs.single_action_space
    curiosity = IntrinsicReward(args.model, *spaces, seed=args.seed)
    state = curiosity.initial_state(NUM_ENVS)
    # - curiosity
    obs, _ = envs.reset(seed=args.seed)
    ended = np.zeros(NUM_ENVS, bool)  # did the last step end an episode? Then the next only resets
    reached: list[bool] = []
    for _ in range(args.total_steps // (NUM_ENVS * NUM_STEPS)):
        observations, actions, log_probs, rewards, valid = [obs], [], [], [], []
        ends, terminals = [], []
        for _ in range(NUM_STEPS):
            with torch.no_grad():
                policy = Categorical(logits=actor(torch.from_numpy(obs)))
                action = policy.sample()
            valid.append(~ended)
            obs, reward, terminated, truncated, _ = envs.step(action.numpy())
            ended = terminated | truncated
            reached += terminated[ended].tolist()
            observations.append(obs)
            actions.append(action)
            log_probs.append(policy.log_prob(action))
            rewards.append(reward)
            ends.append(ended)
            terminals.append(terminated)
        real, done, terminal = (torch.from_numpy(np.stack(x)) for x in (valid, ends, terminals))
        paid = torch.from_numpy(np.stack(rewards)).float()
        # + curiosity
        if args.weight:
            steps = np.stack(observations), torch.stack(actions), np.stack(ends)
            bonus, next_state = curiosity.reward(*steps, state=state)  # [T, B]
            curiosity.update(*steps, state=state)
            state = next_state
            paid += args.weight * torch.from_numpy(bonus)
        # - curiosity
        all_obs = torch.from_numpy(np.stack(observations))
        with torch.no_grad():
            values = critic(all_obs).squeeze(-1)  # [T+1, B]
        advantages = torch.zeros(NUM_STEPS, NUM_ENVS)
        advantage = torch.zeros(NUM_ENVS)
        for t in reversed(range(NUM_STEPS)):
            # After a time limit the last observation still has a value. Nothing flows back from
            # the step after an ending, which only resets.
            delta = paid[t] + GAMMA * values[t + 1] * ~terminal[t] - values[t]
            advantage = (delta + GAMMA * LAMBDA * ~done[t] * advantage) * real[t]
            advantages[t] = advantage
        returns = (advantages + values[:-1]).flatten()
        flat_obs, flat_action = all_obs[:-1].flatten(0, 1), torch.stack(actions).flatten()
        old_log_prob = torch.stack(log_probs).flatten()
        for _ in range(EPOCHS):
            for rows in torch.randperm(NUM_STEPS * NUM_ENVS).chunk(MINIBATCHES):
                rows = rows[real.flatten()[rows]]
                policy = Categorical(logits=actor(flat_obs[rows]))
                value = critic(flat_obs[rows]).squeeze(-1)
                ratio = (policy.log_prob(flat_action[rows]) - old_log_prob[rows]).exp()
                gain = advantages.flatten()[rows]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
                policy_loss = -torch.min(ratio * gain, clipped * gain).mean()
                value_loss = 0.5 * (value - returns[rows]).square().mean()
                loss = policy_loss + VALUE * value_loss - args.entropy * policy.entropy().mean()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimiser.step()
    return reached


if __name__ == "__main__":
    args = Args(total_steps=4_096 if SMALL else 100_000)
    last = train(args)[-100:]
    print(f"goal reached in {sum(last)} of the last {len(last)} episodes")
