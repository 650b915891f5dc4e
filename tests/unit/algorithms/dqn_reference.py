"""Stable-Baselines3's DQN with the weights of one of ours, and the transitions that ours drew.

Raffin et al. 2021, Stable-Baselines3: Reliable Reinforcement Learning Implementations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from rl4sys_stream.algorithms.dqn import DQN
from rl4sys_stream.algorithms.networks import MLP
from rl4sys_stream.config import DQNParameters
from rl4sys_stream.wire.trajectory import End, Trajectory
from tests.unit.algorithms.dqn_samples import SPEC
from tests.unit.algorithms.ppo_reference import World, copy_weights


class DrawnBuffer(ReplayBuffer):
    """Transitions of which given ones are drawn, instead of random ones.

    Attributes:
        transitions: What to draw from.
        draws: int64 [batch_size] each: which are drawn next.
    """

    transitions: ReplayBufferSamples
    draws: list[Tensor]

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """The next of `draws`."""
        chosen = self.draws.pop(0)
        columns = [column for column in self.transitions if column is not None]
        return ReplayBufferSamples(*(column[chosen] for column in columns))


def make_reference(ours: DQN, parameters: DQNParameters) -> sb3.DQN:
    """The reference with our hyperparameters and a copy of our weights.

    Args:
        ours: Whose weights.
        parameters: Whose names are the reference's.
    """
    start = parameters.learning_rate
    linear = parameters.learning_rate_schedule == "linear"
    reference = sb3.DQN(
        "MlpPolicy",
        World(),
        learning_rate=(lambda remaining: remaining * start) if linear else start,
        buffer_size=parameters.buffer_size,
        batch_size=parameters.batch_size,
        tau=parameters.tau,
        gamma=parameters.gamma,
        target_update_interval=parameters.target_update_interval,
        max_grad_norm=parameters.max_grad_norm,
        replay_buffer_class=DrawnBuffer,
        policy_kwargs={"net_arch": list(SPEC.network.hidden_sizes)},
        device="cpu",
    )
    reference.set_logger(Logger(folder=None, output_formats=[]))
    assert isinstance(ours.online, MLP)  # a dueling one is not the reference's
    copy_weights(ours.online, linear_layers(reference.q_net))
    reference.q_net_target.load_state_dict(reference.q_net.state_dict())
    return reference


def linear_layers(network: torch.nn.Module) -> list[torch.nn.Linear]:
    """In the order in which they are applied."""
    return [module for module in network.modules() if isinstance(module, torch.nn.Linear)]


def transitions_of(
    trajectories: Sequence[Trajectory], parameters: DQNParameters
) -> ReplayBufferSamples:
    """All transitions of `trajectories` in their order, from the columns themselves."""
    rows = [row for trajectory in trajectories for row in _rows(trajectory, parameters)]
    columns = (torch.tensor(np.array(column)) for column in zip(*rows, strict=True))
    return ReplayBufferSamples(*columns)


def _rows(trajectory: Trajectory, parameters: DQNParameters) -> list[tuple[Any, ...]]:
    """Observation, action, observation n steps later, whether it ended, n rewards, γ^n."""
    steps = len(trajectory.actions)
    last = trajectory.final_observation
    following = [
        *trajectory.observations,
        np.zeros_like(trajectory.observations[0]) if last is None else last,
    ]
    found = []
    for t in range(steps):
        stop = min(t + parameters.n_step, steps)
        rewards = [parameters.gamma**k * float(r) for k, r in enumerate(trajectory.rewards[t:stop])]
        terminated = stop == steps and trajectory.end is End.TERMINATED
        row = (trajectory.observations[t], [trajectory.actions[t]], following[stop])
        returns, discount = np.float32(sum(rewards)), np.float32(parameters.gamma ** (stop - t))
        found.append((*row, [np.float32(terminated)], [returns], [discount]))
    return found
