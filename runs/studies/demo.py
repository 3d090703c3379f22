"""The main job: two agents on the same noisy maze, side by side, and a report of where each of them
went.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from afterwit.runs.configs.presets import Model, maze
from afterwit.runs.configs.run_config import RunConfig, read_config, write_config
from afterwit.runs.evaluation.evaluate import evaluate
from afterwit.runs.output.files import locked_folder
from afterwit.runs.reports.comparison_page import write_report
from afterwit.runs.training.many_runs import PATIENCE, train_all

MODELS: tuple[Model, ...] = ("byol-explore", "byol-hindsight")
EPISODES = 32


def demo(out: Path, steps: int, seed: int) -> Path:
    """Train, evaluate, film and report. Goes on with an unfinished demo in `out`; returns the
    report's path.
    """
    folders = [out / model for model in MODELS]
    configs = [
        replace(maze(model=model, noise="brownian"), total_steps=steps, seed=seed)
        for model in MODELS
    ]
    with locked_folder(out, PATIENCE) as lock:
        for config, folder in zip(configs, folders, strict=True):
            prepare(config, folder)
        print(
            f"Two agents on the Brownian maze, {steps:,} agent steps each. Ctrl-C saves; the same"
            " command goes on."
        )
        train_all(folders, len(folders), lock)
    for folder in folders:
        evaluate(folder, EPISODES, greedy=False, seed=1_000_000 + seed, video=True)
    return write_report(folders, out)


def prepare(config: RunConfig, folder: Path) -> None:
    """Write the config, or check that the folder already holds this very run."""
    if not (folder / "config.json").exists():
        write_config(config, folder)
    elif read_config(folder) != config:
        raise ValueError(
            f"{folder} holds a run with another config; choose another --out, or remove it"
        )
