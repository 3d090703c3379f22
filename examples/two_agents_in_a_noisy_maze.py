"""Train two agents in a noisy maze, and compare them in one page.

python examples/two_agents_in_a_noisy_maze.py            # some minutes on one core
python examples/two_agents_in_a_noisy_maze.py --small    # seconds: to see that it works
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from afterwit.runs.configs.presets import maze
from afterwit.runs.reports.comparison_page import write_report
from afterwit.runs.training.loop import start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a few thousand steps")
    parser.add_argument("--out", type=Path, default=Path("runs/out/two-agents"))
    options = parser.parse_args()
    folders = []
    for model in ("byol-explore", "byol-hindsight"):
        # A preset is a function that returns a complete config. Every field can be replaced.
        config = maze(model, noise="sticky")
        if options.small:
            config = replace(config, total_steps=6_000, log_interval=1_000)
        folders.append(options.out / model)
        start(config, folders[-1])  # Ctrl-C saves; afterwit train --resume FOLDER goes on
    print(f"look at {write_report(folders, options.out)}")


if __name__ == "__main__":
    main()
