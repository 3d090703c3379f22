"""The commands that judge, train and compare encoders: state-probe, pretrain and objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from afterwit.envs.seeds import read_seed
from afterwit.runs.command_line.options import OUT, Evaluate, Objectives, Pretrain, StateProbe
from afterwit.runs.command_line.preset_options import parsed
from afterwit.runs.configs.comparison import SETTINGS, check_settings, short_name
from afterwit.runs.configs.overrides import assignments, changed, suggestion
from afterwit.runs.configs.presets import PRESETS
from afterwit.runs.configs.run_config import RunConfig
from afterwit.runs.output.files import atomic_write, checked_outputs
from afterwit.runs.output.provenance import commit
from afterwit.runs.output.text import file_name, print_paths
from afterwit.runs.representation import objectives, pretrain, state_probe
from afterwit.runs.representation.feature_scores import table
from afterwit.world_models.encoder_file import encoder_bytes, read_encoder


def state_probe_command(args: list[str]) -> int:
    """Show what a model knows of the world's state: afterwit state-probe RUN"""
    chosen = parsed(StateProbe, args, "afterwit state-probe")

    def tell(words: str) -> None:
        print(f"{words} ...", flush=True)

    if chosen.published is None and chosen.run is not None:
        folder = chosen.out or chosen.run
        result = state_probe.probe_run(
            chosen.run,
            30_000 if chosen.steps is None else chosen.steps,
            Evaluate.seed if chosen.seed is None else chosen.seed,
            chosen.policy,
            10 if chosen.supervised_epochs is None else chosen.supervised_epochs,
            chosen.out,
            chosen.frames,
            chosen.save_frames,
            chosen.checkpoint,
            chosen.encoder,
            tell,
        )
    elif chosen.published is not None and chosen.run is None:
        for name in ("policy", "encoder", "frames", "save_frames", "checkpoint"):
            if getattr(chosen, name) != getattr(StateProbe, name):
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} does not go with --published; leave it out")
        folder = chosen.out or OUT / f"state-probe-{chosen.published}"
        result = state_probe.probe_game(
            chosen.published,
            folder,
            state_probe.PUBLISHED_STEPS if chosen.steps is None else chosen.steps,
            state_probe.PUBLISHED_SEED if chosen.seed is None else chosen.seed,
            chosen.supervised_epochs or 0,
            tell=tell,
        )
    else:
        raise ValueError(
            "state-probe takes one of a run folder and --published GAME: afterwit state-probe RUN"
        )
    print(table(result))
    print_paths(folder / state_probe.NAME, folder / state_probe.PICTURE)
    return 0


READ = ("env.", "learner.torso.", "threads")  # what pretraining reads of a run's settings


def configured(preset: str, game: str | None, texts: tuple[str, ...]) -> RunConfig:
    """The preset's run, with another game and with changes.

    Raises:
      ValueError: The preset, the game or a field is unknown, or a field is one that nothing here
          reads.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"unknown preset {preset!r}{suggestion(preset, PRESETS)}; choose from"
            f" {', '.join(PRESETS)}"
        )
    changes = {} if game is None else {"env.game": game}
    asked = assignments(texts)
    config = changed(PRESETS[preset](), {**changes, **asked})
    unread = [name for name in asked if not name.startswith(READ)]
    if unread:
        raise ValueError(
            f"--set {unread[0]} changes nothing here, where no agent is trained; what is read is"
            f" {', '.join(READ)}"
        )
    return config


def pretrain_command(args: list[str]) -> int:
    """Train an encoder on logged frames, for --learner.torso.init: afterwit pretrain OBJECTIVE"""
    chosen = parsed(Pretrain, args, "afterwit pretrain")
    config = configured(chosen.preset, chosen.game, chosen.set)
    pretrain.check_objective(chosen.objective, chosen.updates, config.env)
    read_seed(chosen.seed)
    world = short_name(config.env)
    torch.set_num_threads(config.threads)
    name = file_name(f"{chosen.objective}-{world}-s{chosen.seed}")
    path = chosen.out or OUT / f"{name}.safetensors"
    made_by: dict[str, Any] = {
        name: getattr(chosen, name) for name in ("objective", "steps", "updates", "seed")
    }
    settings = made_by | objectives.settings(config.env, config.learner.torso)
    check_encoder(path, settings)
    with checked_outputs(path):
        print(f"playing {world} ...", flush=True)
        log = objectives.log_for(config.env, chosen.steps, labelled=False)
        torso = config.learner.torso.resolved(log.obs.shape[2:])
        trained = pretrain.pretrain(chosen.objective, log, torso, chosen.updates, chosen.seed)
        about = {
            **made_by,
            "log": {name: str(value) for name, value in log.meta.items()},
            SETTINGS: settings,
            "commit": commit(),
        }
        with atomic_write(path) as file:
            file.write(encoder_bytes(trained.encoder, torso, about))
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in trained.metrics.items())
    print(f"{chosen.updates} updates in {trained.seconds:.0f} s: {numbers or 'nothing trained'}")
    print_paths(path)
    return 0


def check_encoder(path: Path, settings: dict[str, Any]) -> None:
    """Raise a ValueError if a file is there that is no encoder made with the same settings."""
    if not path.is_file():
        return
    try:
        about = read_encoder(path)[1].get("about")
    except ValueError as error:
        raise ValueError(
            f"{path} exists and is no encoder of afterwit pretrain; choose another --out"
        ) from error
    check_settings(path, about.get(SETTINGS) if isinstance(about, dict) else None, settings)


def objectives_command(args: list[str]) -> int:
    """Compare what encoders know after different objectives: afterwit objectives"""
    # late import: it needs matplotlib, which is slow to import
    from afterwit.runs.representation.objectives_figure import draw_objectives

    chosen = parsed(Objectives, args, "afterwit objectives")
    config = configured(chosen.preset, None, chosen.set)
    rows = objectives.compare(
        config,
        chosen.games,
        chosen.objectives,
        chosen.seeds,
        chosen.steps,
        chosen.updates,
        chosen.out,
        tell=lambda words: print(words, flush=True),
    )
    print(objectives.text(rows))
    picture = draw_objectives(rows, chosen.out)
    print_paths(chosen.out, chosen.out.with_name(picture.file))
    return 0
