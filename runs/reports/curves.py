"""Curves over agent steps as small figures: direct labels, one colour per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from afterwit.envs.arrays import Array
from afterwit.runs.output.figure_style import COLOURS, GREY, OTHER, count_words, known
from afterwit.runs.reports.groups import MEASURES, Group, noise_of
from afterwit.runs.reports.run_results import RunLog
from afterwit.world_models.instruments import ALARM

# styles for the groups of one method in one world
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


@dataclass(frozen=True)
class Curve:
    """A number over agent steps."""

    name: str  # a logged name, or ratio/name: see RunLog.mean
    title: str
    share: bool = False
    log: bool = False
    reference: float | None = None


def colour(group: Group) -> str:
    return COLOURS.get(group.method, OTHER)


def curves(groups: Sequence[Group]) -> list[Curve]:
    """Return the curves that the groups of one world have, in the order of the page."""
    reached = sorted({name for group in groups for name in group.names("reached/")})
    chosen = [
        Curve(name, f"{name.split('/')[1]}: share of episodes that reached it", share=True)
        for name in reached
    ]
    chosen += [Curve(*MEASURES[name]) for name in (("rooms", "return") if reached else MEASURES)]
    noise = noise_of(groups[0])
    if noise:
        name, words = noise
        chosen += [
            Curve(f"share_of_time/{name}", f"Share of time {words}", share=True),
            Curve(f"share_of_pay/{name}", "Share of pay on those steps", share=True),
            Curve(f"ratio/{name}", "Their pay (1 = like any other step)", reference=1.0),
        ]
    if any(group.names("share_of_time/room_change") for group in groups):
        chosen += [
            Curve("share_of_time/room_change", "Share of steps on which the room changes"),
            Curve("ratio/room_change", "Their pay (1 = like any other step)", reference=1.0),
        ]
    parts = sorted(
        {name for group in groups for name in group.names("learner/intrinsic_")}
        - {"learner/intrinsic_scale"}
    )
    parts.sort(key=lambda name: name != "learner/intrinsic_reconstruction")
    chosen += [
        Curve(
            name, f"Intrinsic reward: {name.split('_', 1)[1]}", log=name.endswith("reconstruction")
        )
        for name in parts
    ]
    chosen += [
        Curve("share_of_time/noop", "Share of no-ops", share=True),
        Curve("learner/entropy", "Entropy of the policy [nats]"),
        Curve("learner/kl", "KL, old to new policy [nats]"),
        Curve("learner/trust_region_ratio", "KL, old to new policy / its limit", reference=1.0),
        Curve("learner/curiosity_share", "Curiosity's share of what is paid", share=True),
        Curve("noise/seeking", "Seeks noise (1 = indifferent)", reference=1.0),
        Curve("rank/embedding", "Effective rank of the embedding"),
        Curve("rank/belief", "Effective rank of the belief"),
        Curve("rank/latent", "Effective rank of z"),
        Curve("spread/target", "Error of the best constant guess"),
        Curve("leak/critic", "Leak: critic's estimate / log n", reference=0.0),
        Curve("leak/place_from_latent", "Leak: place predicted from z", reference=0.0),
        Curve("leak/action_from_latent", "Leak: action predicted from z", reference=0.0),
        Curve("use/latent", "Error with the z of others / own", reference=1.0),
        Curve(ALARM, "Collapse alarm"),
        Curve("learner/gradient_norm", "Gradient norm", log=True),
        Curve("agent_steps_per_second", "Agent steps per second"),
    ]
    return [curve for curve in chosen if _is_worth_drawing(curve, groups)]


def _is_worth_drawing(curve: Curve, groups: Sequence[Group]) -> bool:
    logged = [
        values
        for group in groups
        for run in group.runs
        if np.isfinite(values := run.column(curve.name)).any()
    ]
    # not drawn if it is all zero and there are trackers to show
    if curve.name == "episode/return":
        return any(np.nan_to_num(values).any() for values in logged) or bool(
            logged and not any(g.names("reached/") for g in groups)
        )
    if curve.name == "learner/curiosity_share":  # it is 1 if nothing else pays
        return any(np.nanmin(values) < 1 for values in logged)
    return bool(logged) or curve.name.startswith("ratio/")


def binned(run: RunLog, curve: Curve) -> tuple[Array, Array]:
    """Return agent steps and means of at most 40 equal stretches of the run.

    A mean is NaN if its stretch has no entry.
    """
    total = run.config.total_steps
    count = int(np.clip(total // (2 * run.config.log_interval), 5, 40))
    index = np.minimum(count - 1, (run.steps - 1) * count // total)
    return (np.arange(count) + 0.5) * total / count, np.array(
        [run.mean(curve.name, index == bin) for bin in range(count)]
    )


def draw_lines(ax: Axes, groups: Sequence[Group], curve: Curve) -> list[tuple[float, Group]]:
    """Draw a thin line per run and a bold one per group's mean.

    Returns:
      The last value and the group of each bold line.
    """
    ends = []
    for group in groups:
        lines = [binned(run, curve) for run in group.runs]
        # With different log intervals the stretches differ: interpolate before averaging.
        if len({len(values) for _, values in lines}) > 1:
            lines = [
                (lines[0][0], np.interp(lines[0][0], *known(steps, values), right=np.nan))
                for steps, values in lines
            ]
        steps, values = lines[0][0], np.mean([values for _, values in lines], axis=0)
        if len(group.runs) > 1:
            for _, thin in lines:
                ax.plot(*known(steps, thin), color=colour(group), alpha=0.35, linewidth=0.7)
        x, y = known(steps, values)
        if len(x):
            bold: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) == 1 else {}
            ax.plot(
                x,
                y,
                color=colour(group),
                linewidth=1.8,
                linestyle=DASHES[group.index % len(DASHES)],
                **bold,
            )
            ends.append((float(y[-1]), group))
    if curve.reference is not None:
        ax.axhline(curve.reference, color=GREY, linewidth=0.6, zorder=0)
    total = max(run.config.total_steps for group in groups for run in group.runs)
    ax.set_xlim(0, total)
    ax.set_xticks([0, total / 2, total])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_words(value)))
    if curve.share:
        ax.set_ylim(-0.02, 1.02)
        ax.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    elif curve.log and all(end > 0 for end, _ in ends):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.yaxis.set_major_formatter(
            FuncFormatter(
                lambda value, _: count_words(value) if abs(value) >= 1000 else f"{value:g}"
            )
        )
        low, high = ax.get_ylim()
        if low >= 0 or high <= 0 or curve.reference is not None:
            ax.set_ylim(min(0.0, low), max(0.0, high))
    return ends


def label_ends(ax: Axes, ends: Sequence[tuple[float, Group]]) -> None:
    """Label the lines at the right of a panel, moved apart where labels would overlap."""
    height = ax.get_window_extent().height / ax.figure.dpi * 72  # points
    transform = ax.transData + ax.transAxes.inverted()
    texts = sorted(
        (float(transform.transform((1, end))[1]), group.label.replace(", ", "\n"), colour(group))
        for end, group in ends
    )
    gaps = [10.5 / height * (text.count("\n") + 1) for _, text, _ in texts]
    places = [place for place, _, _ in texts]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + (gaps[index] + gaps[index - 1]) / 2)
    if places:
        centre = float(np.mean(places)) - float(np.mean([place for place, _, _ in texts]))
        shift = max(centre, places[-1] - 1)  # back towards the lines, but not above the panel
        places = [place - shift for place in places]
    for place, (_, text, ink) in zip(places, texts, strict=True):
        ax.text(
            1.03,
            place,
            text,
            transform=ax.transAxes,
            color=ink,
            va="center",
            fontsize=7.5,
            linespacing=1.1,
        )


def panel(groups: Sequence[Group], curve: Curve) -> Figure:
    figure = Figure(figsize=(3.3, 1.95), dpi=200)
    ax = figure.add_axes((0.135, 0.2, 0.555, 0.62))
    ends = draw_lines(ax, groups, curve)
    figure.text(0.02, 0.975, curve.title, va="top", fontsize=8.5, fontweight="bold")
    ax.set_xlabel("agent steps", fontsize=7.5, labelpad=1)
    label_ends(ax, ends)
    return figure
