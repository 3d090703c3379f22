"""The main job: two agents in two noisy mazes, side by side, and a report of where they went."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from afterwit.runs.configs.presets import Noise, maze
from afterwit.runs.configs.run_config import RunConfig, read_config, write_config
from afterwit.runs.evaluation.evaluate import evaluate
from afterwit.runs.output.files import locked_folder
from afterwit.runs.reports.comparison_page import write_report
from afterwit.runs.training.many_runs import PATIENCE, train_all

NOISES: tuple[Noise, ...] = ("sticky", "brownian")  # the one that costs BYOL-Explore more is first
MODELS = ("byol-explore", "byol-hindsight")
JOBS = 2
EPISODES = 32


def demo(out: Path, steps: int, seed: int) -> Path:
    """Train, evaluate, film and report two agents in two mazes.

    Args:
      out: folder for the runs and the report; an unfinished demo in it goes on.
      steps: agent steps of each of the four runs.
      seed: of all four.

    Returns:
      The path of the report's page.
    """
    configs = {
        out / noise / model: replace(maze(model, noise), total_steps=steps, seed=seed)
        for noise in NOISES
        for model in MODELS
    }
    with locked_folder(out, PATIENCE) as lock:
        for folder, config in configs.items():
            prepare(config, folder)
        print(
            f"Two agents in two noisy mazes ({' and '.join(NOISES)}), {steps:,} agent steps each."
            " Ctrl-C saves; the same command goes on."
        )
        train_all(list(configs), JOBS, lock)
    for folder in configs:
        evaluate(folder, EPISODES, greedy=False, seed=1_000_000 + seed, video=True)
    return write_report(list(configs), out)


def prepare(config: RunConfig, folder: Path) -> None:
    """Write the config, or check that the folder already holds the same run."""
    if not (folder / "config.json").exists():
        write_config(config, folder)
    elif read_config(folder) != config:
        raise ValueError(
            f"{folder} holds a run with another config; choose another --out, or remove it"
        )
