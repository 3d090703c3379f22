"""What predicts, and what its error is worth. `IntrinsicReward` is all that another agent needs."""

from afterwit.world_models.facade import IntrinsicReward, StreamState
from afterwit.world_models.make import WORLD_MODELS, WorldModelConfig, make_world_model
from afterwit.world_models.trajectory import Trajectory

__all__ = [
    "WORLD_MODELS",
    "IntrinsicReward",
    "StreamState",
    "Trajectory",
    "WorldModelConfig",
    "make_world_model",
]
