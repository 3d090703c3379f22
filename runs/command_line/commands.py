"""COMMANDS: what each command does with its arguments. `afterwit COMMAND --help` explains it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from afterwit.envs.make import ENVS
from afterwit.runs.benchmarks import cluster_cost as costing
from afterwit.runs.benchmarks import speed as benchmarking
from afterwit.runs.benchmarks import speed_text
from afterwit.runs.command_line.options import (
    OUT,
    Benchmark,
    Demo,
    Drill,
    Evaluate,
    Probe,
    Report,
    Scores,
    Separation,
    Train,
    Watch,
    at_home,
)
from afterwit.runs.command_line.preset_options import (
    default_name,
    from_preset,
    parsed,
    presets,
    some,
)
from afterwit.runs.command_line.representation_commands import (
    objectives_command,
    pretrain_command,
    state_probe_command,
)
from afterwit.runs.command_line.study_command import studies, study_command, study_report
from afterwit.runs.configs.overrides import assignments
from afterwit.runs.diagnostics import latent_swap as probing
from afterwit.runs.diagnostics import latent_swap_text
from afterwit.runs.diagnostics.separation import benchmark_separation
from afterwit.runs.diagnostics.separation_verdicts import table as separation_table
from afterwit.runs.drills.soak import PICTURE, soak
from afterwit.runs.drills.soak import TABLE as SAMPLES
from afterwit.runs.evaluation import evaluate as evaluating
from afterwit.runs.evaluation import evaluation_result, scores_text
from afterwit.runs.evaluation import scores as scoring
from afterwit.runs.output.text import print_paths, quoted
from afterwit.runs.training.loop import start, train
from afterwit.runs.training.train_folder import finish
from afterwit.world_models.published import deviations
from afterwit.world_models.registry import MIXTURES, ORACLES, WORLD_MODELS


def train_command(args: list[str]) -> int:
    """Train an agent: afterwit train PRESET [options], or: afterwit train --resume RUN"""
    if any(arg.partition("=")[0] == "--resume" for arg in args):
        return resume(args)
    if not args or args[0] in ("-h", "--help"):
        print(
            f"{train_command.__doc__}\n\n{presets()}\n\nafterwit train PRESET --help explains every"
            " field of the run."
        )
        return 0
    chosen = from_preset(args, Train, "train")
    folder = chosen.out or OUT / default_name(chosen.config)
    if chosen.config.cluster is None:
        chosen.config.torch_device()
    return finish(lambda: start(chosen.config, folder, progress=not chosen.quiet), folder)


def resume(args: Sequence[str]) -> int:
    """Go on with the run of `--resume RUN`, with or without `--total-steps N` and `--quiet`."""
    if "-h" in args or "--help" in args:
        print(
            "usage: afterwit train --resume RUN [--total-steps N] [--quiet]\n\nGo on with a run"
            " from its last checkpoint. It keeps its config and folder. With --total-steps it goes"
            " on until it has N agent steps in all, also if it was finished."
        )
        return 0
    args, total = taken(args, "--total-steps")
    words = [arg.removeprefix("--resume=") for arg in args if arg not in ("--resume", "--quiet")]
    option = next((word for word in words if word.startswith("-")), None)
    if option is not None:
        raise ValueError(
            f"{option} does not go with --resume, as a resumed run keeps its config and folder;"
            " only --total-steps and --quiet do"
        )
    if len(words) != 1 or not words[0]:
        count = len([word for word in words if word])
        raise ValueError(
            f"--resume takes one run folder, not {count}: afterwit train --resume RUN (a resumed"
            " run keeps its config)"
        )
    folder = at_home(Path(words[0]))
    steps = None if total is None else whole_number(total)
    return finish(lambda: train(folder, "--quiet" not in args, steps), folder)


def taken(args: Sequence[str], option: str) -> tuple[list[str], str | None]:
    """Return the words without `option VALUE` or `option=VALUE`, and VALUE.

    VALUE is None if the option is not given, and empty if nothing comes after it.

    Raises:
      ValueError: it is given twice.
    """
    rest, values, words = [], [], iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if name != option:
            rest.append(word)
        else:
            values.append(value if equals else next(words, ""))
    if len(values) > 1:
        raise ValueError(f"{option} is given twice")
    return rest, values[0] if values else None


def whole_number(text: str) -> int:
    """Return the agent steps that `text` says.

    Raises:
      ValueError: it is no whole number above 0.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"--total-steps is {text!r}; it must be a whole number above 0")
    return number


def evaluate_command(args: list[str]) -> int:
    """Play episodes with a trained agent: afterwit evaluate RUN [--video]"""
    chosen = parsed(Evaluate, args, "afterwit evaluate")
    result = evaluating.evaluate(
        chosen.run,
        chosen.episodes,
        chosen.greedy,
        chosen.seed,
        chosen.video,
        True,
        assignments(chosen.set, "sticky=0"),
        chosen.out,
        chosen.checkpoint,
        chosen.max_steps,
    )
    folder = chosen.out or chosen.run
    print(evaluation_result.table(result))
    print_paths(
        folder / evaluation_result.NAME,
        *([folder / evaluation_result.VIDEO] if chosen.video else []),
    )
    return 0


def watch_command(args: list[str]) -> int:
    """Look at a run while it trains, in a browser: afterwit watch RUN"""
    from afterwit.runs.watching.server import watch  # late import: it needs matplotlib

    chosen = parsed(Watch, args, "afterwit watch")
    watch(chosen.run, chosen.port, chosen.open)
    return 0


def scores_command(args: list[str]) -> int:
    """Aggregate evaluations over seeds and games, with intervals: afterwit scores RUN RUN ..."""
    chosen = parsed(Scores, args, "afterwit scores")
    print(scores_text.table(scoring.scores(chosen.runs, chosen.measure, chosen.out)))
    print_paths(chosen.out / scoring.RESULT, chosen.out / scoring.PICTURE)
    return 0


def probe_command(args: list[str]) -> int:
    """Show what another z would have changed: afterwit probe RUN"""
    chosen = parsed(Probe, args, "afterwit probe")
    result = probing.probe(
        chosen.run, chosen.queries, chosen.swaps, chosen.steps, chosen.seed, chosen.out
    )
    folder = chosen.out or chosen.run
    print(latent_swap_text.table(result))
    print_paths(folder / probing.NAME, folder / probing.PICTURE)
    return 0


def report_command(args: list[str]) -> int:
    """Compare runs side by side in one page: afterwit report RUN RUN ..."""
    # late import: it needs matplotlib, which is slow to import
    from afterwit.runs.reports.comparison_page import write_report

    chosen = parsed(Report, args, "afterwit report")
    if len(chosen.runs) == 1 and chosen.runs[0].suffix == ".csv":
        return study_report(chosen.out, chosen.runs[0])
    print(f"report: {quoted(write_report(chosen.runs, chosen.out))}")
    return 0


def benchmark_command(args: list[str]) -> int:
    """Measure speed: afterwit benchmark [PRESET]; or news against noise: --separation"""
    if "--separation" in args:
        return separation_command([arg for arg in args if arg != "--separation"])
    chosen = from_preset(
        args if args and not args[0].startswith("-") else ["maze", *args], Benchmark, "benchmark"
    )
    if chosen.simulated_actors:
        print(
            costing.table(
                costing.cluster_cost(
                    chosen.config,
                    chosen.simulated_actors,
                    chosen.simulated_rate,
                    chosen.seconds,
                    chosen.out,
                )
            )
        )
        return 0
    result = benchmarking.benchmark(
        chosen.config, chosen.seconds, chosen.grow, chosen.baseline, chosen.out
    )
    print(speed_text.table(result))
    return 0


def separation_command(args: list[str]) -> int:
    """Judge world models on logged transitions: afterwit benchmark --separation"""
    chosen = parsed(Separation, args, "afterwit benchmark --separation")
    print(separation_table(benchmark_separation(chosen.config, chosen.jobs, chosen.out)))
    if chosen.out is not None:
        print_paths(chosen.out, chosen.out.with_suffix(".png"))
    return 0


def demo_command(args: list[str]) -> int:
    """Train two agents in two noisy mazes and write a report: afterwit demo"""
    from afterwit.runs.studies.demo import demo  # late import: it needs matplotlib

    chosen = parsed(Demo, args, "afterwit demo")
    print(f"report: {quoted(demo(chosen.out, chosen.steps, chosen.seed))}")
    return 0


def drill_command(args: list[str]) -> int:
    """Break runs on purpose and see what is lost: afterwit drill [--soak MINUTES]"""
    # late import: it changes how this process starts others
    from afterwit.runs.drills import drill as drilling

    chosen = parsed(Drill, args, "afterwit drill")
    if chosen.soak is not None:
        flat = soak(chosen.soak, chosen.out, chosen.cluster)
        print_paths(chosen.out / SAMPLES, chosen.out / PICTURE)
        return int(not flat)
    (faults,) = some(chosen, "faults")
    trials = drilling.drill(faults, chosen.times, chosen.seed, chosen.out)
    print(drilling.table(trials))
    print_paths(chosen.out / drilling.TABLE, chosen.out / drilling.RESULT)
    return int(any(trial.wrong for trial in trials))


def list_command(args: list[str]) -> int:
    """List presets, studies, environments and world models: afterwit list [published]"""
    if args and args[0] in ("-h", "--help"):
        print(
            f"{list_command.__doc__}\n\npublished: how each published form differs from its paper"
        )
        return 0
    if args == ["published"]:
        for model, lines in deviations().items():
            print(f"{model}:")
            for line in lines:
                print(textwrap.fill(line, 100, initial_indent="  - ", subsequent_indent="    "))
        return 0
    if args:
        raise ValueError(f"list takes no argument, or published, not {' '.join(args)!r}")
    print(
        f"{presets()}\n\n{studies()}\n\nenvironments: {', '.join(ENVS)}\nworld models:"
        f" {', '.join((*WORLD_MODELS, *MIXTURES))}\noracles, which read what no agent can know:"
        f" {', '.join(ORACLES)}"
    )
    print(
        "\nvariant published: the world model as in its paper; afterwit list published names"
        " what still differs"
    )
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo_command,
    "train": train_command,
    "watch": watch_command,
    "evaluate": evaluate_command,
    "scores": scores_command,
    "probe": probe_command,
    "state-probe": state_probe_command,
    "pretrain": pretrain_command,
    "objectives": objectives_command,
    "report": report_command,
    "study": study_command,
    "benchmark": benchmark_command,
    "drill": drill_command,
    "list": list_command,
}
