"""The command `study`, and the report of a study that other commands write as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afterwit.runs.command_line.options import OUT, StudyOptions
from afterwit.runs.command_line.preset_options import parsed, some
from afterwit.runs.configs.overrides import assignments
from afterwit.runs.evaluation.intervals import rliable
from afterwit.runs.output.text import quoted
from afterwit.runs.studies.definitions import STUDIES
from afterwit.runs.studies.ledger import append, check_writable, read_ledger, recorded, run_row
from afterwit.runs.studies.ledger_study import check_ledger
from afterwit.runs.studies.run_study import plain, read_manifest, run_study
from afterwit.runs.studies.study import Cell, Study
from afterwit.runs.training.many_runs import RunsFailed


def study_command(args: list[str]) -> int:
    """Compare methods over many runs, resumable at any point: afterwit study NAME"""
    if not args or args[0] in ("-h", "--help"):
        print(
            f"{study_command.__doc__}\n\n{studies()}\n\nafterwit study NAME --help explains the"
            " options."
        )
        return 0
    if args[0] not in STUDIES:
        raise ValueError(f"unknown study {args[0]!r}; choose from {', '.join(STUDIES)}")
    study, prog = STUDIES[args[0]](), f"afterwit study {args[0]}"
    chosen = parsed(
        StudyOptions, args[1:], prog, description=f"{STUDIES[args[0]].__doc__}\n\n{contents(study)}"
    )
    steps = {} if chosen.total_steps is None else {"total_steps": chosen.total_steps}
    worlds, methods, seeds = some(chosen, "worlds", "methods", "seeds")
    study.check_worlds(assignments(chosen.set))
    study = study.select(worlds, methods, seeds, steps | assignments(chosen.set))
    study.check_overrides()
    home = chosen.out or OUT / f"study-{study.name}"
    if chosen.check is not None:
        if chosen.ledger is None:
            raise ValueError("--check needs the ledger to check; add --ledger FILE.csv")
        recorded(chosen.ledger, study, study.cells())
        lines, good = check_ledger(chosen.ledger, chosen.check)
        print("\n".join(lines))
        return int(not good)
    rliable()  # the report needs it: raises before hours of training
    if chosen.report_only:
        given = chosen.total_steps is not None or bool(chosen.set)
        check_holds(home, chosen.ledger, study, given)
        return study_report(home, chosen.ledger, worlds, methods, seeds)
    cells, skip = study.cells(), set[Path]()
    if chosen.ledger is not None:
        skip = recorded(chosen.ledger, study, cells)
        if len(skip) < len(cells):
            check_writable(chosen.ledger)  # before hours of training
        print(f"{len(skip)} of {len(cells)} runs are in {quoted(chosen.ledger)}")

    def collect(done: Sequence[Cell]) -> None:
        if chosen.ledger is not None and done:
            rows = [
                run_row(study.name, study.overrides, c.world, c.method, home / c.folder)
                for c in done
            ]
            append(chosen.ledger, rows)

    print(
        f"{len(cells) - len(skip)} runs of {cells[0].config.total_steps:,} agent steps,"
        f" {chosen.jobs} at a time, in {quoted(home)}"
    )
    print("Ctrl-C saves; the same command goes on.", flush=True)
    try:
        run_study(study, home, chosen.jobs, skip, collect)
    except RunsFailed as failure:
        try:
            study_report(home, chosen.ledger)
        except (ValueError, OSError) as error:  # often nothing is there to report
            raise ValueError(f"{failure}; and there is no report: {error}") from failure
        raise
    return study_report(home, chosen.ledger)


def study_report(
    home: Path,
    ledger: Path | None = None,
    worlds: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> int:
    """Write the report of a study, and print its path."""
    from afterwit.runs.studies.page import write_study_report  # late import: needs matplotlib

    path = write_study_report(home, ledger, worlds, methods, seeds)
    print(f"report: {quoted(path)}")
    return 0


def check_holds(home: Path, ledger: Path | None, study: Study, given: bool) -> None:
    """Raise a ValueError if a study's folder, or its ledger, is of another study.

    Args:
      home: the folder.
      ledger: the ledger that is read in its place.
      study: what was asked for.
      given: whether changes to every run were asked for. They must then be those of its runs.
    """
    if ledger is not None:
        place, holds, option = ledger, "is of", "--ledger"
        found = [(row["study"], row["overrides"]) for row in read_ledger(ledger)[:1]]
    else:
        place, holds, option, manifest = home, "holds the", "--out", read_manifest(home)
        found = [(manifest.study, manifest.overrides)]
    for name, overrides in found:
        if name != study.name:
            raise ValueError(
                f"{place} {holds} study {name}, not {study.name}; choose another {option}, or:"
                f" afterwit study {name}"
            )
        if given and overrides != plain(study.overrides):
            raise ValueError(
                f"the runs of {place} have {overrides}, not {plain(study.overrides)}; leave out"
                " --set and --total-steps"
            )


def studies() -> str:
    """Return the studies as text."""
    return "studies:\n" + "\n".join(
        f"  {name:<17} {(function.__doc__ or '').splitlines()[0]}"
        for name, function in STUDIES.items()
    )


def contents(study: Study) -> str:
    """Return the worlds, methods and seeds of a study as text."""
    names = {
        "worlds": [world.name for world in study.worlds],
        "methods": [method.name for method in study.methods],
    }
    names |= {"seeds": [str(seed) for seed in study.seeds]} | {
        "more worlds": [w.name for w in study.more_worlds]
    }
    names |= {"more methods": [method.name for method in study.more_methods]}
    names |= {"a method of your own": ["MODULE:CLASS, a bonus as in docs/guides/add-a-bonus.md"]}
    return "\n\n".join(f"{what}: {', '.join(values)}" for what, values in names.items() if values)
