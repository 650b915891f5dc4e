"""What acts: a published model, or chance before there is one."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import ConfigError, ObservationError, WireFormatError
from rl4sys_stream.policy.distributions import Categorical, allowed_actions
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.mlp import MLPPolicy
from rl4sys_stream.spaces import Discrete, flat_dim
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["ModelPolicy", "Policy", "UniformPolicy", "build_policy"]


class Policy(Protocol):
    """Chooses actions; immutable, so that one reference read is all the locking it needs.

    `act` and `greedy` raise MaskError for a mask of the wrong shape or without an allowed action,
    and ObservationError for an observation of the wrong shape or so large that no distribution
    comes out.
    """

    @property
    def version(self) -> int:
        """Of the model that acts; 0 if there is none."""
        ...

    @property
    def token(self) -> str:
        """Of the model that acts; "" if there is none."""
        ...

    def act(
        self, obs: NDArray[np.float32], mask: NDArray[np.bool_] | None, uniform: float
    ) -> tuple[int, float]:
        """A sampled action.

        Args:
            obs: `float32 [obs_dim]`, finite; not kept, not written to.
            mask: `bool [n_actions]`, True = allowed, or None.
            uniform: Drawn from [0, 1) by the caller.

        Returns:
            The action and the natural logarithm of its probability.
        """
        ...

    def greedy(self, obs: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> tuple[int, float]:
        """The most probable action, and the logarithm of the probability that `act` gives it."""
        ...

    def logits(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """`float32 [N, obs_dim]` to unmasked logits `float32 [N, n_actions]`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ModelPolicy:
    """A published model acting by sampling from its categorical distribution.

    Attributes:
        version: Of the model, from 1.
        token: Of the model.
        network: Its actor net.
    """

    version: int
    token: str
    network: MLPPolicy

    def act(
        self, obs: NDArray[np.float32], mask: NDArray[np.bool_] | None, uniform: float
    ) -> tuple[int, float]:
        """See `Policy.act`."""
        network = self.network
        if obs.shape != (network.obs_dim,):
            raise _wrong_shape(obs, network.obs_dim)
        return Categorical.sample_logits(network.forward(obs), mask, uniform)

    def greedy(self, obs: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> tuple[int, float]:
        """See `Policy.greedy`."""
        if obs.shape != (self.network.obs_dim,):
            raise _wrong_shape(obs, self.network.obs_dim)
        return Categorical.greedy(self.network.forward(obs), mask)

    def logits(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Policy.logits`."""
        return self.network.forward(observations)


@dataclass(frozen=True, slots=True)
class UniformPolicy:
    """Every allowed action with the same probability, which it states truthfully.

    Attributes:
        n_actions: Size of the action space.
        version: 0: no model.
        token: "": no model.
    """

    n_actions: int
    version: int = 0
    token: str = ""

    def act(
        self,
        obs: NDArray[np.float32],  # noqa: ARG002  (the protocol's)
        mask: NDArray[np.bool_] | None,
        uniform: float,
    ) -> tuple[int, float]:
        """See `Policy.act`; the observation is not looked at."""
        if mask is None:
            count = self.n_actions
            return _pick(count, uniform), -math.log(count)
        actions = [a for a, ok in enumerate(allowed_actions(mask, self.n_actions)) if ok]
        return actions[_pick(len(actions), uniform)], -math.log(len(actions))

    def greedy(self, obs: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> tuple[int, float]:
        """See `Policy.greedy`; the first allowed action, since all are equal."""
        return self.act(obs, mask, 0.0)

    def logits(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Policy.logits`; zeros."""
        return np.zeros((len(observations), self.n_actions), np.float32)


def build_policy(
    spec: ClientSpec, weights: Weights, extras: BehaviorExtras, version: int, token: str
) -> ModelPolicy:
    """The policy of a published model, once it is known to fit the client.

    Args:
        spec: What the client registered: spaces and network.
        weights: Of the model.
        extras: Of the model.
        version: Of the model.
        token: Of the model.

    Raises:
        WireFormatError: If the weights or extras are for other spaces or another network, or ask
            for a way of acting that this side does not know.
        NonFiniteError: If a weight is NaN or infinite.
        ConfigError: If the client's actions are not Discrete.
    """
    if not isinstance(spec.action_space, Discrete):
        raise ConfigError("only Discrete action spaces are supported", path="action_space")
    if extras.epsilon is not None:
        raise WireFormatError("the model acts ε-greedily, which this side cannot do: upgrade it")
    network = MLPPolicy.from_weights(weights, spec.network, extras)
    expected = (flat_dim(spec.observation_space), spec.action_space.n)
    if (network.obs_dim, network.n_actions) != expected:
        raise WireFormatError(
            f"the model maps {network.obs_dim} inputs to {network.n_actions} actions, the client "
            f"has {expected[0]} and {expected[1]}"
        )
    return ModelPolicy(version, token, network)


def _pick(count: int, uniform: float) -> int:
    # Rounding may take the product up to the count.
    return min(int(uniform * count), count - 1)


def _wrong_shape(obs: NDArray[np.float32], obs_dim: int) -> ObservationError:
    return ObservationError(f"the observation has shape {obs.shape}, the policy takes ({obs_dim},)")
