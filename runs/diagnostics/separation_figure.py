"""The figure of the separation benchmark: rewards by kind of transition, world and model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from afterwit.runs.diagnostics.separation_world import KINDS
from afterwit.runs.diagnostics.separation_worlds import WORLDS
from afterwit.runs.output.files import atomic_write

COLOURS = {"familiar": "#8a8a8a", "noisy": "#cc3311", "novel": "#0077bb"}
NAMES = {"familiar": "familiar", "noisy": "noise", "novel": "never seen"}
WIDTH, HEIGHT = 1.75, 1.05  # of one panel, inches
LIMITS = (-0.5, 30.0)  # of the axis; dots beyond are drawn at its ends
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.left": False,
}


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the figure to `path`.

    A dot is a transition, a black line a median. 1 is the model's median reward for what it has
    never seen.
    """
    worlds = list(dict.fromkeys(entry["world"] for entry in result["summary"]))
    models = list(dict.fromkeys(entry["model"] for entry in result["summary"]))
    with rc_context(STYLE):
        figure = Figure(
            figsize=(1.1 + WIDTH * len(models), 0.75 + HEIGHT * len(worlds)),
            dpi=110,
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(worlds), len(models), squeeze=False, sharex=True)
        for entry in result["summary"]:
            row, column = worlds.index(entry["world"]), models.index(entry["model"])
            ax = axes[row, column]
            runs = [
                run
                for run in result["runs"]
                if (run["world"], run["model"]) == (entry["world"], entry["model"])
            ]
            strips(ax, runs)
            ax.set_title(
                f"{entry['model'] + ': ' if row == 0 else ''}{entry['verdict']}, AUC"
                f" {entry['auc']:.2f}",
                fontsize=7,
                loc="left",
            )
            ax.set_yticks(
                range(len(KINDS)),
                [NAMES[kind] for kind in KINDS] if column == 0 else [""] * len(KINDS),
            )
            if column == 0:
                ax.set_ylabel(f"{entry['world']}\n({in_short(entry['world'])})", fontsize=7)
        figure.supxlabel("reward (1 = median of what was never seen)", fontsize=7)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    with Image.open(buffer) as drawn, atomic_write(path) as file:
        drawn.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
            file, format="png", optimize=True
        )


def in_short(world: str) -> str:
    """Return what a world's noise is, in a word or two."""
    if world in WORLDS:
        return "decides" if WORLDS[world].relevant else "no matter"
    return "real frames"


def strips(ax: Any, runs: list[dict[str, Any]]) -> None:
    jitter = np.random.default_rng(0)
    for height, kind in enumerate(KINDS):
        paid = np.concatenate(
            [np.array(run["rewards"][kind]) / max(run["median"]["novel"], 1e-9) for run in runs]
        ).clip(*LIMITS)
        ax.scatter(
            paid,
            height + jitter.uniform(-0.28, 0.28, len(paid)),
            s=2.5,
            c=COLOURS[kind],
            alpha=0.45,
            linewidths=0,
        )
        ax.plot([np.median(paid)] * 2, [height - 0.36, height + 0.36], color="black", linewidth=1.2)
    ax.set_xscale("symlog", linthresh=0.1, linscale=0.6)
    ax.set_xlim(LIMITS)
    ax.set_xticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
    ax.set_ylim(-0.6, len(KINDS) - 0.4)
