"""The bonus in a single-file PPO in the style of CleanRL.

    python examples/bonus_in_cleanrl_ppo.py            # some minutes
    python examples/bonus_in_cleanrl_ppo.py --small

All that the bonus needs stands between `# + curiosity` and `# - curiosity`. Take these lines out
and plain PPO is left. Vectors of Gymnasium reset in the step after an ending, which ignores its
action: `valid` leaves such steps out of PPO's losses, and IntrinsicReward pays them nothing.
"""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn
from torch.distributions import Categorical

# + curiosity
from afterwit.world_models import IntrinsicReward

# - curiosity

SMALL = "--small" in sys.argv
NUM_ENVS, NUM_STEPS, EPOCHS, MINIBATCHES = 16, 64, 4, 4
TOTAL_STEPS = 4_096 if SMALL else 300_000
GAMMA, LAMBDA, CLIP, ENTROPY, VALUE, RATE = 0.99, 0.95, 0.1, 0.01, 0.5, 5e-4

torch.manual_seed(0)
torch.set_num_threads(1)
envs = gymnasium.make_vec(
    "afterwit.envs:afterwit/NoisyMaze-v0", num_envs=NUM_ENVS, noise="brownian"
)
obs_space, action_space = envs.single_observation_space, envs.single_action_space
assert isinstance(obs_space, Box) and isinstance(action_space, Discrete)
inputs, num_actions = int(np.prod(obs_space.shape)), int(action_space.n)


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh())
        self.actor, self.critic = nn.Linear(128, num_actions), nn.Linear(128, 1)

    def forward(self, obs: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        hidden = self.body(obs.flatten(-3).float() / 255)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden).squeeze(-1)


agent = Agent()
optimiser = torch.optim.Adam(agent.parameters(), lr=RATE, eps=1e-5)
# + curiosity
curiosity = IntrinsicReward("byol-hindsight", obs_space, action_space, seed=0, learning_rate=RATE)
state = curiosity.initial_state(NUM_ENVS)
# - curiosity

obs, info = envs.reset(seed=0)
ended = np.zeros(NUM_ENVS, bool)  # did the last step end an episode? Then the next one only resets
seen: set[int] = set()
for update in range(TOTAL_STEPS // (NUM_ENVS * NUM_STEPS)):
    observations, actions, log_probs, values, rewards, dones, valid = [obs], [], [], [], [], [], []
    for _ in range(NUM_STEPS):
        with torch.no_grad():
            policy, value = agent(torch.from_numpy(obs))
            action = policy.sample()
        valid.append(~ended)
        obs, reward, terminated, truncated, info = envs.step(action.numpy())
        ended = terminated | truncated
        observations.append(obs)
        actions.append(action)
        log_probs.append(policy.log_prob(action))
        values.append(value)
        rewards.append(reward)
        dones.append(ended)
        seen.update(info["cell"].tolist())
    real = torch.from_numpy(np.stack(valid))
    reward = torch.from_numpy(np.stack(rewards)).float()
    # + curiosity
    steps = np.stack(observations), torch.stack(actions), np.stack(dones)
    bonus, next_state = curiosity.reward(*steps, state=state)  # [T, B]
    curiosity.update(*steps, state=state)
    state = next_state
    reward = reward + torch.from_numpy(bonus)
    # - curiosity
    with torch.no_grad():
        values.append(agent(torch.from_numpy(obs))[1])
    advantages = torch.zeros(NUM_STEPS, NUM_ENVS)
    advantage = torch.zeros(NUM_ENVS)
    for t in reversed(range(NUM_STEPS)):
        # Nothing flows back from the step after an ending, which only resets.
        goes_on = 1 - torch.from_numpy(dones[t]).float()
        delta = reward[t] + GAMMA * values[t + 1] * goes_on - values[t]
        advantage = advantages[t] = (delta + GAMMA * LAMBDA * goes_on * advantage) * real[t]
    returns = advantages + torch.stack(values[:-1])
    flat_obs = torch.from_numpy(np.stack(observations[:-1])).flatten(0, 1)
    flat_action, old_log_prob = torch.stack(actions).flatten(), torch.stack(log_probs).flatten()
    for _ in range(EPOCHS):
        for rows in torch.randperm(NUM_STEPS * NUM_ENVS).chunk(MINIBATCHES):
            rows = rows[real.flatten()[rows]]
            policy, value = agent(flat_obs[rows])
            ratio = (policy.log_prob(flat_action[rows]) - old_log_prob[rows]).exp()
            gain = advantages.flatten()[rows]
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            policy_loss = -torch.min(ratio * gain, clipped * gain).mean()
            value_loss = 0.5 * (value - returns.flatten()[rows]).square().mean()
            loss = policy_loss + VALUE * value_loss - ENTROPY * policy.entropy().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimiser.step()
    if update % 25 == 0 or SMALL:
        print(f"update {update:4}: {len(seen)} cells of the maze seen so far")
print(f"{len(seen)} cells seen in {TOTAL_STEPS:,} steps")
