"""The client's fixed part: canonical bytes, differences, and what does not fit."""

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl4sys_stream.config import ClientConfig, ClientSpec, NetworkSpec
from rl4sys_stream.config.spec import Activation
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import Box, Dict, Discrete, MultiDiscrete, without_bounds
from tests.unit.spaces.strategies import spaces

LUNAR = ClientSpec(observation_space=Box((8,)), action_space=Discrete(4))

networks = st.lists(st.integers(1, 512), max_size=3).flatmap(
    lambda hidden_sizes: st.builds(
        NetworkSpec,
        hidden_sizes=st.just(tuple(hidden_sizes)),
        activation=st.sampled_from(get_args(Activation)),
        critic_hidden_sizes=st.none() | st.lists(st.integers(1, 512), max_size=3).map(tuple),
        shared_layers=st.integers(0, len(hidden_sizes)),
    )
)
specs = st.builds(
    ClientSpec,
    observation_space=spaces(),
    action_space=st.builds(Discrete, st.integers(1, 1000)),
    network=networks,
)


@given(specs, specs)
def test_specs_survive_bytes_and_are_equal_exactly_if_their_bytes_are(one, other):
    """The registry may compare bytes."""
    assert ClientSpec.from_bytes(one.to_bytes()) == one
    assert (one.to_bytes() == other.to_bytes()) == (one == other)
    compared = [
        replace(s, observation_space=without_bounds(s.observation_space)) for s in (one, other)
    ]
    assert (one.differences(other) == ()) == (compared[0] == compared[1])


def test_bounds_of_observations_make_no_other_spec():
    """An environment states many, and the file for its worker need not repeat them."""
    stated = replace(LUNAR, observation_space=Box((8,), tuple(range(-8, 0)), 10))
    assert stated != LUNAR
    assert stated.differences(LUNAR) == LUNAR.differences(stated) == ()
    assert stated.differences(replace(LUNAR, observation_space=Box((4, 2)))) == (
        "observation_space.shape",
    )


def test_the_order_of_a_dict_is_part_of_the_spec():
    """In bytes with sorted keys, too: weights belong to one order."""
    load, queue = ("load", Box((2,))), ("queue", Discrete(3))
    one = replace(LUNAR, observation_space=Dict([queue, load]))
    other = replace(LUNAR, observation_space=Dict([load, queue]))
    assert ClientSpec.from_bytes(one.to_bytes()) == one
    assert one.differences(other) == ("observation_space.spaces",)


@pytest.mark.parametrize("name", ["observation_space", "action_space"])
def test_what_is_no_space_is_refused_with_the_way_to_one(name):
    """Gymnasium's own must be converted first."""
    wrong: Any = {name: "box"}
    with pytest.raises(ConfigError, match=r"expected a space.*as_space\(\) converts") as caught:
        replace(LUNAR, **wrong)
    assert caught.value.path == name


def test_canonical_bytes_do_not_change():
    """Frozen: clients registered by an earlier release must still compare equal."""
    assert LUNAR.to_bytes() == (
        b'{"action_space":{"n":4,"type":"discrete"},"algorithm":"PPO",'
        b'"network_architecture":{"activation":"tanh","critic_hidden_sizes":null,'
        b'"hidden_sizes":[64,64]},"observation_space":{"shape":[8],"type":"box"}}'
    )


def test_a_network_that_shares_nothing_reads_and_is_written_without_the_key():
    """So that software from before there was sharing registers the same client."""
    data = LUNAR.to_json()
    assert b"shared_layers" not in LUNAR.to_bytes()
    assert ClientSpec.from_json(data).network.shared_layers == 0
    sharing = replace(LUNAR, network=NetworkSpec(shared_layers=1))
    assert sharing.differences(LUNAR) == ("network_architecture.shared_layers",)


@given(networks)
def test_a_critic_without_widths_of_its_own_has_the_actors_that_it_does_not_share(network):
    """Both networks are equally deep then."""
    if network.critic_hidden_sizes is None:
        shared = network.hidden_sizes[: network.shared_layers]
        assert shared + network.critic_own_sizes == network.hidden_sizes
    else:
        assert network.critic_own_sizes == network.critic_hidden_sizes


def test_differences_are_dotted_paths():
    """The message of a refused registration is made of these."""
    other = replace(
        LUNAR, action_space=Discrete(5), network=NetworkSpec(activation="relu", hidden_sizes=(8,))
    )
    assert LUNAR.differences(other) == (
        "action_space.n",
        "network_architecture.activation",
        "network_architecture.hidden_sizes",
    )


def test_actions_that_the_algorithm_cannot_choose_are_refused():
    """In words, with the kinds that it can."""
    with pytest.raises(ConfigError, match=r"DQN needs Discrete actions, not Box") as caught:
        replace(LUNAR, algorithm="DQN", action_space=Box((2,)))
    assert caught.value.path == "action_space"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ppo", "did you mean 'PPO'\\? available: DQN, PPO, SAC"),
        (
            "REINFORCE",
            "unknown algorithm 'REINFORCE'; available: DQN, PPO, SAC; another package's",
        ),
    ],
)
def test_an_algorithm_that_cannot_be_trained_is_refused_with_those_that_can(name, words):
    """Known, misspelt and unknown names each get their own answer."""
    with pytest.raises(ConfigError, match=words):
        replace(LUNAR, algorithm=name)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"networks": {}}, "networks"),
        ({"algorithm": 3}, "algorithm"),
        ({"action_space": {"type": "discrete", "n": 0}}, "action_space"),
        ({"network_architecture": []}, "network_architecture"),
        ({"network_architecture": {"hidden_size": [1]}}, "network_architecture.hidden_size"),
    ],
)
def test_a_bad_spec_from_the_registry_is_refused_with_its_path(change, path):
    """Other languages write specs too."""
    with pytest.raises(ConfigError) as caught:
        ClientSpec.from_json(LUNAR.to_json() | change)
    assert caught.value.path == path


@pytest.mark.parametrize("key", ["algorithm", "observation_space", "network_architecture"])
def test_a_spec_without_one_of_its_keys_is_refused(key):
    """No default may stand in for what all agents must agree on."""
    data = LUNAR.to_json()
    del data[key]
    with pytest.raises(ConfigError, match="missing") as caught:
        ClientSpec.from_json(data)
    assert caught.value.path == key


@pytest.mark.parametrize("data", [b"", b"{", b"[]", json.dumps("PPO").encode()])
def test_bytes_that_are_no_spec_are_refused(data):
    """A damaged registry entry is named as such."""
    with pytest.raises(ConfigError):
        ClientSpec.from_bytes(data)


ITEMS = ClientSpec(
    observation_space=Box((16, 3)), action_space=Discrete(16), network=NetworkSpec(per_item=True)
)


def test_a_network_for_each_item_is_part_of_the_spec_and_only_written_where_it_is():
    """Clients of before there was one stay equal; its width is that of an item."""
    assert b"per_item" not in LUNAR.to_bytes()
    assert ClientSpec.from_bytes(ITEMS.to_bytes()) == ITEMS
    assert ITEMS.differences(replace(ITEMS, network=NetworkSpec())) == (
        "network_architecture.per_item",
    )
    assert (ITEMS.input_dim, LUNAR.input_dim) == (3, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action_space": Discrete(15)}, "with the same n; not Discrete\\(n=15\\)"),
        ({"action_space": MultiDiscrete((16,))}, "needs Discrete\\(n\\) actions"),
        ({"observation_space": Box((16,))}, "one of the observation's rows"),
        ({"observation_space": Box((16, 3, 1))}, "one of the observation's rows"),
        ({"observation_space": Discrete(16)}, "one of the observation's rows"),
        ({"algorithm": "DQN"}, "DQN cannot train a network that sees one item at a time"),
    ],
)
def test_choosing_among_items_that_do_not_exist_is_refused(change, words):
    """In words, when a client is registered."""
    changed: dict[str, Any] = change
    with pytest.raises(ConfigError, match=words) as caught:
        replace(ITEMS, **changed)
    assert caught.value.path == "network_architecture.per_item"


def test_choosing_among_items_that_do_not_exist_is_refused_when_the_configuration_is_read():
    """Not only at the registration; and not before both spaces are known."""
    for actions in (None, Discrete(16)):
        ClientConfig(
            observation_space=Box((16, 3)), action_space=actions, network=NetworkSpec(per_item=True)
        )
    with pytest.raises(ConfigError, match="one of the observation's rows") as caught:
        ClientConfig(
            observation_space=Box((48,)),
            action_space=Discrete(16),
            network=NetworkSpec(per_item=True),
        )
    assert caught.value.path == "network_architecture.per_item"


def test_layers_that_see_one_item_cannot_be_shared_with_the_critic():
    """It needs all of them at once."""
    with pytest.raises(ConfigError, match="see one item each") as caught:
        NetworkSpec(per_item=True, shared_layers=1)
    assert caught.value.path == "shared_layers"
