"""Hyperparameters of the learners, one file an algorithm, under Stable-Baselines3's names.

They belong to the worker and may change between runs of one client; what may not change is in
`ClientSpec`. The configuration reads them, the registry records them, the learner gets them.
"""

from rl4sys_stream.config.hyperparameters.base import Hyperparameters
from rl4sys_stream.config.hyperparameters.dqn import DQNParameters
from rl4sys_stream.config.hyperparameters.off_policy import OffPolicyParameters
from rl4sys_stream.config.hyperparameters.ppo import PPOParameters
from rl4sys_stream.config.hyperparameters.sac import SACParameters

__all__ = [
    "DQNParameters",
    "Hyperparameters",
    "OffPolicyParameters",
    "PPOParameters",
    "SACParameters",
]
