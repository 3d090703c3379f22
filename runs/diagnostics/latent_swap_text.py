"""The numbers of the probe as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afterwit.runs.diagnostics.latent_swap_data import TITLES

ROWS = {
    "own_z": "its own z",
    "other_z": "the z of others",
    "alike_z": "the z of others of its kind",
    "other_place": "place and action of others, own z",
    "world": "the world: same observation and action again",
}


def meaning(result: Mapping[str, Any]) -> str:
    """Return what the numbers say, a sentence for each kind of transition."""
    sentences = []
    for name, kind in result["kinds"].items():
        own = kind["own_z"]
        other = kind["other_z"]
        real = kind["world"]
        random_distance = kind["error_between_random_outcomes"]
        kept = f"keeps the place in {other['place_kept']:.0%} and " if "place_kept" in other else ""
        lands = (
            f", and in {other['place_of_other']:.0%} it leads to where that z came from"
            if "place_kept" in other
            else ""
        )
        what = "what is seen" if name == "all" else "the noise"
        itself = f", the world itself in {real['noise_changed']:.0%}" if real["measured"] else ""
        sentences.append(
            f"{KIND_WORDS[name]}, another z {kept}changes {what} in {other['noise_changed']:.0%}"
            f" (its own z in {own['noise_changed']:.0%}{itself}){lands}; the error goes from"
            f" {own['error']:.3f} to {other['error']:.3f}, and random outcomes are"
            f" {random_distance:.3f} apart."
        )
        if own["error"] > random_distance / 2:
            sentences.append(
                "The model hardly tells these outcomes apart even with their own z, so their swaps"
                " say little yet."
            )
    if "quiet" in result["kinds"]:
        sentences.append(
            "Error that another z adds where there is no noise is foreseeable content that z"
            " carries: a leak."
        )
    return " ".join(sentences)


KIND_WORDS = {
    "noisy": "With noise in view",
    "quiet": "With no noise in view",
    "all": "Over all transitions",
}


COLUMNS = {
    "place_kept": "place kept",
    "place_of_other": "place of other",
    "noise_changed": "noise changed",
    "error": "error",
}


def table(result: Mapping[str, Any]) -> str:
    """Return the probe as text: a row for each way to reconstruct."""
    lines = [
        f"after {result['trained_agent_steps']:,} agent steps, in {result['transitions']:,}"
        f" transitions, {result['distinct_outcomes']:,} outcomes that differ"
    ]
    for name, kind in result["kinds"].items():
        columns = {key: title for key, title in COLUMNS.items() if key in kind["own_z"]}
        head = f"{TITLES[name]} ({kind['measured']} of {kind['transitions']:,})"
        lines.append(
            f"{head:<46}"
            + "".join(f"{title:>15}" for title in columns.values())
            + f"{'rank of truth':>15}"
        )
        for row, title in ROWS.items():
            if kind[row].get("measured") == 0:
                continue
            cells = [
                (
                    f"{kind[row][key]:.3f}"
                    if key == "error"
                    else f"{kind[row][key]:.0%}"
                    if key in kind[row]
                    else ""
                )
                for key in columns
            ]
            rank = f"{kind[row]['median_rank']:.0f}" if "median_rank" in kind[row] else ""
            lines.append(f"  {title:<44}" + "".join(f"{text:>15}" for text in [*cells, rank]))
    return "\n".join([*lines, result["meaning"]])
