"""What a study is: a preset in several worlds, with several methods, over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from afterwit.runs.configs.comparison import flat
from afterwit.runs.configs.contents import with_contents
from afterwit.runs.configs.overrides import changed, suggestion
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.configs.run_config import RunConfig, to_dict

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

    def cells(self, noting: bool = True) -> list[Cell]:
        """Return all runs, seed by seed: a study that is stopped early has complete comparisons.

        Args:
          noting: whether their configs note what is in the files that they name.

        Raises:
          ValueError: an override is wrong, or such a file cannot be read.
        """
        configs = {
            (world.name, method.name): self.config(world, method, self.seeds[0])
            for world in self.worlds
            for method in self.methods
        }
        if noting:  # once for all seeds, as files are read
            configs = {names: with_contents(config) for names, config in configs.items()}
        return [
            Cell(*names, seed, replace(config, seed=seed))
            for seed in self.seeds
            for names, config in configs.items()
        ]

    def config(self, world: Variant, method: Variant, seed: int) -> RunConfig:
        config = PRESETS[self.preset](**world.arguments, **method.arguments)
        overrides = {**self.overrides, **world.overrides, **method.overrides}
        try:
            for path in ("seed", "preset"):
                if path in overrides:
                    raise ValueError(
                        f"{path} is the study's own; choose seeds with --seeds, and the preset by"
                        " the study"
                    )
            config = changed(config, overrides)
        except ValueError as error:
            raise ValueError(f"{world.name}, {method.name}: {error}") from error
        return replace(config, seed=seed)

    def check_overrides(self) -> None:
        """Check that no world or method sets a field otherwise that is changed for every run.

        Raises:
          ValueError: one does; its own value would win, and nobody would see it.
        """
        for variant in (*self.worlds, *self.methods):
            for path, own in variant.overrides.items():
                if path in self.overrides and self.overrides[path] != own:
                    raise ValueError(
                        f"{path} is {self.overrides[path]} for every run, but {variant.name} sets"
                        f" it to {own}; leave out one of the two"
                    )

    def check_worlds(self, overrides: Values) -> None:
        """Check that nothing is changed for every run that makes a world what it is.

        Raises:
          ValueError: something is; worlds of different names would be the same one.
        """
        preset, bare = PRESETS[self.preset], flat(to_dict(PRESETS[self.preset]()))
        for world in (*self.worlds, *self.more_worlds):
            own = flat(to_dict(preset(**world.arguments)))
            for path in overrides:
                if path in own and own[path] != bare[path]:
                    raise ValueError(
                        f"{path} is {own[path]} in the world {world.name}, so it cannot be set for"
                        " every run; choose worlds with --worlds"
                    )

    def select(
        self, worlds: Sequence[str], methods: Sequence[str], seeds: Sequence[int], overrides: Values
    ) -> Study:
        """Return the part with these names, with further overrides. Empty: all.

        A method may also be a bonus of the user's own, `module:Class`.

        Raises:
          ValueError: a name is unknown.
        """
        own = [Variant(name, {"model": name}) for name in methods if ":" in name]
        return replace(
            self,
            worlds=(
                chosen("world", worlds, (*self.worlds, *self.more_worlds))
                if worlds
                else self.worlds
            ),
            methods=(
                chosen("method", methods, (*own, *self.methods, *self.more_methods))
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
