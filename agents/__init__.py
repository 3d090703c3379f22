"""What acts and what learns."""

from afterwit.agents.actor import Actor
from afterwit.agents.learner import Learner, LearnerConfig
from afterwit.agents.policy import Policy, PolicyConfig

__all__ = ["Actor", "Learner", "LearnerConfig", "Policy", "PolicyConfig"]
