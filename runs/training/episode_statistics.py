"""What happened and what was paid: episodes, trackers, places, noise. Counted on the host, over
real steps only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.envs.arrays import Array
from afterwit.envs.infos import ROOMS
from afterwit.envs.make import EnvConfig, make_env
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvSpec
from afterwit.world_models.trajectory import Trajectory

NUM_WINDOWS = 10  # a run's maps are kept by tenth
# of the uniform policy: a tenth of a second, however many a run has
INDIFFERENT_ENVS, INDIFFERENT_STEPS = 64, 1000


class Statistics:
    """Running sums since the last `pop`, episodes in progress, and maps by tenth of the run.

    It reads of `info`, which holds what the environment declares (envs/infos.py): `trackers`
    [T, B, n] per episode; `room` and `cell` [T, B], how many different ones each episode, and the
    run so far (`explored`), has seen; as shares of time and of pay `noise_on`, `block_in_view`, and
    the steps on which `room` changes (T - 1 of T steps: an unroll's first tells nothing of it);
    `cell` for the maps, where the world has one.

    Where the agent can seek noise, by an action that makes it or a place that has it, `indifferent`
    is that action's or place's share of time for a uniform policy. `extrinsic`: the agent is paid
    the environment's own reward, too, so that `score` goes by it.
    """

    def __init__(
        self,
        spec: EnvSpec,
        total_steps: int,
        indifferent: float | None = None,
        extrinsic: bool = False,
    ):
        batch = spec.num_envs
        self.total_steps = total_steps
        self.noise_action = spec.semantics.get("noise_action")
        self.indifferent, self.extrinsic = indifferent, extrinsic
        names = [name.lower().replace("-", "") for name in spec.action_names]
        self.noop = names.index("noop") if "noop" in names else None
        self.random_blocks = bool(spec.semantics.get("random_blocks"))
        self.running = {
            "return": np.zeros(batch),
            "length": np.zeros(batch, np.int64),
            "bonus": np.zeros(batch),
        }
        # agent step of the episode's first positive reward; 0: none yet
        self.first_reward = np.zeros(batch, np.int64)
        self.trackers: Array = np.zeros((batch, 0), bool)
        height, width = spec.semantics.get("map", (0, 0))
        cells = spec.semantics.get("cells", height * width)
        places = {"room": ROOMS} | ({"cell": cells} if cells else {})
        # in the episode
        self.seen = {kind: np.zeros((batch, number), bool) for kind, number in places.items()}
        # ever, by any environment
        self.explored = {kind: np.zeros(number, bool) for kind, number in places.items()}
        # sum and number of the episodes that `score` has not taken yet
        self.achieved, self.achieving = 0.0, 0
        self.visits = np.zeros((NUM_WINDOWS, height * width), np.int64)
        self.pay = np.zeros((NUM_WINDOWS, height * width))
        self._clear()

    def _clear(self) -> None:
        self.episodes: list[tuple[int, dict[str, float]]] = []  # environment, numbers
        self.time: dict[str, float] = {}
        self.paid: dict[str, float] = {}

    def add(
        self,
        trajectory: Trajectory,
        bonus: Tensor,
        agent_steps: int,
        environments: Array | None = None,
    ) -> None:
        """Count T steps of B environments and the bonus [T, B] they were paid; `agent_steps` done
        before them.

        `environments`, int64 [B]: which of the spec's they are. Unset: all, in order.
        """
        envs = np.arange(len(self.first_reward)) if environments is None else environments
        real, reward = trajectory.real.numpy(), trajectory.reward.numpy()
        paid = bonus.cpu().numpy()
        info = {name: value.numpy() for name, value in trajectory.info.items()}
        self._count("steps", real, paid)
        if self.noop is not None:
            self._count("noop", real & (trajectory.action.numpy() == self.noop), paid)
        if self.noise_action is not None:
            self._count(
                "noise_action", real & (trajectory.action.numpy() == self.noise_action), paid
            )
        for name in ("noise_on", "block_in_view"):
            if name in info:
                self._count(name, real & info[name], paid)
        # of an unroll's first step it is not known, as info tells where the step led
        if "room" in info:
            moved = np.zeros_like(real)
            moved[1:] = real[1:] & (info["room"][1:] != info["room"][:-1])
            self._count("room_change", moved, paid)
        if "noise_on" in info:
            blocks = (
                info["block_in_view"] & self.random_blocks if "block_in_view" in info else False
            )
            self._count("noise", real & (info["noise_on"] | blocks), paid)
        if "cell" in info and self.visits.shape[1]:
            window = min(NUM_WINDOWS - 1, agent_steps * NUM_WINDOWS // self.total_steps)
            number = self.visits.shape[1]
            self.visits[window] += np.bincount(info["cell"][real], minlength=number)
            self.pay[window] += np.bincount(
                info["cell"][real], weights=paid[real], minlength=number
            )
        for t in range(len(real)):
            self._advance(
                envs, real[t], reward[t], paid[t], {name: value[t] for name, value in info.items()}
            )

    def _count(self, name: str, mask: Array, paid: Array) -> None:
        self.time[name] = self.time.get(name, 0) + int(mask.sum())
        self.paid[name] = self.paid.get(name, 0) + float(paid[mask].sum())

    def _advance(
        self, envs: Array, real: Array, reward: Array, paid: Array, info: dict[str, Array]
    ) -> None:
        for env in envs[~real].tolist():
            self._finish(env)
        self.running["return"][envs] += reward * real
        self.running["bonus"][envs] += paid * real
        self.running["length"][envs] += real
        earns = real & (reward > 0) & (self.first_reward[envs] == 0)
        self.first_reward[envs] = np.where(
            earns, self.running["length"][envs], self.first_reward[envs]
        )
        if "trackers" in info:
            if not self.trackers.shape[1]:
                self.trackers = np.zeros((len(self.trackers), info["trackers"].shape[1]), bool)
            self.trackers[envs] = np.where(real[:, None], info["trackers"], False)
        for kind in self.seen.keys() & info.keys():
            self.seen[kind][envs[real], info[kind][real]] = True
            self.explored[kind][info[kind][real]] = True

    def _finish(self, env: int) -> None:
        """Environment `env` resets: its episode is over. (A reset before the first step opens, but
        ends none.)
        """
        if self.running["length"][env]:
            episode = {name: float(value[env]) for name, value in self.running.items()}
            episode |= {
                f"R{index + 1}": float(reached) for index, reached in enumerate(self.trackers[env])
            }
            episode |= {
                f"{kind}s": float(seen[env].sum())
                for kind, seen in self.seen.items()
                if seen[env].any()
            }
            if self.first_reward[env]:
                episode["first_reward"] = float(self.first_reward[env])
            self.episodes.append((env, episode))
            self.achieved += self._achievement(env, episode)
            self.achieving += 1
        for value in (*self.running.values(), *self.seen.values(), self.first_reward):
            value[env] = 0

    def _achievement(self, env: int, episode: Mapping[str, float]) -> float:
        if self.trackers.shape[1]:
            return float(self.trackers[env].mean())
        measures = ("return",) if self.extrinsic else ("cells", "rooms", "return")
        return next(episode[name] for name in measures if name in episode)

    def pop(self) -> dict[str, float]:
        """Means over the episodes finished, and shares of time and pay, since the last call."""
        result: dict[str, float] = {"episode/count": len(self.episodes)}
        for name in dict.fromkeys(name for _, episode in self.episodes for name in episode):
            result[f"{section(name)}/{name}"] = float(
                np.mean([episode[name] for _, episode in self.episodes if name in episode])
            )
        result |= {
            f"explored/{kind}s": float(ever.sum())
            for kind, ever in self.explored.items()
            if ever.any()
        }
        steps, paid = self.time.get("steps", 0), self.paid.get("steps", 0.0)
        for name in self.time:
            if name != "steps" and steps:
                result[f"share_of_time/{name}"] = self.time[name] / steps
                if paid > 0:
                    result[f"share_of_pay/{name}"] = self.paid[name] / paid
        if paid > 0 and self.time.get("noise"):
            result["noise/share"] = result["share_of_pay/noise"] / result["share_of_time/noise"]
        sought = result.get("share_of_time/noise_action", result.get("share_of_time/noise"))
        if self.indifferent and sought is not None:
            result["noise/seeking"] = sought / self.indifferent
        self._clear()
        return result

    def score(self) -> float | None:
        """Mean over the episodes since the last score: share of trackers reached, where the world
        has them; else, of an agent that is paid by curiosity alone, cells or rooms seen, where they
        are known; else return. None, and the episodes count for the next one, while they are fewer
        than the environments: luck, mostly."""
        if self.achieving < len(self.running["return"]):
            return None
        score, self.achieved, self.achieving = self.achieved / self.achieving, 0.0, 0
        return score

    def abandon_episodes(self, environments: Array) -> None:
        """Forget these environments' episodes in progress: they are gone."""
        for value in (
            *self.running.values(),
            *self.seen.values(),
            self.trackers,
            self.first_reward,
        ):
            value[environments] = 0

    def state(self) -> dict[str, Any]:
        """Episodes in progress, maps and sums, as tensors and plain values."""
        arrays = {
            **self.running,
            "trackers": self.trackers,
            **{f"{kind}s": np.packbits(seen, -1) for kind, seen in self.seen.items()},
            **{f"explored_{kind}s": np.packbits(ever) for kind, ever in self.explored.items()},
            "first_reward": self.first_reward,
            "visits": self.visits,
            "pay": self.pay,
        }
        return {
            "arrays": {name: torch.from_numpy(value.copy()) for name, value in arrays.items()},
            "episodes": self.episodes,
            "time": self.time,
            "paid": self.paid,
            "achieved": (self.achieved, self.achieving),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Where it was of other environments, episodes in progress are
        forgotten.
        """
        arrays = {name: value.numpy().copy() for name, value in state["arrays"].items()}
        # Checkpoints of November 2026 lack some: what a game's agent has explored counts from where
        # such a run goes on.
        self.explored = {
            kind: unpacked(arrays.get(f"explored_{kind}s"), ever)
            for kind, ever in self.explored.items()
        }
        if len(arrays["rooms"]) == len(self.first_reward):
            self.running = {name: arrays[name] for name in self.running}
            self.trackers = arrays["trackers"]
            self.seen = {
                kind: unpacked(arrays.get(f"{kind}s"), seen) for kind, seen in self.seen.items()
            }
            self.first_reward = arrays.get("first_reward", self.first_reward)
        self.visits, self.pay = arrays["visits"], arrays["pay"]
        if self.visits.shape[1]:
            self.explored["cell"] = np.asarray(self.visits.any(0))
        self.episodes, self.time, self.paid = state["episodes"], state["time"], state["paid"]
        # which checkpoints of format 1 lack
        self.achieved, self.achieving = state.get("achieved", (0.0, 0))


def unpacked(bits: Array | None, unknown: Array) -> Array:
    """Bools of `unknown`'s shape from what packbits made of them, or from bools; `unknown` itself
    where there are none.
    """
    if bits is None or bits.dtype == np.bool_:
        return unknown if bits is None else bits
    return np.unpackbits(bits, -1, count=unknown.shape[-1]).astype(bool)


def indifferent(config: EnvConfig, spec: EnvSpec) -> float | None:
    """The share of time that a uniform policy spends on the action that makes noise, or in view of
    blocks that move at random.

    None where noise cannot be sought: there is none, or it comes alike everywhere and whatever the
    agent does.
    """
    if spec.semantics.get("noise_action") is not None:
        return 1 / spec.num_actions
    if not spec.semantics.get("random_blocks"):
        return None
    return time_near_blocks(replace(config, num_envs=INDIFFERENT_ENVS))


@cache
def time_near_blocks(config: EnvConfig) -> float:
    env = make_env(config, stream(0, "indifferent"))
    draw = np.random.default_rng(stream(0, "indifferent actions"))
    env.reset()
    near = steps = 0
    for _ in range(INDIFFERENT_STEPS):
        step = env.step(draw.integers(0, env.spec.num_actions, env.spec.num_envs))
        near, steps = (
            near + int(step.info["block_in_view"][~step.first].sum()),
            steps + int((~step.first).sum()),
        )
    env.close()
    return near / steps


def section(name: str) -> str:
    """The log section of an episode's number: trackers R1.. are `reached`, all else is
    `episode`.
    """
    return "reached" if name.startswith("R") and name[1:].isdigit() else "episode"
