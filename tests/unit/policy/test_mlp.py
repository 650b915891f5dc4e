"""The numpy forward pass against torch, and what it refuses."""

from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch

from rl4sys_stream.config import NetworkSpec
from rl4sys_stream.config.spec import Activation
from rl4sys_stream.errors import NonFiniteError, WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from rl4sys_stream.policy.mlp import LOG_STD, MLPPolicy, actor_layout, bias_name, weight_name
from rl4sys_stream.wire.snapshot import TensorLayout, Weights

PLAIN = BehaviorExtras()
WIDTHS = [(64, 64), (), (7,), (33, 5, 12), (256, 256)]
ACTIVATIONS = get_args(Activation)
TORCH: dict[str, Callable[[], torch.nn.Module]] = {
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "leaky_relu": lambda: torch.nn.LeakyReLU(0.01),
    "elu": torch.nn.ELU,
    "silu": torch.nn.SiLU,
    "gelu": lambda: torch.nn.GELU(approximate="tanh"),
    "sigmoid": torch.nn.Sigmoid,
}


def torch_net(
    seed: int, obs_dim: int, hidden: tuple[int, ...], n_actions: int, activation: str
) -> tuple[torch.nn.Sequential, Weights]:
    """A random torch net, and its weights as the learner would export them."""
    generator = torch.Generator().manual_seed(seed)
    act = TORCH[activation]
    modules: list[torch.nn.Module] = []
    tensors = {}
    for layer, (inputs, outputs) in enumerate(pairwise((obs_dim, *hidden, n_actions))):
        linear = torch.nn.Linear(inputs, outputs)
        with torch.no_grad():
            linear.weight.normal_(0, inputs**-0.5, generator=generator)
            linear.bias.normal_(0, 0.5, generator=generator)
        modules += [linear, act()]
        tensors[weight_name(layer)] = linear.weight.detach().numpy().T
        tensors[bias_name(layer)] = linear.bias.detach().numpy()
    return torch.nn.Sequential(*modules[:-1]), Weights.from_tensors(tensors)


def normalization(
    rng: np.random.Generator, obs_dim: int, clip: float = 1.5
) -> ObservationNormalization:
    """A normalisation that clips some elements."""
    mean = rng.normal(0, 1, obs_dim).astype(np.float32)
    scale = rng.uniform(0.2, 3, obs_dim).astype(np.float32)
    return ObservationNormalization(mean, scale, clip)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", WIDTHS)
def test_the_forward_pass_equals_torch(hidden, activation, normalised):
    """Single observations and batches, every width and activation, to 1e-5."""
    rng = np.random.default_rng(len(hidden))
    net, weights = torch_net(1, 8, hidden, 4, activation)
    norm = normalization(rng, 8) if normalised else None
    network = NetworkSpec(hidden_sizes=hidden, activation=activation)
    policy = MLPPolicy.from_weights(weights, network, BehaviorExtras(norm))
    observations = rng.normal(0, 2, (50, 8)).astype(np.float32)
    x = torch.from_numpy(observations)
    if norm is not None:
        shifted = (x - torch.from_numpy(norm.mean.copy())) * torch.from_numpy(norm.scale.copy())
        assert (shifted.abs() > norm.clip).any()
        x = shifted.clamp(-norm.clip, norm.clip)
    with torch.no_grad():
        expected = net(x).numpy()
    before = observations.copy()
    assert np.abs(policy.forward(observations) - expected).max() < 1e-5
    for row, wanted in zip(observations, expected, strict=True):
        logits = policy.forward(row)
        assert logits.dtype == np.float32
        assert logits.shape == (4,)
        assert np.abs(logits - wanted).max() < 1e-5
    assert (observations == before).all()


def test_the_layout_of_an_actor_is_the_documented_one():
    """Names, order and shapes are a contract with the learner and other languages."""
    assert actor_layout(8, (64, 32), 4) == TensorLayout(
        ("pi.0.weight", "pi.0.bias", "pi.1.weight", "pi.1.bias", "pi.2.weight", "pi.2.bias"),
        ((8, 64), (64,), (64, 32), (32,), (32, 4), (4,)),
    )


def test_log_standard_deviations_are_the_last_tensor_of_an_actor_that_has_them():
    """One for each output, whatever the depth."""
    layout = actor_layout(8, (64,), 3, log_std=True)
    assert layout.names[-2:] == ("pi.1.bias", LOG_STD)
    assert layout.shapes[-2:] == ((3,), (3,))
    assert layout.size == actor_layout(8, (64,), 3).size + 3


@pytest.mark.parametrize("hidden", [(), (5, 4)])
def test_log_standard_deviations_are_accepted_where_they_belong_and_nowhere_else(hidden):
    """They change no output; an actor with some too many, or none, is another head's."""
    _, weights = torch_net(0, 8, hidden, 3, "tanh")
    network, log_std = NetworkSpec(hidden_sizes=hidden), np.ones(3, np.float32)
    gaussian = Weights.from_tensors({**weights.tensors(), LOG_STD: log_std})
    wide = Weights.from_tensors({**weights.tensors(), LOG_STD: np.ones(4, np.float32)})
    first = Weights.from_tensors({LOG_STD: log_std, **weights.tensors()})
    observation = np.ones(8, np.float32)
    outputs = MLPPolicy.from_weights(gaussian, network, PLAIN, log_std=True).forward(observation)
    assert (outputs == MLPPolicy.from_weights(weights, network, PLAIN).forward(observation)).all()
    with pytest.raises(WireFormatError, match=LOG_STD):
        MLPPolicy.from_weights(gaussian, network, PLAIN)
    for other in (weights, wide, first):
        with pytest.raises(WireFormatError, match=LOG_STD):
            MLPPolicy.from_weights(other, network, PLAIN, log_std=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [1e-30, 200.0, 1e30])
def test_no_observation_makes_numpy_complain(activation, size):
    """An application may have made errors of its warnings; the outputs are those of torch still."""
    net, weights = torch_net(0, 8, (16, 16), 4, activation)
    policy = MLPPolicy.from_weights(
        weights, NetworkSpec(hidden_sizes=(16, 16), activation=activation), PLAIN
    )
    observation = np.linspace(-size, size, 8).astype(np.float32)
    with np.errstate(all="raise"):
        outputs = policy.forward(observation)
    with torch.no_grad():
        expected = net(torch.from_numpy(observation)).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [(64,), (64, 64, 64), (64, 32), (32, 64), ()])
def test_weights_of_another_network_are_refused(hidden):
    """Instead of acting with some of them."""
    _, weights = torch_net(0, 8, hidden, 4, "tanh")
    with pytest.raises(WireFormatError, match="network"):
        MLPPolicy.from_weights(weights, NetworkSpec(hidden_sizes=(64, 64)), PLAIN)


def test_weights_with_foreign_tensors_are_refused():
    """One more, or another name."""
    _, weights = torch_net(0, 8, (4,), 2, "tanh")
    tensors = weights.tensors()
    extra = Weights.from_tensors({**tensors, "vf.0.bias": np.zeros(1, np.float32)})
    renamed = Weights.from_tensors({f"x{name}": tensor for name, tensor in tensors.items()})
    scalar = Weights.from_tensors({name: np.zeros((), np.float32) for name in tensors})
    for foreign in (extra, renamed, scalar):
        with pytest.raises(WireFormatError):
            MLPPolicy.from_weights(foreign, NetworkSpec(hidden_sizes=(4,)), PLAIN)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_never_act(bad):
    """The agent keeps the policy that it has."""
    _, weights = torch_net(0, 8, (4,), 2, "tanh")
    flat = weights.flat.copy()
    flat[-1] = bad
    with pytest.raises(NonFiniteError):
        MLPPolicy.from_weights(Weights(weights.layout, flat), NetworkSpec(hidden_sizes=(4,)), PLAIN)


def test_a_normalization_of_another_width_is_refused():
    """Numpy would broadcast a width of 1 in silence."""
    _, weights = torch_net(0, 8, (4,), 2, "tanh")
    for width in (1, 7):
        extras = BehaviorExtras(normalization(np.random.default_rng(0), width))
        with pytest.raises(WireFormatError, match="normalises"):
            MLPPolicy.from_weights(weights, NetworkSpec(hidden_sizes=(4,)), extras)
