"""Hyperparameters of SAC: the weight of the entropy, and what is refused together."""

import math
from dataclasses import replace
from inspect import signature

import pytest

from rl4sys_stream.config import ClientSpec, NetworkSpec, SACParameters, find_algorithm
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import Box, space_from_json


def test_the_defaults_are_those_of_stable_baselines3():
    """Where both have the setting."""
    from stable_baselines3 import SAC  # noqa: PLC0415 -- seconds that the other tests do without

    theirs = signature(SAC).parameters
    ours = SACParameters()
    shared = [name for name in ours.__struct_fields__ if name in theirs and name != "seed"]
    assert len(shared) == 11
    for name in shared:
        assert getattr(ours, name) == theirs[name].default, name


@pytest.mark.parametrize(
    ("ent_coef", "initial", "learned"),
    [
        ("auto", 1.0, True),
        ("auto_0.1", 0.1, True),
        ("auto_1e-3", 1e-3, True),
        (0.2, 0.2, False),
        (0, 0.0, False),
    ],
)
def test_the_weight_of_the_entropy_is_learned_or_stays(ent_coef, initial, learned):
    """In the three forms of Stable-Baselines3."""
    parameters = SACParameters.from_json({"ent_coef": ent_coef})
    assert parameters.initial_ent_coef == initial
    assert parameters.learns_ent_coef == learned


@pytest.mark.parametrize(
    "ent_coef",
    ["", "automatic", "auto_", "auto_0", "auto_-1", "auto_x", "auto_nan", "auto_inf", "0.1", "x_1"],
)
def test_other_words_for_it_are_refused(ent_coef):
    """With the forms that there are."""
    with pytest.raises(ConfigError, match='"auto_" and the number > 0') as caught:
        SACParameters.from_json({"ent_coef": ent_coef})
    assert caught.value.path == "algorithm_parameters.ent_coef"


@pytest.mark.parametrize("ent_coef", [-0.1, math.nan, math.inf, None, True])
def test_other_values_of_it_are_refused(ent_coef):
    """With what is allowed."""
    with pytest.raises(ConfigError, match="expected a number >= 0 or a string") as caught:
        SACParameters.from_json({"ent_coef": ent_coef})
    assert caught.value.path == "algorithm_parameters.ent_coef"


def test_the_entropy_that_is_aimed_at_follows_the_actions():
    """Less one nat for each element, as in the paper's table of hyperparameters."""
    assert SACParameters().target_entropy_of(3) == -3.0
    assert SACParameters(target_entropy=-1.5).target_entropy_of(3) == -1.5


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"buffer_size": 200}, "batch_size", "<= buffer_size, which is 200"),
        ({"gradient_steps": 0}, "gradient_steps", "gradient_steps must be >= 1, or -1"),
        (
            {"ent_coef": 0.2, "target_entropy": -1.0},
            "target_entropy",
            "nothing aims at target_entropy while ent_coef stays 0.2",
        ),
        ({"learning_rate_schedule": "linear"}, "learning_rate_schedule", "set total_timesteps"),
        (
            {"learning_rate_schedule": "linear", "total_timesteps": 101},
            "total_timesteps",
            "total_timesteps must be > 101; not 101",
        ),
    ],
)
def test_settings_that_cannot_work_together_are_refused(changes, path, words):
    """With the inequality in words, at one of its sides."""
    with pytest.raises(ConfigError) as caught:
        SACParameters(**changes)
    assert caught.value.path == path
    assert words in str(caught.value)


def test_what_nothing_reads_is_named():
    """The end of a schedule that was not chosen."""
    assert SACParameters().unread() == {}
    assert list(SACParameters(total_timesteps=1000).unread()) == ["total_timesteps"]
    linear = SACParameters(total_timesteps=1000, learning_rate_schedule="linear")
    assert linear.unread() == {}
    assert list(SACParameters(clip_observations=5.0).unread()) == ["clip_observations"]


def test_it_acts_on_boxes_through_tanh_and_keeps_no_limit_of_lag():
    """What the agents and the worker know of it without importing it."""
    definition = find_algorithm("SAC")
    assert definition.actions == ("Box",)
    assert definition.squashes
    assert not definition.on_policy


def test_a_file_of_it_loads(load):
    """With its settings where the file's sections have them; actions go through tanh."""
    config = load(
        {
            "client_id": "pendulum",
            "algorithm": "SAC",
            "observation_space": {"type": "box", "shape": [3]},
            "action_space": {"type": "box", "shape": [1], "low": -2, "high": 2},
            "algorithm_parameters": {"ent_coef": "auto_0.5", "target_entropy": -0.5},
            "training": {"batch_size": 64, "train_freq": 8},
        }
    )
    assert config.parameters == SACParameters(
        ent_coef="auto_0.5", target_entropy=-0.5, batch_size=64, train_freq=8
    )
    assert config.spec().actions.squash


@pytest.mark.parametrize("bounds", [{}, {"low": -1}, {"high": [1, 2]}])
def test_actions_without_bounds_are_refused_without_a_way_out_that_is_none(load, bounds):
    """PPO may be told not to squash; nothing tells SAC."""
    space = {"type": "box", "shape": [2], **bounds}
    with pytest.raises(ConfigError, match="SAC's actions always go through tanh") as found:
        load({"algorithm": "SAC", "action_space": space})
    assert found.value.path == "action_space"
    assert "squash_output" not in str(found.value)


@pytest.mark.parametrize(
    ("algorithm", "actions"),
    [
        ("SAC", {"type": "box", "shape": [1], "low": -2, "high": 2}),
        ("DQN", {"type": "discrete", "n": 2}),
    ],
)
def test_layers_are_shared_only_by_critics_that_can(load, algorithm, actions):
    """Said when the file is read; a worker would say it when the spec is registered for good."""
    with pytest.raises(ConfigError, match=f"{algorithm} has no critic .* not 1") as found:
        load(
            {
                "algorithm": algorithm,
                "action_space": actions,
                "network_architecture": {"shared_layers": 1},
                "training": {"total_timesteps": 1000},
            }
        )
    assert found.value.path == "network_architecture.shared_layers"
    registered = ClientSpec(
        algorithm=algorithm,
        observation_space=Box((3,)),
        action_space=space_from_json(actions, path="action_space"),
    )
    with pytest.raises(ConfigError, match="must be 0, not 1"):
        replace(registered, network=NetworkSpec(shared_layers=1))


def test_a_network_without_a_critic_gives_it_no_layers(load):
    """DQN has none, so nothing would come of them; SAC has two of that shape."""
    document = {
        "algorithm": "DQN",
        "action_space": {"type": "discrete", "n": 2},
        "network_architecture": {"critic_hidden_sizes": [32]},
        "training": {"total_timesteps": 1000},
    }
    with pytest.raises(ConfigError, match=r"DQN has no critic, .* leave critic_hidden_sizes out"):
        load(document)
    box = {"type": "box", "shape": [1], "low": -2, "high": 2}
    network = load({**document, "algorithm": "SAC", "action_space": box}).network
    assert network.critic_own_sizes == (32,)
