"""A trained agent in a plain Gymnasium script.

python examples/trained_agent.py                 # trains a small agent first
python examples/trained_agent.py RUN_FOLDER      # takes the agent of a run in the noisy maze
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import gymnasium

from afterwit.runs.configs.presets import maze
from afterwit.runs.evaluation.trained_agent import load_agent
from afterwit.runs.training.loop import start


def train_a_small_one() -> Path:
    folder = Path(tempfile.mkdtemp()) / "run"
    start(replace(maze("rnd", "brownian"), total_steps=20_000), folder)
    return folder


folders = [argument for argument in sys.argv[1:] if argument != "--small"]
agent = load_agent(folders[0] if folders else train_a_small_one())
env = gymnasium.make("afterwit.envs:afterwit/NoisyMaze-v0", noise="brownian")
observation, _ = env.reset(seed=0)
first, over, cells = True, False, set()
while not over:
    action = agent.act(observation, first)  # the agent remembers; `first` opens an episode
    observation, reward, terminated, truncated, info = env.step(action)
    first, over = False, terminated or truncated
    cells.add(int(info["cell"]))
print(f"one episode: {len(cells)} cells seen")
