"""The curves of a watched run so far, and the map of where it was."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from afterwit.envs.maze import MazeConfig
from afterwit.runs.configs.comparison import world_name
from afterwit.runs.configs.run_config import config_of
from afterwit.runs.output.figure_style import count_words, save
from afterwit.runs.output.html import image
from afterwit.runs.reports.curves import Curve, colour, curves, draw_lines, label_ends
from afterwit.runs.reports.groups import Group
from afterwit.runs.reports.maze_maps import draw_maze, map_of, map_size
from afterwit.runs.reports.room_maps import explored, rooms_figure, storeys_of
from afterwit.runs.reports.run_results import RunLog, read_run
from afterwit.runs.reports.sentences import percent
from afterwit.runs.training import checkpoint
from afterwit.runs.training.episode_statistics import NUM_WINDOWS
from afterwit.runs.training.run_log import last_entry

# of the curves of a report, in its order; the names begin so
SHOWN = (
    "reached/",
    "episode/",
    "explored/",
    "share_of_time/noise_on",
    "share_of_time/block_in_view",
    "ratio/noise",
    "ratio/block_in_view",
    "noise/seeking",
    "learner/intrinsic_",
    "learner/curiosity_share",
    "learner/entropy",
    "agent_steps_per_second",
)
EXPLORED = Curve("explored/rooms", "Rooms seen so far, all episodes")
TITLES = ("visits", "Where it was"), ("pay", "Where it was paid")
WIDTH, HEIGHT = 8.7, 2.6  # inches, the largest map


def read_so_far(folder: Path) -> RunLog | None:
    """Return what a run has logged, None if that is nothing yet.

    Raises:
      ValueError or OSError: a file is missing or damaged.
    """
    return None if last_entry(folder) is None else read_run(folder)


def group_of(run: RunLog) -> Group:
    return Group(run.method, world_name(run.config), (run,), 0)


def curves_html(folder: Path, scratch: Path) -> str:
    """Return the curves of a run from its beginning to now, as HTML.

    Args:
      folder: the run folder.
      scratch: a folder for the figures.
    """
    run = read_so_far(folder)
    if run is None:
        return (
            '<p class="note">No curves yet: the first log entry comes after'
            f" {config_of(folder).log_interval:,} agent steps.</p>"
        )
    # as if the run ended now: the curves fill their panels
    group = group_of(replace(run, config=replace(run.config, total_steps=int(run.steps[-1]))))
    chosen = [curve for curve in curves([group]) if curve.name.startswith(SHOWN)]
    if run.names(EXPLORED.name):
        chosen.insert(1, EXPLORED)
    drawn = [
        save(figure, scratch, f"curve-{curve.name}", f"{curve.title}, over agent steps")
        for curve in chosen
        if (figure := panel(group, curve)) is not None
    ]
    return f'<div class="grid">{"".join(map(image, drawn))}</div>'


def panel(group: Group, curve: Curve) -> Figure | None:
    """Return a curve with its newest value beside its end, None if it has no value yet."""
    figure = Figure(figsize=(3.3, 1.95), dpi=180)
    ax = figure.add_axes((0.135, 0.2, 0.72, 0.62))
    ends = draw_lines(ax, [group], curve)
    if not ends:
        return None
    figure.text(0.02, 0.975, curve.title, va="top", fontsize=8.5, fontweight="bold")
    ax.set_xlabel("agent steps", fontsize=7.5, labelpad=1)
    label_ends(ax, [(end, replace(each, label=as_label(end, curve))) for end, each in ends])
    return figure


def as_label(value: float, curve: Curve) -> str:
    if curve.share:
        return percent(value)
    return count_words(value) if abs(value) >= 1000 else f"{value:.3g}"


def map_html(folder: Path, scratch: Path) -> str:
    """Return the map of where a run was, as HTML; empty where its world has none.

    Args:
      folder: the run folder.
      scratch: a folder for the figures.
    """
    run = read_so_far(folder)
    if run is None:
        return ""
    if isinstance(run.config.env, MazeConfig):
        return maze_html(run, scratch)
    return rooms_html(run, scratch) if run.names(EXPLORED.name) else ""


def maze_html(run: RunLog, scratch: Path) -> str:
    if run.maps is None or not run.maps["visits"].any():
        return without_map(run)
    group, total = group_of(run), run.config.total_steps
    window = int(np.flatnonzero(run.maps["visits"].any(1))[-1])
    picture = save(maze_figure(group), scratch, "map", "Where the agent was, and was paid")
    begin, end = (count_words(total * (window + more) / NUM_WINDOWS) for more in (0, 1))
    return (
        f'<div class="wide">{image(picture)}</div><p class="note">From {begin} to {end} agent'
        " steps, as of the newest checkpoint. Circles are the trackers.</p>"
    )


def without_map(run: RunLog) -> str:
    """Return why there is no map yet, as HTML."""
    interval = run.config.checkpoint_interval
    coming = f"The map comes with the first checkpoint, after {interval:,} agent steps."
    return f'<p class="note">{escape(" ".join(run.notes) or coming)}</p>'


def maze_figure(group: Group) -> Figure:
    """Return the maps of visits and pay in the newest tenth, one above the other."""
    maze = map_of(group)
    wide, high = map_size(maze, WIDTH, HEIGHT)
    width, height = WIDTH + 0.1, 2 * (high + 0.36)
    figure = Figure(figsize=(width, height), dpi=180)
    for number, (name, words) in enumerate(TITLES):
        top = height - number * height / 2
        figure.text(0.005, (top - 0.04) / height, words, va="top", fontsize=9, fontweight="bold")
        ax = figure.add_axes(
            (0.05 / width, (top - 0.25 - high) / height, wide / width, high / height)
        )
        draw_maze(ax, maze, group.maps(name), colour(group), marks=True)
    return figure


def rooms_html(run: RunLog, scratch: Path) -> str:
    """Return a picture of the rooms that the run has seen, as of its newest checkpoint."""
    if not (run.folder / checkpoint.NAME).is_file():
        return without_map(run)
    group = group_of(run)
    seen = explored(run)
    figure = rooms_figure(group, [seen])
    if figure is None:
        return ""
    picture = save(figure, scratch, "map", "The rooms that the run has seen")
    number = int(seen.rooms.sum())
    words = f"{number} room{'s' * (number > 1)} seen so far, by all episodes together"
    lie = " The rooms lie as in the game." if storeys_of(group, [seen]) else ""
    squares = "; coloured: the squares that the player was in" if seen.cells is not None else ""
    return (
        f'<div class="wide">{image(picture)}</div><p class="note">{words}, as of the newest'
        f" checkpoint{squares}.{lie} The numbers are the environment's.</p>"
    )
