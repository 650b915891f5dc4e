"""Actors, critics, and the two together where they share their first layers."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.algorithms.networks.mlp import (
    MLP,
    POLICY_GAIN,
    VALUE_GAIN,
    Trace,
    parameter_count,
)
from rl4sys_stream.algorithms.networks.parameters import Parameters
from rl4sys_stream.config import NetworkSpec
from rl4sys_stream.policy.mlp import LOG_STD

__all__ = ["ActorCritic", "ActorCriticTrace", "GaussianActor", "make_actor"]


class GaussianActor(MLP):
    """An MLP whose outputs are means; log-standard-deviations beside it are parameters, too.

    `vector` and `gradient` include them, at the end. `backpropagate` writes the rest of `gradient`;
    what the loss has by `log_std` is for the caller to write into `log_std_gradient`.

    Attributes:
        log_std: float32 [sizes[-1]], a view into `vector`.
        log_std_gradient: float32 [sizes[-1]], a view into `gradient`.
    """

    def __init__(
        self,
        obs_dim: int,
        outputs: int,
        network: NetworkSpec,
        generator: torch.Generator,
        *,
        log_std_init: float,
        parameters: Parameters | None = None,
    ) -> None:
        """Draw an actor as `make_actor` does.

        Args:
            obs_dim: Width of the observations.
            outputs: Number of means.
            network: Hidden sizes and activation.
            generator: The only source of randomness.
            log_std_init: What each element of `log_std` begins with.
            parameters: As in `MLP`, with `outputs` more.
        """
        sizes = _actor_sizes(obs_dim, outputs, network)
        count = parameter_count(sizes)
        parameters = parameters or Parameters.zeros(count + outputs)
        net, log_std = parameters.split(count, outputs)
        super().__init__(
            "pi",
            sizes,
            activation=network.activation,
            output_gain=POLICY_GAIN,
            generator=generator,
            parameters=net,
        )
        self.vector, self.gradient = parameters.vector, parameters.gradient
        self.log_std, self.log_std_gradient = log_std.vector, log_std.gradient
        self.log_std.fill_(log_std_init)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """See `MLP.tensors`; `log_std` is the last."""
        return {**super().tensors(), LOG_STD: self.log_std.numpy()}


@dataclass(frozen=True, slots=True, eq=False)
class ActorCriticTrace:
    """What a forward pass of both leaves for backpropagation.

    Attributes:
        actor: From the observations to the actor's outputs.
        critic: From what the critic takes of the actor to the values.
        places: int64 [M], which of the B·n items of B observations went through an actor that sees
            one at a time; None: all, or it sees whole observations.
    """

    actor: Trace
    critic: Trace
    places: Tensor | None = None


class ActorCritic:
    """An actor, and a critic that takes in what the actor's first hidden layers give.

    The actor is whole, shared layers included, so that it alone need be published. All
    parameters lie in one vector, the actor's first; each of the two is a view into it, and may
    have a learning rate of its own. With nothing shared they are two networks side by side.

    Attributes:
        actor: `pi`, from observations to outputs; a `GaussianActor` if `log_std_init` was given.
        critic: `vf`, from the shared layers' outputs (of none: the observations) to values.
        shared_layers: How many hidden layers are shared.
        vector: float32 [n], the parameters of both.
        gradient: float32 [n], what `backpropagate` last wrote, in the order of `vector`.
    """

    def __init__(
        self,
        obs_dim: int,
        outputs: int,
        network: NetworkSpec,
        generator: torch.Generator,
        *,
        log_std_init: float | None = None,
    ) -> None:
        """Draw the actor, then the critic.

        Args:
            obs_dim: Width of the observations.
            outputs: Width of the actor's outputs.
            network: Hidden sizes of both, activation, and how many layers are shared.
            generator: The only source of randomness.
            log_std_init: What log-standard-deviations begin with; None: the actor has none.
        """
        self.shared_layers = network.shared_layers
        actor_sizes = _actor_sizes(obs_dim, outputs, network)
        critic_sizes = (actor_sizes[self.shared_layers], *network.critic_own_sizes, 1)
        deviations = 0 if log_std_init is None else outputs
        counts = (parameter_count(actor_sizes) + deviations, parameter_count(critic_sizes))
        whole = Parameters.zeros(sum(counts))
        self.vector, self.gradient = whole.vector, whole.gradient
        acting, valuing = whole.split(*counts)
        self.actor = (
            make_actor(obs_dim, outputs, network, generator, parameters=acting)
            if log_std_init is None
            else GaussianActor(
                obs_dim,
                outputs,
                network,
                generator,
                log_std_init=log_std_init,
                parameters=acting,
            )
        )
        self.critic = MLP(
            "vf",
            critic_sizes,
            activation=network.activation,
            output_gain=VALUE_GAIN,
            generator=generator,
            parameters=valuing,
        )

    def outputs(self, observations: Tensor, _masks: Tensor | None = None) -> Tensor:
        """The actor's outputs float32 [N, outputs]; masks change nothing in any of these."""
        return self.actor(observations)

    def values(self, observations: Tensor, _masks: Tensor | None = None) -> Tensor:
        """Values float32 [N, 1] of observations float32 [N, obs_dim]."""
        return self.critic(self.actor.hidden(observations, self.shared_layers))

    def trace(self, observations: Tensor, _masks: Tensor | None = None) -> ActorCriticTrace:
        """The forward pass of both for observations float32 [N, obs_dim], remembered."""
        actor = self.actor.trace(observations)
        return ActorCriticTrace(actor, self.critic.trace(actor[self.shared_layers]))

    def backpropagate(
        self, trace: ActorCriticTrace, actor_gradient: Tensor, critic_gradient: Tensor
    ) -> None:
        """Overwrite `gradient` with that of a loss; but see `GaussianActor` for `log_std`.

        Args:
            trace: What `trace` returned for the observations of the loss.
            actor_gradient: float32 [N, outputs], of the loss by the actor's outputs.
            critic_gradient: float32 [N, 1], of the loss by the values.
        """
        shared = self.critic.backpropagate(
            trace.critic, critic_gradient, to_inputs=self.shared_layers > 0
        )
        self.actor.backpropagate(
            trace.actor,
            actor_gradient,
            branch_layer=self.shared_layers,
            branch_gradient=shared,
        )


def make_actor(
    obs_dim: int,
    outputs: int,
    network: NetworkSpec,
    generator: torch.Generator,
    *,
    parameters: Parameters | None = None,
) -> MLP:
    """The network from observations float32 [N, obs_dim] to float32 [N, outputs].

    Args:
        obs_dim: Width of the observations.
        outputs: Width of the outputs.
        network: Hidden sizes and activation.
        generator: The only source of randomness.
        parameters: As in `MLP`.
    """
    return MLP(
        "pi",
        _actor_sizes(obs_dim, outputs, network),
        activation=network.activation,
        output_gain=POLICY_GAIN,
        generator=generator,
        parameters=parameters,
    )


def _actor_sizes(obs_dim: int, outputs: int, network: NetworkSpec) -> tuple[int, ...]:
    return (obs_dim, *network.hidden_sizes, outputs)
