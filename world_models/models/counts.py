"""An oracle: it reads the true place and counts visits. No agent could.

    N(s)   visits of s by all environments in the whole run, those of this batch included
    reward of the transition into s = 1 / sqrt(N(s))

s is the cell and, where the world tells it, its hidden state, such as which doors are open. This is
the count-based bonus with exact counts (Bellemare et al., 2016, equation 5, without its factor and
its 0.01). Nothing is predicted and nothing is trained. Noise on the view changes nothing.

A batch is counted before it is paid. So where each batch has one visit of s, the n-th one pays
1 / sqrt(n), and the visits of one batch share one price.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afterwit.envs.infos import STATES
from afterwit.envs.specs import EnvSpec
from afterwit.world_models import data_parallel
from afterwit.world_models.base import ModelConfig, WorldModel
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory


@dataclass(frozen=True)
class CountsConfig(ModelConfig):
    """Counts, an oracle that reads the true place."""


class Counts(WorldModel):
    """An oracle: 1 / sqrt(N) for the N-th visit of the true place.

    Args:
      config: The settings.
      torso: It is not used.
      spec: The environments. They tell `cell`, and how many cells there are.
      seed: It is not used.

    Raises:
      ValueError: The environments do not tell their cells.
    """

    Config = CountsConfig
    predicts = "nothing (an oracle reads the true place: not a method)"
    pays = "1/sqrt(visits)"
    source = (
        "Bellemare et al. (2016), Unifying Count-Based Exploration and Intrinsic Motivation, "
        "arXiv 1606.01868"
    )

    visits: Tensor  # int64 [states, cells]

    def __init__(self, config: CountsConfig, torso: Torso, spec: EnvSpec, seed: int):
        super().__init__(seed)
        height, width = spec.semantics.get("map", (0, 0))
        cells = int(spec.semantics.get("cells", height * width))
        if "cell" not in spec.tells or not cells:
            raise ValueError(
                f"the oracle counts reads the true place, and {spec.name} does not tell it; take a"
                " world that has `cell` in its info, such as maze, or another world model"
            )
        self.has_state = "state" in spec.tells
        states = int(spec.semantics.get("states", STATES)) if self.has_state else 1
        self.register_buffer("visits", torch.zeros(states, cells, dtype=torch.int64))

    @torch.no_grad()
    def forward(
        self, trajectory: Trajectory, beliefs: Tensor, embeddings: Tensor
    ) -> WorldModelOutput:
        """Raw intrinsic reward (see WorldModel.forward and the equation above). The loss is 0.

        In training mode the batch stays counted.
        """
        real, device = trajectory.real, self.visits.device
        place = trajectory.info["cell"].to(device)
        if self.has_state:
            place = place + trajectory.info["state"].to(device) * self.visits.shape[1]
        batch = torch.bincount(place[real], minlength=self.visits.numel()).view_as(self.visits)
        # as floats that hold each count exactly, for the exchange between learners
        whole = data_parallel.num_learners() * data_parallel.average(batch.double())
        visits = self.visits + whole.round().long()
        if self.training:
            self.visits.copy_(visits)
        price = visits.view(-1)[place].clamp(min=1).to(beliefs.dtype).rsqrt()
        reward = torch.where(real, price, 0.0)
        seen = (visits > 0).sum().to(beliefs.dtype)
        return WorldModelOutput(beliefs.new_zeros(()), reward, {"visits": reward}, {"places": seen})
