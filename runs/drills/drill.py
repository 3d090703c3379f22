"""The fault drill: real processes, each fault at random moments, and what was lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from afterwit.runs.configs.comparison import SETTINGS, check_result
from afterwit.runs.configs.run_config import RunConfig, read_config, write_config
from afterwit.runs.drills.child import begin
from afterwit.runs.drills.cluster_faults import CLUSTER_FAULTS
from afterwit.runs.drills.faults import FAULTS
from afterwit.runs.drills.scene import MAZE, STEP, Scene
from afterwit.runs.output.files import TEMPORARY, atomic_write, checked_outputs
from afterwit.runs.output.provenance import provenance
from afterwit.runs.training import checkpoint
from afterwit.runs.training.run_log import read_metrics

RESULT, TABLE = "drill.json", "drill.md"
ALL = FAULTS | (CLUSTER_FAULTS if find_spec("ray") else {})
CLOCK = ("seconds", "agent_steps_per_second")  # log numbers that always differ between runs


@dataclass(frozen=True)
class Trial:
    """One fault at one moment."""

    fault: str
    moment: str
    seen: str  # on stderr or else stdout, by the user; RUN is the folder
    code: int | None
    lost: int  # agent steps
    allowed: int  # agent steps that may be lost
    wrong: list[str]  # what should not have happened; empty: passed


def drill(
    faults: Sequence[str], times: int, seed: int, out: Path, progress: bool = True
) -> list[Trial]:
    """Try each fault `times` times, and write OUT/drill.md and OUT/drill.json.

    The folders of trials that fail are kept.

    Args:
      faults: names in FAULTS and CLUSTER_FAULTS. Empty: all.
      times: trials of each fault.
      seed: of the moments.
      out: the folder OUT.
      progress: whether to show a progress bar.

    Raises:
      ValueError: a fault is unknown, or OUT has a drill with other settings.
    """
    if times < 1:
        raise ValueError(f"times is {times}; each fault is tried at least once")
    unknown = [name for name in faults if name not in ALL]
    if unknown:
        raise ValueError(f"unknown fault {unknown[0]!r}; choose from {', '.join(ALL)}")
    settings = {"faults": list(faults or ALL), "times": times, "seed": seed}
    check_result(out / RESULT, settings)
    with checked_outputs(out / RESULT, out / TABLE):
        trials = run_trials(faults or tuple(ALL), times, seed, out, progress)
        write(trials, settings, out)
    return trials


def run_trials(
    faults: Sequence[str], times: int, seed: int, out: Path, progress: bool
) -> list[Trial]:
    """Return all trials."""
    trials = []
    whole = undisturbed_run(MAZE, out / "runs" / "whole")
    bar = tqdm(
        list(faults), unit="fault", disable=not progress, dynamic_ncols=True, file=sys.stdout
    )
    for name in bar:
        for index in range(times):
            bar.set_description(f"{name} {index + 1}/{times}")
            trials.append(run_trial(name, index, seed, out / "runs" / name, whole))
            if trials[-1].wrong and progress:
                bar.write(f"{name}: {'; '.join(trials[-1].wrong)}")
    return trials


def undisturbed_run(config: RunConfig, folder: Path) -> Path:
    """Train a run without a fault, and return its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    write_config(config, folder)
    child = begin([str(folder)], folder.with_name(folder.name + "-1"))
    if child.wait() != 0:
        raise ValueError(f"the run without a fault failed: {child.errors()}")
    return folder


def run_trial(name: str, index: int, seed: int, home: Path, whole: Path) -> Trial:
    """Return one trial.

    The run is finished after the fault, and must then equal the undisturbed run `whole` bit for
    bit.
    """
    folder = home / str(index)
    shutil.rmtree(folder, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, index, zlib.crc32(name.encode())])
    scene = Scene(folder, random, ExitStack())
    try:
        with scene.closing:
            ALL[name](scene)
            wrong = verdict(scene, whole)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        wrong = [str(error)]
    seen = " / ".join(scene.stderr_lines or scene.stdout_lines).replace(str(folder), "RUN")
    if not wrong:
        for path in home.glob(f"{index}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not any(home.iterdir()):
            home.rmdir()
    return Trial(name, scene.moment, seen, scene.code, scene.lost or 0, scene.allowed, wrong)


def verdict(scene: Scene, whole: Path) -> list[str]:
    """Return what is wrong. Finishes the run first."""
    code, message = scene.expected
    text, folder = "\n".join(scene.stderr_lines), scene.folder
    wrong = []
    if scene.code != code:
        wrong.append(f"it ended with code {scene.code}, not {code}")
    if (
        "Traceback" in text
        or (message not in text)
        or (len(scene.stderr_lines) > (2 if code == 130 else scene.max_lines))
        or (not message and scene.stderr_lines)
    ):
        wrong.append(f"it printed {scene.stderr_lines}, not one line with {message!r}")
    if scene.lost is None or scene.lost > scene.allowed:
        wrong.append(f"{scene.lost} agent steps were lost, more than {scene.allowed}")
    child = scene.start()
    if child.wait() != 0:
        wrong.append(f"it did not go on: {child.errors()}")
        return wrong
    ended, expected = read_metrics(folder), read_metrics(whole)
    if scene.config == MAZE:
        if without_times(ended) != without_times(expected):
            wrong.append("its log is not that of an undisturbed run")
        if not equal_weights(folder, whole):
            wrong.append("its weights are not those of an undisturbed run")
    elif [entry["agent_steps"] for entry in ended] != list(
        range(STEP, scene.config.total_steps + 1, STEP)
    ):
        wrong.append("its log has a gap or an entry twice")
    leftovers = [path.name for path in folder.glob(f"*{TEMPORARY}")]
    if leftovers:
        wrong.append(f"it left {', '.join(leftovers)}")
    return wrong


def without_times(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return log entries without the numbers that measure time."""
    return [
        {name: value for name, value in entry.items() if name not in CLOCK} for entry in entries
    ]


def equal_weights(left: Path, right: Path) -> bool:
    """Return whether all learner states (weights, targets, optimiser) are equal bit for bit."""
    states = [checkpoint.load(folder, read_config(folder))["learner"] for folder in (left, right)]
    return checkpoint.equal_states(states[0], states[1])


def write(trials: Sequence[Trial], settings: Mapping[str, Any], out: Path) -> None:
    """Write OUT/drill.json and OUT/drill.md."""
    result: dict[str, Any] = {"trials": [asdict(trial) for trial in trials]}
    result |= {SETTINGS: settings, "provenance": provenance()}
    for name, text in ((RESULT, json.dumps(result, indent=1)), (TABLE, table(trials))):
        with atomic_write(out / name) as file:
            file.write((text + "\n").encode())


def table(trials: Sequence[Trial]) -> str:
    """Return the trials as a Markdown table, a row per fault."""
    rows = [
        "| fault | what the user sees (exit code) | agent steps lost (allowed) | passed |",
        "|---|---|---|---|",
    ]
    for name in dict.fromkeys(trial.fault for trial in trials):
        of = [trial for trial in trials if trial.fault == name]
        seen = f"`{of[0].seen.replace('|', '/')}`" if of[0].seen else "nothing"
        codes = ", ".join(dict.fromkeys(str(trial.code) for trial in of))
        lost = f"{max(trial.lost for trial in of)} ({max(trial.allowed for trial in of)})"
        passed = sum(not trial.wrong for trial in of)
        rows.append(
            f"| {(ALL[name].__doc__ or name).splitlines()[0]} | {seen} ({codes}) | {lost} |"
            f" {passed} of {len(of)} |"
        )
    return "\n".join(rows)
