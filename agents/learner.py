"""The learner: it takes a trajectory and makes one optimiser step on policy and world model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from afterwit.agents.old_checkpoints import translate_state
from afterwit.agents.policy import Policy, PolicyConfig
from afterwit.agents.popart import PopArt
from afterwit.agents.returns import continuing_returns, n_step_returns
from afterwit.agents.vmpo import TrustRegion, VMPOConfig, entropy, vmpo_loss
from afterwit.envs.checks import check_numbers
from afterwit.envs.seeds import stream
from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.base import ModelConfig, WorldModelOutput
from afterwit.world_models.encoder_file import adopt_encoder
from afterwit.world_models.expected_error import ExpectedError
from afterwit.world_models.instruments import representation
from afterwit.world_models.models.byol_hindsight import BYOLHindsightConfig
from afterwit.world_models.objectives.micro_batches import in_parts
from afterwit.world_models.registry import make_world_model
from afterwit.world_models.regulariser import make_regulariser
from afterwit.world_models.reward_normaliser import RewardNormaliser
from afterwit.world_models.running_scale import RunningScale
from afterwit.world_models.torso import Torso, TorsoConfig
from afterwit.world_models.trajectory import Trajectory, masked_mean


@dataclass(frozen=True)
class LearnerConfig:
    """What is trained, on what reward, and how."""

    torso: TorsoConfig = field(default_factory=TorsoConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    world_model: ModelConfig = field(default_factory=BYOLHindsightConfig)
    vmpo: VMPOConfig = field(default_factory=VMPOConfig)
    shared_torso: bool = True
    """The world model reads the embeddings and beliefs of the policy's torso, and both train it.
    Off: it has a torso of its own, whose memory starts blank at each unroll, so the first
    transition of an unroll is paid more (1.1 to 1.2 times the mean raw error in the maze)."""
    discount: float = 0.995
    """gamma, per agent step. BYOL-Explore (Guo et al., 2022) has 0.999 for Atari."""
    intrinsic_discount: float = 0.99
    """gamma of the intrinsic return, per agent step, where policy.two_values gives it a value of
    its own (Burda et al., 2018: 0.99)."""
    # In these units a reward of 1 at each step is 1. A rare reward is large: the first one after
    # batches of N zeros counts as sqrt(N / popart_step). BYOL-Explore's PopArt divides by the
    # deviation about the mean: the same for rare rewards, but 0 for constant ones.
    extrinsic_weight: float = 0.0
    """Weight of the environment's reward, in units of its running root mean square. 0: curiosity
    alone."""
    intrinsic_weight: float = 0.1
    """Weight of the intrinsic reward (BYOL-Explore, Guo et al., 2022: lambda_mix). 0: no curiosity.
    """
    reward_decay: float = 0.99
    """Share of the intrinsic reward's running statistics that is kept at each learner step."""
    value_weight: float = 0.5
    """Weight of the squared value error."""
    entropy_weight: float = 0.001
    """Weight of the policy's entropy."""
    learning_rate: float = 3e-4
    """Step size of Adam. BYOL-Explore (Guo et al., 2022) has 1e-4 for Atari; in the maze 5e-4
    exhausts curiosity sooner."""
    # BYOL-Hindsight must learn what z explains before the policy learns to seek noise. Short runs
    # may need a higher rate for that. Published runs have 3 million learner steps.
    world_model_rate: float = 1.0
    """Multiple of `learning_rate` at which the world model's own layers learn, without the torso
    (our option; not published)."""
    adam_beta1: float = 0.9
    """Adam's momentum (BYOL-Explore, Guo et al., 2022: b1)."""
    micro_batches: int = 1
    """Parts of a batch that the world model's loss takes one after the other, so that its networks
    need less memory. The gradient is the same up to rounding. Each part has as many environments.
    """
    max_gradient_norm: float = 10.0
    """Gradients are scaled down to this global norm (our default; BYOL-Explore states none)."""

    def __post_init__(self) -> None:
        check_numbers(self, "learner.")
        for name in ("discount", "intrinsic_discount"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"learner.{name} is {getattr(self, name)}; it must be at least 0 and below 1"
                )
        for name in ("learning_rate", "world_model_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"learner.{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.reward_decay < 1:
            raise ValueError(
                f"learner.reward_decay is {self.reward_decay}; it must be at least 0 and below 1"
            )
        if not 0 <= self.adam_beta1 < 1:
            raise ValueError(
                f"learner.adam_beta1 is {self.adam_beta1}; it must be at least 0 and below 1"
            )
        if self.micro_batches < 1:
            raise ValueError(
                f"learner.micro_batches is {self.micro_batches}; it must be at least 1"
            )
        if self.micro_batches > 1 and (reason := self.world_model.couples()):
            raise ValueError(
                f"learner.micro_batches is {self.micro_batches}, but {reason}; leave it at 1"
            )
        if not self.max_gradient_norm > 0:
            raise ValueError(
                f"learner.max_gradient_norm is {self.max_gradient_norm}; it must be above 0"
            )
        if self.extrinsic_weight == 0 and self.intrinsic_weight == 0:
            raise ValueError(
                "learner.extrinsic_weight and learner.intrinsic_weight are both 0; the agent needs"
                " a reward"
            )


class TrainedValue(NamedTuple):
    """A value and what it is trained on."""

    value: Callable[[Tensor], Tensor]  # of beliefs [..., M], on PopArt's normalised scale
    popart: PopArt
    targets: Tensor  # [T, B], on the reward's own scale


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
        # initial weights follow the seed; torch's global random state is restored afterwards
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream(seed, "weights"))
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
            self.expected = ExpectedError(
                curiosity.expected_error,
                curiosity.expected_floor,
                config.torso.belief,
                spec.num_actions,
            )
        self.regulariser = make_regulariser(curiosity, stream(seed, "regulariser"))
        self.trust_region = TrustRegion(config.vmpo)
        self.intrinsic = RewardNormaliser(
            curiosity.prioritise, config.reward_decay, curiosity.absolute_zero
        )
        self.extrinsic = RunningScale(1 - config.policy.popart_step)
        self.to(device)
        self.trained = [p for p in self.parameters() if p.requires_grad]
        fast = {p for p in self.world_model.parameters() if p.requires_grad}
        others = fast.union(self.expected.parameters())
        groups = [
            {"params": [p for p in self.trained if p not in others], "lr": config.learning_rate},
            {
                "params": [p for p in self.trained if p in fast],
                "lr": config.learning_rate * config.world_model_rate,
            },
            *self.expected.parameter_groups(config.learning_rate),
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
        surprise, expected_loss = self.expected(model.reward, model.ignorance, trajectory, beliefs)
        self.intrinsic.update(surprise, real, model.ignorance)
        bonus = self.intrinsic(surprise, real)

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
        errors = [
            each.value(out.beliefs[:-1]) - each.popart.normalise(each.targets) for each in values
        ]
        value_loss = torch.stack([masked_mean(error.square(), real) for error in errors]).sum(0)
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
        parts = {f"intrinsic_{name}": masked_mean(part, real) for name, part in model.parts.items()}
        return {
            **metrics,
            **{f"model_{name}": value for name, value in (model.metrics | apart).items()},
            **parts,
            "loss": loss.detach(),
            "ignorance_left": masked_mean(model.reward, real) / model.ignorance,
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
        targets = n_step_returns(
            reward=unit * (own if policy.two_values else own + curiosity),
            terminal=trajectory.terminal,
            real=real,
            value=value,
            discount=self.config.discount,
        )
        values = [TrainedValue(policy.value, policy.popart, targets)]
        advantage = targets - value[:-1]
        if policy.two_values:
            value = policy.intrinsic_popart.denormalise(policy.intrinsic_value(beliefs))
            targets = continuing_returns(
                reward=unit * curiosity,
                real=real,
                value=value,
                discount=self.config.intrinsic_discount,
            )
            values.append(TrainedValue(policy.intrinsic_value, policy.intrinsic_popart, targets))
            advantage = advantage + targets - value[:-1]
        for each in values:
            each.popart.update(each.targets, real)
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
            surprise, _ = self.expected(out.reward, out.ignorance, trajectory, beliefs)
            return out, self.intrinsic(surprise, trajectory.real)

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
