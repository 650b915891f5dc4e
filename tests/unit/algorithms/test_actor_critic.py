"""Actor and critic in one vector: who owns what, how it begins, what is published."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from rl4sys_stream.algorithms.networks import (
    ActorCritic,
    DuelingMLP,
    GaussianActor,
    make_actor,
)
from rl4sys_stream.config import NetworkSpec
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.policy.mlp import MLPPolicy, actor_layout
from rl4sys_stream.wire.snapshot import Weights

SHARING = NetworkSpec(hidden_sizes=(32, 16), critic_hidden_sizes=(24,), shared_layers=1)


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def shapes_of(tensors: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def test_with_nothing_shared_they_are_two_separate_networks() -> None:
    """A seed gives the actor the same weights as alone, bit for bit."""
    spec = NetworkSpec(hidden_sizes=(32, 16), critic_hidden_sizes=(24,))
    both = ActorCritic(8, 4, spec, generator())
    assert torch.equal(both.actor.vector, make_actor(8, 4, spec, generator()).vector)
    assert torch.equal(both.vector, torch.cat([both.actor.vector, both.critic.vector]))


def test_the_seed_alone_decides_the_initial_weights_of_shared_and_dueling_networks() -> None:
    """The global generator is neither read nor advanced."""
    before = torch.get_rng_state()

    def vectors(seed: int) -> list[torch.Tensor]:
        return [
            ActorCritic(8, 4, SHARING, generator(seed), log_std_init=0.0).vector,
            DuelingMLP(8, 4, SHARING, generator(seed)).vector,
        ]

    first, again, other = vectors(7), vectors(7), vectors(8)
    assert torch.equal(torch.get_rng_state(), before)
    for one, same, different in zip(first, again, other, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)


def test_the_actor_is_whole_and_the_critic_has_its_own_layers_alone() -> None:
    """So that the actor may be published as it is."""
    both = ActorCritic(8, 4, SHARING, generator())
    assert Weights.from_tensors(both.actor.tensors()).layout == actor_layout(8, (32, 16), 4)
    assert shapes_of(both.critic.tensors()) == {
        "vf.0.weight": (32, 24),
        "vf.0.bias": (24,),
        "vf.1.weight": (24, 1),
        "vf.1.bias": (1,),
    }


def test_sharing_every_layer_leaves_the_critic_a_linear_one() -> None:
    """From the actor's last hidden layer to the value."""
    spec = NetworkSpec(hidden_sizes=(32, 16), shared_layers=2)
    assert shapes_of(ActorCritic(8, 4, spec, generator()).critic.tensors()) == {
        "vf.0.weight": (16, 1),
        "vf.0.bias": (1,),
    }


@pytest.mark.parametrize("spec", [SHARING, NetworkSpec(hidden_sizes=(8,))])
def test_an_optimizer_steps_the_actors_and_the_critics_part_at_rates_of_their_own(spec) -> None:
    """Both are parts of the one vector, and know their part of the gradient."""
    both = ActorCritic(8, 4, spec, generator())
    before = both.vector.clone()
    both.gradient.fill_(1.0)
    optimizer = torch.optim.SGD([both.actor.vector], lr=0.5)
    optimizer.add_param_group({"params": [both.critic.vector], "lr": 0.25})
    optimizer.step()
    steps = [0.5] * len(both.actor.vector) + [0.25] * len(both.critic.vector)
    torch.testing.assert_close(before - both.vector, torch.tensor(steps))


def test_an_optimizer_steps_the_whole_vector_too() -> None:
    """One tensor for those who need no two rates."""
    both = ActorCritic(8, 4, SHARING, generator())
    before = both.vector.clone()
    both.gradient.fill_(1.0)
    torch.optim.SGD([both.vector], lr=0.5).step()
    torch.testing.assert_close(before - both.vector, torch.full_like(before, 0.5))
    assert torch.equal(both.actor.vector, both.vector[: len(both.actor.vector)])


def test_a_gaussian_actor_begins_with_the_log_standard_deviations_that_are_asked_for() -> None:
    """They are in the vector that the optimizer steps, in the actor's part, at its end."""
    both = ActorCritic(8, 3, SHARING, generator(), log_std_init=-0.5)
    assert isinstance(both.actor, GaussianActor)
    assert both.actor.log_std.tolist() == [-0.5] * 3
    both.actor.vector[-3:] = torch.tensor([1.0, 2.0, 3.0])
    both.actor.gradient[-3:] = torch.tensor([4.0, 5.0, 6.0])
    assert both.actor.log_std.tolist() == [1.0, 2.0, 3.0]
    assert both.actor.log_std_gradient.tolist() == [4.0, 5.0, 6.0]


def test_backpropagation_leaves_a_gaussian_actors_log_std_gradient_to_the_loss() -> None:
    """Whether the loss writes it before or after."""
    both = ActorCritic(8, 3, SHARING, generator(), log_std_init=0.0)
    assert isinstance(both.actor, GaussianActor)
    both.actor.log_std_gradient.fill_(7.0)
    both.backpropagate(both.trace(torch.ones(2, 8)), torch.ones(2, 3), torch.ones(2, 1))
    assert both.actor.log_std_gradient.tolist() == [7.0] * 3


def test_agents_act_by_what_a_gaussian_actor_publishes() -> None:
    """The layout that ends in `log_std`; the means are the learner's."""
    actor = GaussianActor(8, 3, SHARING, generator(), log_std_init=-1.0)
    actor.vector[:-3].normal_(generator=generator(1))
    weights = Weights.from_tensors(actor.tensors())
    assert weights.layout == actor_layout(8, (32, 16), 3, log_std=True)
    assert weights.flat[-3:].tolist() == [-1.0] * 3
    policy = MLPPolicy.from_weights(weights, SHARING, BehaviorExtras(), log_std=True)
    observations = torch.randn(5, 8, generator=generator(2))
    means = actor(observations).numpy()
    np.testing.assert_allclose(policy.forward(observations.numpy()), means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("hidden", "shared"), [((32, 16), 32), ((16,), 8), ((), 8)])
def test_a_dueling_networks_streams_have_one_hidden_layer_each(hidden, shared) -> None:
    """The advantages' is in the published MLP; the value's is as wide, and then 1."""
    spec = NetworkSpec(hidden_sizes=hidden)
    network = DuelingMLP(8, 4, spec, generator())
    published = Weights.from_tensors(network.tensors())
    assert published.layout == actor_layout(8, hidden, 4)
    widths = (shared, *hidden[-1:], 1)
    stream = sum((rows + 1) * columns for rows, columns in pairwise(widths))
    assert len(network.vector) == published.layout.size + stream
