"""Run folders that are written without training, and a parser for pages."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from afterwit.envs.maze import build_map
from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import RunConfig, write_config
from afterwit.runs.training.run_log import MAPS, METRICS

STEPS = 1000

Entry = dict[str, Any]


def entry(steps: int, episodes: int, reached: float, **more: float) -> Entry:
    result: Entry = {
        "agent_steps": steps,
        "frames": 4 * steps,
        "seconds": steps / 100,
        "agent_steps_per_second": 100.0,
    }
    result |= {
        "episode/count": episodes,
        "share_of_time/block_in_view": 0.5,
        "share_of_time/noop": 0.2,
        "learner/entropy": 1.0,
    }
    if episodes:
        result |= {"reached/R1": 1.0, "reached/R2": reached}
    return result | {name.replace("__", "/"): value for name, value in more.items()}


def small(model: str = "byol-hindsight", noise: str = "brownian", seed: int = 0) -> RunConfig:
    return replace(maze(model, noise), total_steps=STEPS, log_interval=50, seed=seed)  # type: ignore[arg-type]


def log(last: float, first: float = 0.0, **more: float) -> list[Entry]:
    """Return the ten entries of a run, one per tenth.

    It reaches R2 in `last` of the episodes of the last tenth, and in `first` before.
    """
    return [
        entry(100 * (index + 1), 10, last if index == 9 else first, **more) for index in range(10)
    ]


def make(folder: Path, config: RunConfig, entries: list[Entry], maps: bool = True) -> Path:
    write_config(config, folder)
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in entries))
    if maps:
        world = build_map(getattr(config.env, "layout", "row"))
        visits = np.zeros((10, world.walls.size), np.int64)
        visits[:, world.start[0] * world.width + world.start[1]] = 100
        np.savez_compressed(folder / MAPS, visits=visits, pay=visits * 0.5)
    return folder


class Page(HTMLParser):
    """Every tag, and the values of attributes that could load something."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "srcset", "data", "poster", "action")
        ]
