"""The figure of `afterwit state-probe`: how well each encoder tells each part of the state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from afterwit.runs.output.figure_style import GREY, INK, OTHER, PALE, STYLE, VIBRANT, save

# Controls are grey, a run's own networks are in colour, what was trained on the labels is dark.
MARKS = {
    "majority": ("#999999", "|"),
    "random CNN": ("#999999", "o"),
    "random embedding": ("#999999", "o"),
    "random belief": ("#999999", "s"),
    "embedding": (VIBRANT[0], "o"),
    "belief": (VIBRANT[1], "s"),
    "supervised": (INK, "D"),
}
ROW, HEAD, FOOT = 0.2, 0.95, 0.75  # inches


def draw(result: Mapping[str, Any], out: Path) -> None:
    """Write OUT/state-probe.png."""
    with rc_context(STYLE):
        save(compose(result), out, "state-probe", "what the encoders know of the world's state")


def rows_of(result: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """The rows from the top: each category (with None), and below it its labels."""
    rows: list[tuple[str, str | None]] = []
    categories: Mapping[str, str] = result["categories"]
    for category in dict.fromkeys(categories.values()):
        rows.append((category, None))
        labels = [label for label, of in categories.items() if of == category]
        rows += [(category, label) for label in labels if len(labels) > 1]
    return rows


def compose(result: Mapping[str, Any]) -> Figure:
    rows, columns = rows_of(result), result["columns"]
    height = HEAD + ROW * (len(rows) + 1) + FOOT
    figure = Figure(figsize=(6.6, height), dpi=170)
    bottom, tall = FOOT / height, ROW * (len(rows) + 1) / height
    ax = figure.add_axes((0.33, bottom, 0.63, tall))
    others = iter(VIBRANT[2:] * 3)
    marks = {name: MARKS.get(name) or (next(others), "^") for name in columns}
    for place, (category, label) in enumerate(reversed([("mean", None), *rows])):
        strong = label is None
        if strong:
            ax.axhspan(place - 0.5, place + 0.5, color="#f2f2f2", linewidth=0)
        ax.axhline(place, color=PALE, linewidth=0.4, zorder=0)
        for name, column in columns.items():
            value = (
                column["mean"]
                if category == "mean"
                else column["categories"][category]
                if label is None
                else column["labels"][label]
            )
            colour, marker = marks[name]
            ax.plot(
                value,
                place,
                marker,
                color=colour,
                markersize=5.5 if strong else 3.5,
                markeredgewidth=2 if marker == "|" else 0,
                alpha=1 if strong else 0.75,
                clip_on=False,
            )
    words = [
        name_of(category, label, result["categories"])
        for category, label in reversed([("mean", None), *rows])
    ]
    ax.set_yticks(range(len(words)), words, fontsize=7)
    for tick, (_, label) in zip(
        ax.get_yticklabels(), reversed([("mean", None), *rows]), strict=True
    ):
        tick.set(color=INK if label is None else GREY, fontweight="bold" if not label else "normal")
    ax.set(xlim=(0, 1), ylim=(-0.6, len(words) - 0.4))
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("weighted F1 of a linear probe on test frames")
    handles = [
        ax.plot([], [], marker, color=colour, markersize=5, markeredgewidth=2 * (marker == "|"))[0]
        for colour, marker in marks.values()
    ]
    figure.legend(
        handles,
        list(columns),
        loc="upper left",
        bbox_to_anchor=(0.02, 1 - 0.5 / height),
        ncols=min(len(columns), 6),
        frameon=False,
        fontsize=7,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    figure.text(0.03, 1 - 0.1 / height, title(result), fontsize=11, fontweight="bold", va="top")
    figure.text(0.03, 1 - 0.34 / height, subtitle(result), color=GREY, va="top", fontsize=7)
    figure.text(0.03, 0.1 / height, foot(result), color=OTHER, fontsize=6.5, va="bottom")
    return figure


def name_of(category: str, label: str | None, categories: Mapping[str, str]) -> str:
    """What stands beside a row. A category of one label is named with it."""
    if label is not None:
        return label
    if category == "mean":
        return "mean over categories"
    labels = [name for name, of in categories.items() if of == category]
    return f"{category}: {labels[0]}" if len(labels) == 1 else category


def title(result: Mapping[str, Any]) -> str:
    where = result["game"] if "game" in result else result["environment"]
    return f"What is known of the world? {where}"


def subtitle(result: Mapping[str, Any]) -> str:
    if result["mode"] == "published":
        return "as AtariARI (Anand et al., 2019): a random agent's frames of 210x160, no sticky"
    return (
        f"{result['world_model']} after {result['trained_agent_steps']:,} agent steps, on frames"
        f" that the {result['policy']} policy saw"
    )


def foot(result: Mapping[str, Any]) -> str:
    frames = result["frames"]
    words = (
        f"{frames['train']:,} frames to learn, {frames['validation']:,} to validate,"
        f" {frames['test']:,} to test"
    )
    if result["dropped"]:
        words += f"; {len(result['dropped'])} labels hardly vary and are left out"
    return words
