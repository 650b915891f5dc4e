"""Networks whose parameters lie side by side in one vector, with their own backpropagation.

Algorithms make them from a `NetworkSpec` and a generator, put in the gradients of a loss by the
outputs, and hand `vector` and `gradient` to an optimizer. What is published of each is a plain MLP.
The tests hold every gradient against autograd.
"""

from rl4sys_stream.algorithms.networks.actor_critic import (
    ActorCritic,
    ActorCriticTrace,
    GaussianActor,
    make_actor,
)
from rl4sys_stream.algorithms.networks.dueling import DuelingMLP, make_q_network
from rl4sys_stream.algorithms.networks.mlp import (
    HIDDEN_GAIN,
    MLP,
    POLICY_GAIN,
    VALUE_GAIN,
    Trace,
    parameter_count,
)
from rl4sys_stream.algorithms.networks.parameters import Parameters
from rl4sys_stream.algorithms.networks.per_item import (
    PerItemActorCritic,
    item_pools,
    make_actor_critic,
)

__all__ = [
    "HIDDEN_GAIN",
    "MLP",
    "POLICY_GAIN",
    "VALUE_GAIN",
    "ActorCritic",
    "ActorCriticTrace",
    "DuelingMLP",
    "GaussianActor",
    "Parameters",
    "PerItemActorCritic",
    "Trace",
    "item_pools",
    "make_actor",
    "make_actor_critic",
    "make_q_network",
    "parameter_count",
]
