"""The perceptrons: initialisation, names, memory, and equality with plain torch."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl4sys_stream.algorithms.networks import MLP, ActorCritic, make_actor, make_q_network
from rl4sys_stream.config import NetworkSpec

NETWORK = NetworkSpec(hidden_sizes=(32, 16), critic_hidden_sizes=(24,))


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def as_plain_torch(network: MLP, activation: type[nn.Module]) -> nn.Sequential:
    """The same function out of torch's own layers, with copies of the parameters."""
    tensors = network.tensors()
    layers: list[nn.Module] = []
    for index in range(len(tensors) // 2):
        weight = torch.tensor(tensors[f"{network.prefix}.{index}.weight"])
        layer = nn.Linear(*weight.shape)
        layer.weight.data = weight.T.contiguous()
        layer.bias.data = torch.tensor(tensors[f"{network.prefix}.{index}.bias"])
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def test_tensors_have_the_published_names_and_shapes() -> None:
    """Weights are [in, out], so that acting is `x @ W + b`."""
    shapes = {
        name: array.shape
        for name, array in make_actor(8, 4, NETWORK, generator()).tensors().items()
    }
    assert shapes == {
        "pi.0.weight": (8, 32),
        "pi.0.bias": (32,),
        "pi.1.weight": (32, 16),
        "pi.1.bias": (16,),
        "pi.2.weight": (16, 4),
        "pi.2.bias": (4,),
    }


def test_the_critic_has_its_own_widths_or_the_actors() -> None:
    """`critic_hidden_sizes` None means as the actor's; [] means a linear critic."""

    def widths(network: NetworkSpec) -> list[int]:
        tensors = ActorCritic(8, 4, network, generator()).critic.tensors()
        return [array.shape[0] for name, array in tensors.items() if name.endswith("weight")]

    assert widths(NETWORK) == [8, 24]
    assert widths(NetworkSpec(hidden_sizes=(32, 16))) == [8, 32, 16]
    assert widths(NetworkSpec(hidden_sizes=(32, 16), critic_hidden_sizes=())) == [8]


@pytest.mark.parametrize(("name", "gain"), [("pi.0", 2**0.5), ("pi.1", 2**0.5), ("pi.2", 0.01)])
def test_weights_are_orthogonal_times_their_gain_and_biases_zero(name: str, gain: float) -> None:
    """The smaller side's vectors are perpendicular and as long as the gain."""
    tensors = make_actor(8, 4, NETWORK, generator()).tensors()
    weight = tensors[f"{name}.weight"]
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-5 * gain)
    assert not tensors[f"{name}.bias"].any()


@pytest.mark.parametrize("dueling", [False, True])
def test_action_values_begin_as_small_as_plain_torch_layers_draw_them(dueling: bool) -> None:
    """Weights and biases fill the interval that the width of their input gives, and end there."""
    tensors = make_q_network(9, 4, NETWORK, generator(), dueling=dueling).tensors()
    for layer in range(3):
        weight, bias = tensors[f"pi.{layer}.weight"], tensors[f"pi.{layer}.bias"]
        bound = 1 / len(weight) ** 0.5
        drawn = np.concatenate([weight.ravel(), bias])
        assert np.abs(drawn).max() <= bound
        assert np.abs(weight).max() > 0.95 * bound
        assert abs(weight.std() * 3**0.5 / bound - 1) < 0.1
        assert bias.any()


def test_the_seed_alone_decides_the_initial_weights() -> None:
    """The global generator is neither read nor advanced."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make_actor(8, 4, NETWORK, generator(7)).vector
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(make_actor(8, 4, NETWORK, generator(7)).vector, first)
    assert not torch.equal(make_actor(8, 4, NETWORK, generator(8)).vector, first)


@pytest.mark.parametrize(("activation", "layer"), [("tanh", nn.Tanh), ("relu", nn.ReLU)])
def test_outputs_and_gradients_equal_those_of_plain_torch_layers(
    activation: Literal["tanh", "relu"], layer: type[nn.Module]
) -> None:
    """One vector in memory changes nothing about the function."""
    network = make_actor(
        8, 4, NetworkSpec(hidden_sizes=(32, 16), activation=activation), generator()
    )
    plain = as_plain_torch(network, layer)
    inputs = torch.randn(20, 8, generator=generator(1))
    trace, expected = network.trace(inputs), plain(inputs)
    torch.testing.assert_close(trace[-1], expected)
    torch.testing.assert_close(network(inputs), expected)
    slopes = torch.randn(20, 4, generator=generator(2))
    for _ in range(2):  # the second overwrites the first, and is not added to it
        network.backpropagate(trace, slopes)
    (expected * slopes).sum().backward()
    flat = [gradient_as_stored(p) for p in plain.parameters()]
    torch.testing.assert_close(network.gradient, torch.cat(flat))


def gradient_as_stored(parameter: nn.Parameter) -> Tensor:
    """The gradient of a torch layer's parameter, weights transposed to [in, out], flat."""
    assert parameter.grad is not None
    return parameter.grad.T.reshape(-1) if parameter.ndim == 2 else parameter.grad


def test_layers_are_views_of_the_vector() -> None:
    """What the optimizer writes into the vector is what the next forward pass uses."""
    network = make_actor(8, 4, NETWORK, generator())
    network.vector.zero_()
    assert not network(torch.ones(1, 8)).any()
    network.vector[-4:] = 1.0
    assert network(torch.ones(1, 8)).tolist() == [[1.0, 1.0, 1.0, 1.0]]
