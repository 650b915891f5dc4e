"""Every network against the same function of its vector, written plainly and left to autograd."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from rl4sys_stream.algorithms.networks import (
    MLP,
    ActorCritic,
    DuelingMLP,
    GaussianActor,
    make_q_network,
)
from rl4sys_stream.config import NetworkSpec
from rl4sys_stream.config.spec import Activation
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.mlp import MLPPolicy
from rl4sys_stream.wire.snapshot import Weights

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": functional.elu,
    "silu": lambda x: x * torch.sigmoid(x),
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
}
WIDTH = st.integers(1, 12)


@dataclass(frozen=True)
class Case:
    """A network to make, and the size of what goes through it."""

    obs_dim: int
    outputs: int
    spec: NetworkSpec
    rows: int
    seed: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of a plain MLP of it."""
        return (self.obs_dim, *self.spec.hidden_sizes, self.outputs)

    def generator(self) -> torch.Generator:
        """What the weights are drawn with."""
        return torch.Generator().manual_seed(self.seed)

    def random(self, *shape: int) -> Tensor:
        """Normal numbers float32 [rows, *shape], the same for the same shape."""
        generator = torch.Generator().manual_seed(self.seed + sum(shape))
        return torch.randn(self.rows, *shape, generator=generator)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Depths 0 to 3, every activation, every number of shared layers."""
    hidden = tuple(draw(st.lists(WIDTH, max_size=3)))
    own = draw(st.none() | st.lists(WIDTH, max_size=2).map(tuple))
    spec = NetworkSpec(
        hidden_sizes=hidden,
        activation=draw(st.sampled_from(get_args(Activation))),
        critic_hidden_sizes=own,
        shared_layers=draw(st.integers(0, len(hidden))),
    )
    return Case(
        draw(WIDTH), draw(WIDTH), spec, rows=draw(st.integers(1, 20)), seed=draw(st.integers(0, 99))
    )


def shaken(network: MLP | ActorCritic | DuelingMLP, case: Case) -> Tensor:
    """A copy of the network's parameters for autograd, once the biases are not 0 any more."""
    noise = torch.randn(len(network.vector), generator=case.generator())
    network.vector.add_(noise, alpha=0.5)
    network.gradient.fill_(torch.nan)  # what is not overwritten shows
    return network.vector.clone().requires_grad_()


def plain_layers(
    flat: Tensor, sizes: Sequence[int], activation: str, inputs: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Inputs, hidden outputs and outputs by the first of `flat`, and what is left of it."""
    layers = [inputs]
    for depth, (rows, columns) in enumerate(pairwise(sizes), start=1):
        weight, flat = flat[: rows * columns], flat[rows * columns :]
        bias, flat = flat[:columns], flat[columns:]
        sums = layers[-1] @ weight.view(rows, columns) + bias
        layers.append(sums if depth == len(sizes) - 1 else PLAIN[activation](sums))
    return layers, flat


def assert_gradient(of: Tensor, by: Tensor, found: Tensor | None) -> None:
    """`found` is the derivative of the scalar `of` by `by`."""
    assert found is not None
    (expected,) = torch.autograd.grad(of, by, retain_graph=True, materialize_grads=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@settings(deadline=None)  # autograd takes a second to start
@given(cases())
def test_an_mlps_gradients_by_parameters_and_by_inputs_are_those_of_autograd(case):
    """Any depth and activation; asking for the inputs' alone leaves the parameters' untouched."""
    network = MLP(
        "q",
        case.sizes,
        activation=case.spec.activation,
        output_gain=1.0,
        generator=case.generator(),
    )
    flat, inputs = shaken(network, case), case.random(case.obs_dim).requires_grad_()
    layers, rest = plain_layers(flat, case.sizes, case.spec.activation, inputs)
    assert not len(rest)
    slopes = case.random(case.outputs)
    loss = (layers[-1] * slopes).sum()
    with torch.no_grad():
        trace = network.trace(inputs)
        torch.testing.assert_close(trace[-1], layers[-1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(inputs), trace[-1])
        alone = network.input_gradient(trace, slopes)
        assert network.gradient.isnan().all()
        assert network.backpropagate(trace, slopes) is None
        both = network.backpropagate(trace, slopes, to_inputs=True)
    assert_gradient(loss, flat, network.gradient)
    assert_gradient(loss, inputs, alone)
    assert_gradient(loss, inputs, both)


@settings(deadline=None)  # autograd takes a second to start
@given(cases(), st.booleans())
def test_an_actor_and_a_critic_that_share_layers_have_the_gradient_of_their_joint_loss(
    case, gaussian
):
    """Shared layers get both parts; log-standard-deviations keep what the loss wrote there."""
    log_std_init = -0.5 if gaussian else None
    network = ActorCritic(
        case.obs_dim, case.outputs, case.spec, case.generator(), log_std_init=log_std_init
    )
    flat, inputs = shaken(network, case), case.random(case.obs_dim)
    acting, rest = plain_layers(flat, case.sizes, case.spec.activation, inputs)
    loss = (acting[-1] * case.random(case.outputs)).sum()
    if isinstance(network.actor, GaussianActor):
        log_std, rest = rest[: case.outputs], rest[case.outputs :]
        loss = loss + log_std.square().sum()
        network.actor.log_std_gradient.copy_(2.0 * network.actor.log_std)
    shared = acting[case.spec.shared_layers]
    sizes = (shared.shape[1], *case.spec.critic_own_sizes, 1)
    valuing, rest = plain_layers(rest, sizes, case.spec.activation, shared)
    assert not len(rest)
    loss = loss + (valuing[-1] * case.random(1)).sum()
    trace = network.trace(inputs)
    torch.testing.assert_close(trace.actor[-1], acting[-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trace.critic[-1], valuing[-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.values(inputs), trace.critic[-1])
    network.backpropagate(trace, case.random(case.outputs), case.random(1))
    assert_gradient(loss, flat, network.gradient)


@settings(deadline=None)  # autograd takes a second to start
@given(cases())
def test_a_dueling_network_is_equation_9_with_its_gradient(case):
    """Q = V + A - mean A, the streams parting before the last hidden layer."""
    network = DuelingMLP(case.obs_dim, case.outputs, case.spec, case.generator())
    flat, inputs = shaken(network, case), case.random(case.obs_dim)
    advantage, rest = plain_layers(flat, case.sizes, case.spec.activation, inputs)
    parting = max(len(case.spec.hidden_sizes) - 1, 0)
    sizes = (*case.sizes[parting:-1], 1)
    value, rest = plain_layers(rest, sizes, case.spec.activation, advantage[parting])
    assert not len(rest)
    expected = value[-1] + advantage[-1] - advantage[-1].mean(dim=1, keepdim=True)
    slopes = case.random(case.outputs)
    trace = network.trace(inputs)
    torch.testing.assert_close(trace[-1], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-5)
    network.backpropagate(trace, slopes)
    assert_gradient((expected * slopes).sum(), flat, network.gradient)


@settings(deadline=None)  # autograd takes a second to start
@given(cases(), st.booleans())
def test_what_a_q_network_publishes_prefers_the_same_actions(case, dueling):
    """Agents act by a plain MLP; a dueling one adds the same to all of its outputs."""
    network = make_q_network(
        case.obs_dim, case.outputs, case.spec, case.generator(), dueling=dueling
    )
    shaken(network, case)
    weights = Weights.from_tensors(network.tensors())
    policy = MLPPolicy.from_weights(weights, case.spec, BehaviorExtras())
    observations = case.random(case.obs_dim)
    difference = network(observations).numpy() - policy.forward(observations.numpy())
    expected = difference[:, :1] if dueling else np.zeros((case.rows, 1), np.float32)
    np.testing.assert_allclose(
        difference, np.broadcast_to(expected, difference.shape), rtol=1e-3, atol=1e-4
    )
