"""Videos of environment 0: its frames above a strip of the intrinsic reward."""

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

# how many peaks are marked, and the least distance between two of them in agent steps
PEAKS, MIN_PEAK_DISTANCE = 5, 40
COLOURS = {"reconstruction": (38, 98, 170), "invariance": (230, 130, 30)}
BACKGROUND, INK, MARK = (255, 255, 255), (60, 60, 60), (200, 30, 30)
STRIP_HEIGHT, LABEL_HEIGHT, MIN_WIDTH, MAX_FRAMES = 64, 14, 640, 3000


class Recorder:
    """A VectorEnv that keeps the frames of environment 0's first episode, at most 3000."""

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
        """Add the parts of the raw reward to the frames of the last unroll.

        Args:
          trajectory: the unroll.
          parts: name -> [T], of environment 0.
          scale: the unit of the parts.
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
        """Write an mp4 of 20 agent steps a second, completely or not at all.

        Raises:
          OSError or RuntimeError: ffmpeg failed.
        """
        marks = peaks([paid(entry) for entry in self.values])
        peak = max([0.1, *map(paid, self.values)])
        height, width, _ = compose(self.frames[0], self.values[:1], peak, marks).shape
        import imageio_ffmpeg  # late import, as of Pillow below: only videos need them

        temporary = path.with_name(path.name + TEMPORARY)
        try:
            writer = imageio_ffmpeg.write_frames(
                str(temporary.absolute()),
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
            if b"moov" not in temporary.read_bytes():  # the index at the end of a complete file
                raise OSError("ffmpeg did not finish it; is the disk full?")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def render(self) -> Array:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


def check_video_support() -> None:
    """Raise ValueError if videos cannot be made here."""
    try:
        import imageio_ffmpeg
        import PIL  # noqa: F401

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"no video can be made here ({error}); leave out --video, or install imageio-ffmpeg and"
            " pillow"
        ) from error


def paid(entry: dict[str, float]) -> float:
    """Return the total intrinsic reward of a frame."""
    return sum(max(value, 0.0) for value in entry.values())


def peaks(totals: list[float]) -> set[int]:
    """Return the positions of the highest rewards.

    At most PEAKS of them, with at least MIN_PEAK_DISTANCE between any two.
    """
    chosen: list[int] = []
    for index in sorted(range(len(totals)), key=lambda index: -totals[index]):
        if (
            len(chosen) < PEAKS
            and totals[index] > 0
            and all(abs(index - other) >= MIN_PEAK_DISTANCE for other in chosen)
        ):
            chosen.append(index)
    return set(chosen)


def compose(frame: Array, values: list[dict[str, float]], peak: float, marks: set[int]) -> Array:
    """Return a frame above its strip, the newest transition at the right.

    Args:
      frame: uint8 [h, w, 3].
      values: the parts of the reward up to this frame.
      peak: the reward that fills the strip's height.
      marks: transitions with a red wedge, because the reward peaks there.

    Returns:
      uint8 [height, width, 3], with even sizes.
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
    draw_values(draw, frame.shape[0], values[-1])
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


def draw_values(draw: ImageDraw, top: int, entry: dict[str, float]) -> None:
    x = 4
    for name, value in entry.items():
        text = f"{name} {value:5.2f}"
        draw.text((x, top + 1), text, fill=COLOURS.get(name, INK))
        x += 7 * len(text) + 12
