"""What acts: a published model, or chance before there is one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.config import ClientSpec
from rl4sys_stream.errors import MaskError, ObservationError, WireFormatError
from rl4sys_stream.policy.distributions import Categorical, allowed_actions
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.heads import (
    LOG_STD_LIMIT,
    CategoricalHead,
    EpsilonGreedyHead,
    FactorsHead,
    GaussianHead,
    Head,
    StateGaussianHead,
)
from rl4sys_stream.policy.mlp import LOG_STD, MLPPolicy
from rl4sys_stream.spaces.actions import ActionFormat, RawAction
from rl4sys_stream.wire.snapshot import Weights

__all__ = ["ModelPolicy", "PerItemPolicy", "Policy", "UniformPolicy", "build_policy"]


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
        self,
        obs: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        uniform: Callable[[], float],
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[RawAction, float]:
        """A sampled action.

        Args:
            obs: `float32 [obs_dim]`, finite; not kept, not written to.
            mask: `bool [choices]`, True = allowed, or None.
            uniform: Draws a number from [0, 1).
            prior: `float32 [choices]`, finite, added to the logits; None: nothing is. For heads
                "categorical" alone.

        Returns:
            The raw action and the natural logarithm of its probability, or of its density.
        """
        ...

    def greedy(
        self,
        obs: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[RawAction, float]:
        """The best action, and the logarithm of the probability that `act` gives it."""
        ...

    def outputs(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """`float32 [N, obs_dim]` to what the network says of them, `float32 [N, outputs]`.

        Unmasked logits, action values, or means; see `BehaviorExtras.head`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ModelPolicy:
    """A published model.

    Attributes:
        version: Of the model, from 1.
        token: Of the model.
        network: Its actor net.
        head: Makes actions of the net's outputs.
    """

    version: int
    token: str
    network: MLPPolicy
    head: Head

    def act(
        self,
        obs: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        uniform: Callable[[], float],
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[RawAction, float]:
        """See `Policy.act`."""
        network = self.network
        if obs.shape != (network.obs_dim,):
            raise _wrong_shape(obs, network.obs_dim)
        outputs = network.forward(obs)
        if prior is not None:
            outputs += prior
        return self.head.sample(outputs, mask, uniform)

    def greedy(
        self,
        obs: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[RawAction, float]:
        """See `Policy.greedy`."""
        if obs.shape != (self.network.obs_dim,):
            raise _wrong_shape(obs, self.network.obs_dim)
        outputs = self.network.forward(obs)
        if prior is not None:
            outputs += prior
        return self.head.greedy(outputs, mask)

    def outputs(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Policy.outputs`."""
        return self.network.forward(observations)


@dataclass(frozen=True, slots=True, eq=False)
class PerItemPolicy(ModelPolicy):
    """A published model whose network gives each item of an observation its logit.

    Items that the mask forbids are not looked at: of a queue that is mostly padding, deciding costs
    what the others cost.

    Attributes:
        items: n, padding included.
    """

    items: int

    def act(
        self,
        obs: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        uniform: Callable[[], float],
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[int, float]:
        """See `Policy.act`."""
        logits, places = self._logits(obs, mask, prior)
        action, log_prob = Categorical.sample_logits(logits, None, uniform())
        return action if places is None else int(places[action]), log_prob

    def greedy(
        self,
        obs: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[int, float]:
        """See `Policy.greedy`."""
        logits, places = self._logits(obs, mask, prior)
        action, log_prob = Categorical.greedy(logits, None)
        return action if places is None else int(places[action]), log_prob

    def outputs(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Policy.outputs`; float32 [N, n·f] to [N, n], of items that do not exist, too."""
        rows = observations.reshape(-1, self.network.obs_dim)
        return self.network.forward(rows).reshape(-1, self.items)

    def _logits(
        self,
        obs: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        prior: NDArray[np.float32] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.intp] | None]:
        """Those of the allowed items, and which these are; None: all."""
        features = self.network.obs_dim
        if obs.shape != (self.items * features,):
            raise _wrong_shape(obs, self.items * features)
        rows, places = obs.reshape(self.items, features), None
        if mask is not None:
            allowed_actions(mask, self.items)
            places = mask.nonzero()[0]
            rows = rows[places]
        logits = self.network.forward(rows)[:, 0]
        if prior is not None:
            logits += prior if places is None else prior[places]
        return logits, places


@dataclass(frozen=True, slots=True)
class UniformPolicy:
    """Every allowed action with the same probability, or by the prior's, stated truthfully.

    Real-valued actions are uniform between their bounds; where one is missing, they are normal
    with mean 0 and deviation 1.

    Attributes:
        actions: What an action is.
        version: 0: no model.
        token: "": no model.
    """

    actions: ActionFormat
    version: int = 0
    token: str = ""

    def act(
        self,
        obs: NDArray[np.float32],  # noqa: ARG002  (the protocol's)
        mask: NDArray[np.bool_] | None,
        uniform: Callable[[], float],
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[RawAction, float]:
        """See `Policy.act`; the observation is not looked at."""
        if self.actions.continuous:
            return self._draw_vector(mask, uniform)
        return self._head().sample(self._logits(prior), mask, uniform)

    def _head(self) -> Head:
        actions = self.actions
        return CategoricalHead() if actions.single else FactorsHead(actions.nvec)

    def _logits(self, prior: NDArray[np.float32] | None) -> NDArray[np.float32]:
        return np.zeros(self.actions.choices, np.float32) if prior is None else prior

    def _draw_vector(
        self, mask: NDArray[np.bool_] | None, uniform: Callable[[], float]
    ) -> tuple[RawAction, float]:
        actions = self.actions
        widths = self._widths()
        if widths is None:
            means = np.zeros(actions.dim, np.float32)
            return GaussianHead((0.0,) * actions.dim, squash=False).sample(means, mask, uniform)
        if mask is not None:
            raise MaskError("real-valued actions have no mask; leave it out")
        shares = np.array([uniform() for _ in range(actions.dim)])
        if not actions.squash:
            raw = (actions.low + shares * widths).astype(np.float32)
            return raw, -float(np.log(widths).sum())
        # In the middle of a cell of the generator, so that the bound itself is never drawn.
        raw = np.arctanh(2.0 * (shares + 2.0**-54).clip(0.0, 1.0 - 2.0**-53) - 1.0)
        return raw.astype(np.float32), -actions.dim * math.log(2.0)

    def _widths(self) -> NDArray[np.float64] | None:
        """Of the raw actions, None if they have no bounds."""
        widths = self.actions.high.astype(np.float64) - self.actions.low
        if not np.isfinite(widths).all():
            return None
        # All raw actions of an element whose bounds are one are applied alike; a width of 0 would
        # have no density.
        return np.where(widths > 0.0, widths, 1.0)

    def greedy(
        self,
        obs: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[RawAction, float]:
        """See `Policy.greedy`; the first of the allowed actions that are equal, or the middle."""
        if not self.actions.continuous:
            return self._head().greedy(self._logits(prior), mask)
        # Of what has no bounds, Box and Muller make the mean of 0.
        share = 0.0 if self._widths() is None else 0.5
        return self.act(obs, mask, lambda: share)

    def outputs(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Policy.outputs`; zeros."""
        width = self.actions.choices or self.actions.dim
        return np.zeros((len(observations), width), np.float32)


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
        WireFormatError: If the weights or extras are for other spaces or another network.
        NonFiniteError: If a weight is NaN or infinite.
    """
    actions = spec.actions
    network = MLPPolicy.from_weights(
        weights, spec.network, extras, log_std=extras.head == "gaussian"
    )
    head, outputs = _head(actions, weights, extras)
    per_item = spec.network.per_item
    if per_item and extras.head != "categorical":
        raise WireFormatError(
            f"the model acts by a head {extras.head!r}; the client's network is per item, which "
            "gives logits"
        )
    expected = (spec.input_dim, 1 if per_item else outputs)
    if (network.obs_dim, network.n_outputs) != expected:
        raise WireFormatError(
            f"the model maps {network.obs_dim} inputs to {network.n_outputs} outputs, the client "
            f"needs {expected[0]} and {expected[1]}"
        )
    if per_item:
        return PerItemPolicy(version, token, network, head, actions.choices)
    return ModelPolicy(version, token, network, head)


def _head(actions: ActionFormat, weights: Weights, extras: BehaviorExtras) -> tuple[Head, int]:
    """The head that `extras` names, and how many outputs it needs."""
    match extras.head:
        case "categorical" if not actions.continuous:
            head = CategoricalHead() if actions.single else FactorsHead(actions.nvec)
            return head, actions.choices
        case "epsilon_greedy" if actions.single and extras.epsilon is not None:
            return EpsilonGreedyHead(extras.epsilon), actions.choices
        case "gaussian" if actions.continuous:
            return GaussianHead(_log_std(weights), actions.squash), actions.dim
        case "state_gaussian" if actions.continuous:
            return StateGaussianHead(actions.squash), 2 * actions.dim
    raise WireFormatError(
        f"the model acts by a head {extras.head!r}, which cannot choose from {actions.space}"
    )


def _log_std(weights: Weights) -> tuple[float, ...]:
    found: list[float] = weights.tensors()[LOG_STD].tolist()
    if max(found) > LOG_STD_LIMIT or min(found) < -LOG_STD_LIMIT:
        raise WireFormatError(
            f"the model's log_std goes from {min(found):g} to {max(found):g}; expected "
            f"{-LOG_STD_LIMIT:g} to {LOG_STD_LIMIT:g}, since float32 holds no other deviations"
        )
    return tuple(found)


def _wrong_shape(obs: NDArray[np.float32], obs_dim: int) -> ObservationError:
    return ObservationError(f"the observation has shape {obs.shape}, the policy takes ({obs_dim},)")
