"""Reinforcement learning for system control, over Redis streams.

An application needs `StreamAgent` (`RL4SysAgent` is the same class) and, if its configuration does
not say them, spaces: `Box`, `Discrete`, `MultiDiscrete` and `MultiBinary` from here, `Dict` and
`Tuple`, which have the names of `typing`'s, from `rl4sys_stream.spaces`. The package's errors are
all `StreamError`s. Importing it loads neither torch nor gymnasium, and does nothing else.
"""

from rl4sys_stream._version import __version__
from rl4sys_stream.agent import ActionHandle, AgentStatus, StreamAgent, TrajectoryHandle
from rl4sys_stream.config import ClientConfig, load_config
from rl4sys_stream.errors import (
    BrokerError,
    ConfigError,
    MaskError,
    ObservationError,
    PriorError,
    SpecMismatchError,
    StreamError,
    TrajectoryStateError,
    UsageError,
    WireError,
)
from rl4sys_stream.spaces import Box, Discrete, MultiBinary, MultiDiscrete

__all__ = [
    "ActionHandle",
    "AgentStatus",
    "Box",
    "BrokerError",
    "ClientConfig",
    "ConfigError",
    "Discrete",
    "MaskError",
    "MultiBinary",
    "MultiDiscrete",
    "ObservationError",
    "PriorError",
    "RL4SysAgent",
    "SpecMismatchError",
    "StreamAgent",
    "StreamError",
    "TrajectoryHandle",
    "TrajectoryStateError",
    "UsageError",
    "WireError",
    "__version__",
    "load_config",
]

RL4SysAgent = StreamAgent
"""RL4Sys's name for the same class."""
