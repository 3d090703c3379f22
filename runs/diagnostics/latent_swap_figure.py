"""The probe's figure: a row per transition, with what followed and what the model imagines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from afterwit.envs.arrays import Array
from afterwit.envs.atari import AtariConfig
from afterwit.envs.make import EnvConfig
from afterwit.envs.maze import PALETTE, MazeConfig
from afterwit.envs.maze_map import draw_view
from afterwit.envs.specs import EnvSpec
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.diagnostics.latent_swap_data import TITLES, Bank, Row
from afterwit.runs.output.figure_style import GREY, INK, PALE, STYLE, save
from afterwit.world_models.registry import world_model_name

# Tol's vibrant, colour-blind safe. The frames mean: the noise changed; something changed that may
# be noise; nothing changed; another place. The last colour tints differences.
CHANGED, OTHER, SAME, ELSEWHERE, DIFFERENT = "#009988", "#0077bb", "#9a9a9a", "#cc3311", "#ee7733"
Draw = Callable[[Array, Array | None], Array]


def drawer(env: EnvConfig, frames: Array) -> Draw:
    """Return how an environment's observations are drawn.

    The function takes an observation and what really followed (or None), and returns an image
    [height, width, 3] in 0..1. Maze views have the maze's colours. Of a game the newest frame is
    drawn. Images of 1 or 3 channels are drawn as they are, others channel by channel, vectors as
    bars. Differences from what really followed are tinted, except in the maze.
    """
    if isinstance(env, MazeConfig):
        return lambda observation, _: draw_view(observation) / 255
    depth = frames.shape[2] if frames.ndim == 5 else 1
    newest = (1 if env.grayscale else 3) if isinstance(env, AtariConfig) else depth
    low, high = (0.0, 255.0) if isinstance(env, AtariConfig) else spans(frames)

    def draw(observation: Array, truth: Array | None) -> Array:
        def scaled(values: Array) -> Array:
            shares: Array = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1)
            return shares

        if observation.ndim != 3:
            return bars(
                scaled(observation.reshape(-1)),
                None if truth is None else scaled(truth.reshape(-1)),
            )
        image = in_colour(scaled(observation.astype(np.float64))[-newest:])
        if truth is not None:
            differs = (
                np.abs(image - in_colour(scaled(truth.astype(np.float64))[-newest:])).max(-1) > 0.02
            )
            image[differs] = 0.35 * image[differs] + 0.65 * np.array(to_rgb(DIFFERENT))
        return image

    return draw


def spans(frames: Array) -> tuple[Any, Any]:
    """Return the least and greatest value: per number of a vector, or of a whole image.

    A uint8 image that uses its range gets 0 and 255.
    """
    if frames.ndim != 5:
        flat = frames.reshape(-1, int(np.prod(frames.shape[2:])))
        return flat.min(0).astype(np.float64), flat.max(0).astype(np.float64)
    top = float(frames.max())
    return (
        (0.0, 255.0)
        if frames.dtype == np.uint8 and top > 127
        else (float(min(frames.min(), 0)), top)
    )


def in_colour(channels: Array) -> Array:
    """Return [C, H, W] in 0..1 as [height, width, 3]: grey, colour, or channels side by side."""
    if len(channels) == 3:
        return channels.transpose(1, 2, 0).copy()
    columns = int(np.ceil(np.sqrt(len(channels))))
    height, width = channels.shape[1:]
    sheet = np.ones((-(-len(channels) // columns) * (height + 1) - 1, columns * (width + 1) - 1))
    for index, channel in enumerate(channels):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        sheet[top : top + height, left : left + width] = channel
    return sheet[..., None].repeat(3, -1)


def bars(values: Array, truth: Array | None) -> Array:
    """Return a vector in 0..1 as columns, [60, ~60, 3], with a line at each value of `truth`."""
    height, wide = 60, max(2, 60 // len(values))
    image = np.ones((height, wide * len(values), 3))
    for index, value in enumerate(values):
        here = np.s_[index * wide : (index + 1) * wide - 1]
        image[height - 1 - round(value * (height - 4)) :, here] = 0.45
        if truth is not None:
            level = height - 1 - round(truth[index] * (height - 4))
            image[max(level - 1, 0) : level + 1, here] = to_rgb(DIFFERENT)
    return image


def verdicts(bank: Bank, row: Row) -> list[str]:
    """Return the frame colours of a row's reconstructions."""
    looks, another = row.looks, OTHER if bank.reading.noise is None else CHANGED
    kept = np.ones(len(looks.changed), bool) if looks.kept is None else looks.kept
    return [
        ELSEWHERE if not stays else another if differs else SAME
        for stays, differs in zip(kept, looks.changed, strict=True)
    ]


def draw_probe(
    bank: Bank,
    rows: Sequence[Row],
    config: RunConfig,
    spec: EnvSpec,
    result: Mapping[str, Any],
    out: Path,
) -> None:
    """Write OUT/probe.png."""
    with rc_context(STYLE):
        figure = compose(bank, rows, drawer(config.env, bank.frames), config, spec, result)
        save(figure, out, "probe", "what would have happened with another z")


def compose(
    bank: Bank,
    rows: Sequence[Row],
    draw: Draw,
    config: RunConfig,
    spec: EnvSpec,
    result: Mapping[str, Any],
) -> Figure:
    swaps = len(rows[0].other) - 2
    side, gap, name_width, action_width, group = 0.82, 0.1, 1.0, 0.72, 0.22
    row_height, head, foot, margin = side + 0.3, 1.45, 0.62, 0.15
    lefts = [margin + name_width]  # seen
    lefts.append(lefts[0] + side + action_width)  # followed
    lefts.append(lefts[1] + side + group)  # its own z
    lefts += [lefts[2] + side + group + index * (side + gap) for index in range(swaps)]
    lefts.append(lefts[-1] + side + group)  # one more of its kind
    width, height = lefts[-1] + side + margin, head + row_height * len(rows) + foot
    figure = Figure(figsize=(width, height), dpi=150)

    def text(left: float, top: float, words: str, **style: Any) -> None:
        figure.text(left / width, 1 - top / height, words, **{"va": "top", **style})

    def picture(left: float, top: float, image: Array, colour: str, thick: float) -> None:
        ax = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
        ax.imshow(image, interpolation="nearest", aspect="auto", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(visible=True, color=colour, linewidth=thick)

    text(margin, 0.12, "What would have happened?", fontsize=13, fontweight="bold")
    model = world_model_name(config.learner.world_model)
    trained = f"{result['trained_agent_steps']:,} agent steps"
    text(
        width - margin,
        0.16,
        f"{spec.name}, {noise_name(config)}{model}, {trained}",
        ha="right",
        color=GREY,
    )
    explained = (
        "Each row keeps one transition's place and action, and gives the model the z of others:"
        " what of an outcome could not be foreseen.\nShown is the real observation nearest to what"
        " the model then imagines; below it, how far it is (squared distance of embeddings)."
    )
    text(margin, 0.43, explained, linespacing=1.35)
    text(margin, 0.83, headline(result), fontweight="bold", color=GREY)
    heads = (
        (lefts[0], "what was seen"),
        (lefts[1], "what followed"),
        (lefts[2], "its own z"),
        (lefts[3], "the z of other transitions, drawn from all"),
        (lefts[-1], "of its kind"),
    )
    for left, words in heads:
        text(left, head - 0.24, words, fontweight="bold")
    for index, row in enumerate(rows):
        top = head + index * row_height
        truth, action = bank.followed(row.query), int(bank.action[row.query])
        name = spec.action_names[action].lower() if spec.action_names else f"action {action}"
        text(
            margin,
            top + side / 2 - 0.09,
            row.kind.replace(" in view", "\nin view"),
            linespacing=1.2,
        )
        picture(lefts[0], top, draw(bank.seen(row.query), None), PALE, 0.8)
        picture(lefts[1], top, draw(truth, None), INK, 1.2)
        text(
            lefts[0] + side + action_width / 2,
            top + side / 2 - 0.13,
            f"{name}\n→",
            ha="center",
            linespacing=1.1,
        )
        for left, near, distance, colour in zip(
            lefts[2:], row.looks.nearest, row.looks.distance, verdicts(bank, row), strict=True
        ):
            picture(left, top, draw(bank.followed(int(near)), truth), colour, 2.6)
            text(
                left + side / 2,
                top + side + 0.04,
                f"{distance:.2f}",
                ha="center",
                color=GREY,
                fontsize=7,
            )
        text(
            lefts[1] + side / 2,
            top + side + 0.04,
            f"rank {row.looks.rank[0]}",
            ha="center",
            color=GREY,
            fontsize=7,
        )
    legend(figure, bank, config, margin, height - foot + 0.1, width, height)
    return figure


def headline(result: Mapping[str, Any]) -> str:
    """Return the two numbers that the figure illustrates, for each kind of transition."""
    parts = []
    for name, kind in result["kinds"].items():
        other = kind["other_z"]
        kept = f"place kept {other['place_kept']:.0%}, " if "place_kept" in other else ""
        parts.append(
            f"{TITLES[name]}: {kept}{'outcome' if name == 'all' else 'noise'} changed"
            f" {other['noise_changed']:.0%}"
        )
    swapped = sum(kind["measured"] for kind in result["kinds"].values()) * result["swaps"]
    return f"Over {swapped:,} swaps   " + "     ".join(parts)


def noise_name(config: RunConfig) -> str:
    return f"{config.env.noise} noise, " if isinstance(config.env, MazeConfig) else ""


def legend(
    figure: Figure,
    bank: Bank,
    config: RunConfig,
    left: float,
    top: float,
    width: float,
    height: float,
) -> None:
    """Draw the meaning of frames and colours, in two lines from `top` down (inches)."""
    place, noise = bank.reading.place is not None, bank.reading.noise is not None
    if noise:
        frames = [(CHANGED, "place kept, noise changed"), (SAME, "place kept, same noise")]
    else:
        frames = [
            (OTHER, "same place, something else is seen" if place else "something else is seen"),
            (SAME, "what really followed"),
        ]
    frames += [(ELSEWHERE, "another place")] if place else []
    colours: list[tuple[Any, str]] = []
    if isinstance(config.env, MazeConfig):
        named = {"agent": "agent", "wall": "wall", "floor": "painted floor", "block": "block"}
        named |= {f"R{index}": f"R{index}" for index in range(1, 5)} | {"noise": "noise pixel"}
        colours = [
            (tuple(part / 255 for part in PALETTE[key]), words) for key, words in named.items()
        ]
    elif bank.frames.ndim == 5:
        colours = [(DIFFERENT, "differs from what really followed")]
    else:
        colours = [(DIFFERENT, "what really followed")]
    for line, (entries, filled) in enumerate(((frames, False), (colours, True))):
        x, y = left, top + 0.22 * line
        for colour, words in entries:
            style: dict[str, Any] = (
                {"facecolor": colour}
                if filled
                else {"facecolor": "none", "edgecolor": colour, "linewidth": 2}
            )
            figure.add_artist(
                Rectangle(
                    (x / width, 1 - (y + 0.11) / height), 0.11 / width, 0.11 / height, **style
                )
            )
            label = figure.text(
                (x + 0.17) / width, 1 - (y + 0.055) / height, words, va="center", fontsize=7.5
            )
            x = float(label.get_window_extent().x1 / figure.dpi) + 0.2
    rank = "rank: of what really followed, among all observations, by distance with its own z"
    figure.text(
        1 - left / width,
        1 - (top + 0.055) / height,
        rank,
        ha="right",
        va="center",
        fontsize=7.5,
        color=GREY,
    )
