"""Settings: JSON files, the environment and arguments come in; one checked `ClientConfig` goes out.

Agents, workers and commands call `load_config`; the registry compares `ClientSpec`s. Every refusal
is a `ConfigError` that names the dotted path, what is allowed there, and the nearest valid key.
docs/configuration.md lists every key.
"""

from rl4sys_stream.config.address import check_redis_url
from rl4sys_stream.config.algorithms import ALGORITHMS, AlgorithmDefinition, find_algorithm
from rl4sys_stream.config.client import ClientConfig, check_client_id
from rl4sys_stream.config.hyperparameters import (
    DQNParameters,
    Hyperparameters,
    PPOParameters,
    SACParameters,
)
from rl4sys_stream.config.load import find_definition, load_config
from rl4sys_stream.config.settings import AgentSettings, WorkerSettings
from rl4sys_stream.config.spec import ClientSpec, NetworkSpec

__all__ = [
    "ALGORITHMS",
    "AgentSettings",
    "AlgorithmDefinition",
    "ClientConfig",
    "ClientSpec",
    "DQNParameters",
    "Hyperparameters",
    "NetworkSpec",
    "PPOParameters",
    "SACParameters",
    "WorkerSettings",
    "check_client_id",
    "check_redis_url",
    "find_algorithm",
    "find_definition",
    "load_config",
]
