"""Ranges, types and impossible combinations of the settings classes."""

from typing import Any

import msgspec
import pytest

from rl4sys_stream.config import (
    AgentSettings,
    DQNParameters,
    NetworkSpec,
    PPOParameters,
    WorkerSettings,
)
from rl4sys_stream.config.schema import read_struct
from rl4sys_stream.errors import ConfigError


@pytest.mark.parametrize("kind", [PPOParameters, AgentSettings, WorkerSettings, NetworkSpec])
def test_the_defaults_pass_their_own_checks(kind):
    """What nobody set must not be refused."""
    assert read_struct(kind, {}, path="section") == kind()


@pytest.mark.parametrize(
    "kind", [DQNParameters, PPOParameters, AgentSettings, WorkerSettings, NetworkSpec]
)
def test_every_field_is_documented_on_its_class(kind):
    """The docstrings' Attributes and the fields are the same list, in the same order."""
    bases = [base for base in reversed(kind.__mro__) if issubclass(base, msgspec.Struct)]
    heads = [
        line.strip().partition(":")[0]
        for base in bases
        if base is not msgspec.Struct
        for line in (base.__doc__ or "").partition("Attributes:")[2].splitlines()
        if line[:9].strip() and line[8:9] > " "
    ]
    assert tuple(heads) == kind.__struct_fields__


@pytest.mark.parametrize(
    ("kind", "field", "value", "allowed"),
    [
        (PPOParameters, "gamma", 1.5, "a number >= 0 and <= 1"),
        (PPOParameters, "gamma", "0.9", "a number >= 0 and <= 1"),
        (PPOParameters, "gamma", float("nan"), "a number >= 0 and <= 1"),
        (PPOParameters, "gamma", None, "a number >= 0 and <= 1"),
        (PPOParameters, "learning_rate", 0, "a number > 0"),
        (PPOParameters, "learning_rate", float("inf"), "a number > 0"),
        (PPOParameters, "target_kl", -1, "a number > 0 or null"),
        (PPOParameters, "n_epochs", 2.0, "an integer >= 1"),
        (PPOParameters, "n_epochs", True, "an integer >= 1"),
        (PPOParameters, "seed", -1, "an integer >= 0 and <= 9223372036854775807 or null"),
        (PPOParameters, "normalize_advantage", 1, "true or false"),
        (PPOParameters, "learning_rate_schedule", "cosine", 'one of "constant", "linear"'),
        (NetworkSpec, "hidden_sizes", [64, 0], "a list, each element an integer >= 1"),
        (NetworkSpec, "hidden_sizes", 64, "a list, each element an integer >= 1"),
        (NetworkSpec, "activation", "swish", 'one of "elu", "gelu", "leaky_relu", "relu"'),
        (NetworkSpec, "shared_layers", -1, "an integer >= 0"),
        (AgentSettings, "drop_policy", "drop", 'one of "block", "drop_newest", "drop_oldest"'),
        (WorkerSettings, "max_policy_lag", 0, "an integer >= 1"),
        (WorkerSettings, "max_commit_entries", 4001, "an integer >= 1 and <= 4000"),
        (WorkerSettings, "read_block_s", 2.5, "a number > 0 and <= 2"),
    ],
)
def test_a_bad_value_is_refused_with_path_allowed_values_and_what_was_found(
    kind, field, value, allowed
):
    """The message is enough to repair the file."""
    with pytest.raises(ConfigError) as caught:
        read_struct(kind, {field: value}, path="section")
    assert caught.value.path == f"section.{field}"
    assert f"expected {allowed}" in str(caught.value)
    assert ", not " in str(caught.value)


def test_an_unknown_key_is_refused_with_the_nearest_valid_one():
    """A misspelling is answered with the spelling."""
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'") as caught:
        read_struct(PPOParameters, {"learning_rat": 1e-3}, path="algorithm_parameters")
    assert caught.value.path == "algorithm_parameters.learning_rat"


def test_an_unknown_key_unlike_any_other_is_refused_with_all_valid_ones():
    """Where nothing is near, the whole choice is shown."""
    with pytest.raises(ConfigError, match="allowed: activation, critic_hidden_sizes, hidden_sizes"):
        read_struct(NetworkSpec, {"qqq": 1}, path="network_architecture")


def test_a_minibatch_larger_than_the_rollout_is_refused():
    """The inequality is in the message."""
    with pytest.raises(ConfigError, match="batch_size must be <= n_steps, which is 32") as caught:
        PPOParameters(n_steps=32, batch_size=33)
    assert caught.value.path == "batch_size"
    assert PPOParameters(n_steps=32, batch_size=32).batch_size == 32


def test_minibatches_of_one_step_are_refused_while_advantages_are_normalised():
    """One advantage has no deviation to divide by."""
    with pytest.raises(ConfigError, match="batch_size must be >= 2"):
        PPOParameters(batch_size=1)
    assert PPOParameters(batch_size=1, normalize_advantage=False).batch_size == 1


def test_more_shared_layers_than_the_actor_has_are_refused():
    """All of them may be shared: the critic's own part is then linear."""
    with pytest.raises(ConfigError, match=r"shared_layers must be <= .* which is 2") as caught:
        NetworkSpec(hidden_sizes=(64, 64), shared_layers=3)
    assert caught.value.path == "shared_layers"
    assert NetworkSpec(hidden_sizes=(64, 64), shared_layers=2).critic_own_sizes == ()


@pytest.mark.parametrize("schedule", ["learning_rate_schedule", "clip_range_schedule"])
def test_a_linear_schedule_needs_an_end_after_the_first_update(schedule):
    """Neither an endless nor an already ended schedule can be followed."""

    def ending(steps: int | None) -> PPOParameters:
        return PPOParameters.from_json({schedule: "linear", "total_timesteps": steps})

    with pytest.raises(ConfigError, match="set total_timesteps") as caught:
        ending(None)
    assert caught.value.path.endswith(schedule)
    with pytest.raises(ConfigError, match="total_timesteps must be >= n_steps, which is 2048"):
        ending(2047)
    assert ending(2048).unread() == {}


def test_what_follows_a_step_is_not_trusted_more_than_the_step():
    """The bounds of V-trace have an order."""
    with pytest.raises(ConfigError, match=r"c_bar must be <= rho_bar, which is 0\.5") as caught:
        PPOParameters(vtrace=True, rho_bar=0.5)
    assert caught.value.path == "c_bar"
    assert PPOParameters(vtrace=True, rho_bar=2.0).c_bar == 1.0


def test_settings_of_what_is_switched_off_are_named():
    """Each with its switch; as defaults they are nobody's words."""
    off: dict[str, Any] = {
        "rho_bar": 2.0,
        "c_bar": 0.5,
        "clip_observations": 5.0,
        "clip_rewards": 5.0,
    }
    assert PPOParameters().unread() == {}
    assert PPOParameters(**off).unread() == {
        "rho_bar": "nothing reads it while vtrace is false",
        "c_bar": "nothing reads it while vtrace is false",
        "clip_observations": "nothing reads it while normalize_observations is false",
        "clip_rewards": "nothing reads it while normalize_rewards is false",
    }
    on: dict[str, Any] = {"vtrace": True, "normalize_observations": True, "normalize_rewards": True}
    assert PPOParameters(**off, **on).unread() == {}


def test_blocking_the_application_needs_a_limit():
    """Nobody's application hangs by one word in a file."""
    with pytest.raises(ConfigError, match="set block_timeout_s"):
        AgentSettings(drop_policy="block")
    assert AgentSettings(drop_policy="block", block_timeout_s=1.0).block_timeout_s == 1.0


def test_a_lease_must_outlive_two_lost_renewals():
    """Otherwise one slow answer costs a healthy worker its client."""
    with pytest.raises(ConfigError, match="lease_s must be >= 3 x lease_renew_s, which is 4"):
        WorkerSettings(lease_s=11.9, lease_renew_s=4.0)
    assert WorkerSettings(lease_s=12.0, lease_renew_s=4.0).lease_s == 12.0


def test_what_is_staged_must_outlive_the_lease():
    """Otherwise a slow commit would find its model expired."""
    with pytest.raises(ConfigError, match="stage_ttl_s must be > lease_s, which is 10"):
        WorkerSettings(stage_ttl_s=10.0)


def test_parameters_survive_the_way_through_json_and_name_their_differences():
    """What the registry records can be read back and compared."""
    parameters = PPOParameters(gamma=0.9, target_kl=0.01, n_steps=128)
    assert PPOParameters.from_json(parameters.to_json()) == parameters
    assert parameters.differences(PPOParameters(target_kl=0.01)) == ("gamma", "n_steps")
    assert parameters.differences(parameters) == ()
