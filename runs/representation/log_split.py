"""How a log is split for probes: by episodes, without the frames that occur twice.

All of it follows the code of AtariARI (Anand et al., 2019, arXiv 1906.08226).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from afterwit.envs.arrays import Array
from afterwit.envs.atari_config import AtariConfig
from afterwit.envs.make import EnvConfig
from afterwit.runs.representation.frame_log import FrameLog


@dataclass(frozen=True)
class Parts:
    """The episodes of a log, split. An episode is its frames' numbers, int64 [n], in order."""

    train: list[Array]
    validation: list[Array]
    test: list[Array]
    used: Array  # the frames of all of them, before duplicates were removed
    duplicates: int = 0  # test frames that were removed


def has_recurring_views(config: EnvConfig) -> bool:
    """Return whether the views of a world recur by nature, as those of all but Atari do.

    There hardly a test frame is unknown, so known ones are not to be removed.
    """
    return not isinstance(config, AtariConfig)


def episodes_of(first: Array) -> list[Array]:
    """The episodes of a log, stream after stream, each in order of time.

    Args:
      first: bool [T, B].

    Returns:
      The frames' numbers of each. The last episode of each stream may be cut short.
    """
    steps, batch = first.shape
    found: list[Array] = []
    for index in range(batch):
        opens = np.flatnonzero(first[1:, index]) + 1
        frames = np.arange(steps) * batch + index
        found += np.split(frames, opens)
    return found


def split(log: FrameLog, min_episode: int, deduplicate: bool = True) -> Parts:
    """Split a log by episodes: 70% to learn, 10% to validate, 20% to test.

    The split is in order of stream and time: so does the authors' code, whose shuffle is computed
    and not used. Test frames that also occur, byte for byte, in the other parts are removed, and
    then test episodes of fewer than 2 frames.

    Args:
      log: the log.
      min_episode: only episodes of more frames are used.
      deduplicate: whether to remove test frames that occur elsewhere.

    Raises:
      ValueError: there are too few episodes, or all test frames occur elsewhere.
    """
    episodes = [each for each in episodes_of(log.first) if len(each) > min_episode]
    one, two = int(0.7 * len(episodes)), int(0.8 * len(episodes))
    if not 0 < one < two < len(episodes):
        raise ValueError(
            f"the log has {len(episodes)} episodes of more than {min_episode} frames, too few to"
            " split into 70% to learn, 10% to validate and 20% to test; log more steps"
        )
    train, validation, test = episodes[:one], episodes[one:two], episodes[two:]
    used = np.concatenate(episodes)
    if not deduplicate:
        return Parts(train, validation, test, used)
    frames = log.obs.reshape(-1, *log.obs.shape[2:])

    def mark(number: int) -> bytes:
        return blake2b(np.ascontiguousarray(frames[number]).data, digest_size=16).digest()

    known = {mark(number) for part in (train, validation) for each in part for number in each}
    fresh = [each[[mark(number) not in known for number in each]] for each in test]
    removed = sum(map(len, test)) - sum(map(len, fresh))
    fresh = [each for each in fresh if len(each) > 1]
    if not fresh:
        raise ValueError(
            "every test frame also occurs in the frames to learn from, so a score would tell"
            " nothing; log more steps, or another policy"
        )
    return Parts(train, validation, fresh, used, removed)


def entropy(values: Array) -> float:
    """The entropy of values [n] in nats."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log(share)).sum())


def usable_targets(log: FrameLog, parts: Parts, min_entropy: float) -> dict[str, Array]:
    """The labels [T * B] whose entropy over the used episodes is at least `min_entropy`.

    The entropy is that before duplicates are removed, as in the authors' code.

    Raises:
      ValueError: no label varies so much.
    """
    flat = {name: np.asarray(values).reshape(-1) for name, values in log.labels.items()}
    kept = {name: v for name, v in flat.items() if entropy(v[parts.used]) >= min_entropy}
    if not kept:
        raise ValueError(
            f"no label of the log has an entropy of {min_entropy} nats; log more steps, or a policy"
            " that sees more"
        )
    return kept
