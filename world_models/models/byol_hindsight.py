"""BYOL-Hindsight (Jarrett et al., ICML 2023): explain the unforeseeable in hindsight, pay the rest.

With s = (b_{t,i-1}, a_{t+i-1}), for i = 1 .. K:

    z       = generator(noise, s, target(o_{t+i}))      latent for the unforeseeable part
    outcome = reconstructor(b_{t,i}, z)                 predicted from the past and z
    rec     = || outcome            - sg(target(o_{t+i})) ||^2
    fore    = || predictor(b_{t,i}) - sg(target(o_{t+i})) ||^2
    inv     = log[ exp g(s, z) / mean_k exp g(s, z_k) ]    what z reveals about s; at most log n
    reward  = rec / lambda           summed over p + q = t + 1
            = rec / lambda + inv     as published (invariance_in_reward)

    generator minimises           rec + lambda * inv
    encoder and RNNs minimise     rec + foresight_weight * fore
    critic g maximises            inv

`inv` is a contrastive estimate. `fore` is BYOL-Explore's error, used only as a loss (our addition;
not published). With z at hand, rec alone gives the encoder little reason to drop meaningless noise,
and z can hardly hold all of it.

The critic takes steps of its own after each learner step (our choice; not published). If it does
not keep up with the generator, z reveals the state.

Without inv the reward is a single error. The bonus is normalised, so it then does not depend on 1 /
lambda, and lambda acts only through the generator.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.base import TargetEncoder, WorldModel, WorldModelOutput
from afterwit.world_models.instruments import effective_rank, explained_variance
from afterwit.world_models.models.hindsight_config import BYOLHindsightConfig
from afterwit.world_models.models.hindsight_critic import (
    Critic,
    ReverseGradient,
    check_contrast,
    contrast,
)
from afterwit.world_models.open_loop import OpenLoop, TransitionReward, future, pair_mask, pair_mean
from afterwit.world_models.torso import Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean


class BYOLHindsight(WorldModel):
    """BYOL-Hindsight: prediction error after the unforeseeable part has been explained.

    Args:
      config: The settings.
      torso: The encoder and recurrent network that the model reads.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = BYOLHindsightConfig
    predicts = "the same, given a latent z of what nobody could foresee"
    pays = "the error that is left"
    source = (
        "Jarrett et al. (ICML 2023), Curiosity in Hindsight: Intrinsic Exploration in"
        " Stochastic Environments, arXiv 2211.10515"
    )
    deviations = (
        "lambda (invariance_weight) is 0.01; no value is published.",
        "The critic is a network with one hidden layer on (place, action, z); its form is not "
        "published.",
        "The critic has an Adam of its own, at the agent's rate, and steps after the others "
        "instead of with them.",
        "(place, action) carry no gradient into generator and critic; Jarrett et al. do not say.",
        "z and noise have 256 numbers, generator and reconstructor three hidden layers of "
        "512: those of re-implementations.",
    )

    def __init__(self, config: BYOLHindsightConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        self.config, self.num_actions = config, spec.num_actions
        self.map_width: int | None = spec.semantics["map"][1] if "map" in spec.semantics else None
        sizes = torso.config
        state = sizes.belief + spec.num_actions
        self.target = TargetEncoder(
            torso.encoder, sizes.embedding, config.target_decay, config.standardise_decay
        )
        self.open_loop = OpenLoop(
            sizes.belief, sizes.action_embedding, spec.num_actions, config.horizon
        )
        self.reward = TransitionReward(config.horizon, config.reward_edges)
        self.invariance_reward = (
            TransitionReward(config.horizon, "sum") if config.invariance_in_reward else None
        )
        self.generator = mlp(
            config.noise + state + sizes.embedding, config.hidden, config.latent, config.layers
        )
        self.reconstructor = mlp(
            sizes.belief + config.latent, config.hidden, sizes.embedding, config.layers
        )
        self.predictor = (
            mlp(sizes.belief, config.hidden, sizes.embedding, 1)
            if config.foresight_weight
            else None
        )
        self.critic = Critic(
            config.critic,
            state,
            config.latent,
            config.hidden,
            config.critic_embedding,
            config.critic_scale,
        )
        # the critic has gradients only in `step_critic`: no other loss trains it
        self.critic.requires_grad_(False)
        self.critic_optimiser = torch.optim.Adam(
            self.critic.parameters(), config.critic_rate, foreach=True
        )
        # s, z and valid of the last learner step
        self.critic_batch: tuple[Tensor, Tensor, Tensor] | None = None
        self.next_horizon = 0  # the horizon, minus 1, of the critic's next extra step

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        weight = self.config.invariance_weight
        valid = pair_mask(trajectory.real, self.config.horizon)  # [K, T, B]
        target, ahead, state = self.unroll(trajectory, beliefs)
        latent = self.generate(state, target)
        reconstruction = self.target.error(self.reconstruct(ahead, latent), target)
        all_state, all_latent, all_valid = self.gather_batch(state, latent, valid)
        reversed_latent = ReverseGradient.apply(all_latent, weight)
        invariance = self.invariance(all_state, reversed_latent, all_valid)
        invariance = data_parallel.own_share(invariance, 2)
        if self.training:
            self.critic_batch = all_state, all_latent.detach(), all_valid
        # The gradient of -inv is reversed and scaled on its way into z, so the generator minimises
        # lambda * inv. The critic maximises inv in `after_step`.
        loss = pair_mean(reconstruction, valid) - pair_mean(invariance, valid)
        parts = {"reconstruction": self.reward(reconstruction, valid) / weight}
        if self.invariance_reward is not None:
            parts["invariance"] = self.invariance_reward(invariance, valid)
        metrics = {
            "reconstruction": pair_mean(reconstruction, valid).detach(),
            "invariance": pair_mean(invariance, valid).detach(),
        }
        if self.predictor is not None:
            foresight = pair_mean(self.target.error(self.predictor(ahead), target), valid)
            loss = loss + self.config.foresight_weight * foresight
            metrics["foresight"] = foresight.detach()
        return WorldModelOutput(
            loss, sum(parts.values(), torch.zeros_like(reconstruction[0].detach())), parts, metrics
        )

    def gather_batch(
        self, state: Tensor, latent: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """s, z and valid of the whole batch, [K, T, B of all learners, ...].

        Each z is compared with those of all environments.
        """
        return (
            data_parallel.gather(state, 2),
            data_parallel.gather(latent, 2),
            data_parallel.gather(valid, 2),
        )

    def invariance(self, state: Tensor, latent: Tensor, valid: Tensor) -> Tensor:
        """The contrast of each pair [K, T, B] with the others of its group.

        By default a group holds the pairs of all environments at the same step.
        """
        group = self.group(valid)
        scores = self.critic(state.reshape(*group.shape, -1), latent.reshape(*group.shape, -1))
        return contrast(scores, group).view_as(valid)

    def group(self, valid: Tensor) -> Tensor:
        """Pairs [K, T, B] as [K, groups, n]: the groups within which each z is compared.

        Raises:
          ValueError: contrast_size does not divide the pairs.
        """
        _, length, batch = valid.shape
        check_contrast(self.config.contrast_size, length, batch)
        return valid.flatten(1).unflatten(1, (-1, self.config.contrast_size or batch))

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        """What z holds, what it reveals, and whether the reconstructor uses it, one step ahead."""
        valid = pair_mask(trajectory.real, self.config.horizon)
        target, ahead, state = self.unroll(trajectory, beliefs)
        latent = self.generate(state, target)
        all_pairs = self.gather_batch(state, latent, valid)
        all_valid = all_pairs[2]
        group = self.group(all_valid)
        group_size = group.sum(-1, keepdim=True).expand_as(group).reshape_as(all_valid)
        ceiling = torch.where(all_valid, group_size.clamp(min=1).log(), 0.0)
        leak = pair_mean(self.invariance(*all_pairs), all_valid) / pair_mean(ceiling, all_valid)
        once, z = valid[0], latent[0]
        noise = torch.randn(z.shape, generator=self.random).to(z.device)
        known = {
            "action": (F.one_hot(trajectory.action, self.num_actions).float(), once),
            "place": self.place(trajectory, beliefs),
        }
        probes = {
            f"leak/{name}_from_{source}": explained_variance(inputs, values, mask & once)
            for name, (values, mask) in known.items()
            for source, inputs in (("latent", z), ("noise", noise))
        }
        other = once & once.roll(1, 1)  # the step of the neighbouring environment happened too
        own, shuffled = (
            masked_mean(self.target.error(self.reconstruct(ahead[0], chosen), target[0]), other)
            for chosen in (z, z.roll(1, 1))
        )
        readings = {
            "use/latent": shuffled / own,
            "rank/latent": effective_rank(z, once),
            "spread/target": self.target.spread(target[0], once),
        }
        return {"leak/critic": leak, **probes, **readings}

    def place(self, trajectory: Trajectory, beliefs: Tensor) -> tuple[Tensor, Tensor]:
        """Where each action was chosen, and the steps for which that is known.

        In an environment of cells it is row and column, else the belief.

        Returns:
          float [T, B, ...] and bool [T, B].
        """
        if self.map_width is None or "cell" not in trajectory.info:
            return beliefs[:-1], trajectory.real
        # info describes the outcome, so the row before has the cell where the action was chosen
        cell = trajectory.info["cell"].to(beliefs.device).roll(1, 0)
        known = trajectory.real.clone()
        known[0] = False
        return torch.stack([cell // self.map_width, cell % self.map_width], -1).float(), known

    def unroll(self, trajectory: Trajectory, beliefs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, open-loop beliefs and s of all pairs.

        s carries no gradient: neither critic nor generator shapes the representation that they
        read.

        Returns:
          Targets [K, T, B, N], beliefs b_{t,i} [K, T, B, M] and s = (b_{t,i-1}, a_{t+i-1}) [K, T,
          B, M+A].
        """
        horizon, length = self.config.horizon, len(trajectory.action)
        loop = self.open_loop(beliefs, trajectory.action)
        action = F.one_hot(future(trajectory.action, horizon, length), self.num_actions).to(
            loop.dtype
        )
        target = future(self.target(trajectory), horizon, length)
        return target, loop[1:], torch.cat([loop[:-1].detach(), action], -1)

    def generate(self, state: Tensor, target: Tensor) -> Tensor:
        """Draw z for outcomes reached from s, with fresh noise.

        Args:
          state: s, float [..., B, M+A].
          target: Embeddings of the outcomes, float [..., B, N].

        Returns:
          z, float [..., B, Z].
        """
        *before, batch, _ = target.shape
        noise = torch.randn(
            *before, batch * data_parallel.num_learners(), self.config.noise, generator=self.random
        )
        noise = data_parallel.own_share(noise, -2).to(target.device, non_blocking=True)
        return self.generator(torch.cat([noise, state, target], -1))

    def reconstruct(self, ahead: Tensor, latent: Tensor) -> Tensor:
        """The outcome's embedding [..., N] from b_{t,i} [..., M] and z [..., Z]."""
        return self.reconstructor(torch.cat([ahead, latent], -1))

    def after_step(self) -> None:
        self.target.update()
        if self.critic_batch is not None:
            self.step_critic(*self.critic_batch)
            for _ in range(self.config.critic_steps - 1):
                self.step_critic(*self.shuffle_groups(*self.critic_batch))
        self.critic_batch = None

    def shuffle_groups(self, state: Tensor, latent: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """The pairs [1, T, B, ...] of the next of the K horizons, in random and so new groups.

        All K horizons would cost K times as much, and one has enough pairs.
        """
        k, self.next_horizon = self.next_horizon, (self.next_horizon + 1) % len(valid)
        order = torch.randperm(valid[0].numel(), generator=self.random).to(valid.device)
        return tuple(
            x[k : k + 1].flatten(1, 2)[:, order].view_as(x[k : k + 1])
            for x in (state, latent, valid)
        )

    def step_critic(self, state: Tensor, latent: Tensor, valid: Tensor) -> None:
        """One step of the critic that increases the invariance of the pairs [K, T, B].

        The pairs carry no gradient.
        """
        self.critic.requires_grad_(True)
        self.critic_optimiser.zero_grad(set_to_none=True)
        (-pair_mean(self.invariance(state, latent, valid), valid)).backward()
        self.critic_optimiser.step()
        self.critic.requires_grad_(False)

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "random": self.random.get_state(),
            "critic_optimiser": deepcopy(self.critic_optimiser.state_dict()),
            "turn": self.next_horizon,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.random.set_state(state["random"].cpu())
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.next_horizon = state.get("turn", 0)  # checkpoints of November 2026 do not have it
