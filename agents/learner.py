"""The learner: it takes a trajectory and makes one optimiser step on policy and world model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from afterwit.agents.learner_config import LearnerConfig
from afterwit.agents.old_checkpoints import translate_state
from afterwit.agents.policy import Policy
from afterwit.agents.popart import PopArt
from afterwit.agents.returns import continuing_returns, lambda_returns
from afterwit.agents.vmpo import TrustRegion, entropy, vmpo_loss
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.draws import draws_of
from afterwit.world_models.encoder_file import adopt_encoder
from afterwit.world_models.expected_error import head_groups
from afterwit.world_models.instruments import representation
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.objectives.micro_batches import in_parts
from afterwit.world_models.registry import make_world_model
from afterwit.world_models.regulariser import make_regulariser
from afterwit.world_models.reward_normaliser import RewardNormaliser
from afterwit.world_models.running_scale import RunningScale
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory, masked_mean


class TrainedValue(NamedTuple):
    """A value and what it is trained on."""

    value: Callable[[Tensor], Tensor]  # of beliefs [..., M], on PopArt's normalised scale
    popart: PopArt
    targets: Tensor  # [T, B], on the reward's own scale
    where: Tensor  # bool [T, B]: steps that it is trained on


class Learner(nn.Module):
    """Policy, world model, reward statistics and optimiser.

    Args:
      config: What is trained, on what reward, and how.
      spec: The environments.
      seed: Seed of the initial weights and of the world model's draws.
      device: Where to train.
    """

    def __init__(self, config: LearnerConfig, spec: EnvSpec, seed: int, device: torch.device):
        super().__init__()
        self.config, self.device = config, device
        curiosity = config.world_model
        with draws_of(seed, "weights"):
            self.policy = Policy(config.policy, config.torso, spec)
            self.own_torso = (
                None
                if config.shared_torso
                else Torso(config.torso, spec.observation_shape, spec.num_actions)
            )
            self.world_model = make_world_model(
                config.world_model,
                self.own_torso or self.policy.torso,
                spec,
                stream(seed, "world model"),
            )
            self.expected = curiosity.make_expected_error(config.torso.belief, spec)
        self.regulariser = make_regulariser(curiosity, stream(seed, "regulariser"))
        self.trust_region = TrustRegion(config.vmpo)
        self.intrinsic = RewardNormaliser(
            curiosity.prioritise, config.reward_decay, curiosity.absolute_zero
        )
        self.extrinsic = RunningScale(1 - config.policy.popart_step)
        self.to(device)
        self.trained = [p for p in self.parameters() if p.requires_grad]
        heads = head_groups(self, config.learning_rate)
        fast = {p for group in heads for p in group["params"]}
        own = set(self.world_model.parameters()) - fast
        groups = [
            {
                "params": [p for p in self.trained if p not in own | fast],
                "lr": config.learning_rate,
            },
            {
                "params": [p for p in self.trained if p in own],
                "lr": config.learning_rate * config.world_model_rate,
            },
            *heads,
        ]
        fused = device.type == "cuda"
        self.optimiser = torch.optim.Adam(
            groups, config.learning_rate, (config.adam_beta1, 0.999), foreach=not fused, fused=fused
        )
        self.steps = 0
        self.acting = self._snapshot()
        self.version = 0  # number of the acting policy

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.policy.state_dict().items()}

    def update(self, trajectory: Trajectory) -> dict[str, Tensor]:
        """Make one optimiser step.

        The bonus is paid for the error before this step. The trust region's KL is taken from the
        recorded policy. With a policy lag, that policy is up to `lag` learner steps older than the
        newest acting policy, so the trained policy may move less in between.

        Args:
          trajectory: T steps of B environments.

        Returns:
          Metrics [] and `bonus` [T, B], on the device.
        """
        trajectory = trajectory.to(self.device)
        config, real = self.config, trajectory.real
        out = self.policy(*trajectory.inputs)
        beliefs, embeddings = self._world_model_inputs(trajectory, out.beliefs, out.embeddings)
        if config.micro_batches == 1:
            model = self.world_model(trajectory, beliefs, embeddings)
        else:
            model = in_parts(
                self.world_model,
                trajectory,
                beliefs,
                embeddings,
                config.micro_batches,
                check=self.steps == 0,
            )
        paid = model.paid(trajectory)
        surprise, expected_loss = self.expected(
            model.reward, model.ignorance, paid, trajectory, beliefs, learning=True
        )
        self.intrinsic.update(surprise, paid, model.ignorance)
        bonus = self.intrinsic(surprise, paid)

        values, advantage, curiosity_share = self._targets(trajectory, out.beliefs.detach(), bonus)
        log_probs = out.log_probs[:-1]
        policy_loss, metrics = vmpo_loss(
            log_probs=log_probs,
            behaviour=trajectory.behaviour,
            action=trajectory.action,
            advantage=advantage,
            real=real,
            alpha=self.trust_region.alpha,
            config=config.vmpo,
        )
        value_losses = []
        for each in values:
            error = each.value(out.beliefs[:-1]) - each.popart.normalise(each.targets)
            value_losses.append(masked_mean(error.square(), each.where))
        value_loss = torch.stack(value_losses).sum(0)
        policy_entropy = masked_mean(entropy(log_probs), real)
        loss = (
            policy_loss + config.value_weight * value_loss - config.entropy_weight * policy_entropy
        )
        model_loss, apart = model.loss, dict[str, Tensor]()
        if self.regulariser is not None:
            penalty, apart = self.regulariser(embeddings, real)
            model_loss = model_loss + penalty
        loss = loss + config.world_model.loss_scale * model_loss + expected_loss

        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        data_parallel.average_gradients(self.trained)
        norm = nn.utils.clip_grad_norm_(self.trained, config.max_gradient_norm, foreach=True)
        self.optimiser.step()
        self.trust_region.follow(data_parallel.average(metrics["kl"]), data_parallel.any_true(real))
        self.world_model.after_step()
        self.steps += 1
        if self.steps % config.vmpo.target_period == 0:
            self.acting = self._snapshot()
            self.version += 1
        parts = {f"intrinsic_{name}": masked_mean(part, paid) for name, part in model.parts.items()}
        return {
            **metrics,
            **{f"model_{name}": value for name, value in (model.metrics | apart).items()},
            **parts,
            "loss": loss.detach(),
            "ignorance_left": masked_mean(model.reward, paid) / model.ignorance,
            "value_loss": value_loss.detach(),
            "entropy": policy_entropy.detach(),
            "gradient_norm": norm,
            "value_scale": self.policy.popart.scale.deviation,
            "intrinsic_scale": self.intrinsic.deviation,
            "curiosity_share": curiosity_share,
            "bonus": bonus,
        }

    def _world_model_inputs(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Beliefs and embeddings for the world model: the policy's, or those of its own torso."""
        if self.own_torso is None:
            return beliefs, embeddings
        blank = torch.zeros_like(trajectory.core)
        return self.own_torso(
            trajectory.obs, trajectory.first, trajectory.previous_actions, blank, trajectory.resets
        )[:2]

    @torch.no_grad()
    def _targets(
        self, trajectory: Trajectory, beliefs: Tensor, bonus: Tensor
    ) -> tuple[list[TrainedValue], Tensor, Tensor]:
        """What policy and values are trained on.

        Returns:
          The values with their targets; advantages [T, B], summed over the values, in units of
          their root mean square in this batch (our choice; not published); curiosity's share [] of
          the absolute reward.
        """
        real = trajectory.real
        self.extrinsic.update(trajectory.reward, real)
        own = self.config.extrinsic_weight * trajectory.reward / self.extrinsic.size
        curiosity = self.config.intrinsic_weight * bonus
        paid, earned = (
            data_parallel.average(masked_mean(reward.abs(), real)) for reward in (curiosity, own)
        )
        # one unit for both, so that the weights of the rewards mean the same with two values
        unit, policy = 1 - self.config.discount, self.policy
        value = policy.popart.denormalise(policy.value(beliefs))
        targets = lambda_returns(
            reward=unit * (own if policy.two_values else own + curiosity),
            terminal=trajectory.terminal,
            real=real,
            value=value,
            discount=self.config.discount,
            trace=self.config.return_lambda,
        )
        values = [TrainedValue(policy.value, policy.popart, targets, real)]
        advantage = targets - value[:-1]
        if policy.two_values:
            value = policy.intrinsic_popart.denormalise(policy.intrinsic_value(beliefs))
            targets = continuing_returns(
                reward=unit * curiosity,
                real=real,
                value=value,
                discount=self.config.intrinsic_discount,
                trace=self.config.return_lambda,
            )
            # An unroll may end with an episode, and its last return is then the value of the last
            # observation. So where steps only reset this value is trained too: on what comes next.
            everywhere = data_parallel.any_true(real).expand_as(real)
            values.append(
                TrainedValue(policy.intrinsic_value, policy.intrinsic_popart, targets, everywhere)
            )
            advantage = advantage + targets - value[:-1]
        for each in values:
            each.popart.update(each.targets, each.where)
        size = data_parallel.average(masked_mean(advantage.square(), real)).sqrt()
        return (
            values,
            advantage / torch.where(size > 0, size, 1.0),
            paid / torch.where(paid + earned > 0, paid + earned, 1.0),
        )

    @torch.no_grad()
    def perceive(self, trajectory: Trajectory) -> tuple[Trajectory, Tensor, Tensor]:
        """What the world model reads.

        Returns:
          The trajectory on the learner's device, beliefs [T+1, B, M] and embeddings [T+1, B, N].
        """
        trajectory = trajectory.to(self.device)
        out = self.policy(*trajectory.inputs)
        return trajectory, *self._world_model_inputs(trajectory, out.beliefs, out.embeddings)

    @torch.no_grad()
    def appraise(
        self, trajectory: Trajectory, remember: bool = False
    ) -> tuple[WorldModelOutput, Tensor]:
        """The raw intrinsic reward of a trajectory with its parts, and the bonus [T, B].

        Nothing is learned from it.

        Args:
          trajectory: The steps.
          remember: Whether a bonus that depends on the episode so far is to remember these steps,
              as the start of those that are appraised next.
        """
        with self.world_model.watching():
            trajectory, beliefs, embeddings = self.perceive(trajectory)
            out = self.world_model(trajectory, beliefs, embeddings)
            if remember:
                self.world_model.memory.write(trajectory)
            paid = out.paid(trajectory)
            surprise, _ = self.expected(out.reward, out.ignorance, paid, trajectory, beliefs)
            return out, self.intrinsic(surprise, paid)

    @torch.no_grad()
    def inspect(self, trajectory: Trajectory) -> dict[str, Tensor]:
        """The instruments of world_models/instruments.py on a trajectory, [] each.

        Nothing is learned from it.
        """
        with self.world_model.watching():
            trajectory, beliefs, embeddings = self.perceive(trajectory)
            return representation(beliefs, embeddings, trajectory.real) | self.world_model.inspect(
                trajectory, beliefs, embeddings
            )

    def adopt_encoder(self, path: Path | str) -> None:
        """Start from the encoder in a file of `afterwit pretrain`, in acting and in targets, too.

        Raises:
          ValueError: The file is missing or damaged, or its encoder has another form.
        """
        adopt_encoder(self, path)
        self.acting = self._snapshot()

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs.

        Weights, targets, statistics, random state, optimiser, acting policy and counters.
        """
        return {
            "modules": self.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "acting": self.acting,
            "steps": self.steps,
            "version": self.version,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
          ValueError: The state belongs to other networks.
        """
        state = translate_state(
            state,
            self.state_dict(),
            [len(group["params"]) for group in self.optimiser.param_groups],
        )
        try:
            self.load_state_dict(state["modules"])
        except RuntimeError as error:
            line = str(error).splitlines()[-1].strip()[:200]
            raise ValueError(
                f"the saved networks do not fit: {line} (networks are read by the version and"
                " config that wrote them)"
            ) from error
        self.optimiser.load_state_dict(state["optimiser"])
        self.acting = {name: value.to(self.device) for name, value in state["acting"].items()}
        self.steps, self.version = state["steps"], state["version"]
