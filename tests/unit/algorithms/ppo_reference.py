"""Stable-Baselines3's PPO with the weights and the rollout of one of ours.

Raffin et al. 2021, Stable-Baselines3: Reliable Reinforcement Learning Implementations.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3 as sb3
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor

from rl4sys_stream.algorithms.networks import MLP
from rl4sys_stream.algorithms.ppo import PPO
from rl4sys_stream.config import PPOParameters
from rl4sys_stream.wire.trajectory import End, Trajectory
from tests.unit.algorithms.samples import N_ACTIONS, OBS_DIM, SPEC

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


class World(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Nothing but spaces: the reference wants an environment, and no step is taken in it."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float32)
    action_space = gymnasium.spaces.Discrete(N_ACTIONS)


class OrderedBuffer(RolloutBuffer):
    """A rollout whose minibatches come in a given order instead of a random one."""

    def __init__(self, *args: Any, orders: Sequence[Tensor], **options: Any) -> None:
        """As the base class, with the order of each epoch."""
        super().__init__(*args, **options)
        self._orders = list(orders)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """The minibatches of one epoch; the first call also flattens the columns."""
        for _ in super().get(batch_size):
            break
        order = self._orders.pop(0)
        for part in order.tensor_split(max(1, len(order) // (batch_size or len(order)))):
            yield self._get_samples(part.numpy())


def make_reference(ours: PPO, parameters: PPOParameters) -> sb3.PPO:
    """The reference with our hyperparameters and a copy of our weights.

    Args:
        ours: Whose weights.
        parameters: Whose names are the reference's.
    """
    network = SPEC.network
    reference = sb3.PPO(
        "MlpPolicy",
        World(),
        learning_rate=_schedule(parameters.learning_rate, parameters.learning_rate_schedule),
        n_steps=parameters.n_steps,
        batch_size=parameters.batch_size,
        n_epochs=parameters.n_epochs,
        gamma=parameters.gamma,
        gae_lambda=parameters.gae_lambda,
        clip_range=_schedule(parameters.clip_range, parameters.clip_range_schedule),
        clip_range_vf=parameters.clip_range_vf,
        normalize_advantage=parameters.normalize_advantage,
        ent_coef=parameters.ent_coef,
        vf_coef=parameters.vf_coef,
        max_grad_norm=parameters.max_grad_norm,
        target_kl=parameters.target_kl,
        policy_kwargs={
            "net_arch": {
                "pi": list(network.hidden_sizes),
                "vf": list(network.critic_hidden_sizes or network.hidden_sizes),
            },
            "activation_fn": ACTIVATIONS[network.activation],
        },
        device="cpu",
    )
    reference.set_logger(Logger(folder=None, output_formats=[]))
    for mlp, layers in zip((ours.actor, ours.critic), reference_layers(reference), strict=True):
        copy_weights(mlp, layers)
    return reference


def _schedule(start: float, kind: str) -> float | Callable[[float], float]:
    return start if kind == "constant" else lambda remaining: remaining * start


def reference_layers(reference: sb3.PPO) -> tuple[list[torch.nn.Linear], ...]:
    """The linear layers of its actor and of its critic."""
    policy = reference.policy
    pairs = (
        (policy.mlp_extractor.policy_net, policy.action_net),
        (policy.mlp_extractor.value_net, policy.value_net),
    )
    return tuple(
        [m for part in pair for m in part.modules() if isinstance(m, torch.nn.Linear)]
        for pair in pairs
    )


def copy_weights(mlp: MLP, layers: Sequence[torch.nn.Linear]) -> None:
    """Ours into torch's layers, whose weights are [out, in]."""
    tensors = [torch.from_numpy(array.copy()) for array in mlp.tensors().values()]
    with torch.no_grad():
        for layer, weight, bias in zip(layers, tensors[::2], tensors[1::2], strict=True):
            layer.weight.copy_(weight.t())
            layer.bias.copy_(bias)


def flat_weights(layers: Sequence[torch.nn.Linear]) -> NDArray[np.float32]:
    """Torch's layers in the order of our vector."""
    parts = [t for layer in layers for t in (layer.weight.t().reshape(-1), layer.bias)]
    return torch.cat(parts).detach().numpy()


def fill(
    reference: sb3.PPO, envs: Sequence[Sequence[Trajectory]], orders: Sequence[Tensor]
) -> None:
    """Let it collect the given trajectories, as its own `collect_rollouts` would have.

    Args:
        reference: Whose buffer is filled.
        envs: Each environment's trajectories, one after the other; of equally many steps.
        orders: Of the steps in each epoch, environment after environment.
    """
    columns = [_columns(reference, trajectories) for trajectories in envs]
    observations, actions, rewards, starts, log_probs = (
        np.stack(column, axis=1) for column in zip(*columns, strict=True)
    )  # [steps, envs, ...]
    buffer = OrderedBuffer(
        len(rewards),
        reference.observation_space,
        reference.action_space,
        device="cpu",
        gamma=reference.gamma,
        gae_lambda=reference.gae_lambda,
        n_envs=len(envs),
        orders=orders,
    )
    reference.rollout_buffer = buffer
    for t in range(len(rewards)):
        values = _values(reference, observations[t])
        log_prob = torch.from_numpy(log_probs[t])
        buffer.add(observations[t], actions[t], rewards[t], starts[t], values, log_prob)
    lasts = [trajectories[-1] for trajectories in envs]
    zeros = np.zeros(OBS_DIM, np.float32)
    finals = [zeros if t.final_observation is None else t.final_observation for t in lasts]
    ended = np.array([t.end is not End.CUT for t in lasts])
    buffer.compute_returns_and_advantage(_values(reference, np.array(finals)), ended)


def _columns(
    reference: sb3.PPO, trajectories: Sequence[Trajectory]
) -> tuple[NDArray[np.generic], ...]:
    """Observations, actions, rewards, episode starts and log-probabilities of one environment."""
    rewards, starts = [], []
    for trajectory in trajectories:
        rewards.append(trajectory.rewards.copy())
        if trajectory.end is End.TRUNCATED and trajectory.final_observation is not None:
            # It adds the value of what follows a time limit to the last reward.
            value = _values(reference, trajectory.final_observation[None])
            rewards[-1][-1] += reference.gamma * float(value)
        starts += [True] + [False] * (len(rewards[-1]) - 1)
    return (
        np.concatenate([t.observations for t in trajectories]),
        np.concatenate([t.actions for t in trajectories]),
        np.concatenate(rewards),
        np.array(starts),
        np.concatenate([t.log_probs for t in trajectories]),
    )


def _values(reference: sb3.PPO, observations: NDArray[np.float32]) -> Tensor:
    """Float32 [N, 1]."""
    with torch.no_grad():
        return reference.policy.predict_values(torch.from_numpy(observations))
