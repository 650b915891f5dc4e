"""An actor that sees one item at a time, and a critic that sees what all of them have in common.

Observations are n items of f features, side by side; masks say which items exist. Each item goes
through the same network (the kernel network of Zhang et al. 2020, RLScheduler, arXiv:1910.08925),
so its logit depends neither on its place nor on how many others there are. The critic takes in
pools over the items that exist, as the set functions of Zaheer et al. 2017, Deep Sets
(arXiv:1703.06114): neither order nor padding changes a value.
"""

import torch
from torch import Tensor

from rl4sys_stream.algorithms.networks.actor_critic import (
    ActorCritic,
    ActorCriticTrace,
    make_actor,
)
from rl4sys_stream.algorithms.networks.mlp import MLP, VALUE_GAIN, Trace, parameter_count
from rl4sys_stream.algorithms.networks.parameters import Parameters
from rl4sys_stream.config import ClientSpec, NetworkSpec

__all__ = ["PerItemActorCritic", "item_pools", "make_actor_critic"]


def item_pools(items: Tensor, masks: Tensor | None) -> Tensor:
    """Mean, largest and smallest of each feature, and log(1 + count): float32 [B, 3f + 1].

    Args:
        items: float32 [B, n, f].
        masks: bool [B, n], at least one true in each row, what to pool over; None: everything.
    """
    if masks is None:
        counts = torch.full((len(items), 1), float(items.shape[1]))
        parts = (items.mean(dim=1), items.amax(dim=1), items.amin(dim=1))
    else:
        counts = masks.sum(dim=1, keepdim=True, dtype=torch.float32)
        absent = ~masks.unsqueeze(2)
        parts = (
            items.masked_fill(absent, 0.0).sum(dim=1) / counts,
            items.masked_fill(absent, -torch.inf).amax(dim=1),
            items.masked_fill(absent, torch.inf).amin(dim=1),
        )
    return torch.cat((*parts, counts.log1p()), dim=1)


class PerItemActorCritic:
    """What `ActorCritic` is, for observations of items; nothing is shared.

    Attributes:
        actor: `pi`, from one item to its logit: what is published.
        critic: `vf`, from `item_pools` to values.
        vector: float32 [k], the parameters of both, the actor's first.
        gradient: float32 [k], what `backpropagate` last wrote, in the order of `vector`.
    """

    def __init__(
        self, items: int, features: int, network: NetworkSpec, generator: torch.Generator
    ) -> None:
        """Draw the actor, then the critic.

        Args:
            items: n, padding included.
            features: f.
            network: Hidden sizes of both, and activation.
            generator: The only source of randomness.
        """
        self._items, self._features = items, features
        actor_sizes = (features, *network.hidden_sizes, 1)
        critic_sizes = (3 * features + 1, *network.critic_own_sizes, 1)
        counts = parameter_count(actor_sizes), parameter_count(critic_sizes)
        whole = Parameters.zeros(sum(counts))
        self.vector, self.gradient = whole.vector, whole.gradient
        acting, valuing = whole.split(*counts)
        self.actor = make_actor(features, 1, network, generator, parameters=acting)
        self.critic = MLP(
            "vf",
            critic_sizes,
            activation=network.activation,
            output_gain=VALUE_GAIN,
            generator=generator,
            parameters=valuing,
        )

    def outputs(self, observations: Tensor, masks: Tensor | None) -> Tensor:
        """Logits float32 [B, n] of observations float32 [B, n·f]; 0 for items that do not exist."""
        places = _places(masks)
        logits = self.actor(self._rows(observations, places))
        return self._spread(logits, places, len(observations))

    def values(self, observations: Tensor, masks: Tensor | None) -> Tensor:
        """Values float32 [B, 1] of observations float32 [B, n·f], masks bool [B, n] or None."""
        return self.critic(self._pools(observations, masks))

    def trace(self, observations: Tensor, masks: Tensor | None) -> ActorCriticTrace:
        """The forward pass of both, remembered; the arguments are those of `values`."""
        places = _places(masks)
        # Only what exists goes through: of a queue that is mostly padding, most of the time.
        actor = self.actor.trace(self._rows(observations, places))
        outputs = self._spread(actor[-1], places, len(observations))
        return ActorCriticTrace(
            Trace((*actor.layers[:-1], outputs), actor.sums),
            self.critic.trace(self._pools(observations, masks)),
            places,
        )

    def backpropagate(
        self, trace: ActorCriticTrace, actor_gradient: Tensor, critic_gradient: Tensor
    ) -> None:
        """Overwrite `gradient` with that of a loss.

        Args:
            trace: What `trace` returned for the observations of the loss.
            actor_gradient: float32 [B, n], of the loss by the logits; 0 where no item exists.
            critic_gradient: float32 [B, 1], of the loss by the values.
        """
        by_items = actor_gradient.reshape(-1, 1)
        if trace.places is not None:
            by_items = by_items.index_select(0, trace.places)
        self.actor.backpropagate(trace.actor, by_items)
        self.critic.backpropagate(trace.critic, critic_gradient)

    def _rows(self, observations: Tensor, places: Tensor | None) -> Tensor:
        """[B, n·f] -> [M, f], the items at `places`."""
        rows = observations.reshape(-1, self._features)
        return rows if places is None else rows.index_select(0, places)

    def _spread(self, logits: Tensor, places: Tensor | None, rows: int) -> Tensor:
        """[M, 1] -> [B = rows, n], 0 but at `places`."""
        if places is not None:
            logits = logits.new_zeros(rows * self._items, 1).index_copy_(0, places, logits)
        return logits.view(rows, self._items)

    def _pools(self, observations: Tensor, masks: Tensor | None) -> Tensor:
        return item_pools(observations.view(-1, self._items, self._features), masks)


def _places(masks: Tensor | None) -> Tensor | None:
    """Bool [B, n] -> int64 [M], the places of the items that exist among all B·n."""
    return None if masks is None else masks.reshape(-1).nonzero().squeeze(1)


def make_actor_critic(
    spec: ClientSpec, generator: torch.Generator, *, log_std_init: float
) -> ActorCritic | PerItemActorCritic:
    """The networks of a client whose algorithm has an actor and a critic of the state's value.

    Args:
        spec: Its spaces and network.
        generator: The only source of randomness.
        log_std_init: What log-standard-deviations of real-valued actions begin with.
    """
    actions = spec.actions
    if spec.network.per_item:
        return PerItemActorCritic(actions.choices, spec.input_dim, spec.network, generator)
    return ActorCritic(
        spec.input_dim,
        actions.choices or actions.dim,
        spec.network,
        generator,
        log_std_init=log_std_init if actions.continuous else None,
    )
