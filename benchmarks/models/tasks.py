"""What is trained for the sizes of model versions."""

from typing import Final, Literal

from benchmarks.models.training import Task
from rl4sys_stream.config import ClientSpec, DQNParameters, NetworkSpec, PPOParameters
from rl4sys_stream.spaces import Box, Discrete

__all__ = ["TASKS"]


def _lander(algorithm: str, width: int, activation: Literal["tanh", "relu"]) -> ClientSpec:
    return ClientSpec(
        algorithm=algorithm,
        observation_space=Box((8,)),
        action_space=Discrete(4),
        network=NetworkSpec(hidden_sizes=(width, width), activation=activation),
    )


_DQN: Final = DQNParameters(
    learning_rate=1e-4,
    learning_starts=1000,
    buffer_size=50_000,
    batch_size=64,
    train_freq=4,
    update_steps=400,
    total_timesteps=40_000,
    target_update_interval=1000,
)
"""100 gradient steps for each version."""

TASKS: Final = (
    Task("ppo_64x64", "LunarLander-v3", _lander("PPO", 64, "tanh"), PPOParameters(), 100),
    Task("ppo_256x256", "LunarLander-v3", _lander("PPO", 256, "tanh"), PPOParameters(), 40),
    Task("dqn_1m", "LunarLander-v3", _lander("DQN", 1024, "relu"), _DQN, 100),
)
