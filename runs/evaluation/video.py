"""Video of environment 0: what it showed, above a running strip of what the transition was
worth.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from afterwit.envs.arrays import Array
from afterwit.envs.specs import EnvSpec, TimeStep, VectorEnv
from afterwit.runs.output.files import TEMPORARY
from afterwit.world_models.trajectory import Trajectory

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

# how many peaks are marked, and the least distance between two, in agent steps
PEAKS, APART = 5, 40
COLOURS = {"reconstruction": (38, 98, 170), "invariance": (230, 130, 30)}
BACKGROUND, INK, MARK = (255, 255, 255), (60, 60, 60), (200, 30, 30)
STRIP_HEIGHT, LABEL_HEIGHT, MIN_WIDTH, MAX_FRAMES = 64, 14, 640, 3000


class Recorder:
    """A VectorEnv that keeps what environment 0 renders during its first episode (at most 3000
    agent steps).
    """

    def __init__(self, env: VectorEnv):
        self.env = env
        self.frames: list[Array] = []
        self.values: list[dict[str, float]] = []  # parts of the intrinsic reward, a frame each
        self.pending: list[Array] = []
        self.done = False

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self) -> TimeStep:
        return self.env.reset()

    def step(self, action: Array) -> TimeStep:
        step = self.env.step(action)
        if not self.done:
            self.pending.append(self.env.render())
        return step

    def explain(self, trajectory: Trajectory, parts: dict[str, Tensor], scale: Tensor) -> None:
        """Pair the frames of the last unroll with the parts of its raw reward [T], in units of
        `scale`.
        """
        if self.done:
            return
        real = trajectory.real[:, 0].tolist()
        columns = {name: (part / scale).tolist() for name, part in parts.items()}
        for index, frame in enumerate(self.pending):
            if not real[index] or len(self.frames) == MAX_FRAMES:
                self.done = True
                break
            self.frames.append(frame)
            self.values.append({name: column[index] for name, column in columns.items()})
        self.pending = []

    def write(self, path: Path) -> None:
        """Write an mp4 of 20 agent steps a second, whole or not at all. Raises OSError or
        RuntimeError where ffmpeg fails.
        """
        marks = peaks([paid(entry) for entry in self.values])
        peak = max([0.1, *map(paid, self.values)])
        height, width, _ = compose(self.frames[0], self.values[:1], peak, marks).shape
        import imageio_ffmpeg  # here, as Pillow below: scores alone need neither

        begun = path.with_name(path.name + TEMPORARY)
        try:
            writer = imageio_ffmpeg.write_frames(
                str(begun.absolute()),
                (width, height),
                fps=20,
                macro_block_size=2,
                quality=6,
                ffmpeg_log_level="error",
                output_params=["-f", "mp4"],
            )
            writer.send(None)
            for index, frame in enumerate(self.frames):
                writer.send(compose(frame, self.values[: index + 1], peak, marks).tobytes())
            writer.close()
            if b"moov" not in begun.read_bytes():  # the index, which comes last
                raise OSError("ffmpeg did not finish it; is the disk full?")
            os.replace(begun, path)
        finally:
            begun.unlink(missing_ok=True)

    def render(self) -> Array:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


def check_film() -> None:
    """Raise ValueError where films cannot be made here."""
    try:
        import imageio_ffmpeg
        import PIL  # noqa: F401

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"no film can be made here ({error}); leave --video out, or install imageio-ffmpeg and"
            " pillow"
        ) from error


def paid(entry: dict[str, float]) -> float:
    return sum(max(value, 0.0) for value in entry.values())


def peaks(totals: list[float]) -> set[int]:
    """Where the reward peaks: the highest totals, at most PEAKS of them, with at least APART
    between two.
    """
    chosen: list[int] = []
    for index in sorted(range(len(totals)), key=lambda index: -totals[index]):
        if (
            len(chosen) < PEAKS
            and totals[index] > 0
            and all(abs(index - other) >= APART for other in chosen)
        ):
            chosen.append(index)
    return set(chosen)


def compose(frame: Array, values: list[dict[str, float]], peak: float, marks: set[int]) -> Array:
    """The frame above the strip; the newest transition is at the right. uint8 [height, width, 3]
    with even sizes.

    `peak` is as high as the strip; of the transitions `marks` a red wedge says that the reward
    peaks there.
    """
    scale = max(1, -(-MIN_WIDTH // frame.shape[1]))
    frame = frame.repeat(scale, 0).repeat(scale, 1)
    width = frame.shape[1] + frame.shape[1] % 2
    height = frame.shape[0] + LABEL_HEIGHT + STRIP_HEIGHT
    from PIL import Image
    from PIL import ImageDraw as drawing

    image = Image.new("RGB", (width, height + height % 2), BACKGROUND)
    image.paste(Image.fromarray(frame), (0, 0))
    draw = drawing.Draw(image)
    draw_labels(draw, frame.shape[0], values[-1])
    bottom = height - 1
    for column, entry in enumerate(reversed(values[-(width // 2) :])):
        top, x = bottom, width - 2 - 2 * column
        for name, value in entry.items():
            size = round(max(value, 0.0) / peak * (STRIP_HEIGHT - 2))
            if size:
                draw.rectangle((x, top - size, x + 1, top), fill=COLOURS.get(name, INK))
            top -= size
        if len(values) - 1 - column in marks:
            y = frame.shape[0] + LABEL_HEIGHT
            draw.polygon([(x - 5, y), (x + 6, y), (x, y + 8)], fill=MARK)
    return np.asarray(image)


def draw_labels(draw: ImageDraw, top: int, entry: dict[str, float]) -> None:
    x = 4
    for name, value in entry.items():
        text = f"{name} {value:5.2f}"
        draw.text((x, top + 1), text, fill=COLOURS.get(name, INK))
        x += 7 * len(text) + 12
