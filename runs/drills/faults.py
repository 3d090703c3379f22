"""FAULTS: what the drill does to runs, each at a random moment.

A fault is a function of a Scene. The first line of its docstring goes into the table.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from afterwit.runs.drills.scene import CARTPOLE, LEARNER_STEPS, MAZE, Scene, T, wait_until
from afterwit.runs.training.run_log import EVENTS, METRICS


def kill_unroll(scene: Scene) -> None:
    """kill -9 while the environments are stepped"""
    scene.at_environment_step("kill in unroll", -signal.SIGKILL, "")


def kill_learning(scene: Scene) -> None:
    """kill -9 in a learner step, between gradients and weights"""
    scene.at_learner_step("kill in learning", -signal.SIGKILL, "")


def kill_any(scene: Scene) -> None:
    """kill -9 from outside, whatever the run is doing"""
    child = scene.start_and_wait()
    child.signal(signal.SIGKILL)
    scene.finish(child, -signal.SIGKILL, "")


def kill_checkpoint(scene: Scene) -> None:
    """kill -9 while a checkpoint is written"""
    scene.at_checkpoint("kill in checkpoint", -signal.SIGKILL, "")


def terminate_checkpoint(scene: Scene) -> None:
    """SIGTERM while a checkpoint is written"""
    scene.at_checkpoint("terminate in checkpoint", 130, "")
    scene.allowed = 0


def interrupt(scene: Scene) -> None:
    """SIGINT, as from Ctrl-C"""
    child = scene.start_and_wait()
    child.signal(signal.SIGINT)
    scene.finish(child, 130, "")
    scene.allowed = 0


def disk_full_checkpoint(scene: Scene) -> None:
    """the disk fills up; log entries still fit, a checkpoint does not"""
    fill_disk(scene, 120_000, ".pt cannot be written")


def disk_full_log(scene: Scene) -> None:
    """the disk fills up to the last byte"""
    fill_disk(scene, 0, "cannot be written")


def fill_disk(scene: Scene, room: int, message: str) -> None:
    """Leave `room` bytes to the run.

    The run gets a small disk of its own if this user may mount one. Otherwise its file size is
    limited.
    """
    scene.folder.mkdir(parents=True)
    mounted = mount_disk(scene)
    child = scene.start_and_wait()
    filler = scene.folder / "filler"
    if mounted:
        fill(filler, room)
    else:  # a write beyond the limit fails in the same way, with another errno
        limit = room or (scene.folder / METRICS).stat().st_size
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    scene.moment += ", tmpfs" if mounted else ", RLIMIT_FSIZE"
    scene.finish(child, 2, message)
    filler.unlink(missing_ok=True)


def fill(filler: Path, room: int) -> None:
    """Fill the disk except for `room` bytes. The run may take some at the same time."""
    with filler.open("wb") as file:
        while True:
            disk = os.statvfs(filler.parent)
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - room))
                return
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def mount_disk(scene: Scene) -> bool:
    """Mount 8 MiB of memory as the run's folder, until the verdict.

    Returns:
      False if this user may not, or if there is no `mount`.
    """
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "afterwit-drill", str(scene.folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    if mounted:
        scene.closing.callback(subprocess.run, ["umount", str(scene.folder)], check=True)
    return mounted


def environment_raises(scene: Scene) -> None:
    """an environment raises"""
    scene.at_environment_step("raises", 2, "raised RuntimeError: the game crashed")


def environment_hangs(scene: Scene) -> None:
    """an environment hangs, and Ctrl-C is pressed twice"""
    at = int(scene.random.integers(1, LEARNER_STEPS * T + 1))
    scene.moment = f"environment step {at}"
    child = scene.start("hangs", at)
    wait_until(lambda: bool(child.errors()), child)
    for _ in range(2):
        time.sleep(0.1)
        child.signal(signal.SIGINT)
    scene.finish(child, 130, "no learner step has ended for")


def environment_nan_observation(scene: Scene) -> None:
    """an environment returns NaN in an observation (CartPole)"""
    scene.config = CARTPOLE
    scene.at_environment_step("nan observation", 2, "returned observations with nan")


def environment_nan_reward(scene: Scene) -> None:
    """an environment returns a reward of NaN or infinity"""
    scene.at_environment_step("nan reward", 2, "returned rewards with")


def environment_out_of_range(scene: Scene) -> None:
    """an environment returns a reward of 1e30, a short observation, or numbers that are no bytes"""
    scene.at_environment_step("out of range", 2, "returned")


def nan_in_loss(scene: Scene) -> None:
    """a weight becomes NaN, so that the loss does"""
    scene.at_learner_step("nan in loss", 2, "the loss is nan")


def truncated_checkpoint(scene: Scene) -> None:
    """the newest checkpoint is cut short at a random place"""
    path = scene.start_and_stop()
    size = path.stat().st_size
    cut = int(scene.random.integers(size))
    os.truncate(path, cut)
    scene.moment += f", cut at byte {cut:,} of {size:,}"
    resume_and_finish(scene, "is damaged")


def flipped_checkpoint(scene: Scene) -> None:
    """one bit of the newest checkpoint flips"""
    path = scene.start_and_stop()
    data = bytearray(path.read_bytes())
    byte, bit = int(scene.random.integers(len(data))), int(scene.random.integers(8))
    data[byte] ^= 1 << bit
    path.write_bytes(data)
    scene.moment += f", bit {bit} of byte {byte:,}"
    resume_and_finish(scene, "is damaged")


def foreign_checkpoint(scene: Scene) -> None:
    """the newest checkpoint is replaced by a picture, a harmful pickle, or an empty file"""
    path = scene.start_and_stop()
    foreign = (b"\x89PNG\r\n\x1a\n" + bytes(500), b"cos\nsystem\n(S'touch harm'\ntR.", b"")
    path.write_bytes(foreign[int(scene.random.integers(len(foreign)))])
    resume_and_finish(scene, "is damaged")


def resume_and_finish(scene: Scene, message: str) -> None:
    """Resume the run. It must report the damage in one line, and finish."""
    scene.allowed, scene.lost = 2 * MAZE.checkpoint_interval, scene.steps_to_repeat()
    scene.finish(scene.start(), 0, message)


def other_config(scene: Scene) -> None:
    """config.json is another run's; then it is put back"""
    scene.start_and_stop()
    path = scene.folder / "config.json"
    mine = path.read_bytes()
    data = json.loads(mine)
    data["learner"]["torso"]["belief"] += 1
    path.write_text(json.dumps(data))
    scene.allowed = 0
    scene.finish(scene.start(), 2, "belongs to another config")
    path.write_bytes(mine)


def damaged_config(scene: Scene) -> None:
    """config.json is cut short; then it is removed, as the message says"""
    scene.start_and_stop()
    path = scene.folder / "config.json"
    os.truncate(path, int(scene.random.integers(path.stat().st_size - 2)))
    scene.allowed = 0
    scene.finish(scene.start(), 2, "config.json is damaged")
    path.unlink()


def two_runs(scene: Scene) -> None:
    """the same run is started a second time while it goes"""
    child = scene.start_and_wait()
    scene.allowed = scene.lost = 0
    scene.finish(scene.start(), 2, "is in use by another afterwit process")
    if child.wait() != 0:
        raise RuntimeError(f"the first run ended with {child.errors()}")


def cut_log(scene: Scene) -> None:
    """kill -9, and the last lines of both logs are cut"""
    # not a step with a checkpoint: its log entry is already on disk
    step = int(scene.random.choice([4, 5, 7, 8, 10, 11]))
    scene.moment = f"learner step {step}"
    scene.start("kill in unroll", step * T + 1).wait()
    scene.lost = scene.steps_to_repeat()
    for path in (scene.folder / METRICS, max((scene.folder / EVENTS).iterdir())):
        os.truncate(path, path.stat().st_size - int(scene.random.integers(1, 400)))
    scene.finish(scene.start(), 0, "")


FAULTS: dict[str, Callable[[Scene], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        kill_unroll,
        kill_learning,
        kill_any,
        kill_checkpoint,
        terminate_checkpoint,
        interrupt,
        disk_full_checkpoint,
        disk_full_log,
        environment_raises,
        environment_hangs,
        environment_nan_observation,
        environment_nan_reward,
        environment_out_of_range,
        nan_in_loss,
        truncated_checkpoint,
        flipped_checkpoint,
        foreign_checkpoint,
        other_config,
        damaged_config,
        two_runs,
        cut_log,
    )
}
