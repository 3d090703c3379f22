"""The probe: put the z of another transition in, and see what changes.

BYOL-Hindsight's latent z should carry what could not be foreseen, and nothing else (Jarrett et al.,
2023, section 3). Then another z changes the noise and keeps the place, and another belief and
action (b, a) do the opposite. The reconstruction is compared with the nearest real observation.
Nearest means the smallest error of the model, a squared distance of embeddings. Only one step ahead
is examined (k = 1), whatever the horizon. Nothing is learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.envs.arrays import Array
from afterwit.envs.seeds import stream
from afterwit.runs.configs.comparison import SETTINGS, check_result
from afterwit.runs.configs.run_config import read_config, to_dict
from afterwit.runs.diagnostics.latent_swap_data import Bank, Comparison, Row, gather, split
from afterwit.runs.diagnostics.latent_swap_text import meaning
from afterwit.runs.evaluation.evaluate import evaluation_env
from afterwit.runs.output.files import checked_outputs, write_json
from afterwit.runs.output.provenance import provenance
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run import Run
from afterwit.world_models.models.byol_hindsight import BYOLHindsight, BYOLHindsightConfig
from afterwit.world_models.registry import world_model_name

NAME, PICTURE = "probe.json", "probe.png"
MOST_PICTURED = 20  # rows and columns of the figure
MEASURED = 500  # at most so many transitions of each kind are measured
CANDIDATES = 60  # transitions of each kind from which the figure's are chosen
Reconstruct = Callable[[Tensor, Tensor], Tensor]


def probe(
    folder: Path,
    queries: int,
    swaps: int,
    steps: int,
    seed: int,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Play, measure what z carries, and write OUT/probe.json and OUT/probe.png.

    Args:
      folder: the run folder.
      queries: transitions in the figure, at most 20. The numbers are over many more.
      swaps: other z that each transition is combined with, at most 20.
      steps: agent steps to play, over all environments.
      seed: of environments and draws.
      out: the folder OUT. Unset: the run folder.
      progress: whether to show a progress bar.

    Returns:
      What is written to probe.json.

    Raises:
      ValueError: the run's model has no z, the run has no checkpoint, a number is not in its
        range, or OUT has a result with other settings.
    """
    # late import: it needs matplotlib, which is slow to import
    from afterwit.runs.diagnostics.latent_swap_figure import draw_probe

    for name, value in (("queries", queries), ("swaps", swaps), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    for name, value in (("queries", queries), ("swaps", swaps)):
        if value > MOST_PICTURED:
            raise ValueError(f"{name} is {value}; the picture has room for {MOST_PICTURED}")
    config = read_config(folder)
    if not isinstance(config.learner.world_model, BYOLHindsightConfig):
        name = world_model_name(config.learner.world_model)
        raise ValueError(
            f"{folder} was trained with {name}, which has no z; probe a run of byol-hindsight"
        )
    saved = checkpoint.load(folder, config)
    config = replace(config.alone(), env=evaluation_env(config.env, video=False), seed=seed)
    target = folder if out is None else out
    settings = {
        "run": None if out is None else str(folder),
        "queries": queries,
        "swaps": swaps,
        "steps": steps,
        "seed": seed,
    }
    check_result(target / NAME, settings)
    with checked_outputs(target / NAME, target / PICTURE):
        with closing(Run(config)) as run:
            run.learner.load_state(saved["learner"])
            bank = gather(run, steps, seed, progress)
        result, pictured = swapped(run, bank, queries, swaps, seed)
        result = {
            "run": str(folder),
            "trained_agent_steps": saved["agent_steps"],
            "seed": seed,
            "swaps": swaps,
            **result,
            "environment": dict(run.spec.semantics),
            "config": to_dict(config),
            SETTINGS: settings,
            "provenance": provenance(),
            "meaning": meaning(result),
        }
        draw_probe(bank, pictured, config, run.spec, result, target)
        write_json(target / NAME, result)
    return result


def swapped(
    run: Run, bank: Bank, queries: int, swaps: int, seed: int
) -> tuple[dict[str, Any], list[Row]]:
    """Return the numbers, and the rows of the figure."""
    model = run.learner.world_model
    assert isinstance(model, BYOLHindsight)
    random = np.random.default_rng(stream(seed, "probe"))

    def reconstruct(ahead: Tensor, latent: Tensor) -> Tensor:
        outcome = model.reconstruct(ahead, latent, model.foresee(ahead))
        return model.target.coordinates(outcome)

    with torch.no_grad():
        kinds = {
            name: measure(bank, reconstruct, members, swaps, random)
            for name, members in split(bank).items()
            if len(members)
        }
        chosen = choose(bank, reconstruct, queries, random)
        pictured = [
            picture_row(bank, reconstruct, query, kind, swaps, random)
            for query, kind in chosen.items()
        ]
    return {
        "transitions": len(bank),
        "distinct_outcomes": len(bank.representative),
        "kinds": kinds,
    }, pictured


def compare(bank: Bank, imagined: Tensor, query: Array, other: Array) -> Comparison:
    """Compare reconstructions with the real outcomes.

    Args:
      bank: the transitions.
      imagined: [Q, E], the reconstructions.
      query: int [Q], the transitions that are reconstructed.
      other: int [Q], the transitions that contribute a part.
    """
    distance = torch.cdist(imagined, bank.outcomes).square()  # [Q, D]
    nearest = distance.argmin(1)
    truth = torch.from_numpy(bank.outcome[query]).to(distance.device)
    error = distance.gather(1, truth[:, None])
    rank = 1 + (distance < error).sum(1)
    near, reading = nearest.cpu().numpy(), bank.reading
    changed = bank.noise[bank.representative[near]] != bank.noise[query]
    kept = follows = None
    if reading.place is not None and reading.alike is not None:
        kept, follows = (
            (bank.places[near] & reading.alike[reading.place[whose]]).any(1)
            for whose in (query, other)
        )
    numbers = (distance.gather(1, nearest[:, None])[:, 0], error[:, 0], rank)
    nearest_distance, errors, ranks = (values.cpu().numpy() for values in numbers)
    return Comparison(
        bank.representative[near], nearest_distance, errors, ranks, changed, kept, follows
    )


def measure(
    bank: Bank, reconstruct: Reconstruct, members: Array, swaps: int, random: np.random.Generator
) -> dict[str, Any]:
    """Return the numbers of one kind of transition.

    Args:
      bank: the transitions.
      reconstruct: the model's reconstruction.
      members: the transitions of this kind; at most MEASURED of them are used.
      swaps: other transitions for each.
      random: draws them.
    """
    query = random.choice(members, min(MEASURED, len(members)), replace=False)
    repeated, everyone = query.repeat(swaps), np.arange(len(bank))
    other = draw_other_members(everyone, repeated, random)
    alike = draw_other_members(members if len(members) > 1 else everyone, repeated, random)
    rows = {
        "own_z": compare(bank, reconstruct(bank.ahead[query], bank.latent[query]), query, query),
        "other_z": compare(
            bank, reconstruct(bank.ahead[repeated], bank.latent[other]), repeated, other
        ),
        "alike_z": compare(
            bank, reconstruct(bank.ahead[repeated], bank.latent[alike]), repeated, alike
        ),
        "other_place": compare(
            bank, reconstruct(bank.ahead[other], bank.latent[repeated]), repeated, other
        ),
    }
    unlike = squared_distance(bank.target[repeated], bank.target[other]).mean()
    return {
        "transitions": len(members),
        "measured": len(query),
        "error_between_random_outcomes": float(unlike),
        **{name: summarise(row) for name, row in rows.items()},
        "world": world(bank, query, swaps, random),
    }


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared distance, which is the model's error: [Q, E] to [Q]."""
    return (one - other).square().sum(-1)


def draw_other_members(members: Array, query: Array, random: np.random.Generator) -> Array:
    """Return for each query [Q] a random transition of `members` that is not the query."""
    drawn: Array = members[random.integers(0, len(members), len(query))]
    while (same := drawn == query).any():
        drawn[same] = members[random.integers(0, len(members), int(same.sum()))]
    return drawn


def summarise(row: Comparison) -> dict[str, float]:
    """Return shares, mean errors and the median rank of one way to reconstruct."""
    numbers: dict[str, float] = {}
    if row.kept is not None and row.follows is not None:
        numbers |= {
            "place_kept": float(row.kept.mean()),
            "place_of_other": float(row.follows.mean()),
        }
        numbers |= {"place_kept_and_noise_changed": float((row.kept & row.changed).mean())}
    numbers |= {"noise_changed": float(row.changed.mean()), "error": float(row.error.mean())}
    return numbers | {
        "nearest_distance": float(row.distance.mean()),
        "median_rank": float(np.median(row.rank)),
    }


def world(bank: Bank, query: Array, swaps: int, random: np.random.Generator) -> dict[str, float]:
    """Return how the world itself varies.

    These are other real outcomes of the same observation and action. Queries without any are left
    out.
    """
    members: dict[tuple[int, int], list[int]] = {}
    situations = list(
        zip(bank.frame_number[bank.step, bank.env].tolist(), bank.action.tolist(), strict=True)
    )
    for index, situation in enumerate(situations):
        members.setdefault(situation, []).append(index)
    again = np.array(
        [index for index in query for _ in range(swaps) if len(members[situations[index]]) > 1],
        np.int64,
    )
    if not len(again):
        return {"measured": 0}
    other = np.array(
        [
            draw_other_members(np.array(members[situations[index]]), np.array([index]), random)[0]
            for index in again
        ]
    )
    changed = bank.noise[other] != bank.noise[again]
    numbers: dict[str, float] = {"measured": len(again) // swaps}
    if bank.reading.place is not None and bank.reading.alike is not None:
        kept = bank.reading.alike[bank.reading.place[again], bank.reading.place[other]]
        numbers |= {
            "place_kept": float(kept.mean()),
            "place_kept_and_noise_changed": float((kept & changed).mean()),
        }
    error = squared_distance(bank.target[again], bank.target[other])
    return numbers | {"noise_changed": float(changed.mean()), "error": float(error.mean())}


def choose(
    bank: Bank, reconstruct: Reconstruct, count: int, random: np.random.Generator
) -> dict[int, str]:
    """Return a few varied transitions, with words for each.

    Half of them are with noise. If the environment does not declare noise, half of them have a
    large error.
    """
    kinds = split(bank)
    if "all" in kinds:
        error = squared_distance(reconstruct(bank.ahead, bank.latent), bank.target).cpu().numpy()
        surprising = error >= np.quantile(error, 0.95)
        kinds = {
            "large error": np.flatnonzero(surprising),
            "small error": np.flatnonzero(~surprising),
        }
    kinds = {name: members for name, members in kinds.items() if len(members)}
    chosen: dict[int, str] = {}
    for index, (name, members) in enumerate(kinds.items()):
        wanted = (count - len(chosen)) if index == len(kinds) - 1 else -(-count // len(kinds))
        for query in spread(bank, random.permutation(members)[:CANDIDATES], wanted):
            chosen[query] = words(bank, query, name)
    return chosen


def words(bank: Bank, query: int, kind: str) -> str:
    if kind == "noisy":
        return "noise is on" if bank.info["noise_on"][query] else "random block in view"
    return "no noise in view" if kind == "quiet" else kind


def spread(bank: Bank, candidates: Array, count: int) -> list[int]:
    """Return at most `count` candidates whose outcomes are as far apart as possible."""
    followed = bank.target[torch.from_numpy(candidates)]
    distance = torch.cdist(followed, followed)
    picked = [0]
    while len(picked) < min(count, len(candidates)):
        nearest = distance[:, picked].min(1).values
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))
    return [int(candidates[index]) for index in picked[:count]]


def picture_row(
    bank: Bank,
    reconstruct: Reconstruct,
    query: int,
    kind: str,
    swaps: int,
    random: np.random.Generator,
) -> Row:
    """Return a row of the figure."""
    repeated, everyone = np.full(swaps + 1, query), np.arange(len(bank))
    other = draw_other_members(everyone, repeated, random)
    same = next(members for members in split(bank).values() if query in members)
    other[-1] = draw_other_members(same if len(same) > 1 else everyone, repeated[:1], random)[0]
    other, repeated = np.append(query, other), np.append(query, repeated)
    return Row(
        query,
        kind,
        other,
        compare(bank, reconstruct(bank.ahead[repeated], bank.latent[other]), repeated, other),
    )
