"""The hyperparameters of DQN in upstream RL4Sys's own configuration files.

As in `upstream`, each field is mapped or declared not applicable. What upstream reads and then
ignores (`start_e`, `end_e`, `exploration_fraction`, `total_timesteps`, `train_frequency`) is
followed here; where it has two names for one setting, the one that it follows is read.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from rl4sys_stream.config.layers import Layer
from rl4sys_stream.config.schema import dotted

__all__ = ["NOT_APPLICABLE", "RENAMED", "read_dqn_parameters"]

RENAMED: Final = MappingProxyType(
    {
        "batch_size": "batch_size",
        "buffer_size": "buffer_size",
        "end_e": "exploration_final_eps",
        "exploration_fraction": "exploration_fraction",
        "gamma": "gamma",
        "learning_starts": "learning_starts",
        "lr": "learning_rate",
        "seed": "seed",
        "start_e": "exploration_initial_eps",
        "target_network_frequency": "target_update_interval",
        "tau": "tau",
        "total_timesteps": "total_timesteps",
        "train_frequency": "train_freq",
        "train_iters": "gradient_steps",
    }
)
NOT_APPLICABLE: Final = MappingProxyType(
    {
        "buf_size": "buffer_size says it",
        "epsilon": "start_e says it",
        "epsilon_decay": "the exploration rate falls linearly, over exploration_fraction",
        "epsilon_min": "end_e says it",
        "learning_rate": "lr says it",
        "target_update": "target_network_frequency says it",
        "traj_per_epoch": "updates are due by steps, whatever trajectories they came in",
    }
)
TOTAL_TIMESTEPS: Final = 1_000_000
"""Upstream's own default; here, exploration cannot do without one."""


def read_dqn_parameters(data: Mapping[str, object], layer: Layer, *, section: str) -> None:
    """Put what `data` says into `layer`.

    Args:
        data: The hyperparameters; their keys are known.
        layer: Where to.
        section: Dotted path of `data`, and of ours.

    Raises:
        ConfigError: If a setting is said twice.
    """
    for key, value in data.items():
        if key in NOT_APPLICABLE:
            layer.not_applicable(dotted(section, key), NOT_APPLICABLE[key])
        elif key in RENAMED:
            layer.put(dotted(section, RENAMED[key]), value, written=dotted(section, key))
    if "total_timesteps" not in data:
        path = dotted(section, "total_timesteps")
        layer.put(path, TOTAL_TIMESTEPS, written=path)
        layer.notices.append(f"{path} is {TOTAL_TIMESTEPS}, upstream's default")
    if data.get("tau", 1) != 1 and "target_network_frequency" not in data:
        path = dotted(section, "target_update_interval")
        layer.put(path, 1, written=path)
        layer.notices.append(f"{path} is 1: with a tau below 1 the target moves at each step")
