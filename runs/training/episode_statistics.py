"""Statistics of episodes, pay, places and noise. Only real steps are counted, on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterwit.agents.metrics import mean_of_each
from afterwit.envs.arrays import Array
from afterwit.envs.infos import ROOMS
from afterwit.envs.make import EnvConfig, make_env
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvSpec
from afterwit.world_models.trajectory import Trajectory

NUM_WINDOWS = 10  # a run's maps are kept by tenth
# for measuring the uniform policy, whatever the run has: a tenth of a second
UNIFORM_ENVS, UNIFORM_STEPS = 64, 1000


class Statistics:
    """Sums since the last `pop`, episodes in progress, and maps by tenth of the run.

    The environment declares what `info` holds (envs/infos.py). These entries are used:
      trackers [T, B, n]: reached in the episode; and when the run first reached each.
      room, cell [T, B]: counted are the different ones in the episode and in the whole run.
      noise_on, block_in_view [T, B]: their share of time and of pay.
    Steps on which `room` changes are counted too, except for the first step of an unroll, for which
    this is unknown.

    Args:
      spec: of all environments of the run.
      total_steps: agent steps of the whole run, for the maps.
      noise_share: the share of time that a uniform policy spends on the action, or at the place,
        that makes noise. None if noise cannot be sought.
      extrinsic: the agent is also paid the environment's own reward, so that `score` is the return.
    """

    def __init__(
        self,
        spec: EnvSpec,
        total_steps: int,
        noise_share: float | None = None,
        extrinsic: bool = False,
    ):
        batch = spec.num_envs
        self.total_steps = total_steps
        self.noise_action = spec.semantics.get("noise_action")
        self.noise_share, self.extrinsic = noise_share, extrinsic
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
        # agent step, over all environments, of the run's first reach of each tracker; 0: none yet,
        # -1: unknown
        self.first_reach: Array = np.zeros(0, np.int64)
        height, width = spec.semantics.get("map", (0, 0))
        cells = spec.semantics.get("cells", height * width)
        places = {"room": ROOMS} | ({"cell": cells} if cells else {})
        # within the episode
        self.seen = {kind: np.zeros((batch, number), bool) for kind, number in places.items()}
        # ever, by any environment
        self.explored = {kind: np.zeros(number, bool) for kind, number in places.items()}
        # sum and number over the episodes since the last call of `score`
        self.score_sum, self.score_count = 0.0, 0
        self.visits = np.zeros((NUM_WINDOWS, height * width), np.int64)
        self.pay = np.zeros((NUM_WINDOWS, height * width))
        self._clear()

    def _clear(self) -> None:
        self.episodes: list[tuple[int, dict[str, float]]] = []  # environment, numbers
        self.time: dict[str, float] = {}
        self.paid: dict[str, float] = {}
        # sums of the bonus, below zero too: over steps with noise, over all, and of its square
        self.earned = {"noise": 0.0, "steps": 0.0, "squares": 0.0}

    def add(
        self,
        trajectory: Trajectory,
        bonus: Tensor,
        agent_steps: int,
        environments: Array | None = None,
    ) -> None:
        """Count T steps of B environments.

        Args:
          trajectory: the steps.
          bonus: [T, B], the intrinsic reward that was paid.
          agent_steps: done before these steps.
          environments: int64 [B], their numbers among the spec's. Unset: all, in order.
        """
        envs = np.arange(len(self.first_reward)) if environments is None else environments
        real, reward = trajectory.real.numpy(), trajectory.reward.numpy()
        signed = bonus.cpu().numpy()
        paid = np.maximum(signed, 0)  # surprises below zero are no pay that could be shared
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
        # Unknown for the first step of an unroll: info describes where a step led.
        if "room" in info:
            moved = np.zeros_like(real)
            moved[1:] = real[1:] & (info["room"][1:] != info["room"][:-1])
            self._count("room_change", moved, paid)
        if "noise_on" in info:
            blocks = info.get("block_in_view", False)
            noisy = info["noise_on"] | (blocks & self.random_blocks)
            self._count("noise", real & noisy, paid)
            for name, values in (
                ("noise", signed[real & noisy]),
                ("steps", signed[real]),
                ("squares", np.square(signed[real])),
            ):
                self.earned[name] += float(values.sum())
        if "cell" in info and self.visits.shape[1]:
            window = min(NUM_WINDOWS - 1, agent_steps * NUM_WINDOWS // self.total_steps)
            number = self.visits.shape[1]
            self.visits[window] += np.bincount(info["cell"][real], minlength=number)
            self.pay[window] += np.bincount(
                info["cell"][real], weights=paid[real], minlength=number
            )
        if "trackers" in info:
            self._reach(info["trackers"] & real[..., None], agent_steps)
        for t in range(len(real)):
            self._advance(
                envs,
                real[t],
                reward[t],
                signed[t],
                {name: value[t] for name, value in info.items()},
            )

    def _count(self, name: str, mask: Array, paid: Array) -> None:
        self.time[name] = self.time.get(name, 0) + int(mask.sum())
        self.paid[name] = self.paid.get(name, 0) + float(paid[mask].sum())

    def _reach(self, reached: Array, agent_steps: int) -> None:
        """Note which trackers the run reached for the first time. `reached` is bool [T, B, n]."""
        if not len(self.first_reach):
            self.first_reach = np.zeros(reached.shape[-1], np.int64)
        ever = reached.any(1)  # [T, n]
        new = ever.any(0) & (self.first_reach == 0)
        step = agent_steps + (ever.argmax(0) + 1) * reached.shape[1]
        self.first_reach = np.where(new, step, self.first_reach)

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
        """Count the episode of environment `env`, which resets.

        A reset before the first step only opens an episode.
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
            self.score_sum += self._achievement(env, episode)
            self.score_count += 1
        for value in (*self.running.values(), *self.seen.values(), self.first_reward):
            value[env] = 0

    def _achievement(self, env: int, episode: Mapping[str, float]) -> float:
        if self.trackers.shape[1]:
            return float(self.trackers[env].mean())
        measures = ("return",) if self.extrinsic else ("cells", "rooms", "return")
        return next(episode[name] for name in measures if name in episode)

    def pop(self) -> dict[str, float]:
        """Return means over the episodes, and shares of time and pay, since the last call."""
        result: dict[str, float] = {"episode/count": len(self.episodes)}
        means = mean_of_each(episode for _, episode in self.episodes)
        result |= {f"{section(name)}/{name}": value for name, value in means.items()}
        result |= {
            f"explored/{kind}s": float(ever.sum())
            for kind, ever in self.explored.items()
            if ever.any()
        }
        result |= {
            f"first/R{index + 1}": float(step)
            for index, step in enumerate(self.first_reach)
            if step > 0
        }
        steps, paid = self.time.get("steps", 0), self.paid.get("steps", 0.0)
        for name in self.time:
            if name != "steps" and steps:
                result[f"share_of_time/{name}"] = self.time[name] / steps
                if paid > 0:
                    result[f"share_of_pay/{name}"] = self.paid[name] / paid
        if paid > 0 and self.time.get("noise"):
            result["noise/share"] = result["share_of_pay/noise"] / result["share_of_time/noise"]
        noise = self.time.get("noise", 0)
        if 0 < noise < steps and self.earned["squares"] > 0:
            others = (self.earned["steps"] - self.earned["noise"]) / (steps - noise)
            size = sqrt(self.earned["squares"] / steps)
            result["noise/gain"] = (self.earned["noise"] / noise - others) / size
        sought = result.get("share_of_time/noise_action", result.get("share_of_time/noise"))
        if self.noise_share and sought is not None:
            result["noise/seeking"] = sought / self.noise_share
        self._clear()
        return result

    def score(self) -> float | None:
        """Return the mean score of the episodes since the last score.

        An episode's score is the share of trackers reached, if the world has them. Otherwise it is
        the cells or rooms seen, if they are known and curiosity alone is paid. Otherwise it is the
        return. While there are fewer episodes than environments, the result is None, and the
        episodes count for the next score.
        """
        if self.score_count < len(self.running["return"]):
            return None
        score, self.score_sum, self.score_count = self.score_sum / self.score_count, 0.0, 0
        return score

    def abandon_episodes(self, environments: Array) -> None:
        """Forget these environments' episodes in progress."""
        for value in (
            *self.running.values(),
            *self.seen.values(),
            self.trackers,
            self.first_reward,
        ):
            value[environments] = 0

    def state(self) -> dict[str, Any]:
        """Return episodes in progress, maps and sums, as tensors and plain values."""
        arrays = {
            **self.running,
            "trackers": self.trackers,
            **{f"{kind}s": np.packbits(seen, -1) for kind, seen in self.seen.items()},
            **{f"explored_{kind}s": np.packbits(ever) for kind, ever in self.explored.items()},
            "first_reward": self.first_reward,
            "first_reach": self.first_reach,
            "visits": self.visits,
            "pay": self.pay,
        }
        return {
            "arrays": {name: torch.from_numpy(value.copy()) for name, value in arrays.items()},
            "episodes": self.episodes,
            "time": self.time,
            "paid": self.paid,
            "earned": self.earned,
            "achieved": (self.score_sum, self.score_count),
            "total_steps": self.total_steps,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        If it is of other environments, episodes in progress are forgotten.
        """
        arrays = {name: value.numpy().copy() for name, value in state["arrays"].items()}
        # Checkpoints of November 2026 lack some of these. What was explored then counts from the
        # resumption on.
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
        # Checkpoints of November 2026 lack this: what was reached before them is unknown.
        self.first_reach = arrays.get(
            "first_reach", np.full(arrays["trackers"].shape[1], -1, np.int64)
        )
        # Checkpoints of November 2026 lack this. The run may now be longer than planned before.
        planned = state.get("total_steps", self.total_steps)
        self.visits, self.pay = (
            moved_windows(arrays[name], planned, self.total_steps) for name in ("visits", "pay")
        )
        if self.visits.shape[1]:
            self.explored["cell"] = np.asarray(self.visits.any(0))
        self.episodes, self.time, self.paid = state["episodes"], state["time"], state["paid"]
        # Checkpoints of November 2026 lack this: the bonus counts from the resumption on.
        self.earned = state.get("earned", self.earned)
        # Checkpoints of format 1 lack this.
        self.score_sum, self.score_count = state.get("achieved", (0.0, 0))


def moved_windows(maps: Array, before: int, now: int) -> Array:
    """Return maps [NUM_WINDOWS, cells] by tenths of `before` steps by tenths of `now` steps.

    A tenth goes as a whole to where its middle lies.
    """
    middles = (2 * np.arange(NUM_WINDOWS) + 1) * before // 2
    result = np.zeros_like(maps)
    np.add.at(result, np.minimum(NUM_WINDOWS - 1, middles // now), maps)
    return result


def unpacked(bits: Array | None, unknown: Array) -> Array:
    """Return bools from packbits' output or from bools.

    Args:
      bits: the packed bools, or None.
      unknown: has the shape of the result, and is the result if `bits` is None.
    """
    if bits is None or bits.dtype == np.bool_:
        return unknown if bits is None else bits
    return np.unpackbits(bits, -1, count=unknown.shape[-1]).astype(bool)


def uniform_noise_share(config: EnvConfig, spec: EnvSpec) -> float | None:
    """Return the share of time that a uniform policy spends on what makes noise.

    That is the action that makes noise, or places with a randomly moving block in view. None if
    noise cannot be sought: there is none, or it comes everywhere and whatever the agent does.
    """
    if spec.semantics.get("noise_action") is not None:
        return 1 / spec.num_actions
    if not spec.semantics.get("random_blocks"):
        return None
    return time_near_blocks(replace(config, num_envs=UNIFORM_ENVS))


@cache
def time_near_blocks(config: EnvConfig) -> float:
    """Return the share of time that a uniform policy has a block in view."""
    env = make_env(config, stream(0, "indifferent"))
    draw = np.random.default_rng(stream(0, "indifferent actions"))
    env.reset()
    near = steps = 0
    for _ in range(UNIFORM_STEPS):
        step = env.step(draw.integers(0, env.spec.num_actions, env.spec.num_envs))
        near += int(step.info["block_in_view"][~step.first].sum())
        steps += int((~step.first).sum())
    env.close()
    return near / steps


def section(name: str) -> str:
    """Return the log section of an episode's number: `reached` for trackers, else `episode`."""
    return "reached" if name.startswith("R") and name[1:].isdigit() else "episode"
