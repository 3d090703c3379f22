"""STUDIES: functions that return the studies that can be run by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from afterwit.envs.maze_art import LAYOUTS
from afterwit.runs.configs.presets import AtariNoise
from afterwit.runs.studies.study import Study, Variant, chosen, different
from afterwit.runs.studies.variants import (
    BONUSES,
    COMPARED,
    EVERY_ERROR,
    EXPONENTIAL,
    MAZE_NOISES,
    PSEUDO_COUNTS,
    RANDOM,
    atari_world,
    controls,
    maze_world,
    method,
    objectives,
    published,
    tuned,
    varied,
)
from afterwit.world_models.expected_error import Form
from afterwit.world_models.models.hindsight_config import Purity, Reads
from afterwit.world_models.registry import ORACLES, WORLD_MODELS

HARD_GAMES = (
    "MontezumaRevenge",
    "BankHeist",
    "Alien",
    "Freeway",
    "Gravitar",
    "Hero",
    "Pitfall",
    "PrivateEye",
    "Qbert",
    "Solaris",
    "Venture",
)


def maze() -> Study:
    """Six noises of the maze, four world models, ten seeds: 240 runs, some hours on two cores."""
    return maze_study("maze")


def maze_branches() -> Study:
    """The same in the maze with arms, which is harder: 240 runs, some hours on two cores."""
    return maze_study("maze-branches")


def maze_study(name: str) -> Study:
    """Return the study of all noises and models in the maze of the preset `name`.

    Settings were chosen on seeds 0 to 4 (docs/results/method.md). These seeds served for no choice.
    """
    return Study(
        name=name,
        preset=name,
        worlds=tuple(map(maze_world, MAZE_NOISES)),
        methods=tuple(map(method, COMPARED)),
        seeds=tuple(range(5, 15)),
        more_methods=(
            *map(method, BONUSES[len(COMPARED) :]),
            PSEUDO_COUNTS,
            *map(published, WORLD_MODELS),
            *map(method, ORACLES),
            *controls(),
            *objectives(),
            RANDOM,
        ),
    )


def noisy_tv() -> Study:
    """The leaderboard: all bonuses, all noises, both mazes, ten seeds. Some days on two cores.

    Each bonus has the settings that did best among the same four on seed 0, and E3B among four more
    (docs/results/leaderboard-search.md). A random policy is the floor; counts of the true place are
    beside it.
    """
    return Study(
        name="noisy-tv",
        preset="maze",
        worlds=tuple(maze_world(noise, layout) for layout in LAYOUTS for noise in MAZE_NOISES),
        methods=(*map(tuned, BONUSES), PSEUDO_COUNTS, *map(method, ORACLES), RANDOM),
        seeds=tuple(range(5, 15)),
        more_methods=(*map(published, WORLD_MODELS), *controls()),
    )


def maze_sensitivity() -> Study:
    """BYOL-Hindsight in the sticky maze, one field changed at a time, two seeds each."""
    base = method("byol-hindsight")
    where = "learner.world_model."
    fields: dict[str, tuple[Any, ...]] = {
        "latent_price": (0.0005, 0.002, 0.02),
        "expected_error": get_args(Form),
        "absolute_zero": (0.0, 0.02),
        "prioritise": (True, False),
        "generator_reads": get_args(Reads),
        "purity": get_args(Purity),
        "foresight_weight": (1.0, 5.0),
        "horizon": (1, 4, 8),
        "latent": (4, 16, 64),
        "standardise_decay": (None, 0.95, 0.99),
    }
    variants = [
        varied(base, name.replace("_", "-"), where + name, value)
        for name, values in fields.items()
        for value in values
    ]
    return Study(
        name="maze-sensitivity",
        preset="maze",
        worlds=(maze_world("sticky"),),
        methods=different([base, *variants], "maze"),
        seeds=(0, 1),
        more_worlds=tuple(maze_world(noise) for noise in MAZE_NOISES if noise != "sticky"),
    )


def atari() -> Study:
    """Eleven hard games, sticky, with four world models as published and three seeds, for GPUs.

    These are 132 long runs. Remaining deviations from the papers: world_models/published.py.
    """
    montezuma = {"game": "MontezumaRevenge"}
    return Study(
        name="atari",
        preset="atari",
        worlds=tuple(Variant(game, {"game": game}) for game in HARD_GAMES),
        methods=tuple(map(published, COMPARED)),
        seeds=(0, 1, 2),
        overrides={},
        more_methods=(*map(published, BONUSES[len(COMPARED) :]), *map(method, WORLD_MODELS)),
        more_worlds=(
            *(
                Variant(f"MontezumaRevenge-sticky-{sticky:g}", montezuma, {"env.sticky": sticky})
                for sticky in (0.0, 0.1)
            ),
            *(
                Variant(f"MontezumaRevenge-{noise}", {**montezuma, "noise": noise})
                for noise in ("walk", "on-demand", "pixel", "frozen")
            ),
            *(
                Variant(f"{game}-intrinsic", {"game": game, "reward": "intrinsic"})
                for game in HARD_GAMES
            ),
        ),
    )


def atari_small() -> Study:
    """Private Eye by curiosity alone, sticky, quiet and with two noises: 180 runs, days on 2 cores.

    Five methods and a control, ten seeds. Settings were chosen on seeds 0 and 1. The second game,
    Venture, was named before any run of it.
    """
    games = ("PrivateEye", "Venture")
    noises: tuple[AtariNoise, ...] = ("none", "on-demand", "walk")
    private_eye, venture = (
        [atari_world(game, noise, game == games[0]) for noise in noises] for game in games
    )
    return Study(
        name="atari-small",
        preset="atari-small",
        worlds=tuple(private_eye),
        methods=(
            *map(method, ("byol-hindsight", "byol-explore", "rnd")),
            *chosen("method", ("z-noise",), controls()),
            EXPONENTIAL,
            RANDOM,
        ),
        seeds=tuple(range(5, 15)),
        more_worlds=(
            *venture,
            *(atari_world(name, "none", False) for name in HARD_GAMES if name not in games),
        ),
        more_methods=(
            *(method(model) for model in BONUSES if model not in ("rnd", *COMPARED[:2])),
            *map(published, WORLD_MODELS),
            *(control for control in controls() if control.name != "z-noise"),
        ),
    )


def hard_games() -> Study:
    """Seven hard games, by curiosity alone and with the game's reward: 350 runs, days on 2 cores.

    No noise of many dimensions is added. So `expected-error-off` may do without what guards against
    it: it is paid for errors above the mean, expected or not (docs/results/hard-games.md).
    """
    games = ("MontezumaRevenge", "Venture", "PrivateEye", "Pitfall", "Freeway", "BankHeist", "Hero")
    mixed = {"learner.extrinsic_weight": 1.0}
    return Study(
        name="hard-games",
        preset="atari-small",
        worlds=(
            *(Variant(game, {"game": game}) for game in games),
            *(Variant(f"{game}-mixed", {"game": game}, mixed) for game in games),
        ),
        methods=(
            *map(method, ("byol-hindsight", "byol-explore", "rnd")),
            *chosen("method", ("expected-error-off",), controls()),
            RANDOM,
        ),
        seeds=(5, 6, 7, 8, 9),
        more_worlds=tuple(
            Variant(f"{game}-walk", {"game": game, "noise": "walk"}) for game in games
        ),
        more_methods=(
            EVERY_ERROR,
            *(method(model) for model in BONUSES if model not in ("rnd", *COMPARED[:2])),
            *map(published, WORLD_MODELS),
        ),
    )


STUDIES: dict[str, Callable[[], Study]] = {
    "maze": maze,
    "maze-branches": maze_branches,
    "noisy-tv": noisy_tv,
    "maze-sensitivity": maze_sensitivity,
    "atari": atari,
    "atari-small": atari_small,
    "hard-games": hard_games,
}
