"""What an episode has seen so far: memory that belongs to an environment, not to a batch column.

A trajectory says which environments of the run its columns are. A model reads the rows of these
environments, goes through the steps, and keeps the rows as they are afterwards:

    rows = memory.recall(trajectory)
    for t, opens, new in steps_of(trajectory):
        ...   # clear the rows that open, pay obs[t], insert it where it is new
    memory.keep(trajectory, rows)

Only in training mode is something kept. So the bonus of the same steps can be asked for twice, and
nothing counts twice. The rows are buffers, so they are part of every checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from afterwit.world_models import data_parallel
from afterwit.world_models.trajectory import Trajectory

Rows = dict[str, Tensor]  # [B, ...] by name


class EpisodicMemory(nn.Module):
    """A row for each environment of the run, for as many as have been seen.

    Args:
      blank: A row [...] by name, as it is when an episode opens. None at all: a memory of nothing.
    """

    def __init__(self, blank: Mapping[str, Tensor] | None = None):
        super().__init__()
        self.names = tuple(blank or ())
        for name, row in (blank or {}).items():
            self.register_buffer(f"blank_{name}", row, persistent=False)
            self.register_buffer(name, row.new_empty(0, *row.shape))
        self.latest: Rows = {}  # the rows after the last forward pass
        self.lent: Rows | None = None

    def recall(self, trajectory: Trajectory) -> Rows:
        """Copies of the rows of a trajectory's environments, as they are before obs[0]."""
        if self.lent is not None:
            return {name: row.clone() for name, row in self.lent.items()}
        if not self.names:
            return {}
        self._grow(trajectory.rows_needed)
        return {name: getattr(self, name)[trajectory.rows] for name in self.names}

    def clear(self, rows: Rows, opens: Tensor) -> None:
        """Make the rows blank, in place, where an episode opens: `opens` is bool [B]."""
        for name, row in rows.items():
            blank = getattr(self, f"blank_{name}")
            row.copy_(torch.where(opens.view(-1, *[1] * blank.dim()), blank, row))

    @torch.no_grad()
    def keep(self, trajectory: Trajectory, rows: Rows) -> None:
        """Rows as they are after obs[T]. In training mode they replace those of before.

        With several learners each keeps the rows of all.
        """
        self.latest = rows
        if self.training and self.lent is None:
            self.write(trajectory)

    @torch.no_grad()
    def write(self, trajectory: Trajectory) -> None:
        """Keep the rows of the last forward pass, which was over `trajectory`, in any mode."""
        if not self.names:
            return
        index = trajectory.rows
        if data_parallel.num_learners() > 1:
            index = data_parallel.gather(index, 0)
            self._grow(int(index.max()) + 1)
        for name in self.names:
            getattr(self, name)[index] = data_parallel.gather(self.latest[name], 0)

    @contextmanager
    def lending(self, rows: Rows) -> Iterator[None]:
        """Inside this context these rows [B, ...] are recalled, and none are written."""
        before, self.lent = self.lent, rows
        try:
            yield
        finally:
            self.lent = before

    def blank_rows(self, batch: int) -> Rows:
        """The rows [B, ...] of environments that have seen nothing."""
        blanks = {name: getattr(self, f"blank_{name}") for name in self.names}
        return {name: row.expand(batch, *row.shape).clone() for name, row in blanks.items()}

    def _grow(self, size: int) -> None:
        for name in self.names:
            rows = getattr(self, name)
            if len(rows) < size:
                blank = getattr(self, f"blank_{name}")
                more = blank.expand(size - len(rows), *blank.shape)
                setattr(self, name, torch.cat([rows, more]))

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Take as many rows as were saved."""
        for name in self.names:
            saved, blank = state.get(prefix + name), getattr(self, f"blank_{name}")
            if isinstance(saved, Tensor) and saved.shape[1:] == blank.shape:
                setattr(self, name, blank.new_empty(saved.shape))
        super()._load_from_state_dict(state, prefix, *args)


class JoinedMemory(EpisodicMemory):
    """The memories of several models as one. They recall and keep their rows themselves.

    Args:
      memories: The models' memories by name. They stay modules of the models.
    """

    def __init__(self, memories: Mapping[str, EpisodicMemory]):
        super().__init__()
        self.memories = (dict(memories),)  # in a tuple, so that they are no submodules of this
        self.names = tuple(
            f"{key}.{name}" for key, memory in memories.items() for name in memory.names
        )

    @property
    def latest(self) -> Rows:
        """The rows of all after the last forward pass."""
        return {
            f"{key}.{name}": row
            for key, memory in self.memories[0].items()
            for name, row in memory.latest.items()
        }

    @latest.setter
    def latest(self, rows: Rows) -> None:
        assert not rows

    def write(self, trajectory: Trajectory) -> None:
        for memory in self.memories[0].values():
            memory.write(trajectory)

    @contextmanager
    def lending(self, rows: Rows) -> Iterator[None]:
        with ExitStack() as stack:
            for key, memory in self.memories[0].items():
                own = {name: rows[f"{key}.{name}"] for name in memory.names}
                stack.enter_context(memory.lending(own))
            yield

    def blank_rows(self, batch: int) -> Rows:
        return {
            f"{key}.{name}": row
            for key, memory in self.memories[0].items()
            for name, row in memory.blank_rows(batch).items()
        }

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """The rows are loaded with the models."""


def steps_of(trajectory: Trajectory) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each time t from 0 to T, where obs[t] opens an episode, and where it is not yet in memory.

    obs[0] goes on from the trajectory before, so it is in memory already unless it opens. Padding
    neither opens an episode nor is it remembered.

    Returns:
      t, bool [B] and bool [B].
    """
    for t, opens in enumerate(trajectory.first):
        new = torch.ones_like(opens) if t else opens
        if trajectory.padding is not None:
            there = ~trajectory.padding[t]
            opens, new = opens & there, new & there
        yield t, opens, new


class EpisodicRing(EpisodicMemory):
    """The last entries of an episode.

    Args:
      size: M, entries that are remembered. The oldest are forgotten.
      shape: Shape of an entry.
      dtype: Its type. None: that of weights.
    """

    def __init__(self, size: int, shape: tuple[int, ...], dtype: torch.dtype | None = None):
        entries = torch.zeros(size, *shape, dtype=dtype)
        super().__init__({"entries": entries, "count": torch.zeros((), dtype=torch.int64)})

    def clear(self, rows: Rows, opens: Tensor) -> None:
        """Forget the entries, in place, where an episode opens: `opens` is bool [B]."""
        rows["count"] *= ~opens

    def filled(self, rows: Rows) -> Tensor:
        """bool [B, M]: which places hold an entry."""
        entries, count = rows["entries"], rows["count"]
        return torch.arange(entries.shape[1], device=count.device) < count[:, None]

    def insert(self, rows: Rows, entry: Tensor, where: Tensor) -> None:
        """Insert an entry [B, ...], in place, `where` bool [B]."""
        entries, count = rows["entries"], rows["count"]
        at = torch.arange(len(count), device=count.device), count % entries.shape[1]
        mask = where.view(-1, *[1] * (entry.dim() - 1))
        entries[at] = torch.where(mask, entry.to(entries.dtype), entries[at])
        count += where


class EpisodicVisits(EpisodicRing):
    """How often an episode has seen exactly this observation.

    Args:
      size: Observations per episode that are remembered. The oldest are forgotten.
      numbers: Numbers per observation.
      seed: Seed of the keys.
    """

    weights: Tensor

    def __init__(self, size: int, numbers: int, seed: int):
        super().__init__(size, (), torch.int64)
        random = torch.Generator().manual_seed(seed)
        weights = torch.randint(-(2**62), 2**62, (numbers,), generator=random)
        self.register_buffer("weights", 2 * weights + 1)

    def keys(self, obs: Tensor) -> Tensor:
        """A number per observation of obs [T, B, ...]: int64 [T, B].

        Different observations have the same key by chance only, about once in 2^64.
        """
        flat = obs.reshape(*obs.shape[:2], -1)
        if flat.dtype.is_floating_point:
            flat = (flat.float() + 0.0).view(torch.int32)  # + 0.0: there is one zero
        bits = flat.long()
        # the low bits of simple floats are all 0, and those of a product would be, too
        return ((bits ^ (bits >> 11) ^ (bits >> 23)) * self.weights).sum(-1)

    @torch.no_grad()
    def forward(self, trajectory: Trajectory) -> Tensor:
        """Visits of obs[t] in its episode so far, this one included: int64 [T+1, B]."""
        keys, rows, visits = self.keys(trajectory.obs), self.recall(trajectory), []
        for t, opens, new in steps_of(trajectory):
            self.clear(rows, opens)
            earlier = ((rows["entries"] == keys[t][:, None]) & self.filled(rows)).sum(1)
            visits.append(earlier + new)
            self.insert(rows, keys[t], new)
        self.keep(trajectory, rows)
        return torch.stack(visits)
