"""STUDIES: a preset in several worlds, with several methods, over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from afterwit.envs.maze_art import LAYOUTS
from afterwit.runs.configs.overrides import changed, suggestion
from afterwit.runs.configs.presets import PRESETS, AtariNoise
from afterwit.runs.configs.run_config import RunConfig
from afterwit.world_models.expected_error import Form
from afterwit.world_models.models.hindsight_config import Purity, Reads
from afterwit.world_models.registry import ORACLES, WORLD_MODELS

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A world or a method: arguments of the preset, and changes to config fields."""

    name: str
    """Name in folders, rows and lines."""
    arguments: Values = field(default_factory=dict)
    """Passed to the preset."""
    overrides: Values = field(default_factory=dict)
    """Dotted path -> value, set in the config that the preset returned."""


@dataclass(frozen=True)
class Study:
    """The compared runs: preset x worlds x methods x seeds."""

    name: str
    """The study's name in STUDIES."""
    preset: str
    """The preset of all runs: a name in PRESETS."""
    worlds: tuple[Variant, ...]
    """What the agents live in."""
    methods: tuple[Variant, ...]
    """What is compared within each world."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One run each, in every world with every method."""
    overrides: Values = field(default_factory=lambda: {"threads": 1})
    """Dotted path -> value, for all runs; those of worlds and methods come later. One torch thread
    per run leaves the other cores to the other runs.
    """
    more_worlds: tuple[Variant, ...] = ()
    """Worlds that can be chosen, but are left out by default."""
    more_methods: tuple[Variant, ...] = ()
    """Methods that can be chosen, but are left out by default."""

    def __post_init__(self) -> None:
        for what, names in (
            ("world", [w.name for w in self.worlds]),
            ("method", [m.name for m in self.methods]),
            ("seed", self.seeds),
        ):
            if not names:
                raise ValueError(f"study {self.name!r} has no {what}s; name at least one")
            twice = [name for index, name in enumerate(names) if name in names[:index]]
            if twice:
                raise ValueError(
                    f"study {self.name!r} has {what} {twice[0]!r} twice; name each once"
                )

    def cells(self) -> list[Cell]:
        """Return all runs, seed by seed: a study that is stopped early has complete comparisons.

        Raises:
          ValueError: an override is wrong.
        """
        return [
            Cell(world.name, method.name, seed, self.config(world, method, seed))
            for seed in self.seeds
            for world in self.worlds
            for method in self.methods
        ]

    def config(self, world: Variant, method: Variant, seed: int) -> RunConfig:
        config = PRESETS[self.preset](**world.arguments, **method.arguments)
        for path, value in {**self.overrides, **world.overrides, **method.overrides}.items():
            try:
                if path in ("seed", "preset"):
                    raise ValueError(
                        f"{path} is the study's own; choose seeds with --seeds, and the preset by"
                        " the study"
                    )
                config = changed(config, path, value)
            except ValueError as error:
                raise ValueError(f"{world.name}, {method.name}: {error}") from error
        return replace(config, seed=seed)

    def select(
        self, worlds: Sequence[str], methods: Sequence[str], seeds: Sequence[int], overrides: Values
    ) -> Study:
        """Return the part with these names, with further overrides. Empty: all.

        Raises:
          ValueError: a name is unknown.
        """
        return replace(
            self,
            worlds=(
                chosen("world", worlds, (*self.worlds, *self.more_worlds))
                if worlds
                else self.worlds
            ),
            methods=(
                chosen("method", methods, (*self.methods, *self.more_methods))
                if methods
                else self.methods
            ),
            seeds=tuple(seeds) if seeds else self.seeds,
            overrides={**self.overrides, **overrides},
        )


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    world: str
    method: str
    seed: int
    config: RunConfig

    @property
    def folder(self) -> Path:
        """The run's folder, relative to the study's."""
        return Path(self.world) / self.method / f"s{self.seed}"


def chosen(what: str, names: Sequence[str], variants: Sequence[Variant]) -> tuple[Variant, ...]:
    known = {variant.name: variant for variant in variants}
    for name in names:
        if name not in known:
            raise ValueError(
                f"unknown {what} {name!r}{suggestion(name, known)}; choose from {', '.join(known)}"
            )
    return tuple(known[name] for name in names)


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
            RANDOM,
        ),
    )


def noisy_tv() -> Study:
    """The leaderboard: all bonuses, all noises, both mazes, ten seeds. Some days on two cores.

    Each bonus has the settings that did best among the same four on seed 0 (docs/results/
    leaderboard.md). A random policy is the floor; counts of the true place are beside it.
    """
    return Study(
        name="noisy-tv",
        preset="maze",
        worlds=tuple(maze_world(noise, layout) for layout in LAYOUTS for noise in MAZE_NOISES),
        methods=(*map(tuned, BONUSES), PSEUDO_COUNTS, *map(method, ORACLES), RANDOM),
        seeds=tuple(range(5, 15)),
        more_methods=(*map(published, WORLD_MODELS), *controls()),
    )


def controls() -> tuple[Variant, ...]:
    """Return what could refute BYOL-Hindsight: the same agent without one of its ideas."""
    model, where = {"model": "byol-hindsight"}, "learner.world_model."
    # as it was until November 2026: z made from the whole outcome, kept pure by a critic
    critic = {
        "generator_reads": "outcome",
        "purity": "critic",
        "expected_error": "off",
        "absolute_zero": 0.0,
        "prioritise": True,
    }
    changes: dict[str, Values] = {
        "z-noise": {"control": "noise"},
        "autoencoder": {"control": "autoencoder"},
        "expected-error-off": {"expected_error": "off", "prioritise": True},
        "critic": critic,
        "invariance-off": {**critic, "invariance_weight": 1e-6},
    }
    return tuple(
        Variant(name, model, {where + field: value for field, value in fields.items()})
        for name, fields in changes.items()
    )


def maze_sensitivity() -> Study:
    """BYOL-Hindsight in the sticky maze, one field changed at a time, two seeds each."""
    base = method("byol-hindsight")
    where = "learner.world_model."
    fields: dict[str, tuple[Any, ...]] = {
        "latent_price": (0.01, 0.05, 0.2),
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


RANDOM = Variant("random", {"model": "rnd"}, {"learner.policy.uniform": True})
# NGU's episodic part alone, as RLeXplore names it
PSEUDO_COUNTS = Variant("pseudo-counts", {"model": "ngu"}, {"learner.world_model.lifelong": False})
# the models that Afterwit began with; the first one is what the others are compared with
COMPARED = ("byol-hindsight", "byol-explore", "rnd", "icm")
BONUSES = (*COMPARED, *(name for name in WORLD_MODELS if name not in COMPARED))
# Chosen by the mean score without noise and with sticky actions, on seed 0, among rate of the world
# model {1, 4} x clip {off, on}. What is not here has its default.
CLIP: Values = {"learner.world_model.prioritise": True}
FAST: Values = {"learner.world_model_rate": 4.0}
TUNED: dict[str, Values] = {
    "ama": {**FAST, **CLIP},
    "disagreement": {**FAST, **CLIP},
    "e3b": FAST,
    "icm": {**FAST, **CLIP},
    "lpm": {**FAST, **CLIP},
    "ngu": CLIP,
    "re3": CLIP,
    "ride": CLIP,
}
MAZE_NOISES = ("none", "brownian", "pixel", "on-demand", "sticky", "frozen")


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
    """Private Eye by curiosity alone, sticky, quiet and with two noises: 150 runs, days on 2 cores.

    Five methods, ten seeds, 800,000 agent steps a run. Settings were chosen on seeds 0 to 4. The
    second game, Venture, was named before any run of it.
    """
    games = ("PrivateEye", "Venture")
    noises: tuple[AtariNoise, ...] = ("none", "on-demand", "walk")
    private_eye, venture = (
        [atari_world(game, noise, game == games[0]) for noise in noises] for game in games
    )
    z_noise, *other_controls = controls()
    return Study(
        name="atari-small",
        preset="atari-small",
        worlds=tuple(private_eye),
        methods=(*map(method, ("byol-hindsight", "byol-explore", "rnd")), z_noise, RANDOM),
        seeds=tuple(range(5, 15)),
        overrides={"threads": 1, "total_steps": 800_000},
        more_worlds=(
            *venture,
            *(atari_world(name, "none", False) for name in HARD_GAMES if name not in games),
        ),
        more_methods=(
            *(method(model) for model in BONUSES if model not in ("rnd", *COMPARED[:2])),
            *map(published, WORLD_MODELS),
            *other_controls,
        ),
    )


def atari_world(game: str, noise: AtariNoise, alone: bool) -> Variant:
    """Return a world of the preset atari-small; the study's own game is named by its noise."""
    name = noise if alone else game if noise == "none" else f"{game}-{noise}"
    return Variant(name, {"game": game, "noise": noise})


def maze_world(noise: str, layout: str = "row") -> Variant:
    """Return a world of the preset maze. Those of its first layout are named by the noise alone."""
    if layout == "row":
        return Variant(noise, {"noise": noise})
    return Variant(f"{layout}-{noise}", {"noise": noise}, {"env.layout": layout})


def method(model: str) -> Variant:
    return Variant(model, {"model": model})


def tuned(model: str) -> Variant:
    """Return the method with its settings in TUNED."""
    return replace(method(model), overrides=TUNED.get(model, {}))


def published(model: str) -> Variant:
    return Variant(f"{model}-published", {"model": model, "variant": "published"})


def varied(base: Variant, knob: str, path: str, value: Any) -> Variant:
    """Return `base` with one field changed, named `knob-value`."""
    text = (
        str(value).lower()
        if value is None or isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
    return Variant(f"{knob}-{text}", base.arguments, {**base.overrides, path: value})


def different(variants: Sequence[Variant], preset: str) -> tuple[Variant, ...]:
    """Return the first variant and those that differ from it.

    A value that is already the default is not trained twice.
    """
    study = Study("", preset, (Variant("any"),), tuple(variants))
    configs = [study.config(study.worlds[0], variant, 0) for variant in variants]
    return (
        variants[0],
        *(
            variant
            for variant, config in zip(variants[1:], configs[1:], strict=True)
            if config != configs[0]
        ),
    )


STUDIES: dict[str, Callable[[], Study]] = {
    "maze": maze,
    "maze-branches": maze_branches,
    "noisy-tv": noisy_tv,
    "maze-sensitivity": maze_sensitivity,
    "atari": atari,
    "atari-small": atari_small,
}
