"""World models and their intrinsic reward.

`IntrinsicReward` is the interface for agents of your own, `IntrinsicBonus` the same as a wrapper.
"""

from afterwit.world_models.base import ModelConfig, WorldModel
from afterwit.world_models.gym_bonus import IntrinsicBonus
from afterwit.world_models.intrinsic_reward import IntrinsicReward, StreamState
from afterwit.world_models.model_output import WorldModelOutput
from afterwit.world_models.registry import WORLD_MODELS, find_model, make_world_model
from afterwit.world_models.torso import Torso
from afterwit.world_models.trajectory import Trajectory

__all__ = [
    "WORLD_MODELS",
    "IntrinsicBonus",
    "IntrinsicReward",
    "ModelConfig",
    "StreamState",
    "Torso",
    "Trajectory",
    "WorldModel",
    "WorldModelOutput",
    "find_model",
    "make_world_model",
]
