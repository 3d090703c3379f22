"""Actors, the policy and the learner."""

from afterwit.agents.actor import Actor
from afterwit.agents.agent import Agent
from afterwit.agents.learner import Learner
from afterwit.agents.learner_config import LearnerConfig
from afterwit.agents.policy import Policy, PolicyConfig

__all__ = ["Actor", "Agent", "Learner", "LearnerConfig", "Policy", "PolicyConfig"]
