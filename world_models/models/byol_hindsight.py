"""BYOL-Hindsight (Jarrett et al., ICML 2023): explain the unforeseeable in hindsight, pay the rest.

With s = (b_{t,i-1}, a_{t+i-1}) and w = target(o_{t+i}), for i = 1 .. K:

    fore    = predictor(b_{t,i})                        the outcome as foreseen, without z
    z       = generator(w - fore)                       latent for what was not foreseen
    outcome = fore + reconstructor(b_{t,i}, z)          predicted from the past and z
    rec     = || outcome - sg(w) ||^2
    nats    = KL( z || N(0, 1) )                        what z tells about anything, at most
    reward  = rec                                       summed over p + q = t + 1

    generator and reconstructor minimise   rec + latent_price * mean || fore - sg(w) ||^2 * nats
    encoder and RNNs minimise              rec + foresight_weight * || fore - sg(w) ||^2
                                           + pull_weight * || sg(outcome) - online(o_{t+1}) ||^2

That is our default, with pull_weight 0. `fore` carries no gradient into z and outcome. As published
(`BYOLHindsightConfig.published()`), there is no `fore`, and a critic g keeps z from telling s:

    z       = generator(noise, s, w)
    outcome = reconstructor(b_{t,i}, z)
    inv     = log[ exp g(s, z) / mean_k exp g(s, z_k) ]    what z reveals about s; at most log n
    reward  = rec / lambda + inv
    generator minimises   rec + lambda * inv;   critic g maximises   inv

Why not as published: z then also tells what could have been foreseen (place and action), because
that too makes rec small. Then a new outcome of familiar looks is explained away and not paid. With
the innovation w - fore, z starts from what is left over; where nothing is left over it is noise, so
the reconstructor learns to ignore it there. What it has learnt to ignore cannot explain a surprise.
docs/results/method.md has the measurements.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.actions import action_numbers, with_action
from afterwit.world_models.base import TargetEncoder, WorldModel
from afterwit.world_models.bounded import within
from afterwit.world_models.instruments import effective_rank, explained_variance
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.models.hindsight_config import BYOLHindsightConfig
from afterwit.world_models.models.hindsight_critic import Critic
from afterwit.world_models.models.hindsight_invariance import Invariance
from afterwit.world_models.open_loop import (
    OpenLoop,
    Starts,
    TransitionReward,
    draw_starts,
    future,
    pair_mask,
    pair_mean,
    predicted,
)
from afterwit.world_models.predictors import shrink
from afterwit.world_models.torso import Torso, mlp
from afterwit.world_models.trajectory import Trajectory, masked_mean

LOG_DEVIATION = (-6.0, 2.0)  # bounds of the logarithm of a Gaussian z's deviation


class BYOLHindsight(WorldModel):
    """BYOL-Hindsight: prediction error after the unforeseeable part has been explained.

    Args:
      config: The settings.
      torso: The encoder and recurrent network that the model reads.
      spec: The environments.
      seed: Seed of the model's random draws.
    """

    Config = BYOLHindsightConfig
    continuous_actions = True
    predicts = "the same, given a latent z of what was not foreseen"
    pays = "the error that is left, less its expectation"
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
        self.alone = config.control == "autoencoder"  # the reconstructor sees z alone
        self.adds = config.generator_reads == "innovation" and not self.alone  # to the foresight
        self.gaussian = config.purity == "price"
        self.target = TargetEncoder(
            torso.encoder, sizes.embedding, config.target_decay, config.standardise_decay
        )
        self.open_loop = OpenLoop(
            sizes.belief, sizes.action_embedding, spec.num_actions, config.horizon, spec.continuous
        )
        self.reward = TransitionReward(config.horizon, config.reward_edges)
        self.invariance_reward = (
            TransitionReward(config.horizon, "sum") if config.invariance_in_reward else None
        )
        read = sizes.embedding + (0 if self.adds or self.alone else state)
        self.generator = mlp(
            read if self.gaussian else read + config.noise,
            config.hidden,
            2 * config.latent if self.gaussian else config.latent,
            config.layers,
        )
        self.reconstructor = mlp(
            config.latent + (0 if self.alone else sizes.belief),
            config.hidden,
            sizes.embedding,
            config.layers,
        )
        self.predictor = (
            config.make_predictor(sizes.belief, config.hidden, sizes.embedding)
            if config.foresight_weight
            else None
        )
        self.invariance: Invariance | None = None
        if not self.gaussian:
            self.critic = Critic(
                config.critic,
                state,
                config.latent,
                config.hidden,
                config.critic_embedding,
                config.critic_scale,
            )
            self.invariance = Invariance(config, self.critic, self.random)

    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Loss and raw intrinsic reward (see WorldModel.forward and the equations above)."""
        config = self.config
        length = len(trajectory.action)
        starts = draw_starts(length, config.stride, self.random)
        valid = pair_mask(trajectory.real, config.horizon, starts)  # [K, T or S, B]
        target, ahead, state = self.unroll(trajectory, beliefs, starts)
        foreseen = self.foresee(ahead, valid)
        latent, nats = self.generate(state, foreseen, target)
        outcome = self.reconstruct(ahead, latent, foreseen)
        reconstruction = self.target.error(outcome, target)
        loss = pair_mean(reconstruction, valid)
        metrics = {"reconstruction": loss.detach()}
        parts = {"reconstruction": self.reward(reconstruction, valid, starts)}
        if self.invariance is not None:
            invariance = self.invariance.of_batch(state, latent, valid, self.training)
            # The gradient is reversed on its way into z. The critic climbs in `after_step`.
            loss = loss - pair_mean(invariance, valid)
            metrics["invariance"] = pair_mean(invariance, valid).detach()
            parts["reconstruction"] = parts["reconstruction"] / config.invariance_weight
            if self.invariance_reward is not None:
                parts["invariance"] = self.invariance_reward(invariance, valid, starts)
        without_z = knows_nothing = self.target.ignorance(target[0], valid[0])
        if foreseen is not None:
            foresight = pair_mean(self.target.error(foreseen, target), valid)
            loss = loss + config.foresight_weight * foresight
            without_z = metrics["foresight"] = foresight.detach()
        if self.gaussian:  # a nat costs a share of the error without z
            told = pair_mean(nats, valid)
            loss = loss + config.latent_price * data_parallel.average(without_z) * told
            metrics["nats"] = told.detach()
        if config.pull_weight:
            seen = future(embeddings[1:], 1, length, starts)[0]
            pull = self.target.pull(seen, outcome[0], valid[0])
            loss = loss + config.pull_weight * pull
            metrics["pull"] = pull.detach()
        ignorance = config.horizon * knows_nothing
        return WorldModelOutput(
            loss,
            sum(parts.values(), torch.zeros_like(parts["reconstruction"])),
            parts,
            metrics,
            ignorance if self.gaussian else ignorance / config.invariance_weight,
            None if starts is None else predicted(valid, starts),
        )

    def inspect(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> dict[str, Tensor]:
        """What z holds, what it reveals, and whether the reconstructor uses it, one step ahead."""
        valid = pair_mask(trajectory.real, self.config.horizon)
        target, ahead, state = self.unroll(trajectory, beliefs)
        foreseen = self.foresee(ahead)
        latent, _ = self.generate(state, foreseen, target)
        guess = None if foreseen is None else foreseen[0]
        once, z = valid[0], latent[0]
        noise = torch.randn(z.shape, generator=self.random).to(z.device)
        known = {
            "action": (action_numbers(trajectory.action, self.num_actions).float(), once),
            "place": self.place(trajectory, beliefs),
        }
        probes = {
            f"leak/{name}_from_{source}": explained_variance(inputs, values, mask & once)
            for name, (values, mask) in known.items()
            for source, inputs in (("latent", z), ("noise", noise))
        }
        other = once & once.roll(1, 1)  # the step of the neighbouring environment happened too
        own, shuffled = (
            masked_mean(
                self.target.error(self.reconstruct(ahead[0], chosen, guess), target[0]), other
            )
            for chosen in (z, z.roll(1, 1))
        )
        readings = {
            "use/latent": shuffled / own,
            "rank/latent": effective_rank(z, once),
            "spread/target": self.target.spread(target[0], once),
        }
        if self.predictor is not None:
            readings |= self.predictor.readings()
        if self.invariance is not None:
            readings["leak/critic"] = self.invariance.share_of_most(state, latent, valid)
        return probes | readings

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

    def unroll(
        self, trajectory: Trajectory, beliefs: Tensor, starts: Starts | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, open-loop beliefs and s of all pairs, or of those that begin at `starts`.

        s carries no gradient: neither critic nor generator shapes the representation that they
        read.

        Returns:
          Targets [K, T, B, N], beliefs b_{t,i} [K, T, B, M] and s = (b_{t,i-1}, a_{t+i-1}) [K, T,
          B, M+A].
        """
        horizon, length = self.config.horizon, len(trajectory.action)
        loop = self.open_loop(beliefs, trajectory.action, starts)
        action = future(trajectory.action, horizon, length, starts)
        target = future(self.target(trajectory), horizon, length, starts)
        return target, loop[1:], with_action(loop[:-1].detach(), action, self.num_actions)

    def foresee(self, ahead: Tensor, valid: Tensor | None = None) -> Tensor | None:
        """The outcome's embedding [..., N] from b_{t,i} [..., M] alone. None: not learnt.

        A predictor that is set from statistics learns them from the pairs `valid`, bool [...].
        """
        return None if self.predictor is None else self.predictor(ahead, valid)

    def generate(
        self, state: Tensor, foreseen: Tensor | None, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw z for outcomes reached from s, with fresh noise.

        Args:
          state: s, float [..., B, M+A].
          foreseen: What `foresee` returned, float [..., B, N].
          target: Embeddings of the outcomes, float [..., B, N].

        Returns:
          z, float [..., B, Z], and its divergence from N(0, 1) in nats, float [..., B]. The
          divergence is 0 if z is not Gaussian.
        """
        if self.config.control == "noise":
            return self.draw(target, self.config.latent), torch.zeros_like(target[..., 0])
        if self.adds and foreseen is not None:
            seen = target - foreseen.detach()
        else:
            seen = target if self.alone else torch.cat([state, target], -1)
        if not self.gaussian:
            noise = self.draw(target, self.config.noise)
            latent = self.generator(torch.cat([noise, seen], -1))
            return latent, torch.zeros_like(target[..., 0])
        mean, log_deviation = self.generator(seen).chunk(2, -1)
        log_deviation = within(log_deviation, *LOG_DEVIATION)
        variance = (2 * log_deviation).exp()
        nats = (0.5 * (mean.square() + variance - 1) - log_deviation).sum(-1)
        noise = self.draw(target, self.config.latent)
        return mean + log_deviation.exp() * noise, nats

    def draw(self, target: Tensor, size: int) -> Tensor:
        """Fresh noise, float [..., B, size], for targets [..., B, N]: this learner's share."""
        *before, batch, _ = target.shape
        everyone = batch * data_parallel.num_learners()
        noise = torch.randn(*before, everyone, size, generator=self.random)
        return data_parallel.own_share(noise, -2).to(target.device, non_blocking=True)

    def reconstruct(self, ahead: Tensor, latent: Tensor, foreseen: Tensor | None) -> Tensor:
        """The outcome's embedding [..., N] from b_{t,i} [..., M], z [..., Z] and the foresight."""
        known = self.reconstructor(latent if self.alone else torch.cat([ahead, latent], -1))
        return known + foreseen.detach() if self.adds and foreseen is not None else known

    def after_step(self) -> None:
        shrink(self.target.online[0], self.config.weight_decay)
        if self.predictor is not None:
            shrink(self.predictor, self.config.weight_decay)
            self.predictor.after_step()
        self.target.update()
        if self.invariance is not None:
            self.invariance.learn()

    def get_extra_state(self) -> dict[str, Any]:
        own = {} if self.invariance is None else self.invariance.state_dict()
        return {"random": self.random.get_state(), **own}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.random.set_state(state["random"].cpu())
        if self.invariance is not None:
            self.invariance.load_state_dict(state)
